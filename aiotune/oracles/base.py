"""The oracle's contract: what to try next, whether to go on, what was learnt.

An oracle is plain synchronous Python and knows trials, never runs, devices or files. It may keep caches, but
only such as can be derived from the history that it is given: same seed and same facts in the same order,
same answers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeVar

from aiotune.errors import FatalRuntimeError, FatalTypeError, FatalValueError
from aiotune.history import History
from aiotune.hyperparameters import HyperParameters
from aiotune.objective import Objective, create_objective
from aiotune.space import Scalar, Space
from aiotune.trial import Budget, Observation, Trial

__all__ = ["Answer", "Exhausted", "Oracle", "Promote", "Suggest", "Verdict", "Wait"]


@dataclass(frozen=True, slots=True)
class Suggest:
    """A new trial at `values`.

    Names that the program declares beyond them get their value from (seed, `stream`, name), and so do the
    seeds of its runs: a trial's chance depends on nothing else, however many run beside it.
    """

    values: Mapping[str, Scalar]
    stream: int
    budget: Budget | None = None
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class Promote:
    """A further run of a paused trial, up to a larger budget."""

    trial_id: str
    budget: Budget


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to propose before something that is in flight ends. Never an answer with nothing in flight."""


@dataclass(frozen=True, slots=True)
class Exhausted:
    """Nothing more to propose, ever."""


Count = TypeVar("Count", int, int | None)
Answer = Suggest | Promote | Wait | Exhausted


class Verdict(Enum):
    """What becomes of a running trial after a report."""

    CONTINUE = auto()
    STOP = auto()
    PAUSE = auto()


class Oracle(ABC):
    """Proposes trials. Subclasses implement `ask`, and `judge` and `tell` where they have a say.

    max_trials: how many trials in all, over every session of the project; None: until exhausted.
    hyperparameters: declarations that are known beforehand; they win over the program's.
    seed: None is replaced by the study's own seed, which the store keeps, before the first `ask`.
    """

    def __init__(
        self,
        *,
        objective: Objective | str | Sequence[Objective | str] | None = None,
        max_trials: int | None = None,
        hyperparameters: HyperParameters | None = None,
        allow_new_entries: bool = True,
        tune_new_entries: bool = True,
        seed: int | None = None,
        max_retries_per_trial: int = 0,
        max_consecutive_failed_trials: int = 3,
    ) -> None:
        if hyperparameters is None and not (allow_new_entries and tune_new_entries):
            raise FatalValueError(
                "allow_new_entries=False and tune_new_entries=False restrict the search to given "
                "hyperparameters: pass them with hyperparameters=HyperParameters()"
            )
        self.objective = create_objective(objective)
        self.max_trials = _checked("max_trials", max_trials, at_least=1)
        self.hyperparameters = hyperparameters.copy() if hyperparameters else HyperParameters()
        self.allow_new_entries = allow_new_entries
        self.tune_new_entries = tune_new_entries
        self.seed = _checked("seed", seed, at_least=None)
        self.max_retries_per_trial = _checked(
            "max_retries_per_trial", max_retries_per_trial, at_least=0
        )
        self.max_consecutive_failed_trials = _checked(
            "max_consecutive_failed_trials", max_consecutive_failed_trials, at_least=1
        )

    def tunable(self, history: History) -> Space:
        """Return the space whose values the oracle proposes; other names take their default."""
        return history.space if self.tune_new_entries else Space(self.hyperparameters.space)

    @property
    def chance(self) -> int:
        """The seed that every draw derives from. FatalRuntimeError before the search has set it."""
        if self.seed is None:
            raise FatalRuntimeError("the oracle has no seed yet: the search sets it when it opens")
        return self.seed

    @abstractmethod
    def ask(self, history: History, number: int) -> Answer:
        """Return what to do next; `number` is the number that a new trial would get."""

    def judge(self, trial: Trial, observation: Observation) -> Verdict:
        """Rule on a running trial whose newest report is `observation`."""
        return Verdict.CONTINUE

    def tell(self, trial: Trial) -> None:  # noqa: B027  optional
        """Learn that `trial` is over or paused."""

    def is_duplicate(self, history: History, trial: Trial) -> bool:
        """Tell whether `trial`, whose path is now known better, is the point of another trial."""
        return False


def _checked(name: str, value: Count, *, at_least: int | None) -> Count:
    """Return `value` if it is None or a whole number in range."""
    if value is None:
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        raise FatalTypeError(f"{name}={value!r}: a whole number is needed")
    if at_least is not None and value < at_least:
        raise FatalValueError(f"{name}={value}: it must be {at_least} or more")
    return value
