"""The checkpoints of trials: what one is, and who refers to it. Pure functions of the trials.

A repeat of a trial has up to four parts, each of which stays or goes as a whole:

    best        the weights of its best epoch
    last        the training at the end of an epoch, for a run that goes on from it
    before-3    both as they were when a budget began at epoch 3 (Hyperband)
    own         whatever else user code has put into `trial.checkpoint_dir`

A part that nobody refers to goes. No reference is ever counted up or down: they follow from the trials.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter
from typing import Any, Self

from aiotune.layout import BEFORE
from aiotune.objective import Objective
from aiotune.pareto import pareto_front
from aiotune.ranking import best_trials
from aiotune.trial import Trial, TrialState

__all__ = ["BEST", "LAST", "OWN", "Checkpoint", "Holder", "Keep", "holders", "is_part"]

BEST = "best"
LAST = "last"
OWN = "own"

_PART = re.compile(rf"{BEST}|{LAST}|{OWN}|{BEFORE}[0-9]{{1,9}}")
_RESULTS = frozenset({BEST, OWN})  # what is asked for when a trial is over


def is_part(name: str) -> bool:
    """Tell whether parts are called so. Nothing else is ever deleted by its name."""
    return _PART.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One part of what a repeat of a trial has on disk."""

    repeat: int
    part: str
    bytes: int
    references: int = 0  # how many hold it

    def __post_init__(self) -> None:
        if not is_part(self.part):
            raise ValueError(f"{self.part!r:.100} is no part of a checkpoint")

    @property
    def key(self) -> tuple[int, str]:
        """Which part of the trial's files this is."""
        return self.repeat, self.part


class Holder(StrEnum):
    """Why a checkpoint stays."""

    OPEN = "its trial is not over"  # it is queued or in progress, or tried again
    PROMOTABLE = "its trial waits for a promotion, or for a descendant"
    BEST = "its trial is among the best"
    ALL = "all are kept"


@dataclass(frozen=True, slots=True)
class Keep:
    """What of the trials that are over stays: `keep_checkpoints`, taken apart."""

    best: int = 0  # so many
    all: bool = False

    @classmethod
    def of(cls, setting: Any) -> Self:
        """Return what a valid `keep_checkpoints` stands for."""
        match setting:
            case "all":
                return cls(all=True)
            case "none" | "promotable":
                return cls()
            case str():
                return cls(int(setting.removeprefix("best:")))
            case _:
                return cls(int(setting))

    def best_of(self, trials: Iterable[Trial], objective: Objective) -> list[Trial]:
        """Return those of the trials whose best epochs stay: best first, then those on the front."""
        if self.best == 0:
            return []
        over = sorted((each for each in trials if each.is_over), key=attrgetter("number"))
        best = best_trials(over, objective, self.best)
        if not objective.seeks_front:
            return best
        return best + [each for each in pareto_front(over, objective) if each not in best]


def holders(trial: Trial, part: str, keep: Keep, best: Collection[str]) -> frozenset[Holder]:
    """Return who refers to a part of the trial's checkpoints. best: the ids that `Keep.best_of` names.

    What a budget began with is needed as long as the budget lasts.
    """
    found = {Holder.ALL} if keep.all else set()
    if trial.is_over:
        if trial.trial_id in best and part in _RESULTS:
            found.add(Holder.BEST)
    elif trial.state is not TrialState.PAUSED:
        found.add(Holder.OPEN)
    elif not part.startswith(BEFORE):
        found.add(Holder.PROMOTABLE)
    return frozenset(found)
