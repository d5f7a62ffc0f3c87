from __future__ import annotations

import importlib
import random
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from aiotune.executors.libraries import Settings, apply_settings

SETTINGS = Settings(seed=7, threads=3, has_gpu=False)

TORCH = """
calls = {}
def set_num_threads(number): calls["threads"] = number
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


def test_python_and_numpy_are_seeded() -> None:
    draws = []
    for seed in (7, 7, 8):
        apply_settings(Settings(seed=seed, threads=0, has_gpu=False))
        draws.append((random.random(), np.random.rand()))
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]


def test_library_imported_later_is_set_then(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(TORCH)
    importlib.invalidate_caches()
    apply_settings(SETTINGS)
    torch: Any = importlib.import_module("torch")
    assert torch.calls == {"threads": 3, "seed": 7}
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
    apply_settings(SETTINGS)
    assert calls == {"intra": 3, "inter": 3, "seed": 7}
    calls.clear()
    apply_settings(Settings(seed=8, threads=0, has_gpu=False))
    assert calls == {"seed": 8}


def test_library_that_refuses_costs_a_note_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    apply_settings(SETTINGS)
    assert "torch refused" in capsys.readouterr().err


def test_missing_library_stays_missing() -> None:
    apply_settings(SETTINGS)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("torch")
