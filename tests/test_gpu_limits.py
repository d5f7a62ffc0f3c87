from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from aiotune.executors.gpu_limits import LIMITERS
from aiotune.executors.gpu_memory import MemoryLimit

GIGABYTE = 2**30
GROWTH = "TF_FORCE_GPU_ALLOW_GROWTH"


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", GROWTH):
        monkeypatch.setenv(name, "")  # so that it is as before afterwards, whatever sets it
        monkeypatch.delenv(name)


class TensorFlow:
    """Its configuration of devices, by the rules of the real one."""

    def __init__(self, *gpus: str) -> None:
        self.growing: dict[str, bool] = {}
        self.limits: dict[str, list[int]] = {}
        self.config = SimpleNamespace(
            LogicalDeviceConfiguration=lambda memory_limit: memory_limit,
            list_physical_devices=lambda kind: list(gpus),
            set_logical_device_configuration=self.limits.__setitem__,
            get_logical_device_configuration=self.limits.get,
            experimental=SimpleNamespace(set_memory_growth=self._set_memory_growth),
        )

    def _set_memory_growth(self, device: str, enable: bool) -> None:
        if device in self.limits:
            raise ValueError("Cannot set memory growth on device when virtual devices configured")
        self.growing[device] = enable


def limit_tensorflow(tensorflow: TensorFlow, limit: MemoryLimit) -> None:
    LIMITERS["tensorflow"](tensorflow, limit)


def test_tensorflow_gets_the_limit_in_mebibytes() -> None:
    tensorflow = TensorFlow("gpu")
    limit_tensorflow(tensorflow, MemoryLimit(3 * GIGABYTE + 5, 0.1))
    assert tensorflow.limits == {"gpu": [3072]}


def test_tensorflow_without_a_gpu_is_left_alone() -> None:
    tensorflow = TensorFlow()
    before = tensorflow.config.experimental.set_memory_growth
    limit_tensorflow(tensorflow, MemoryLimit(GIGABYTE, 0.1))
    assert tensorflow.limits == {}
    assert tensorflow.config.experimental.set_memory_growth == before


def test_tensorflow_is_not_even_asked_where_no_limit_in_bytes_is_known() -> None:
    tensorflow = TensorFlow("gpu")
    tensorflow.config.list_physical_devices = lambda kind: pytest.fail("it was asked")
    limit_tensorflow(tensorflow, MemoryLimit(None, 0.1))
    assert tensorflow.limits == {}


def test_growth_that_user_code_asks_for_is_growth_up_to_the_limit() -> None:
    tensorflow = TensorFlow("gpu")
    limit_tensorflow(tensorflow, MemoryLimit(GIGABYTE, 0.1))
    for gpu in tensorflow.config.list_physical_devices("GPU"):
        tensorflow.config.experimental.set_memory_growth(gpu, True)
    assert os.environ[GROWTH] == "true"
    assert tensorflow.limits == {"gpu": [1024]}


def test_a_configuration_of_user_code_takes_the_place_of_the_limit() -> None:
    tensorflow = TensorFlow("gpu")
    limit_tensorflow(tensorflow, MemoryLimit(GIGABYTE, 0.1))
    tensorflow.config.set_logical_device_configuration("gpu", [1024])
    with pytest.raises(ValueError, match="virtual devices"):
        tensorflow.config.experimental.set_memory_growth("gpu", True)
    assert GROWTH not in os.environ
    del tensorflow.limits["gpu"]
    tensorflow.config.experimental.set_memory_growth("gpu", True)
    assert tensorflow.growing == {"gpu": True}


class Cuda:
    """`torch.cuda` before it is initialised: calls wait in a queue."""

    def __init__(self, *totals: int) -> None:
        self.fractions: dict[int, float] = {}
        self._totals = totals
        self._queue: list[Callable[[], object]] = []
        self._is_initialized = False

    def _lazy_call(self, call: Callable[[], object]) -> None:
        self._queue.append(call)

    def initialize(self) -> None:
        self._is_initialized = True
        for call in self._queue:
            call()

    def device_count(self) -> int:
        assert self._is_initialized, "this would initialise CUDA"
        return len(self._totals)

    def get_device_properties(self, device: int) -> Any:
        assert self._is_initialized, "this would initialise CUDA"
        return SimpleNamespace(total_memory=self._totals[device])

    def set_per_process_memory_fraction(self, fraction: float, device: int) -> None:
        assert self._is_initialized, "this would initialise CUDA"
        assert 0 <= fraction <= 1
        self.fractions[device] = fraction


def limit_torch(cuda: Cuda, limit: MemoryLimit) -> None:
    LIMITERS["torch"](SimpleNamespace(cuda=cuda), limit)


@pytest.mark.parametrize(
    ("limit", "fraction"),
    [
        (MemoryLimit(2 * GIGABYTE, 0.2), 0.25),  # of what PyTorch takes for the total
        (MemoryLimit(2 * GIGABYTE, None), 0.25),
        (MemoryLimit(None, 0.2), 0.2),
        (MemoryLimit(9 * GIGABYTE, 0.9), 1.0),
    ],
)
def test_torch_is_limited_when_it_initialises_cuda(limit: MemoryLimit, fraction: float) -> None:
    cuda = Cuda(8 * GIGABYTE)
    limit_torch(cuda, limit)
    assert cuda.fractions == {}
    cuda.initialize()
    assert cuda.fractions == {0: fraction}


@pytest.mark.parametrize("variable", ["PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"])
def test_a_fraction_that_the_user_has_set_stays(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "expandable_segments:True,per_process_memory_fraction:0.7")
    cuda = Cuda(8 * GIGABYTE)
    limit_torch(cuda, MemoryLimit(GIGABYTE, 0.1))
    cuda.initialize()
    assert cuda.fractions == {}


def test_other_options_of_the_allocator_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "per_process_memory_fraction:0.7")  # not read then
    cuda = Cuda(8 * GIGABYTE)
    limit_torch(cuda, MemoryLimit(GIGABYTE, 0.1))
    cuda.initialize()
    assert cuda.fractions == {0: 0.125}


def test_a_limit_that_torch_refuses_leaves_cuda_usable(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cuda = Cuda(0)  # a total of no bytes
    limit_torch(cuda, MemoryLimit(GIGABYTE, 0.1))
    cuda.initialize()
    assert "torch refused its memory limit" in capsys.readouterr().err
