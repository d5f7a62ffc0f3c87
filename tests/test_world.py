from __future__ import annotations

import os
from pathlib import Path

import pytest

from aiotune.errors import ExecutorError
from aiotune.executors.gpu_memory import MemoryLimit
from aiotune.executors.keras_settings import KerasSettings, SessionSettings
from aiotune.executors.main_module import MainModule
from aiotune.executors.wire import FrameDecoder, encode_frame
from aiotune.executors.world import World, device_variables, memory_variables, thread_variables

PREALLOCATE = "XLA_PYTHON_CLIENT_PREALLOCATE"
FRACTION = "XLA_PYTHON_CLIENT_MEM_FRACTION"


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


def test_jax_is_told_its_share_of_a_card_and_to_take_no_more_than_it_needs() -> None:
    variables = memory_variables(MemoryLimit(2**30, 0.125), {})
    assert variables == {PREALLOCATE: "false", FRACTION: "0.125000"}


def test_who_has_a_whole_card_is_told_nothing() -> None:
    assert memory_variables(None, {}) == {}


def test_tensorflow_grows_where_its_share_cannot_be_told_in_bytes() -> None:
    variables = memory_variables(MemoryLimit(None, 0.25), {})
    assert variables[FRACTION] == "0.250000"
    assert variables["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert FRACTION not in memory_variables(MemoryLimit(2**30, None), {})


@pytest.mark.parametrize("name", [FRACTION, "XLA_CLIENT_MEM_FRACTION"])
def test_a_fraction_that_the_user_has_set_for_jax_stays(name: str) -> None:
    # JAX refuses to start with both names of it.
    assert memory_variables(MemoryLimit(2**30, 0.25), {name: "0.5"}) == {PREALLOCATE: "false"}
    assert FRACTION in memory_variables(MemoryLimit(2**30, 0.25), {name: ""})


@pytest.mark.parametrize("name", [PREALLOCATE, "TF_FORCE_GPU_ALLOW_GROWTH"])
def test_other_variables_of_memory_that_the_user_has_set_stay(name: str) -> None:
    assert name not in memory_variables(MemoryLimit(None, 0.25), {name: "true"})


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
