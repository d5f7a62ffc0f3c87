"""Keras's global settings: taken in the caller, made to hold in a run, also over `clear_session`."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aiotune import HyperParameters, RandomSearch
from aiotune.executors.base import Finished
from aiotune.executors.context import RunContext
from aiotune.executors.keras_settings import KerasSettings, SessionSettings
from aiotune.executors.launch import Server
from aiotune.executors.payload import Payload
from aiotune.executors.process import ProcessExecutor
from aiotune.executors.world import World
from aiotune.processes import modules_to_preload
from aiotune.settings import Settings
from tests.support.programs import run_program
from tests.support.runs import ending, run_once

SETTINGS = KerasSettings(
    backend="tensorflow",
    floatx="float64",
    epsilon=1e-4,
    image_data_format="channels_first",
    dtype_policy={
        "module": "keras.src.dtype_policies.dtype_policy",
        "class_name": "DTypePolicy",
        "config": {"name": "mixed_float16"},
    },
    limits={"max_epochs": 3, "max_steps_per_epoch": None},
    session=SessionSettings(
        is_interactive=False, filters_tracebacks=False, uses_flash_attention=False
    ),
)


def test_without_keras_there_are_none() -> None:
    if "keras" not in sys.modules:
        assert KerasSettings.current() is None


async def in_a_child(tmp_path: Path, settings: KerasSettings | None, program: Any) -> Any:
    """Return what the program writes, run in the world of a caller with these settings of Keras."""
    path = tmp_path / "seen.json"

    def write(run: RunContext) -> Finished:
        path.write_text(json.dumps(program()))
        return Finished({"loss": 0.0})

    tuner = RandomSearch(lambda hp: None, "val_loss", directory=tmp_path)
    with Payload.create(write) as payload:
        async with ProcessExecutor(
            payload,
            preload=modules_to_preload(tuner, (), Settings()),
            world=replace(World.current(), keras=settings),
        ) as executor:
            last = ending(await run_once(executor, tmp_path))
    assert isinstance(last, Finished), last
    return json.loads(path.read_text())


def observed() -> Any:
    """Return the settings of this process, and the same after a model was built."""
    import keras

    from aiotune.frameworks.keras import build_model
    from aiotune.frameworks.keras_build import ModelOptions
    from aiotune.hypermodel import DefaultHyperModel
    from aiotune.objective import create_objective

    before = KerasSettings.current()

    def build(hp: HyperParameters) -> Any:
        return keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])

    options = ModelOptions(create_objective("val_loss"))
    model = build_model(DefaultHyperModel(build), HyperParameters(), options, seed=1)
    after = KerasSettings.current()
    assert before is not None
    assert after is not None
    return [before.to_frame(), after.to_frame(), model.layers[-1].compute_dtype]


async def test_settings_hold_in_a_child_also_when_a_model_is_built(
    keras_server: Server, tmp_path: Path
) -> None:
    before, after, dtype = await in_a_child(tmp_path, SETTINGS, observed)
    assert KerasSettings.from_frame(before) == SETTINGS
    assert KerasSettings.from_frame(after) == SETTINGS
    assert dtype == "float16"


def taken() -> Any:
    """Return what is taken of three policies: none, a map with layers of its own, one of this program."""
    import keras

    none = KerasSettings.current()
    policy: Any = keras.dtype_policies.DTypePolicyMap(default_policy="mixed_float16")
    policy["head"] = keras.DTypePolicy("float32")
    keras.config.set_dtype_policy(policy)
    some = KerasSettings.current()
    assert none is not None
    assert some is not None
    some.apply(keras)
    anew: Any = keras.config.dtype_policy()

    class Own(keras.DTypePolicy):  # type: ignore[misc, name-defined]
        pass

    keras.config.set_dtype_policy(Own("float16"))
    own = KerasSettings.current()
    assert own is not None
    return [none.dtype_policy, type(anew).__name__, anew["head"].name, own.dtype_policy]


async def test_policy_is_taken_by_its_class_and_configuration(
    keras_server: Server, tmp_path: Path
) -> None:
    assert await in_a_child(tmp_path, None, taken) == [None, "DTypePolicyMap", "float32", None]
    assert "belongs to this process alone" in (tmp_path / "run.log").read_text()


PROGRAM = """
    import asyncio, os, sys
    os.environ["KERAS_BACKEND"] = "jax"
    import keras
    del os.environ["KERAS_BACKEND"]
    import aiotune

    def build(hp):
        assert keras.config.backend() == "jax"
        assert keras.config.floatx() == "bfloat16"
        model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(hp.Int("n", 1, 4))])
        assert model.layers[-1].compute_dtype == "bfloat16", model.layers[-1].compute_dtype
        model.compile(loss="mse")
        return model

    async def main():
        tuner = aiotune.RandomSearch(build, "val_loss", max_trials=1, directory=sys.argv[1], gpus=0)
        keras.config.set_dtype_policy("mixed_bfloat16")
        keras.config.set_floatx("bfloat16")
        print([each.name for each in await tuner.discover()])

    asyncio.run(main())
"""


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_settings_and_backend_of_the_caller_reach_its_trials(tmp_path: Path) -> None:
    assert run_program(PROGRAM, tmp_path).split("\n")[-2] == "['n']"
