from __future__ import annotations

import importlib
import random
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from aiotune.executors.gpu_memory import MemoryLimit
from aiotune.executors.imports import Imports
from aiotune.executors.libraries import Settings, apply_settings, seed_keras

SETTINGS = Settings(seed=7, threads=3, has_gpu=False)

TORCH = """
calls = {}
def set_num_threads(number): calls["threads"] = number
def set_num_interop_threads(number): calls["interop"] = number
def manual_seed(number): calls["seed"] = number
"""


@pytest.fixture(autouse=True)
def own_imports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Undo what the test does to the import system and to random states."""
    names = ("tensorflow", "keras", "torch", "jax")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    state = random.getstate()
    yield  # type: ignore[misc]
    random.setstate(state)
    for name in names:  # what the test imported; monkeypatch brings back what was there before
        sys.modules.pop(name, None)


def apply(settings: Settings) -> None:
    """Apply the settings as a run does."""
    imports = Imports()
    imports.install()
    apply_settings(settings, imports)


def test_python_and_numpy_are_seeded() -> None:
    draws = []
    for seed in (7, 7, 8):
        apply(Settings(seed=seed, threads=0, has_gpu=False))
        draws.append((random.random(), np.random.rand()))
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]


def test_library_imported_later_is_set_then(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(TORCH)
    importlib.invalidate_caches()
    apply(SETTINGS)
    torch: Any = importlib.import_module("torch")
    assert torch.calls == {"threads": 3, "interop": 3, "seed": 7}
    assert torch.__spec__.loader.get_source("torch") == TORCH  # it is the usual loader


def test_loaded_library_is_set_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: dict[str, int] = {}

    def setter(name: str) -> Any:
        return lambda number: calls.update({name: number})

    tensorflow = ModuleType("tensorflow")
    vars(tensorflow).update(
        config=SimpleNamespace(
            threading=SimpleNamespace(
                set_intra_op_parallelism_threads=setter("intra"),
                set_inter_op_parallelism_threads=setter("inter"),
            )
        ),
        random=SimpleNamespace(set_seed=setter("seed")),
    )
    monkeypatch.setitem(sys.modules, "tensorflow", tensorflow)
    apply(SETTINGS)
    assert calls == {"intra": 3, "inter": 3, "seed": 7}
    calls.clear()
    apply(Settings(seed=8, threads=0, has_gpu=False))
    assert calls == {"seed": 8}


@pytest.mark.parametrize(
    ("found", "has_gpu", "variables", "placed"),
    [
        ("cuda", True, {}, "cuda"),
        ("cuda", False, {}, "cpu"),
        ("cuda:1", False, {"KERAS_TORCH_DEVICE": "cuda:1"}, "cpu"),
        ("cpu", True, {}, "cuda"),
        ("cpu", True, {"KERAS_TORCH_DEVICE": "cpu"}, "cpu"),
        ("xpu", False, {}, "xpu"),
    ],
)
def test_keras_on_torch_uses_the_device_that_the_run_has(
    monkeypatch: pytest.MonkeyPatch,
    found: str,
    has_gpu: bool,
    variables: dict[str, str],
    placed: str,
) -> None:
    torch = ModuleType("torch")
    exec(TORCH, vars(torch))
    vars(torch)["cuda"] = SimpleNamespace(is_available=lambda: True)
    core: Any = ModuleType("keras.src.backend.torch.core")
    core.DEFAULT_DEVICE = found  # as it was when the fork server imported it
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, core.__name__, core)
    monkeypatch.delenv("KERAS_TORCH_DEVICE", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    apply(Settings(seed=7, threads=3, has_gpu=has_gpu))
    assert placed == core.DEFAULT_DEVICE


@pytest.mark.parametrize(("limit", "calls"), [(MemoryLimit(2**30, 0.1), 1), (None, 0)])
def test_a_memory_limit_is_set_right_after_an_import(
    tmp_path: Path, limit: MemoryLimit | None, calls: int
) -> None:
    code = TORCH + "queue = []\nclass cuda: _lazy_call = queue.append\n"
    (tmp_path / "torch.py").write_text(code)
    importlib.invalidate_caches()
    apply(Settings(seed=7, threads=3, has_gpu=False, limit=limit))
    torch: Any = importlib.import_module("torch")
    assert len(torch.queue) == calls


def test_jax_takes_the_platforms_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    updates: list[tuple[str, str]] = []
    jax: Any = ModuleType("jax")
    jax.config = SimpleNamespace(update=lambda name, value: updates.append((name, value)))
    monkeypatch.setitem(sys.modules, "jax", jax)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    apply(SETTINGS)
    assert updates == []
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    apply(SETTINGS)
    assert updates == [("jax_platforms", "cpu")]


def test_keras_is_seeded_without_importing_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    def set_random_seed(seed: int) -> None:
        raise AssertionError("it imports TensorFlow")

    keras: Any = ModuleType("keras")
    keras.utils = SimpleNamespace(set_random_seed=set_random_seed)
    torch: Any = ModuleType("torch")
    exec(TORCH, vars(torch))
    monkeypatch.setitem(sys.modules, "torch", torch)
    draws = []
    for seed in (7, 7, 8):
        seed_keras(keras, seed)
        draws.append((random.random(), np.random.rand(), torch.calls["seed"]))
    assert draws[0] == draws[1]
    assert not set(draws[0]) & set(draws[2])


def test_library_that_refuses_costs_a_note_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    apply(SETTINGS)
    assert "torch refused its seed" in capsys.readouterr().err
    apply(Settings(seed=7, threads=3, has_gpu=True, limit=MemoryLimit(2**30, 0.1)))
    assert "torch refused its memory limit" in capsys.readouterr().err


def test_missing_library_stays_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    apply(SETTINGS)
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("torch")
