"""What is cancelled in tests: short calls of every kind. Children import this module, so it imports little.

Each takes the directory of its project, and returns what must come out, be it cancelled before or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import aiotune
from aiotune.event_log import EventStream
from aiotune.executors.base import Finished
from aiotune.executors.context import RunContext
from aiotune.hyperparameters import HyperParameters
from tests.support.cancelling import Bell

__all__ = [
    "CALLS",
    "LEAVING",
    "PROJECT",
    "Call",
    "make_forked",
    "search_cold",
    "search_on_cards",
]

PROJECT = "project"

Call = Callable[[Path], Awaitable[object]]


class Inline(aiotune.RandomSearch):
    async def run_trial(self, trial: RunContext) -> float:
        return await _reported(trial)


class Learning(aiotune.BayesianOptimization):
    """Its oracle asks in a thread."""

    async def run_trial(self, trial: RunContext) -> float:
        return await _reported(trial)


class Halving(aiotune.Hyperband):
    async def run_trial(self, trial: RunContext) -> float:
        x: float = trial.hyperparameters.Float("x", 0.0, 1.0)
        assert trial.budget is not None
        for epoch in range(trial.budget.initial_epoch, trial.budget.epochs):
            await asyncio.sleep(0)
            trial.report(epoch, loss=x + 1 / (epoch + 1))
        return x


class Forked(aiotune.RandomSearch):
    def run_trial(self, trial: RunContext) -> float:
        x: float = trial.hyperparameters.Float("x", 0.0, 1.0)
        trial.report(0, loss=x)
        return x


async def _reported(trial: RunContext) -> float:
    x: float = trial.hyperparameters.Float("x", 0.0, 1.0)
    for step in range(2):
        await asyncio.sleep(0)
        trial.report(step, loss=x + 1 - step)
    return x


def _table(tuner: aiotune.Tuner) -> list[tuple[object, ...]]:
    """Return what was tried and what came out, in an order that does not depend on time."""
    rows = [(*trial.values.values(), trial.status, trial.score) for trial in tuner.trials]
    return sorted(rows, key=str)


def _options(directory: Path, **changes: Any) -> dict[str, Any]:
    """Return those of a small search."""
    options: dict[str, Any] = {
        "objective": "loss",
        "max_trials": 3,
        "seed": 1,
        "directory": directory,
        "project_name": PROJECT,
        "gpus": 0,
        "max_concurrent_trials": 2,
    }
    return options | changes


def _make_inline(directory: Path) -> aiotune.Tuner:
    return Inline(**_options(directory))


def make_forked(directory: Path) -> aiotune.Tuner:
    return Forked(**_options(directory))


def _make_learning(directory: Path) -> aiotune.Tuner:
    return Learning(
        **_options(directory, max_trials=4, num_initial_points=2, max_concurrent_trials=1)
    )


def _make_halving(directory: Path) -> aiotune.Tuner:
    options = _options(directory, max_epochs=3, factor=3, max_concurrent_trials=1)
    del options["max_trials"]
    return Halving(**options)


async def _search(make: Callable[[Path], aiotune.Tuner], directory: Path) -> object:
    tuner = make(directory)
    await tuner.search(verbose=2)
    return _table(tuner)


async def search_cold(start_method: str, directory: Path) -> object:
    """A search whose process that starts the runs serves no other."""
    options = _options(directory, preload=("calendar",), start_method=start_method, max_trials=1)
    if start_method == "spawn":
        del options["preload"]
    tuner = Forked(**options)
    await tuner.search(verbose=0)
    return _table(tuner)


async def search_on_cards(directory: Path) -> object:
    """A search whose runs hold a GPU each."""
    tuner = Forked(**_options(directory, gpus="require"))
    await tuner.search(verbose=0)
    return _table(tuner)


async def _block(directory: Path) -> object:
    """A search in a block that keeps the process that starts the runs."""
    async with make_forked(directory) as tuner:
        await tuner.search(verbose=0)
    return _table(tuner)


def _build(hp: HyperParameters) -> float:
    return float(hp.Float("x", 0.0, 1.0) + hp.Int("n", 0, 9))


async def _discover(directory: Path) -> object:
    options = _options(directory, hypermodel=_build, preload=())
    return [each.name for each in await Forked(**options).discover()]


def _train(run: RunContext) -> Finished:
    return Finished({"loss": run.hyperparameters.get("x")})


async def _job(directory: Path) -> object:
    """What `retrain` is below Keras: one run with files of its own."""
    from aiotune.job import Job, perform
    from aiotune.layout import Layout
    from aiotune.project import Project
    from aiotune.retraining import claimed_files
    from aiotune.settings import Settings
    from aiotune.tasks import in_own_task

    tuner = make_forked(directory)
    layout = Layout(directory, PROJECT)
    project = Project(tuner.oracle, layout, Settings(gpus=0))
    point = HyperParameters()
    point.Fixed("x", 0.5)

    async def train() -> object:
        async with claimed_files(layout, keeps=False) as files:
            job = Job("job", point, _train, {}, {}, files.directory, files.log)
            finished = await perform(tuner, project, job)
            return dict(finished.metrics)

    return await in_own_task(train)


# --- calls that leave something before its end, when the bell rings


async def _leave_block(make: Callable[[Path], aiotune.Tuner], directory: Path) -> object:
    """Leave the block of a search that has two readers of events: one has stopped reading, one reads on."""
    bell = Bell.current.get()
    async with make(directory).start() as search:
        await anext(search.events())
        reading = asyncio.create_task(_read(search.events()))
        await bell.wait_or(reading)
    await reading
    return "left"


async def _raise_in_block(directory: Path) -> object:
    """Leave it by an error, which goes on."""
    bell = Bell.current.get()
    try:
        async with make_forked(directory).start() as search:
            reading = asyncio.create_task(_read(search.events()))
            await bell.wait_or(reading)
            raise LookupError("mine")
    except LookupError:
        await reading
        return "left"


async def _read(events: EventStream) -> None:
    async for _ in events:
        pass


async def _cancel_one_of_two(directory: Path) -> object:
    """Cancel one of two searches that share the machine: the other one has its result all the same."""
    tuner = make_forked(directory / "other")
    one = asyncio.create_task(_search(make_forked, directory))
    other = asyncio.create_task(tuner.search(verbose=0))
    Bell.current.get().on_ring(one.cancel)
    await asyncio.wait({one, other})
    await other
    return _table(tuner)


LEAVING: dict[str, Call] = {
    "a block left": partial(_leave_block, make_forked),
    "a block left, async trials": partial(_leave_block, _make_inline),
    "a block left by an error": _raise_in_block,
    "one of two searches": _cancel_one_of_two,
}

CALLS: dict[str, Call] = {
    "async trials": partial(_search, _make_inline),
    "oracle in a thread": partial(_search, _make_learning),
    "hyperband": partial(_search, _make_halving),
    "child processes": partial(_search, make_forked),
    "async with tuner": _block,
    "discover": _discover,
    "job": _job,
}
