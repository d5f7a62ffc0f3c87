"""What the trials of a search had reached at each step, kept sorted as the reports come.

A trial's standing at a step is the best that it had reached by then: that is what its score will be. All
trials that reported at a step are compared there, also those in progress: so a rule begins to work while the
first trials still run. Whether those count that a rule has ended is the pruner's choice.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from aiotune.history import History
from aiotune.objective import Objective
from aiotune.pruners.reports import Loss, is_deciding, loss_of, total
from aiotune.trial import Observation, Run, Trial, TrialState

__all__ = ["Place", "Standings"]

_MOST_AT_FIRST = 64


@dataclass(frozen=True, slots=True)
class Place:
    """Where a trial stands among the others at its newest step."""

    step: int
    former: int | None  # the last step before it at which the objective was reported
    others: int  # trials with a value at this step
    better: int  # of these, those that were strictly better

    @property
    def text(self) -> str:
        return f"at step {self.step}, {self.better} of {self.others} other trials had been better"


class _Line:
    """Numbers in their order: how many are below one of them is a matter of log(n)."""

    def __init__(self) -> None:
        self._values: list[float] = []

    def __len__(self) -> int:
        return len(self._values)

    def add(self, loss: Loss) -> None:
        insort(self._values, loss[0])

    def remove(self, loss: Loss) -> None:
        del self._values[bisect_left(self._values, loss[0])]

    def better(self, loss: Loss) -> int:
        return bisect_left(self._values, loss[0])


class _Cloud:
    """Points of several numbers, (d, n), and the Pareto rank of each: how many others dominate it.

    Fonseca and Fleming 1993, section 3. Ranks are kept up as points come, at O(n d) each.
    """

    def __init__(self, width: int) -> None:
        self._count = 0
        self._points = np.empty((width, _MOST_AT_FIRST))
        self._ranks = np.zeros(_MOST_AT_FIRST, dtype=np.intp)

    def __len__(self) -> int:
        return self._count

    def add(self, loss: Loss) -> None:
        if self._count == len(self._ranks):
            self._points = np.hstack([self._points, np.empty_like(self._points)])
            self._ranks = np.append(self._ranks, np.zeros_like(self._ranks))
        rank = self._rank(loss)
        self._ranks[: self._count] += self._is_dominated(loss)
        self._points[:, self._count], self._ranks[self._count] = loss, rank
        self._count += 1

    def remove(self, loss: Loss) -> None:
        known, own = self._known(loss)
        index = int(np.flatnonzero((known == own).all(axis=0))[0])
        self._points[:, index : self._count - 1] = self._points[:, index + 1 : self._count]
        self._ranks[index : self._count - 1] = self._ranks[index + 1 : self._count]
        self._count -= 1
        self._ranks[: self._count] -= self._is_dominated(loss)

    def better(self, loss: Loss) -> int:
        """Return how many points have a lower rank than `loss`, which is one of them."""
        return int(np.count_nonzero(self._ranks[: self._count] < self._rank(loss)))

    def _rank(self, loss: Loss) -> int:
        known, own = self._known(loss)
        return int(np.count_nonzero((known <= own).all(axis=0) & (known < own).any(axis=0)))

    def _is_dominated(self, loss: Loss) -> npt.NDArray[np.bool_]:
        known, own = self._known(loss)
        return np.asarray((known >= own).all(axis=0) & (known > own).any(axis=0))

    def _known(self, loss: Loss) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the points and one of them, to be compared: (d, n), (d, 1)."""
        return self._points[:, : self._count], np.array(loss)[:, None]


@dataclass(slots=True)
class _Followed:
    """How far a trial was read. entries: each step that has a value, and the best until then."""

    run: int = -1
    reports_read: int = 0
    entries: list[tuple[int, Loss]] = field(default_factory=list)


class Standings:
    """Who had reached what, at each step. Trials of different groups are not compared.

    has_pruned: trials that a rule has ended still count, up to their last step. lineage: that of the search's
    history; see `History`.
    """

    def __init__(
        self,
        history: History,
        objective: Objective,
        group_of: Callable[[Trial], int] | None = None,
        *,
        has_pruned: bool,
    ) -> None:
        self.lineage = history.lineage
        self._objective = objective
        self._group_of = group_of or (lambda trial: 0)
        self._has_pruned = has_pruned
        self._moves_read = 0
        self._followed: dict[str, _Followed] = {}
        self._tables: dict[tuple[int, int], _Line | _Cloud] = {}  # by group and step

    def place(self, history: History, trial: Trial, run: Run) -> Place | None:
        """Return where a trial stands whose run has just reported; None if that is not to be judged."""
        self._read(history, trial)
        if not is_deciding(run) or not run.observations:
            return None
        entries = self._followed[trial.trial_id].entries
        newest = run.observations[-1]
        if not entries or entries[-1][0] != newest.step:
            return None  # the objective was not among the metrics, or not a number
        step, best = entries[-1]
        table = self._table(trial, step)
        former = entries[-2][0] if len(entries) > 1 else None
        return Place(step, former, len(table) - 1, table.better(best))

    def _read(self, history: History, reporting: Trial) -> None:
        """Take in what came since the last call.

        A report is followed by a call for its trial. What comes otherwise, before a search is resumed or where
        an oracle has ended a run, is read when its trial moves to another state.
        """
        moved = history.moved_trials(after=self._moves_read)
        self._moves_read = history.move_count
        for trial in [*moved, reporting]:
            self._follow(trial)
            if trial.state is TrialState.PRUNED and not self._has_pruned:
                self._forget(trial)

    def _forget(self, trial: Trial) -> None:
        entries = self._followed[trial.trial_id].entries
        for step, loss in entries:
            self._table(trial, step).remove(loss)
        entries.clear()

    def _follow(self, trial: Trial) -> None:
        followed = self._followed.setdefault(trial.trial_id, _Followed())
        for run in trial.runs:
            if run.index < followed.run or not is_deciding(run):
                continue
            if run.index > followed.run and run.observations:
                self._take_back(trial, followed, run)
                followed.run, followed.reports_read = run.index, 0
            for each in run.observations[followed.reports_read :]:
                self._take(trial, followed, each)
            if run.index == followed.run:
                followed.reports_read = len(run.observations)

    def _take_back(self, trial: Trial, followed: _Followed, run: Run) -> None:
        """Forget the steps that the run reports anew: it was interrupted, or is tried again."""
        begin = run.observations[0].step
        while followed.entries and followed.entries[-1][0] >= begin:
            step, loss = followed.entries.pop()
            self._table(trial, step).remove(loss)

    def _take(self, trial: Trial, followed: _Followed, observation: Observation) -> None:
        loss = loss_of(observation.metrics, self._objective)
        if loss is None:
            return
        if followed.entries:
            former = followed.entries[-1][1]
            loss = min(former, loss, key=lambda each: total(each, self._objective))
        followed.entries.append((observation.step, loss))
        self._table(trial, observation.step).add(loss)

    def _table(self, trial: Trial, step: int) -> _Line | _Cloud:
        key = (self._group_of(trial), step)
        if key not in self._tables:
            width = len(self._objective.parts)
            self._tables[key] = _Cloud(width) if self._objective.seeks_front else _Line()
        return self._tables[key]
