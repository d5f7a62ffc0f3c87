"""Tuners that look at themselves in a trial's process. Children import this module, so it imports little."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aiotune import RandomSearch
from aiotune.errors import FatalRuntimeError
from aiotune.executors.context import RunContext

__all__ = ["Guarded", "Looking", "Secretive", "Writing", "refused"]

REFUSED: Mapping[str, Callable[[Any], object]] = {
    "trials": lambda tuner: tuner.trials,
    "remaining_trials": lambda tuner: tuner.remaining_trials,
    "get_best_trials": lambda tuner: tuner.get_best_trials(),
    "get_best_hyperparameters": lambda tuner: tuner.get_best_hyperparameters(),
    "get_best_models": lambda tuner: tuner.get_best_models(),
    "results_summary": lambda tuner: tuner.results_summary(),
    "search": lambda tuner: tuner.search("x"),
    "start": lambda tuner: asyncio.run(_search(tuner)),
    "discover": lambda tuner: asyncio.run(tuner.discover()),
    "oracle.get_best_trials": lambda tuner: tuner.oracle.get_best_trials(),
    "oracle.trials": lambda tuner: tuner.oracle.trials,
    "oracle.update_trial, another's": lambda tuner: tuner.oracle.update_trial("0", {"loss": 1.0}),
    "oracle.get_trial, another's": lambda tuner: tuner.oracle.get_trial("no such trial"),
    "oracle.max_trials = 9": lambda tuner: setattr(tuner.oracle, "max_trials", 9),
}


async def _search(tuner: Any) -> None:
    async with tuner.start("x") as search:
        await search.result()


def refused(tuner: Any) -> dict[str, str]:
    """Do all that only the caller's process can; return the errors, where there are any."""
    errors = {}
    for name, ask in REFUSED.items():
        try:
            ask(tuner)
        except FatalRuntimeError as error:
            errors[name] = str(error)
    return errors


class Looking(RandomSearch):
    """Writes what it sees of itself and of the oracle into its trial's directory."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.favourite = {"colour": "blue"}

    def run_trial(self, trial: RunContext, path: str) -> float:
        x: float = trial.hyperparameters.Float("x", 0.0, 1.0)
        trial.hyperparameters.Int("n", 3, 9)
        oracle: Any = self.oracle
        seen = {
            "class": type(self).__name__,
            "favourite": self.favourite,
            "directory": self.directory,
            "project_name": self.project_name,
            "project_dir": self.project_dir,
            "trial_dir": self.get_trial_dir(trial.trial_id) == str(trial.directory),
            "objective": (self.objective.name, self.objective.direction),
            "executions_per_trial": self.executions_per_trial,
            "max_trials": oracle.max_trials,
            "seed": oracle.seed,
            "given": [each.name for each in oracle.hyperparameters.space],
            "entries": (oracle.allow_new_entries, oracle.tune_new_entries),
            "retries": oracle.max_retries_per_trial,
            "space": [each.name for each in oracle.get_space().space],
            "space has values": bool(oracle.get_space().values),
            "own trial": oracle.get_trial(trial.trial_id) is trial,
            "has private": hasattr(oracle, "_repr_html_"),
            "refused": refused(self),
        }
        Path(path).write_text(repr(seen))
        return x


class Writing(RandomSearch):
    """Writes attributes in the child: a new one, a known one, one that grows, and the same object again."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.count = 0
        self.scores: list[float] = []
        self.same = object()

    def run_trial(self, trial: RunContext) -> float:
        x: float = trial.hyperparameters.Float("x", 0.0, 1.0)
        self.count += 1
        self.last = x
        self.scores.append(x)
        self.same = self.same
        if trial.number == 1:
            raise RuntimeError("told all the same")
        return x


class Guarded(RandomSearch):
    """Has slots, a property, and a `__setattr__` that watches."""

    __slots__ = ("__secret", "slot")

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.slot = 1
        self.__secret = 2
        self.level = 3

    @property
    def level(self) -> int:
        return self._level

    @level.setter
    def level(self, value: int) -> None:
        self._level = value

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "frozen":
            raise AttributeError(name)
        super().__setattr__(name, value)

    def run_trial(self, trial: RunContext) -> dict[str, float]:
        x: float = trial.hyperparameters.Float("x", 0.0, 1.0)
        sum_before = self.slot + self.__secret + self.level
        self.slot = 10
        self.level = 20
        return {"loss": x, "sum": sum_before}


class Secretive(RandomSearch):
    """Keeps something at home that does not travel."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.diary = open(__file__)  # noqa: SIM115

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "diary"}

    def run_trial(self, trial: RunContext) -> dict[str, float]:
        x: float = trial.hyperparameters.Float("x", 0.0, 1.0)
        return {"loss": x, "has_diary": float(hasattr(self, "diary"))}
