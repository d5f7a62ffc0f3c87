"""Tuners whose trials are plain functions. Children import this module, so it imports little."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from aiotune import RandomSearch
from aiotune.errors import FailedTrialError, FatalRuntimeError, InfeasibleTrialError
from aiotune.executors.context import RunContext
from aiotune.oracles.base import Verdict
from aiotune.trial import Trial

Kind = TypeVar("Kind", bound=RandomSearch)

_POLL_SECONDS = 0.005  # between looks of a child at a file; a test never polls


def make(kind: type[Kind], directory: Path, **changes: Any) -> Kind:
    """Return a tuner with few trials, on the processor."""
    options: dict[str, Any] = {
        "objective": "loss",
        "max_trials": 4,
        "seed": 1,
        "directory": directory,
        "project_name": "project",
        "gpus": 0,
        "max_concurrent_trials": 2,
    }
    return kind(**options | changes)


class Parabola(RandomSearch):
    """Three reports, then the distance of x from a shift."""

    def run_trial(self, trial: RunContext, shift: float | str = 0.0) -> dict[str, float]:
        shift = float(shift)
        x = trial.hyperparameters.Float("x", -1.0, 1.0)
        loss = (x - shift) ** 2
        for step in range(3):
            trial.report(step, loss=loss * (3 - step))
        print("x is", x)
        return {"loss": loss, "pid": os.getpid()}


class Tree(RandomSearch):
    """A space with a loop, an `if` and a condition: what is met depends on what was drawn."""

    def run_trial(self, trial: RunContext) -> float:
        hp = trial.hyperparameters
        score = 0.0
        for layer in range(hp.Int("layers", 1, 3)):
            score += hp.Int(f"units_{layer}", 8, 64, step=8)
        if hp.Choice("optimizer", ["sgd", "adam"]) == "sgd":
            score += hp.Float("momentum", 0.0, 1.0)
        if hp.Boolean("decay"):
            score -= hp.Float("rate", 1e-4, 1e-1, sampling="log")
        return score


class Coin(RandomSearch):
    """A finite space of four points."""

    def run_trial(self, trial: RunContext) -> float:
        hp = trial.hyperparameters
        return float(hp.Int("side", 0, 1) + 2 * hp.Int("other", 0, 1))


class Dice(RandomSearch):
    """Scores that are chance alone."""

    def run_trial(self, trial: RunContext) -> float:
        import numpy as np

        trial.hyperparameters.Float("x", 0.0, 1.0)
        return random.random() + float(np.random.random())


class Patient(RandomSearch):
    """Reports once and goes on until it is asked to stop."""

    def run_trial(self, trial: RunContext) -> float:
        x: float = trial.hyperparameters.Float("x", 0.0, 1.0)
        trial.report(0, loss=x)
        while not trial.should_stop:
            time.sleep(_POLL_SECONDS)
        return x


class Deaf(RandomSearch):
    """Reports its process once and never looks whether it should stop."""

    def run_trial(self, trial: RunContext) -> float:
        trial.hyperparameters.Float("x", 0.0, 1.0)
        trial.report(0, loss=1.0, pid=os.getpid())
        while True:
            time.sleep(60)


class Stubborn(RandomSearch):
    """Ignores every signal that can be ignored."""

    def run_trial(self, trial: RunContext) -> float:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        trial.hyperparameters.Float("x", 0.0, 1.0)
        trial.report(0, loss=1.0)
        while True:
            time.sleep(60)


class Latch(RandomSearch):
    """Waits for a file before it returns; leaves one for each run that it began."""

    def run_trial(self, trial: RunContext, gate: str) -> float:
        x: float = trial.hyperparameters.Float("x", 0.0, 1.0)
        trial.report(0, loss=x, pid=os.getpid())
        while not os.path.exists(gate):
            time.sleep(_POLL_SECONDS)
        return x


class Mortal(RandomSearch):
    """The run of the trial number given dies by a signal, in its first attempt."""

    def run_trial(self, trial: RunContext, number: int, killer: int) -> float:
        x: float = trial.hyperparameters.Float("x", 0.0, 1.0)
        if trial.number == number and trial.assignment.attempt == 0:
            os.kill(os.getpid(), killer)
            signal.pause()
        return x


class Clumsy(RandomSearch):
    """Fails in the way that it is told, from the trial number given on."""

    def run_trial(self, trial: RunContext, how: str, first: int = 0) -> Any:
        x: float = trial.hyperparameters.Float("x", 0.0, 1.0)
        if trial.number < first:
            return x
        match how:
            case "error":
                raise ValueError("the cat ate it")
            case "failed":
                raise FailedTrialError("this one is hopeless")
            case "infeasible":
                raise InfeasibleTrialError("no such machine")
            case "fatal":
                raise FatalRuntimeError("no disk at all")
            case "memory":
                raise MemoryError("too large")
            case "nan":
                return float("nan")
            case "none":
                return None
            case "exit":
                os._exit(3)
            case "other metrics":
                return {"accuracy": x, "losses": 1.0}
            case "reports only":
                trial.report(0, accuracy=x)
                return None
        raise AssertionError(how)


class Once(RandomSearch):
    """The first attempt at each trial fails."""

    def run_trial(self, trial: RunContext) -> float:
        x: float = trial.hyperparameters.Float("x", 0.0, 1.0)
        if trial.assignment.attempt == 0:
            raise RuntimeError("not yet")
        return x


class Misspelt(RandomSearch):
    """Declares x in the way that it is told."""

    def run_trial(self, trial: RunContext, how: str) -> float:
        hp: Any = trial.hyperparameters
        match how:
            case "min/max":
                return float(hp.Int("x", min=0, max=9))
            case "upside down":
                return float(hp.Int("x", 9, 0))
            case _:
                return float(hp.Int("x", *map(int, how.split("-"))))


class Wider(RandomSearch):
    """Parabola, with a name more."""

    def run_trial(self, trial: RunContext) -> float:
        hp = trial.hyperparameters
        return float(hp.Float("x", -1.0, 1.0) + hp.Float("y", 0.0, 1.0))


class Parent(RandomSearch):
    """Leaves a process of its own behind, in another session."""

    def run_trial(self, trial: RunContext) -> float:
        x: float = trial.hyperparameters.Float("x", 0.0, 1.0)
        with open(os.devnull, "w") as nowhere:
            subprocess.Popen(["sleep", "600"], start_new_session=True, stdout=nowhere)
        trial.report(0, loss=x)
        while not trial.should_stop:
            time.sleep(_POLL_SECONDS)
        return x


class Sower(RandomSearch):
    """Leaves a daemon behind, tells who is who, and waits for a file before it returns."""

    def run_trial(self, trial: RunContext, gate: str) -> float:
        x: float = trial.hyperparameters.Float("x", 0.0, 1.0)
        with open(os.devnull, "w") as nowhere:
            daemon = subprocess.Popen(["sleep", "600"], start_new_session=True, stdout=nowhere)
        family = {"child": os.getpid(), "server": os.getppid(), "guardian": os.getsid(0)}
        trial.report(0, loss=x, daemon=daemon.pid, **family)
        while not os.path.exists(gate):
            time.sleep(_POLL_SECONDS)
        return x


class InTheLoop(RandomSearch):
    """An async trial: it runs in the caller's process, many at a time."""

    async def run_trial(
        self, trial: RunContext, pids: list[int], barrier: asyncio.Barrier
    ) -> float:
        x: float = trial.hyperparameters.Float("x", 0.0, 1.0)
        await barrier.wait()
        pids.append(os.getpid())
        trial.report(0, loss=x)
        return x


class Endless(RandomSearch):
    """An async trial that never ends by itself, and notes how it was ended."""

    async def run_trial(self, trial: RunContext, endings: list[str]) -> float:
        trial.hyperparameters.Float("x", 0.0, 1.0)
        trial.report(0, loss=1.0)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            endings.append("cancelled")
            raise
        return 0.0


class Curious(RandomSearch):
    """Tells what a child sees of the tuner."""

    favourite = 0

    def run_trial(self, trial: RunContext) -> dict[str, float]:
        trial.hyperparameters.Float("x", 0.0, 1.0)
        self.favourite += 1  # stays in the child
        return {
            "loss": 0.0,
            "favourite": self.favourite,
            "max_trials": float(self.oracle.max_trials or 0),
            "is_min": float(self.objective.direction == "min"),
            "has_directory": float(trial.directory.is_dir()),
            "is_child": float(os.getpid() != self.caller),
            "is_dir": float(Path(self.project_dir_seen).is_dir()),
        }

    caller = 0
    project_dir_seen = "."


class Hooked(RandomSearch):
    """Notes each call of its hooks, in order."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.calls: list[tuple[str, Any]] = []

    def run_trial(self, trial: RunContext) -> float:
        return trial.hyperparameters.Float("x", 0.0, 1.0)  # type: ignore[no-any-return]

    def on_search_begin(self) -> None:
        self.calls.append(("search begins", None))

    def on_search_end(self) -> None:
        self.calls.append(("search ends", len(self.trials)))

    def on_trial_begin(self, trial: Trial) -> None:
        self.calls.append(("trial begins", trial.trial_id))

    def on_trial_end(self, trial: Trial) -> None:
        self.calls.append(("trial ends", (trial.trial_id, trial.status, trial.score)))

    def pre_create_trial(self) -> None:
        self.calls.append(("before a trial", len(self.trials)))


class AsyncHooked(Hooked):
    """The same with hooks that wait."""

    async def on_search_begin(self) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        super().on_search_begin()

    async def on_trial_end(self, trial: Trial) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        super().on_trial_end(trial)

    async def on_search_end(self) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        super().on_search_end()


class Pruned(Patient):
    """Its oracle stops every trial at its first report."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.oracle.judge = lambda trial, observation: Verdict.STOP  # type: ignore[method-assign]


class BadHook(Hooked):
    """Its hook raises."""

    def on_trial_end(self, trial: Trial) -> None:
        raise RuntimeError("the hook is broken")


def points(trials: Any) -> list[Mapping[str, Any]]:
    """Return what was tried, in an order that does not depend on time."""
    return sorted((dict(trial.values) for trial in trials), key=str)
