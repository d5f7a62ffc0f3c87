from __future__ import annotations

import os
from pathlib import Path

import pytest

from aiotune.errors import ExecutorError
from aiotune.executors.keras_settings import KerasSettings, SessionSettings
from aiotune.executors.main_module import MainModule
from aiotune.executors.wire import FrameDecoder, encode_frame
from aiotune.executors.world import World, device_variables, thread_variables


def test_gpus_are_shown_by_uuid() -> None:
    assert device_variables(("GPU-a", "MIG-b"), {}) == {"CUDA_VISIBLE_DEVICES": "GPU-a,MIG-b"}


def test_without_a_gpu_none_is_shown() -> None:
    variables = device_variables((), {})
    assert variables["CUDA_VISIBLE_DEVICES"] == "-1"
    assert variables["JAX_PLATFORMS"] == "cpu"


@pytest.mark.parametrize(
    ("given", "left"), [("tpu", "tpu"), ("cuda", "cpu"), ("cuda,cpu", "cpu"), ("", "cpu")]
)
def test_jax_is_not_sent_to_a_gpu_that_is_not_there(given: str, left: str) -> None:
    assert device_variables((), {"JAX_PLATFORMS": given})["JAX_PLATFORMS"] == left
    assert "JAX_PLATFORMS" not in device_variables(("GPU-a",), {"JAX_PLATFORMS": given})


def test_threads_follow_the_cores_unless_the_user_set_them() -> None:
    assert thread_variables(0, {}) == {}
    variables = thread_variables(3, {"OMP_NUM_THREADS": "7"})
    assert "OMP_NUM_THREADS" not in variables
    assert variables["OPENBLAS_NUM_THREADS"] == "3"


def test_world_survives_the_wire() -> None:
    keras = KerasSettings(
        *("jax", "float16", 1e-5, "channels_first"),
        dtype_policy={"module": "m", "class_name": "C", "config": {"name": "float16"}},
        limits={"max_epochs": 3},
        session=SessionSettings(is_interactive=False),
    )
    main = MainModule("package.prog", "/prog.py", "package")
    environment = {"NAME": "caf\u00e9 \udcff"}
    world = World("/", ("", "lib"), ("prog", "-x"), environment, main, 0o27, keras)
    (frame,) = FrameDecoder().feed(encode_frame(world.to_frame()))
    assert World.from_frame(frame) == world


def test_world_without_keras_survives_the_wire() -> None:
    world = World.current()
    (frame,) = FrameDecoder().feed(encode_frame(world.to_frame()))
    assert World.from_frame(frame) == world
    assert world.keras is None


def test_umask_is_read_without_a_change() -> None:
    before = os.umask(0o27)
    try:
        assert World.current().umask in (0o27, None)
        assert os.umask(0o27) == 0o27
    finally:
        os.umask(before)


def test_backend_of_a_loaded_keras_wins_over_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = KerasSettings("jax", "float32", 1e-7, "channels_last", None)
    monkeypatch.setattr(KerasSettings, "current", lambda: settings)
    for environment in ({"KERAS_BACKEND": "torch"}, {"KERAS_HOME": "/nowhere"}):
        assert World.current(environment).environment["KERAS_BACKEND"] == "jax"


def test_backend_that_keras_chooses_anyway_is_not_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "keras.json").write_text('{"backend": "jax"}')
    settings = KerasSettings("jax", "float32", 1e-7, "channels_last", None)
    monkeypatch.setattr(KerasSettings, "current", lambda: settings)
    environment = {"KERAS_HOME": str(tmp_path)}
    assert World.current(environment).environment == environment


def test_vanished_directory_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ExecutorError, match=r"os\.chdir"):
        World.current()
    os.chdir(tmp_path)
