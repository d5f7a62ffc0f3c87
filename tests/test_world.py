from __future__ import annotations

import os
from pathlib import Path

import pytest

from aiotune.errors import ExecutorError
from aiotune.executors.wire import FrameDecoder, encode_frame
from aiotune.executors.world import World, device_variables, thread_variables


def test_gpus_are_shown_by_uuid() -> None:
    assert device_variables(("GPU-a", "MIG-b"), {}) == {"CUDA_VISIBLE_DEVICES": "GPU-a,MIG-b"}


def test_without_a_gpu_none_is_shown() -> None:
    variables = device_variables((), {})
    assert variables["CUDA_VISIBLE_DEVICES"] == "-1"
    assert variables["JAX_PLATFORMS"] == "cpu"
    assert "JAX_PLATFORMS" not in device_variables((), {"JAX_PLATFORMS": "tpu"})


def test_threads_follow_the_cores_unless_the_user_set_them() -> None:
    assert thread_variables(0, {}) == {}
    variables = thread_variables(3, {"OMP_NUM_THREADS": "7"})
    assert "OMP_NUM_THREADS" not in variables
    assert variables["OPENBLAS_NUM_THREADS"] == "3"


def test_world_survives_the_wire() -> None:
    world = World("/", ("", "lib"), ("prog", "-x"), {"NAME": "caf\u00e9 \udcff"})
    (frame,) = FrameDecoder().feed(encode_frame(world.to_frame()))
    assert World.from_frame(frame) == world


def test_vanished_directory_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ExecutorError, match=r"os\.chdir"):
        World.current()
    os.chdir(tmp_path)
