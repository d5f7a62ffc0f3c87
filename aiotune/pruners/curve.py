"""Ends what has hardly a chance left to become the best, as its learning curve goes.

Domhan et al. 2015: extrapolate the curve to the end of training, and compare with the best value of the search.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from aiotune.errors import FatalValueError
from aiotune.history import History
from aiotune.objective import Objective
from aiotune.oracles.options import whole_number
from aiotune.pareto import dominates
from aiotune.pruners.base import Pruner
from aiotune.pruners.extrapolation import LEAST_POINTS, chance_below
from aiotune.pruners.options import number
from aiotune.pruners.reports import Loss, Rhythm, is_deciding, loss_of
from aiotune.trial import Run, Trial, TrialState

__all__ = ["CurvePruner"]

_MEASURED = frozenset({TrialState.COMPLETED, TrialState.PRUNED, TrialState.PAUSED})


class CurvePruner(Pruner):
    """Ends a trial that will hardly reach the best value of the other trials by the end of its training.

    min_chance: a trial with less of a chance is ended. steps: how many steps a run trains for, epochs with
    Keras; None: as many as the longest run so far of a trial that is over. n_startup_trials: none is ended
    before so many trials are over. n_warmup_steps: none is judged before this step, nor before its fourth
    report. interval_steps: one is judged once in so many steps.

    With several objectives, the chance is the one not to be dominated by any trial of the front.
    """

    def __init__(
        self,
        min_chance: float = 0.05,
        steps: int | None = None,
        n_startup_trials: int = 5,
        n_warmup_steps: int = 0,
        interval_steps: int = 1,
    ) -> None:
        self.min_chance = number("min_chance", min_chance)
        if not 0 < self.min_chance < 1:
            raise FatalValueError(f"min_chance={min_chance}: it must be between 0 and 1")
        self.steps = None if steps is None else whole_number("steps", steps)
        if self.steps is not None and self.steps <= max(LEAST_POINTS, n_warmup_steps):
            raise FatalValueError(
                f"CurvePruner(steps={steps}) has no effect: it looks from the fourth report on, and after "
                f"n_warmup_steps={n_warmup_steps}"
            )
        self.n_startup_trials = whole_number("n_startup_trials", n_startup_trials)
        self._rhythm = Rhythm(n_warmup_steps, interval_steps)
        self._rivals: _Rivals | None = None

    def judge(self, history: History, trial: Trial, run: Run) -> str | None:
        if trial.objective is None:
            return None
        if self._rivals is None or self._rivals.lineage is not history.lineage:
            self._rivals = _Rivals(history.lineage, trial.objective)
        rivals = self._rivals
        rivals.read(history, trial)
        if not is_deciding(run) or rivals.over < self.n_startup_trials:
            return None
        steps, losses = _curve(trial, run, trial.objective)
        if not self._is_due(run, steps):
            return None
        end = max(rivals.last_step if self.steps is None else self.steps - 1, steps[-1])
        chance = _chance(steps, losses, end, rivals.front(trial))
        if chance >= self.min_chance:
            return None
        return f"at step {steps[-1]}, its chance to be the best by step {end} is {chance:.2g}"

    def _is_due(self, run: Run, steps: list[int]) -> bool:
        if len(steps) < LEAST_POINTS or steps[-1] != run.observations[-1].step:
            return False
        return self._rhythm.is_due(steps[-1], steps[-2])


def _curve(trial: Trial, run: Run, objective: Objective) -> tuple[list[int], list[Loss]]:
    """Return the steps of a run that have values, and what each objective had reached by then at best."""
    steps: list[int] = []
    losses: list[Loss] = []
    for each in trial.curve(run):
        loss = loss_of(each.metrics, objective)
        if loss is None or not all(map(math.isfinite, loss)):
            continue
        steps.append(each.step)
        losses.append(tuple(map(min, losses[-1], loss)) if losses else loss)
    return steps, losses


def _chance(steps: list[int], losses: list[Loss], end: int, front: list[Loss]) -> float:
    """Return the probability that no trial of the front dominates the end of a curve.

    Of several objectives it is an upper limit: they are taken for independent, each at its own best step.
    """
    if not front:
        return 1.0
    goals = np.array(front)
    failing = np.ones(len(front))
    for part in range(goals.shape[1]):
        own = [each[part] for each in losses]
        failing *= 1.0 - chance_below(steps, own, end, goals[:, part])
    return float((1.0 - failing).min())


class _Rivals:
    """The best values that the trials of a search had at any step, by their first repeats.

    lineage: that of the search's history; see `History`.
    """

    def __init__(self, lineage: object, objective: Objective) -> None:
        self.lineage = lineage
        self.last_step = 0  # that any trial which is over, or paused, has reached
        self._objective = objective
        self._over: set[str] = set()
        self._moves_read = 0
        self._front: list[tuple[str, Loss]] = []

    @property
    def over(self) -> int:
        """How many trials with a score are over, or paused."""
        return len(self._over)

    def front(self, trial: Trial) -> list[Loss]:
        """Return the values of other trials that none of them beats: of one objective, the best."""
        return [loss for trial_id, loss in self._front if trial_id != trial.trial_id]

    def read(self, history: History, reporting: Trial) -> None:
        """Take in what came since the last call. A report is followed by a call for its trial."""
        moved = history.moved_trials(after=self._moves_read)
        self._moves_read = history.move_count
        for trial in moved:
            self._take_all(trial)
        for run in reporting.runs:
            if is_deciding(run) and run.observations:
                self._take(reporting, run.observations[-1].metrics)

    def _take_all(self, trial: Trial) -> None:
        reports = [each for run in trial.runs if is_deciding(run) for each in run.observations]
        for each in reports:
            self._take(trial, each.metrics)
        if trial.state in _MEASURED and trial.has_score:
            self._over.add(trial.trial_id)
            self.last_step = max([self.last_step, *(each.step for each in reports)])

    def _take(self, trial: Trial, metrics: Mapping[str, float]) -> None:
        loss = loss_of(metrics, self._objective)
        if loss is None or any(each == loss or dominates(each, loss) for _, each in self._front):
            return
        self._front = [each for each in self._front if not dominates(loss, each[1])]
        self._front.append((trial.trial_id, loss))
