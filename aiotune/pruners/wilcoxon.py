"""Ends trials whose folds, or repeats, show already that another trial is better.

Wilcoxon 1945: the differences to the best trial, fold by fold, and how probable they are by chance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from aiotune.errors import FatalValueError
from aiotune.history import History
from aiotune.objective import Objective
from aiotune.oracles.options import whole_number
from aiotune.pareto import dominates
from aiotune.pruners.base import Pruner
from aiotune.pruners.options import number
from aiotune.pruners.reports import Loss, loss_of
from aiotune.pruners.signed_rank import least_p, p_value
from aiotune.trial import Run, RunState, Trial, TrialState

__all__ = ["WilcoxonPruner"]

_MEASURED = frozenset({TrialState.COMPLETED, TrialState.PAUSED})
_Scores = Mapping[int, Loss]  # by repeat


class WilcoxonPruner(Pruner):
    """At the end of each repeat, ends a trial that is worse than the best one, as far as that is certain.

    The scores of its repeats so far are paired with those of the best trial: the same folds, the same
    executions. It is ended if so large differences would come by chance with a probability below
    `p_threshold`.

    n_startup_steps: so many repeats are always run. With k repeats no probability is below 1 / 2^k: of five
    folds, p_threshold=0.1 can save the last one, 0.2 the last two, 0.3 the last three.

    With several objectives, a trial is ended that one of the front beats so certainly in each of them. Trials
    that trained for another number of epochs are not compared.
    """

    judges_reports = False
    judges_ends = True

    def __init__(self, p_threshold: float = 0.1, n_startup_steps: int = 2) -> None:
        self.p_threshold = number("p_threshold", p_threshold)
        if not 0 < self.p_threshold < 1:
            raise FatalValueError(f"p_threshold={p_threshold}: it must be between 0 and 1")
        self.n_startup_steps = whole_number("n_startup_steps", n_startup_steps)
        self._leaders: _Leaders | None = None

    def judge_repeats(self, history: History, trial: Trial) -> str | None:
        objective = trial.objective
        if objective is None:
            return None
        if self._leaders is None or self._leaders.lineage is not history.lineage:
            self._leaders = _Leaders(history.lineage, objective)
        scores = _scores(trial, objective)
        for leader in self._leaders.of(history, trial):
            p = self._p_value(scores, leader.scores)
            if p < self.p_threshold:
                return f"after {len(scores)} repeats it is worse than trial {leader.trial_id} (p = {p:.2g})"
        return None

    def check(self, objective: Objective, repeats: int) -> None:
        if repeats < 2:
            raise FatalValueError(
                "WilcoxonPruner has no effect without repeats: pass folds=, or executions_per_trial="
            )
        most = max(0, repeats - 1)  # after the last one there is nothing left to save
        if self.n_startup_steps > most or least_p(most) >= self.p_threshold:
            raise FatalValueError(
                f"WilcoxonPruner(p_threshold={self.p_threshold:g}, n_startup_steps={self.n_startup_steps}) "
                f"has no effect on {repeats} repeats: after {most} of them, no probability is below "
                f"{least_p(most):.3g}. Pass a larger p_threshold, or more folds or executions_per_trial"
            )

    def _p_value(self, own: _Scores, other: _Scores) -> float:
        """Return the probability of the differences: of several objectives, the largest of theirs."""
        shared = [repeat for repeat in own if repeat in other]
        if len(shared) < self.n_startup_steps:
            return 1.0
        worse = [[a - b for a, b in zip(own[each], other[each], strict=True)] for each in shared]
        columns = list(zip(*worse, strict=True))
        # For safety, as the mean is what trials are compared by in the end.
        if any(not math.fsum(column) > 0 for column in columns):
            return 1.0
        return max(map(p_value, columns))


@dataclass(frozen=True, slots=True)
class _Leader:
    trial_id: str
    mean: Loss
    scores: _Scores


class _Leaders:
    """The best of the trials that have all their repeats, for each number of epochs; with a front, its trials.

    lineage: that of the search's history; see `History`.
    """

    def __init__(self, lineage: object, objective: Objective) -> None:
        self.lineage = lineage
        self._objective = objective
        self._moves_read = 0
        self._known: dict[int | None, list[_Leader]] = {}

    def of(self, history: History, trial: Trial) -> list[_Leader]:
        """Return those that a trial is to be compared with."""
        moved = history.moved_trials(after=self._moves_read)
        self._moves_read = history.move_count
        for each in moved:
            if each.state in _MEASURED and each.has_score:
                self._take(each)
        known = self._known.get(_epochs(trial), [])
        return [each for each in known if each.trial_id != trial.trial_id]

    def _take(self, trial: Trial) -> None:
        scores = _scores(trial, self._objective)
        if not scores:
            return
        columns = zip(*scores.values(), strict=True)
        new = _Leader(trial.trial_id, tuple(math.fsum(c) / len(scores) for c in columns), scores)
        known = self._known.setdefault(_epochs(trial), [])
        if any(each.mean == new.mean or dominates(each.mean, new.mean) for each in known):
            return  # of equal ones, the first
        known[:] = [each for each in known if not dominates(new.mean, each.mean)]
        known.append(new)


def _epochs(trial: Trial) -> int | None:
    return None if trial.budget is None else trial.budget.epochs


def _scores(trial: Trial, objective: Objective) -> dict[int, Loss]:
    """Return what each repeat reached under the trial's present budget."""
    found = ((run.repeat, _score(run, objective)) for run in trial.runs if _counts(trial, run))
    return {repeat: loss for repeat, loss in found if loss is not None}


def _counts(trial: Trial, run: Run) -> bool:
    return run.state is RunState.FINISHED and run.budget == trial.budget


def _score(run: Run, objective: Objective) -> Loss | None:
    loss = loss_of(run.metrics, objective)
    return loss if loss is not None and all(map(math.isfinite, loss)) else None
