from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from aiotune.executors.gpu_memory import CONTEXT_BYTES, MemoryLimit, memory_limit, peak_bytes

GIGABYTE = 2**30
TF_CONTEXT = "tensorflow.python.eager.context"
JAX_BRIDGE = "jax._src.xla_bridge"

Load = Callable[..., None]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Make fakes the only frameworks that are loaded, once it is called."""

    def load(**modules: Any) -> None:
        for name in ("tensorflow", "jax", "torch", TF_CONTEXT, JAX_BRIDGE):
            monkeypatch.delitem(sys.modules, name, raising=False)
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)

    load()
    return load


def refuse(*_: object) -> Any:
    raise AssertionError("this would initialise a GPU")


# --- limits


def test_a_whole_card_has_no_limit() -> None:
    assert memory_limit(None, None) is None


def test_the_context_is_taken_off_a_share() -> None:
    limit = memory_limit(4 * GIGABYTE, 0.25)
    left = 4 * GIGABYTE - CONTEXT_BYTES
    assert limit == MemoryLimit(left, 0.25 * left / (4 * GIGABYTE))
    assert memory_limit(4 * GIGABYTE, None) == MemoryLimit(left, None)


def test_a_share_of_a_card_of_unknown_size_is_a_fraction_only() -> None:
    assert memory_limit(None, 0.25) == MemoryLimit(None, 0.25)


@pytest.mark.parametrize("share", [1, CONTEXT_BYTES // 2, CONTEXT_BYTES, 2 * CONTEXT_BYTES])
def test_a_tiny_share_leaves_something(share: int) -> None:
    limit = memory_limit(share, 0.01)
    assert limit is not None
    assert limit.memory_bytes == share // 2


# --- peaks: nothing loaded, nothing initialised


def test_without_a_framework_nothing_is_held(load: Load) -> None:
    assert peak_bytes(1) == 0


def tensorflow(peaks: Sequence[int], *, is_initialized: bool = True) -> dict[str, Any]:
    def get_memory_info(device: str) -> dict[str, int]:
        return {"current": 1, "peak": peaks[int(device.removeprefix("GPU:"))]}

    config = SimpleNamespace(
        list_logical_devices=(lambda kind: list(peaks)) if is_initialized else refuse,
        experimental=SimpleNamespace(get_memory_info=get_memory_info if is_initialized else refuse),
    )
    context = SimpleNamespace(_initialized=is_initialized)
    return {
        "tensorflow": SimpleNamespace(config=config),
        TF_CONTEXT: SimpleNamespace(context_safe=lambda: context),
    }


def jax(peaks: Sequence[int], *, is_initialized: bool = True) -> dict[str, Any]:
    gpus = [
        SimpleNamespace(platform="gpu", memory_stats=lambda peak=peak: {"peak_bytes_in_use": peak})
        for peak in peaks
    ]
    processor = SimpleNamespace(platform="cpu", memory_stats=lambda: None)
    backends = {
        "cpu": SimpleNamespace(local_devices=lambda: [processor]),
        "cuda": SimpleNamespace(local_devices=lambda: gpus),
    }
    bridge = SimpleNamespace(
        backends_are_initialized=lambda: is_initialized,
        backends=(lambda: backends) if is_initialized else refuse,
    )
    return {"jax": SimpleNamespace(local_devices=refuse), JAX_BRIDGE: bridge}


def torch(peaks: Sequence[int], *, is_initialized: bool = True) -> dict[str, Any]:
    cuda = SimpleNamespace(
        is_initialized=lambda: is_initialized,
        device_count=(lambda: len(peaks)) if is_initialized else refuse,
        max_memory_reserved=(lambda place: peaks[place]) if is_initialized else refuse,
    )
    return {"torch": SimpleNamespace(cuda=cuda)}


FAKES = pytest.mark.parametrize("fake", [tensorflow, jax, torch])


@FAKES
def test_the_peak_is_what_the_framework_says_and_the_context(load: Load, fake: Any) -> None:
    load(**fake([3 * GIGABYTE]))
    assert peak_bytes(1) == 3 * GIGABYTE + CONTEXT_BYTES


@FAKES
def test_of_several_cards_the_fullest_counts(load: Load, fake: Any) -> None:
    load(**fake([GIGABYTE, 3 * GIGABYTE]))
    assert peak_bytes(2) == 3 * GIGABYTE + CONTEXT_BYTES


@FAKES
def test_a_framework_that_has_started_no_gpu_is_not_made_to(load: Load, fake: Any) -> None:
    load(**fake([GIGABYTE], is_initialized=False))
    assert peak_bytes(1) == 0


@FAKES
def test_an_initialised_framework_without_gpus_holds_nothing(load: Load, fake: Any) -> None:
    load(**fake([]))
    assert peak_bytes(1) == 0


@FAKES
def test_an_initialised_gpu_has_a_context_at_least(load: Load, fake: Any) -> None:
    load(**fake([0]))
    assert peak_bytes(1) == CONTEXT_BYTES


def test_frameworks_in_one_process_share_the_context(load: Load) -> None:
    load(**tensorflow([GIGABYTE]), **jax([2 * GIGABYTE]), **torch([3 * GIGABYTE]))
    assert peak_bytes(1) == 6 * GIGABYTE + CONTEXT_BYTES


@pytest.mark.parametrize(("cards", "most"), [(1, 10), (2, 7), (4, 4)])
def test_parts_of_a_card_count_together(load: Load, cards: int, most: int) -> None:
    load(**tensorflow([1, 2, 3, 4]))
    assert peak_bytes(cards) == most + CONTEXT_BYTES


def test_a_framework_that_does_not_tell_costs_its_own_figure_only(load: Load) -> None:
    load(**torch([GIGABYTE]), tensorflow=SimpleNamespace(), jax=SimpleNamespace())
    assert peak_bytes(1) == GIGABYTE + CONTEXT_BYTES
