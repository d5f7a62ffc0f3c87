"""Searches to be killed: every kind of tuner, over a program whose results follow from point and epoch alone.

The program keeps a book of its epochs and goes on from it, as a custom training loop does. Some of its points
break: once, always, by a refusal, or with a score that is not a number.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiotune
from aiotune.errors import InfeasibleTrialError
from aiotune.executors.context import RunContext
from aiotune.hyperparameters import HyperParameters
from aiotune.oracles.base import Verdict
from aiotune.trial import Observation, Trial
from aiotune.tuner import Tuner

__all__ = ["KINDS", "NAME", "make"]

NAME = "crashed"  # of every project
_EPOCHS = 3  # where the search does not say how many
_GOAL = 3.0


@dataclass(frozen=True, slots=True)
class Page:
    """What the program has at the end of an epoch, and in which attempt it came there."""

    place: float
    loss: float
    attempt: int


class Book:
    """A page for each epoch, in one file that is replaced as a whole."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "book.json"
        self.pages: dict[int, Page] = {}

    def read(self) -> None:
        """Take in what an earlier run has written."""
        if self._file.exists():
            pages = json.loads(self._file.read_text())
            self.pages = {int(epoch): Page(*page) for epoch, page in pages.items()}

    def write(self, epoch: int, page: Page) -> None:
        """Add a page."""
        self.pages[epoch] = page
        kept = {key: (each.place, each.loss, each.attempt) for key, each in self.pages.items()}
        draft = self._file.with_name(f"writing.{self._file.name}")
        draft.write_text(json.dumps(kept))
        os.replace(draft, self._file)


def declare(hp: HyperParameters) -> tuple[float, int]:
    """Meet the names; return the size of a step and a digit that says what breaks."""
    rate = hp.Float("rate", 0.05, 1.0)
    if hp.Choice("shape", ["flat", "steep"]) == "steep":
        rate *= hp.Int("order", 1, 3)
    return rate, int(rate * 1e6) % 10


def declare_listed(hp: HyperParameters) -> tuple[float, int]:
    """Do the same with a space of 14 points."""
    rate = hp.Int("rate", 1, 7)
    if hp.Choice("shape", ["flat", "steep"]) == "steep":
        rate *= 3
    return rate / 10, rate % 10


def begun(
    trial: RunContext, size: float, epochs: range, *, goes_on: bool
) -> tuple[Book, float, range]:
    """Return the book, the place where the training goes on, and the epochs that are left."""
    book = Book(trial.checkpoint_dir)
    attempt = trial.assignment.attempt
    if goes_on:
        book.read()
    kept = {
        epoch: page
        for epoch, page in book.pages.items()
        if epoch < epochs.start or page.attempt == attempt
    }
    book.pages = kept
    last = max(kept, default=-1)
    return book, kept[last].place if kept else size, range(max(epochs.start, last + 1), epochs.stop)


def advanced(trial: RunContext, book: Book, place: float, size: float, epoch: int) -> float:
    """Train for an epoch and return the new place."""
    place += size * math.cos(epoch + trial.assignment.repeat)
    loss = abs(place - _GOAL) + (trial.seed % 97) / 1e4
    trial.report(epoch, loss=loss)
    book.write(epoch, Page(place, loss, trial.assignment.attempt))
    return place


def epochs_of(trial: RunContext) -> range:
    budget = trial.budget
    return range(_EPOCHS) if budget is None else range(budget.initial_epoch, budget.epochs)


def break_early(digit: int, attempt: int) -> None:
    """Fail at some points before the first epoch."""
    if digit == 2:
        raise InfeasibleTrialError("no such machine")
    if digit == 3 and attempt == 0:
        raise ValueError("once")


def result(digit: int, book: Book, epochs: range) -> dict[str, float] | None:
    """Fail at some points after the last epoch; None leaves it to what was reported."""
    if digit == 4:
        raise ValueError("always")
    losses = [book.pages[epoch].loss for epoch in epochs]
    if digit == 5:
        return {"loss": math.nan}
    return {"loss": min(losses)} if digit % 2 else None


class Verdicts:
    """What a rule has said of each report, for a program that waits for it: else it runs ahead by chance."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, int], bool] = {}
        self._news = asyncio.Event()

    def heard(self, judge: Callable[..., Any]) -> Callable[..., Any]:
        """Return the method of an oracle or a pruner so that its verdicts are known here."""

        def judging(*arguments: Any) -> Any:
            verdict = judge(*arguments)
            trial, last = arguments[-2], arguments[-1]
            if isinstance(trial, Trial):
                step = last.step if isinstance(last, Observation) else last.observations[-1].step
                self._said[trial.trial_id, step] = verdict not in (None, Verdict.CONTINUE)
                self._news.set()
            return verdict

        return judging

    async def follow(self, trial: RunContext, step: int) -> None:
        """Return once a rule has looked at a report, and the run knows what it said."""
        while (said := self._said.pop((trial.trial_id, step), None)) is None:
            self._news.clear()
            await self._news.wait()
        while said and not trial.should_stop:  # noqa: ASYNC110  # it comes without an event
            await asyncio.sleep(0)


def walking(kind: type[Tuner], meet: Callable[[HyperParameters], tuple[float, int]]) -> type[Tuner]:
    """Return a tuner of this kind whose trials run in the loop of the search."""

    class Walking(kind):  # type: ignore[misc, valid-type]
        verdicts: Verdicts | None = None

        async def run_trial(self, trial: RunContext) -> Any:
            size, digit = meet(trial.hyperparameters)
            break_early(digit, trial.assignment.attempt)
            epochs = epochs_of(trial)
            # What a rule judges begins anew: a lost report that is made again would let it run ahead by a step.
            goes_on = trial.is_continued and self.verdicts is None
            book, place, left = begun(trial, size, epochs, goes_on=goes_on)
            for epoch in left:
                await asyncio.sleep(0)
                if trial.should_stop:
                    return None
                place = advanced(trial, book, place, size, epoch)
                if self.verdicts is not None:
                    await self.verdicts.follow(trial, epoch)
            await asyncio.sleep(0)
            return result(digit, book, epochs)

    return Walking


def walking_apart(kind: type[Tuner]) -> type[Tuner]:
    """Return the same with trials in child processes."""

    class WalkingApart(kind):  # type: ignore[misc, valid-type]
        def run_trial(self, trial: RunContext) -> Any:
            size, digit = declare(trial.hyperparameters)
            break_early(digit, trial.assignment.attempt)
            epochs = epochs_of(trial)
            book, place, left = begun(trial, size, epochs, goes_on=trial.is_continued)
            for epoch in left:
                if trial.should_stop:
                    return None
                place = advanced(trial, book, place, size, epoch)
            return result(digit, book, epochs)

    WalkingApart.__qualname__ = f"{kind.__name__}Apart"
    return WalkingApart


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of search: its tuner and options. order_matters: points depend on which trial ends first."""

    tuner: type[Tuner]
    options: Mapping[str, Any]
    order_matters: bool = True
    judge: str | None = None  # who may end its trials early: "oracle" or "pruner"


def _kind(
    tuner: type[Tuner],
    *,
    order_matters: bool = True,
    meet: Callable[[HyperParameters], tuple[float, int]] = declare,
    judge: str | None = None,
    **options: Any,
) -> Kind:
    return Kind(walking(tuner, meet), options, order_matters, judge)


_RANDOM = aiotune.RandomSearch

RandomApart = walking_apart(_RANDOM)  # by its name, children find it

KINDS: Mapping[str, Kind] = {
    "random": _kind(_RANDOM, order_matters=False, max_trials=10),
    "grid": _kind(aiotune.GridSearch, order_matters=False, meet=declare_listed),
    "bayesian": _kind(aiotune.BayesianOptimization, max_trials=8),
    "hyperband": _kind(aiotune.Hyperband, max_epochs=4, factor=2, order_matters=False),
    "asha": _kind(aiotune.ASHA, max_epochs=4, factor=2, max_trials=8),
    "asha that stops": _kind(
        aiotune.ASHA, max_epochs=4, factor=2, max_trials=8, mode="stop", judge="oracle"
    ),
    "population": _kind(
        aiotune.PopulationBasedTraining, population_size=4, max_epochs=6, interval=2
    ),
    "repeats": _kind(_RANDOM, order_matters=False, max_trials=5, executions_per_trial=2),
    "pruned": _kind(_RANDOM, max_trials=9, pruner=lambda: aiotune.MedianPruner(2), judge="pruner"),
    "pruned repeats": _kind(
        _RANDOM,
        max_trials=6,
        executions_per_trial=2,
        pruner=lambda: aiotune.MedianPruner(2),
        judge="pruner",
    ),
    "children": Kind(RandomApart, {"max_trials": 6, "executor": "process"}, order_matters=False),
}


def make(name: str, directory: Path, **changes: Any) -> Tuner:
    """Return the tuner of a kind, with one slot, on the processor."""
    kind = KINDS[name]
    options: dict[str, Any] = {
        "objective": aiotune.Objective("loss", "min"),
        "seed": 4,
        "directory": directory,
        "project_name": NAME,
        "gpus": 0,
        "max_concurrent_trials": 1,
        "max_retries_per_trial": 1,
        "max_consecutive_failed_trials": 100,
    }
    options |= dict(kind.options) | changes
    if "pruner" in options:
        options["pruner"] = options["pruner"]()
    tuner = kind.tuner(**options)
    if kind.judge is not None:
        judge = tuner.oracle if kind.judge == "oracle" else options["pruner"]
        tuner.verdicts = Verdicts()
        judge.judge = tuner.verdicts.heard(judge.judge)
    return tuner
