"""One model outside of a search: what `retrain` leaves, what `evaluate` returns, and what goes wrong."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from aiotune import HyperParameters, Lazy, RandomSearch, Resources
from aiotune.errors import (
    DeviceError,
    FatalRuntimeError,
    FatalTypeError,
    FatalValueError,
    PayloadError,
    StoreUnwritable,
)
from aiotune.events import Reported
from tests.support import keras_search, retrained, tuned
from tests.support.tuned import make

pytestmark = pytest.mark.usefixtures("keras_server")

LONGEST_SECONDS = 120.0  # far above what anything here takes; reaching it is a failure
FILES = ["build.json", "hyperparameters.json", "model.keras", "run.log"]
X, Y, XV, YV = keras_search.data()


def keras_tuner(
    directory: Path, hypermodel: Any = keras_search.build, **changes: Any
) -> RandomSearch:
    options = {"objective": "val_loss", "max_trials": 2, "hypermodel": hypermodel} | changes
    return make(RandomSearch, directory, **options)


def names_in(directory: str | Path) -> list[str]:
    return sorted(path.name for path in Path(directory).iterdir())


# What they give


async def test_a_model_is_trained_saved_and_measured_without_a_search(tmp_path: Path) -> None:
    """The same call twice, at once: two directories, one model."""
    tuner = keras_tuner(tmp_path, seed=None)
    paths = await asyncio.gather(
        tuner.retrain(retrained.point(), X, Y, epochs=2),
        tuner.retrain(retrained.point(), X, Y, epochs=2),
    )
    project = tmp_path / "project"
    assert {str(path) for path in paths} == {
        str(project / name / "model.keras") for name in ("retrained_0", "retrained_1")
    }
    one, two = await asyncio.gather(
        *(tuner.evaluate(path, XV, YV) for path in (paths[0], str(paths[1])))
    )
    assert one == two
    assert set(one) == {"loss", "accuracy"}
    assert 0 < one["loss"] < 2
    for path in paths:
        assert names_in(path.parent) == FILES
        assert "Epoch 2/2" in (path.parent / "run.log").read_text()
    assert "loss" in (project / "evaluate.log").read_text()
    assert names_in(project) == ["evaluate.log", "retrained_0", "retrained_1"]
    assert tuner.trials == ()
    keras_tuner(tmp_path, overwrite=True)
    assert names_in(tmp_path) == []


async def test_beside_a_search_and_after_it(tmp_path: Path) -> None:
    """A trial's best epoch has its score again; its point is trained by the user's own `fit`."""
    fit = {"validation_data": (XV, YV), "epochs": 2, "verbose": 0}
    tuner = keras_tuner(tmp_path, keras_search.Dense(), max_concurrent_trials=1)
    async with tuner.start(X, Y, **fit) as search:
        async for event in search.events():
            if isinstance(event, Reported):
                break
        path = await tuner.retrain(retrained.point(batch_size=16), X, Y, **fit)
        during = await tuner.evaluate(path, XV, YV, verbose=0)
        await search.result()
    best = tuner.get_best_trials()[0]
    assert during == await tuner.evaluate(path, XV, YV, batch_size=7)
    metrics = await tuner.evaluate(best, XV, YV)
    assert metrics["loss"] == pytest.approx(best.score, abs=1e-6)
    assert names_in(path.parent) == FILES
    assert len(tuner.trials) == 2


async def test_the_file_says_which_values_were_used(tmp_path: Path) -> None:
    tuner = keras_tuner(tmp_path, retrained.Quiet())
    path = await tuner.retrain(retrained.point(units_0=12), X, Y)
    saved = json.loads((path.parent / "hyperparameters.json").read_text())
    assert saved["values"]["units_0"] == 12
    assert saved["values"]["batch_size"] == 16  # a default, met in fit
    assert "training here\n" in (path.parent / "run.log").read_text()
    assert HyperParameters.from_config(saved).get("learning_rate") == pytest.approx(1e-3)


async def test_a_model_that_keras_cannot_describe_is_saved_as_weights(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tuner = keras_tuner(
        tmp_path, retrained.build_lazily, metrics=["sparse_top_k_categorical_accuracy"]
    )
    with caplog.at_level(logging.WARNING, "aiotune"):
        path = await tuner.retrain(HyperParameters(), X, Y)
    assert path.name == "model.weights.h5"
    assert f"only its weights are saved, in {path}" in caplog.text
    metrics = await tuner.evaluate(path, XV, YV)
    assert metrics["sparse_top_k_categorical_accuracy"] == 1.0


async def test_resources_may_depend_on_the_point(tmp_path: Path) -> None:
    asked: list[object] = []

    def resources(hp: HyperParameters) -> Resources:
        asked.append(hp.get("units_0"))
        return Resources(cpus=1)

    tuner = keras_tuner(tmp_path, resources=resources)
    path = await tuner.retrain(retrained.point(units_0=4), X, Y, verbose=0)
    await tuner.evaluate(path, Lazy(lambda: XV), Lazy(lambda: YV), verbose=0)
    assert asked == [4, 4]
    assert "Epoch" not in (path.parent / "run.log").read_text()


# What goes wrong in the child


async def fails(tuner: RandomSearch, kind: type[Exception], **arguments: Any) -> str:
    """Return the message of a training that fails, whose log is all that may stay."""
    with pytest.raises(kind) as caught:
        await tuner.retrain(retrained.point(), X, Y, **arguments)
    assert type(caught.value) is kind
    log = Path(tuner.project_dir) / "retrained_0" / "run.log"
    assert f"Its log: {log}" in str(caught.value)
    assert names_in(log.parent) == ["run.log"]
    assert "before the fall\n" in log.read_text()
    return str(caught.value)


async def test_an_error_of_the_training_is_raised_with_its_traceback(tmp_path: Path) -> None:
    text = await fails(keras_tuner(tmp_path, retrained.Failing()), FatalRuntimeError, how="error")
    assert "LookupError: my own error" in text
    assert 'raise LookupError("my own error")' in text
    keras_tuner(tmp_path, overwrite=True)
    assert names_in(tmp_path) == []


async def test_other_ends_of_a_training(tmp_path: Path) -> None:
    def tuner(name: str) -> RandomSearch:
        return keras_tuner(tmp_path, retrained.Failing(), project_name=name)

    fatal, crash = await asyncio.gather(
        fails(tuner("fatal"), FatalValueError, how="fatal"),
        fails(tuner("crash"), FatalRuntimeError, how="crash"),
    )
    assert fatal.startswith("these data are wrong")
    assert "killed by SIGKILL" in crash


async def test_a_model_that_nobody_trained_has_nothing_to_save(tmp_path: Path) -> None:
    tuner = keras_tuner(tmp_path, retrained.Untrained())
    with pytest.raises(FatalRuntimeError, match="must train the model that it is given"):
        await tuner.retrain(HyperParameters(), X, Y)


async def test_a_model_that_its_first_batch_makes_too_large(tmp_path: Path) -> None:
    tuner = keras_tuner(tmp_path, retrained.build_lazily, max_model_size=10)
    with pytest.raises(FatalRuntimeError, match="more than max_model_size=10"):
        await tuner.retrain(HyperParameters(), X, Y)


async def test_arguments_that_the_model_does_not_take(tmp_path: Path) -> None:
    tuner = keras_tuner(tmp_path)
    with pytest.raises(FatalTypeError, match=r"retrain\(\) .* model\.fit: .*'epoch'.* it takes "):
        await tuner.retrain(retrained.point(), X, Y, epoch=2)
    path = await tuner.retrain(retrained.point(), X, Y)
    with pytest.raises(FatalRuntimeError, match=r"Arguments not recognized: .*'batch'"):
        await tuner.evaluate(path, XV, YV, batch=2)
    changed = keras_tuner(tmp_path, retrained.build_lazily)
    with pytest.raises(FatalValueError, match="Did the build function change"):
        await changed.evaluate(path, XV, YV)


# Cancelling


class Meeting:
    """Where a child waits until it is killed."""

    def __init__(self) -> None:
        self.port = 0
        self.writers: list[asyncio.StreamWriter] = []
        self._arrived: asyncio.Queue[asyncio.StreamReader] = asyncio.Queue()

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        await self._arrived.put(reader)

    async def arrival(self) -> asyncio.StreamReader:
        async with asyncio.timeout(LONGEST_SECONDS):
            return await self._arrived.get()


@asynccontextmanager
async def meeting() -> AsyncIterator[Meeting]:
    place = Meeting()
    server = await asyncio.start_server(place.meet, "127.0.0.1", 0)
    place.port = server.sockets[0].getsockname()[1]
    async with server:
        yield place
    for writer in place.writers:
        writer.close()
        await writer.wait_closed()


async def test_cancelling_ends_the_child_and_leaves_nothing(tmp_path: Path) -> None:
    tuner = keras_tuner(tmp_path)
    path = await tuner.retrain(retrained.point(), X, Y)
    before = names_in(tuner.project_dir)
    async with meeting() as place:
        wait = retrained.waiting(place.port)
        for call in (
            tuner.retrain(retrained.point(), X, Y, callbacks=wait),
            tuner.evaluate(path, XV, YV, callbacks=wait),
        ):
            task = asyncio.create_task(call)
            child = await place.arrival()
            assert len(names_in(tuner.project_dir)) == len(before) + 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await child.read() == b""  # it was killed: its socket is closed
            assert names_in(tuner.project_dir) == before


# Bad calls: refused before a process starts


@pytest.mark.parametrize(
    ("hp", "arguments", "kind", "text"),
    [
        ([retrained.point()], {}, FatalTypeError, r"a list: pass one of its members"),
        ({"units": 3}, {}, FatalTypeError, r"a dict: hp = HyperParameters\(\)"),
        (3, {}, FatalTypeError, "it is of type int"),
        (retrained.point(), {"gpus": 1}, FatalTypeError, r"gpus must be given to RandomSearch\("),
        (retrained.point(), {"objective": "loss"}, FatalTypeError, "objective must be given to"),
    ],
)
async def test_bad_trainings(
    tmp_path: Path, hp: Any, arguments: Any, kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        await keras_tuner(tmp_path).retrain(hp, X, Y, **arguments)
    assert names_in(tmp_path) == []


async def test_bad_evaluations(tmp_path: Path) -> None:
    stranger = tmp_path / "model.keras"
    stranger.write_text("")
    tuner = keras_tuner(tmp_path)
    for model, arguments, kind, text in (
        (tmp_path / "nothing.keras", {}, FatalValueError, "nothing.keras does not exist"),
        (tmp_path, {}, FatalValueError, "is a directory"),
        (stranger, {}, FatalValueError, "no hyperparameters.json beside it"),
        (3, {}, FatalTypeError, "it is of type int"),
        (stranger, {"return_dict": False}, FatalTypeError, "drop return_dict"),
        (stranger, {"directory": "x"}, FatalTypeError, "directory must be given to"),
    ):
        with pytest.raises(kind, match=text):
            await tuner.evaluate(model, XV, YV, **arguments)
    (tmp_path / "hyperparameters.json").write_text("{")
    with pytest.raises(FatalValueError, match=r"hyperparameters\.json cannot be read"):
        await tuner.evaluate(stranger, XV, YV)
    assert names_in(tmp_path) == ["hyperparameters.json", "model.keras"]


async def test_a_trial_without_checkpoint_and_a_tuner_without_model(tmp_path: Path) -> None:
    tuner = make(tuned.Parabola, tmp_path, max_trials=1)
    result = await tuner.search(0.5)
    with pytest.raises(FatalValueError, match=r"retrain\(\) builds .* Parabola has none"):
        await tuner.retrain(result.best_hyperparameters)
    with pytest.raises(FatalValueError, match=r"evaluate\(\) builds"):
        await tuner.evaluate(result.best_trial)
    other = keras_tuner(tmp_path, project_name="other")
    with pytest.raises(FatalValueError, match="trial 0000 has no checkpoint in"):
        await other.evaluate(result.best_trial)
    assert not (tmp_path / "other").exists()


async def test_what_cannot_travel_or_be_leased_leaves_nothing(tmp_path: Path) -> None:
    tuner = keras_tuner(tmp_path, resources=Resources(cpus=1000))
    with pytest.raises(DeviceError, match="a run asks for 1000 cores"):
        await tuner.retrain(retrained.point(), X, Y)
    with pytest.raises(PayloadError, match=r"the argument y= of retrain\(\) .* one pass uses up"):
        await keras_tuner(tmp_path).retrain(retrained.point(), X, y=(each for each in Y))

    def broken(hp: HyperParameters) -> Resources:
        raise LookupError(hp.values["units_0"])

    with pytest.raises(FatalRuntimeError, match=r"resources\(\) failed at .*LookupError: 8"):
        await keras_tuner(tmp_path, resources=broken).retrain(retrained.point(), X, Y)
    assert names_in(tmp_path / "project") == []


async def test_a_directory_that_refuses_writes(tmp_path: Path) -> None:
    (tmp_path / "project").write_text("a file")
    with pytest.raises(StoreUnwritable, match="cannot be made"):
        await keras_tuner(tmp_path).retrain(retrained.point(), X, Y)
