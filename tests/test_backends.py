"""The same searches on TensorFlow, JAX and PyTorch, each with a fork server of its own."""

from __future__ import annotations

import asyncio
import functools
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from aiotune import RandomSearch, SearchResult
from aiotune.events import StopRequested
from aiotune.executors.base import Finished, GpuMeasured
from aiotune.executors.context import RunContext
from aiotune.executors.launch import acquire_server, release_server
from aiotune.executors.payload import Payload
from aiotune.executors.process import ProcessExecutor
from aiotune.processes import modules_to_preload
from aiotune.settings import Settings
from aiotune.trial import RunState
from tests.support import backends, keras_search, tuned
from tests.support.keras_search import EPOCHS
from tests.support.meeting import meeting
from tests.support.runs import ending, of_kind, run_once
from tests.support.tuned import make

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the fork server is Linux's")

BACKENDS = ("tensorflow", "torch", "jax")
THREADS_OF_RUNTIMES = ("tf_", "pt_", "xla", "llvm", "cuda", "pjrt")

FEW_MODULES = 50  # of hundreds

on_each_backend = pytest.mark.parametrize("backend", BACKENDS)


@dataclass(frozen=True, slots=True)
class Searched:
    result: SearchResult
    directory: Path
    server_log: Path

    @property
    def facts(self) -> list[dict[str, Any]]:
        return backends.told(self.directory)

    def metrics(self, trial_id: str) -> list[dict[str, float]]:
        (trial,) = [each for each in self.result.trials if each.trial_id == trial_id]
        return [dict(run.metrics) for run in sorted(trial.runs, key=lambda run: run.repeat)]


Choose = Callable[[pytest.MonkeyPatch, str], Path]
SearchOn = Callable[..., Searched]


def tuner_in(directory: Path, hypermodel: Any, **changes: Any) -> RandomSearch:
    options = {"objective": "val_loss", "max_trials": 2, "hypermodel": hypermodel} | changes
    return make(RandomSearch, directory, **options)


def fit_arguments(**changes: Any) -> dict[str, Any]:
    x, y, xv, yv = keras_search.data()
    return {"x": x, "y": y, "validation_data": (xv, yv), "epochs": EPOCHS, "verbose": 0} | changes


@pytest.fixture(scope="module")
def choose(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Choose]:
    """Call it to have the children use a backend from now on; a fork server is kept for them."""
    compiled = tmp_path_factory.mktemp("compiled")
    with ExitStack() as stack:

        @functools.cache
        def server_log(backend: str) -> Path:
            directory = tmp_path_factory.mktemp(f"server-{backend}")
            modules = modules_to_preload(tuner_in(directory, keras_search.build), (), Settings())
            server = acquire_server(modules, log=directory / "server.log")
            stack.callback(release_server, server)
            return directory / "server.log"

        def choose(patch: pytest.MonkeyPatch, backend: str) -> Path:
            patch.setenv("KERAS_BACKEND", backend)
            # The runs compile much alike.
            patch.setenv("JAX_COMPILATION_CACHE_DIR", str(compiled))
            patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
            return server_log(backend)

        yield choose


@pytest.fixture(scope="module")
def search_on(choose: Choose, tmp_path_factory: pytest.TempPathFactory) -> SearchOn:
    """Search on a backend, each such search once: two repeats of each trial, on a core each."""

    @functools.cache
    def search(backend: str, hypermodel: type = backends.Telling, **changes: Any) -> Searched:
        directory = tmp_path_factory.mktemp(backend)
        with pytest.MonkeyPatch.context() as patch:
            log = choose(patch, backend)
            tuner = tuner_in(directory, hypermodel(), **{"executions_per_trial": 2} | changes)
            return Searched(asyncio.run(tuner.search(**fit_arguments())), directory, log)

    return search


@on_each_backend
def test_trials_train_on_the_backend_that_was_asked_for(search_on: SearchOn, backend: str) -> None:
    searched = search_on(backend)
    assert [facts["backend"] for facts in searched.facts] == [backend] * 4
    assert [trial.status for trial in searched.result.trials] == ["COMPLETED"] * 2
    for trial in searched.result.trials:
        for run in trial.runs:
            assert [each.step for each in run.observations] == list(range(EPOCHS))
            assert run.metrics["val_loss"] == pytest.approx(
                min(each.metrics["val_loss"] for each in run.observations)
            )


@on_each_backend
def test_a_run_finds_its_backend_imported_and_imports_no_other(
    search_on: SearchOn, backend: str
) -> None:
    for facts in search_on(backend).facts:
        # Keras imports JAX on all of them, where it is installed.
        assert {*facts["loaded_first"]} - {"jax"} == {"keras", backend} - {"jax"}
        assert facts["loaded"] == facts["loaded_first"]
        assert facts["imported"] < FEW_MODULES


@on_each_backend
def test_the_fork_server_has_started_no_runtime(search_on: SearchOn, backend: str) -> None:
    searched = search_on(backend)
    for facts in searched.facts:
        assert facts["started_first"] == []
        # The names of a runtime's threads; those of idle pools for linear algebra are the process's.
        assert facts["name"] in facts["server_threads"]
        for name in facts["server_threads"]:
            assert not name.lower().startswith(THREADS_OF_RUNTIMES)


@on_each_backend
def test_no_log_warns_of_a_fork(search_on: SearchOn, backend: str) -> None:
    searched = search_on(backend)
    logs = [searched.server_log, *searched.directory.rglob("*.log")]
    assert len(logs) > 4
    for log in logs:
        assert "fork" not in log.read_text()


@on_each_backend
def test_pools_have_a_thread_for_each_core(search_on: SearchOn, backend: str) -> None:
    narrow = search_on(backend).facts
    wide = search_on(backend, backends.Mixed, **ONE_AT_A_TIME).facts
    for facts in (*narrow, *wide):
        cores = facts["cores"]
        assert facts["pools"]["intra"] == cores
        # TensorFlow never has just one there.
        assert facts["pools"].get("inter", cores) == max(cores, 2 * (backend == "tensorflow"))
    if len(os.sched_getaffinity(0)) > 1:
        assert max(facts["cores"] for facts in narrow) < min(facts["cores"] for facts in wide)


@on_each_backend
def test_no_gpu_is_seen_where_none_is_leased(search_on: SearchOn, backend: str) -> None:
    for facts in search_on(backend).facts:
        assert set(facts["devices"]) == {"cpu"}


ONE_AT_A_TIME = {"max_trials": 1, "executions_per_trial": 1, "max_concurrent_trials": 1}


@on_each_backend
def test_models_train_in_mixed_precision(search_on: SearchOn, backend: str) -> None:
    searched = search_on(backend, backends.Mixed, **ONE_AT_A_TIME)
    assert [facts["compute"] for facts in searched.facts] == ["bfloat16"]
    assert [facts["compute"] for facts in search_on(backend).facts] == ["float32"] * 4
    assert math.isfinite(searched.result.best_score or math.nan)


@on_each_backend
def test_one_seed_gives_the_same_scores_again(search_on: SearchOn, backend: str) -> None:
    first = search_on(backend).metrics("0000")
    again = search_on(backend, max_trials=1).metrics("0000")
    assert again == first
    assert first[0] != first[1]  # repeats differ


def test_one_seed_gives_the_same_points_on_all_backends(search_on: SearchOn) -> None:
    points = [tuned.points(search_on(backend).result.trials) for backend in BACKENDS]
    assert points[0] == points[1] == points[2]
    assert len(points[0]) == 2


class Loader(RandomSearch):
    """Loads the best model of another project and returns its score."""

    def run_trial(self, trial: RunContext, directory: Path) -> float:
        trial.hyperparameters.Fixed("x", 0)
        (model,) = tuner_in(directory, self.hypermodel).get_best_models()
        _, _, x, y = keras_search.data()
        return float(model.evaluate(x, y, verbose=0)[0])


@on_each_backend
async def test_the_best_model_loads_with_its_score(
    search_on: SearchOn,
    choose: Choose,
    backend: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched = await asyncio.to_thread(search_on, backend)
    choose(monkeypatch, backend)
    options = {"hypermodel": backends.Telling(), "objective": "val_loss", "max_trials": 1}
    result = await make(Loader, tmp_path, **options).search(searched.directory)
    (best,) = searched.result.best_trials(1)
    scores = [metrics["val_loss"] for metrics in searched.metrics(best.trial_id)]
    assert result.best_score == pytest.approx(min(scores), abs=1e-6)


@on_each_backend
async def test_a_stop_ends_a_fit_at_the_next_batch(
    choose: Choose, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch, backend)
    diary = tmp_path / "diary"
    async with meeting() as place:
        callbacks = keras_search.slow_callbacks(str(diary), place.port)
        arguments = fit_arguments(callbacks=callbacks, epochs=5, batch_size=8)
        tuner = tuner_in(tmp_path, keras_search.build, max_trials=1)
        async with tuner.start(**arguments) as search:
            child = await place.arrival()
            search.request_stop()
            async for event in search.events():
                if isinstance(event, StopRequested):
                    break
            child.write(b".")  # the request is with the child; it may go on
            await child.drain()
            result = await search.result()
            child.close()
    (run,) = result.trials[0].runs
    assert run.state is RunState.CANCELLED
    assert [each.step for each in run.observations] == [0]
    assert diary.read_text().splitlines()[-1] == "train 1 2"


@on_each_backend
async def test_leased_gpus_are_shown_before_a_runtime_starts(
    choose: Choose, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch, backend)
    modules = modules_to_preload(tuner_in(tmp_path, keras_search.build), (), Settings())
    with Payload.create(backends.tell_gpus) as payload:
        async with ProcessExecutor(payload, preload=modules) as executor:
            assert ending(await run_once(executor, tmp_path, gpus=("GPU-a",))) == Finished()
            assert ending(await run_once(executor, tmp_path)) == Finished()
            share = {"gpus": ("GPU-a",), "gpu_memory": 2**31, "gpu_fraction": 0.1}
            assert ending(await run_once(executor, tmp_path, **share)) == Finished()
    leased, none, shared = backends.told(tmp_path)
    assert (leased["gpus"], none["gpus"]) == ("GPU-a", "-1")
    assert leased["started"] == shared["started"] == []
    assert backend in leased["loaded"]
    assert (leased["fraction"], shared["fraction"]) == (None, "0.075000")
    assert leased["peak"] == shared["peak"] == 0
    assert "refused" not in (tmp_path / "run.log").read_text()


@on_each_backend
async def test_a_share_of_a_gpu_that_is_not_there_does_no_harm(
    choose: Choose, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch, backend)
    modules = modules_to_preload(tuner_in(tmp_path, keras_search.build), (), Settings())
    share = {"gpus": ("GPU-a",), "gpu_memory": 2**31, "gpu_fraction": 0.1}
    with Payload.create(backends.tell_gpus_of_a_started_runtime) as payload:
        async with ProcessExecutor(payload, preload=modules) as executor:
            events = await run_once(executor, tmp_path, **share)
    assert ending(events) == Finished()
    assert of_kind(events, GpuMeasured) == []
    (facts,) = backends.told(tmp_path)
    assert facts["peak"] == 0
    assert facts["started"] == ([backend] if backend != "torch" else [])  # there: no CUDA


# Frameworks without Keras. The classes are local, so that they travel as code, like those of a script.


def assert_plain_runs(directory: Path, result: SearchResult, framework: str) -> None:
    assert [trial.status for trial in result.trials] == ["COMPLETED"] * 2
    facts = backends.told(directory)
    assert len(facts) == 2
    for each in facts:
        assert each["loaded_first"] == each["loaded"]
        assert framework in each["loaded_first"]
        assert each["imported"] < FEW_MODULES
        assert each["started_first"] == []
        assert each["pools"]["intra"] == each["cores"]
    assert len({trial.score for trial in result.trials}) == 2


async def test_a_run_trial_of_plain_torch(tmp_path: Path) -> None:
    class Line(RandomSearch):
        def run_trial(self, trial: RunContext) -> float:
            import torch

            rate: float = trial.hyperparameters.Float("rate", 1e-3, 1e-1, sampling="log")
            model = torch.nn.Linear(4, 1)
            optimizer = torch.optim.SGD(model.parameters(), lr=rate)
            x = torch.randn(64, 4)
            for step in range(3):
                loss = (model(x) - x.sum(dim=1, keepdim=True)).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                trial.report(step, loss=loss.item())
            backends.tell("torch")
            return loss.item()  # type: ignore[no-any-return]

    result = await make(Line, tmp_path, max_trials=2).search()
    assert_plain_runs(tmp_path, result, "torch")


async def test_a_run_trial_of_plain_jax(tmp_path: Path) -> None:
    class Line(RandomSearch):
        def run_trial(self, trial: RunContext) -> float:
            import jax
            import jax.numpy as jnp
            import numpy as np

            rate: float = trial.hyperparameters.Float("rate", 1e-3, 1e-1, sampling="log")
            x = jnp.asarray(np.random.normal(size=(64, 4)))

            @jax.jit
            def step(weights: Any) -> Any:
                loss, slope = jax.value_and_grad(lambda w: jnp.mean((x @ w - x.sum(1)) ** 2))(
                    weights
                )
                return loss, weights - rate * slope

            weights = jnp.zeros(4)
            for number in range(3):
                loss, weights = step(weights)
                trial.report(number, loss=float(loss))
            backends.tell("jax")
            return float(loss)

    result = await make(Line, tmp_path, max_trials=2).search()
    assert_plain_runs(tmp_path, result, "jax")


async def test_a_run_trial_of_plain_tensorflow(tmp_path: Path) -> None:
    class Line(RandomSearch):
        def run_trial(self, trial: RunContext) -> float:
            import tensorflow as tf

            rate: float = trial.hyperparameters.Float("rate", 1e-3, 1e-1, sampling="log")
            layer = tf.keras.layers.Dense(1)
            optimizer = tf.keras.optimizers.SGD(rate)
            x = tf.random.normal((64, 4))
            loss = 0.0
            for step in range(3):
                with tf.GradientTape() as tape:
                    error = layer(x) - tf.reduce_sum(x, axis=1, keepdims=True)
                    batch_loss = tf.reduce_mean(error**2)
                variables = layer.trainable_variables
                optimizer.apply_gradients(
                    zip(tape.gradient(batch_loss, variables), variables, strict=True)
                )
                loss = float(batch_loss)
                trial.report(step, loss=loss)
            backends.tell("tensorflow")
            return loss

    result = await make(Line, tmp_path, max_trials=2).search()
    assert_plain_runs(tmp_path, result, "tensorflow")
