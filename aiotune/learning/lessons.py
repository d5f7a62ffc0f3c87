"""What the trials of a search teach, as arrays: where each was, what it scored, whether it broke.

The ground of every oracle that learns. All of it follows from the history, in the order of the trials' ends.

Shapes: n trials, p axes, d objectives, b trials in flight.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from copy import copy

import numpy as np

from aiotune.history import History
from aiotune.learning.encoding import Encoding, Flags
from aiotune.learning.gates import Gates
from aiotune.learning.gaussian_process import Array, Indices
from aiotune.objective import MultiObjective, Objective
from aiotune.pareto import goals
from aiotune.space import Space, unit_draw
from aiotune.trial import Trial, TrialState

__all__ = ["Lessons"]

_BROKEN = frozenset({TrialState.FAILED, TrialState.INFEASIBLE})


class Lessons:
    """The trials that are over, but for duplicates and those that met nothing; `read` adds the new ones.

    places: (n, p), NaN where a trial met nothing. scores: (n,), smaller is better, NaN where there is none.
    goals: (n, d), the same of each objective, where a front is sought; else (n, 1), the scores. variances:
    (n,), of a score as the mean of several runs; NaN where there was one run. is_broken: (n,), trials that
    failed or turned out infeasible. is_settled: (n,), whether all that the trial met is known. draws: (n,),
    one number in [0, 1) for each trial, the same whenever it is looked at.
    """

    def __init__(self, space: Space, objective: Objective) -> None:
        self.encoding = Encoding(space)
        self.objective = objective
        self._ends_read = 0
        self.trials: list[Trial] = []
        self._known: set[str] = set()  # their ids
        self.places = np.empty((0, len(self.encoding.axes)))
        self.scores = np.empty(0)
        self.goals = np.empty((0, len(objective.parts) if objective.seeks_front else 1))
        self.variances = np.empty(0)
        self.is_broken = np.empty(0, dtype=bool)
        self.is_settled = np.empty(0, dtype=bool)
        self.draws = np.empty(0)

    @property
    def count(self) -> int:
        return len(self.trials)

    @property
    def has_scores(self) -> bool:
        return bool(np.isfinite(self.scores).any())

    def read(self, history: History) -> None:
        """Take in the trials that ended since the last call."""
        ended = history.ended_trials(after=self._ends_read)
        self._ends_read += len(ended)
        self.take(ended)

    def take(self, trials: Iterable[Trial]) -> None:
        """Take in trials that are over."""
        rows = [
            (trial, places)
            for trial in trials
            if _teaches(trial) and (places := self.places_of(trial)) is not None
        ]
        if rows:
            self._append([trial for trial, _ in rows], [places for _, places in rows])

    def result_of(self, trial: Trial) -> Array:
        """Return a trial's score, then its goals: (1 + d,)."""
        return np.array([self._score(trial), *self._goals(trial)])

    def counted_as(self, scores: Array, goals: Array, is_broken: Flags) -> Lessons:
        """Return the same trials, in their order, with other results: (n,), (n, d), (n,)."""
        found = copy(self)
        found.trials = list(self.trials)
        found.scores, found.goals, found.is_broken = scores, goals, is_broken
        return found

    def places_of(self, trial: Trial) -> Array | None:
        """Return where a trial is, by what it met, or else by what was proposed: (p,); None if nowhere."""
        if trial.is_path_complete:
            return self.encoding.places(trial.values, trial.space)
        places = self.encoding.places(trial.values, self.encoding.space.active(trial.values))
        return None if np.isnan(places).all() else places

    def pending(self, history: History) -> Array:
        """Return where the trials in flight are, by what is known of them: (b, p).

        One that has taught something already, under a smaller budget, is none of them.
        """
        unknown = [each for each in history.trials_in_flight() if each.trial_id not in self._known]
        found = [self.places_of(trial) for trial in unknown]
        known = [places for places in found if places is not None]
        return np.array(known) if known else np.empty((0, len(self.encoding.axes)))

    @property
    def reference(self) -> tuple[float, ...] | None:
        """The user's reference point of the hypervolume, less being better; None: not given."""
        given = self.objective.reference if isinstance(self.objective, MultiObjective) else None
        return None if given is None else self.objective.minimised(given)

    def gates(self, count: int) -> Gates:
        """Return which axes are active where, as the first `count` trials show."""
        return Gates(self.encoding, self.places[:count][self.is_settled[:count]])

    def ranked(self, count: int) -> Indices:
        """Return the first `count` trials, best score first; those without one last."""
        scores = self.scores[:count]
        return np.argsort(np.where(np.isnan(scores), np.inf, scores), kind="stable")

    def leaders(self) -> Indices:
        """Return all trials with a score, best first: (k,). Those of the front come before all others."""
        ranked = self.ranked(self.count)
        ranked = ranked[~np.isnan(self.scores[ranked])]
        if self.goals.shape[1] == 1:
            return ranked
        goals = self.goals[ranked]
        is_no_worse = (goals[:, None] <= goals[None]).all(axis=2)
        is_better = (goals[:, None] < goals[None]).any(axis=2)
        is_dominated = (is_no_worse & is_better).any(axis=0)
        return np.concatenate([ranked[~is_dominated], ranked[is_dominated]])

    def _append(self, trials: Sequence[Trial], places: Sequence[Array]) -> None:
        self.trials.extend(trials)
        self._known.update(each.trial_id for each in trials)
        self.places = np.vstack([self.places, *places])
        self.scores = np.append(self.scores, [self._score(each) for each in trials])
        self.goals = np.vstack([self.goals, *(self._goals(each) for each in trials)])
        self.variances = np.append(self.variances, [_variance(each) for each in trials])
        self.is_broken = np.append(self.is_broken, [_is_broken(each) for each in trials])
        self.is_settled = np.append(self.is_settled, [each.is_path_complete for each in trials])
        self.draws = np.append(self.draws, [unit_draw(0, "chosen", each.number) for each in trials])

    def _score(self, trial: Trial) -> float:
        if trial.score is None or _is_broken(trial):
            return math.nan
        return trial.score if self.objective.direction == "min" else -trial.score

    def _goals(self, trial: Trial) -> Array:
        if not self.objective.seeks_front:
            return np.array([self._score(trial)])
        if _is_broken(trial):
            return np.full(len(self.objective.parts), math.nan)
        return np.array(goals(self.objective, trial))


def _teaches(trial: Trial) -> bool:
    """Tell whether a trial that is over shows anything: not a duplicate, nor one pruned before a report."""
    return trial.state is not TrialState.DUPLICATE and (_is_broken(trial) or trial.has_score)


def _is_broken(trial: Trial) -> bool:
    # A trial may complete with a score that is not a number, where an overridden run_trial returned that.
    return trial.state in _BROKEN or (trial.score is not None and math.isnan(trial.score))


def _variance(trial: Trial) -> float:
    error = trial.standard_error
    return math.nan if error is None else error * error
