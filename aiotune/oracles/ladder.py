"""The trials of one bracket, rung by rung, as the facts of a search move them.

Each trial is looked at where it moves, and only what has changed is counted anew: a rung of 100,000 trials is
kept up with in microseconds. What stands here follows from how the trials stand now, not from how they came
there.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from statistics import fmean

from aiotune.errors import StoreMismatch
from aiotune.learning.fidelity import runs_under
from aiotune.objective import Objective
from aiotune.trial import Budget, Trial, TrialState

__all__ = ["Ladder", "Level", "Place", "cost_of", "mismatch"]

# Score, less being better; number, for of equals the older one counts; id.
Place = tuple[float, int, str]


class _Phase(Enum):
    """What becomes of a trial in a rung."""

    TRAINING = auto()
    WAITING = auto()  # has its result there, and may be promoted
    PROMOTED = auto()
    LOST = auto()  # can go no further


@dataclass(frozen=True, slots=True)
class _Mark:
    phase: _Phase
    place: Place | None = None  # None: no score there


@dataclass(slots=True)
class Level:
    """The trials of one rung. Those in the rungs above were in it, and are over with it.

    ranking: those with a score there, best first. waiting: of these, those that may be promoted.
    """

    entered: int = 0
    finished: int = 0  # have their result there, if only a failure
    lost: int = 0  # of these, those that can go no further
    ranking: list[Place] = field(default_factory=list)
    waiting: list[Place] = field(default_factory=list)

    @property
    def training(self) -> int:
        """How many have no result there yet."""
        return self.entered - self.finished

    def rank(self, place: Place) -> int:
        """Return how many are better."""
        return bisect_left(self.ranking, place)

    def change(self, before: _Mark | None, after: _Mark | None) -> None:
        """Count a trial as `after`, and no longer as `before`; None: it is not there."""
        for mark, sign in ((before, -1), (after, 1)):
            if mark is not None:
                self.entered += sign
                self.finished += sign * (mark.phase is not _Phase.TRAINING)
                self.lost += sign * (mark.phase is _Phase.LOST)
        _exchange(self.ranking, _place(before), _place(after))
        _exchange(self.waiting, _waiting(before), _waiting(after))


class Ladder:
    """One bracket with its trials. budgets: those of its rungs."""

    def __init__(self, budgets: Sequence[Budget], objective: Objective) -> None:
        self.budgets = tuple(budgets)
        self.levels = [Level() for _ in budgets]
        self._objective = objective
        # Of each trial, for each rung that it entered.
        self._marks: dict[str, tuple[_Mark, ...]] = {}

    def grants(self, budget: Budget) -> bool:
        """Tell whether the budget is that of one of the rungs."""
        rung = budget.rung
        return rung is not None and rung < len(self.budgets) and self.budgets[rung] == budget

    def follow(self, trial: Trial) -> bool:
        """Take in where a trial stands now; tell whether that is new."""
        before = self._marks.get(trial.trial_id, ())
        if trial.state is TrialState.RUNNING and before and before[-1].phase is _Phase.TRAINING:
            return False  # every second move
        after = tuple(self._marks_of(trial, before))
        if after == before:
            return False
        for index, level in enumerate(self.levels):
            old, new = _at(before, index), _at(after, index)
            if old != new:
                level.change(old, new)
        self._marks[trial.trial_id] = after
        return True

    def _marks_of(self, trial: Trial, before: Sequence[_Mark]) -> list[_Mark]:
        if trial.state is TrialState.DUPLICATE:
            return []
        assert trial.budget is not None
        assert trial.budget.rung is not None
        rung = trial.budget.rung
        passed = [
            _Mark(_Phase.PROMOTED, self._place(trial, index, before)) for index in range(rung)
        ]
        return [*passed, self._mark(trial, rung, before)]

    def _mark(self, trial: Trial, rung: int, before: Sequence[_Mark]) -> _Mark:
        """Return how a trial stands in the rung of its present budget."""
        if trial.state is TrialState.PAUSED and trial.has_score:
            assert trial.score is not None
            return _Mark(_Phase.WAITING, self._placed(trial, trial.score))
        if trial.state is TrialState.COMPLETED and rung < len(self.levels) - 1:
            return _Mark(_Phase.LOST, self._place(trial, rung, before))  # it was retired
        if trial.is_over or trial.state is TrialState.PAUSED:
            return _Mark(_Phase.LOST)
        return _Mark(_Phase.TRAINING)

    def _place(self, trial: Trial, rung: int, before: Sequence[_Mark]) -> Place | None:
        """Return the place of a trial in a rung that it has passed; None without a score there."""
        if rung < len(before) and before[rung].place is not None:
            return before[rung].place
        runs = runs_under(trial, self.budgets[rung], self._objective)
        if not runs:
            return None
        return self._placed(trial, fmean(self._objective.get_value(run.metrics) for run in runs))

    def _placed(self, trial: Trial, score: float) -> Place:
        return cost_of(score, self._objective), trial.number, trial.trial_id


def cost_of(score: float, objective: Objective) -> float:
    """Return the score such that less is better."""
    return score if objective.direction == "min" else -score


def mismatch(trial: Trial, budget: Budget) -> StoreMismatch:
    """Return the error for a trial whose budget is that of no rung."""
    reached = (
        f"{budget.epochs} epochs" if budget.share is None else f"{budget.share:.1%} of the data"
    )
    return StoreMismatch(
        f"trial {trial.trial_id} of this project was trained with another max_epochs or factor, min_epochs or "
        f"resource ({reached} in rung {budget.rung} of bracket {budget.bracket}): restore them, choose another "
        "project_name, or pass overwrite=True to begin anew"
    )


def _at(marks: Sequence[_Mark], index: int) -> _Mark | None:
    return marks[index] if index < len(marks) else None


def _place(mark: _Mark | None) -> Place | None:
    return None if mark is None else mark.place


def _waiting(mark: _Mark | None) -> Place | None:
    return mark.place if mark is not None and mark.phase is _Phase.WAITING else None


def _exchange(places: list[Place], old: Place | None, new: Place | None) -> None:
    """Take one place out of the sorted ones, and another in."""
    if old == new:
        return
    if old is not None:
        del places[bisect_left(places, old)]
    if new is not None:
        insort(places, new)
