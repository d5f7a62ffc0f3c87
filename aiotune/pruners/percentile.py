"""Ends what is not among the best share of the trials at a step: the median rule, and any other share."""

from __future__ import annotations

from aiotune.errors import FatalValueError
from aiotune.history import History
from aiotune.oracles.options import whole_number
from aiotune.pruners.base import Pruner
from aiotune.pruners.options import number
from aiotune.pruners.reports import Rhythm
from aiotune.pruners.standings import Standings
from aiotune.trial import Run, Trial

__all__ = ["MedianPruner", "PercentilePruner"]


class PercentilePruner(Pruner):
    """Goes on with the best `percentile` percent of the trials at each step, and ends the others.

    A trial is ended if, at a step, more than that share of the other trials had been better by then. It is
    compared with all that reported at this step, also those in progress, but for those that a rule has ended:
    so the bar rises as a search goes on. (The median stopping rule of Golovin et al. 2017, section 3.2.2, takes
    completed trials only, and the means of what they had reported by then.)

    n_startup_trials: no trial is judged at a step that fewer others have reached, so that the first ones run
    in full. n_warmup_steps: none is judged before this step; steps, as Keras's epochs, are counted from 0.
    interval_steps: one is judged once in so many steps. The more often, the sterner: who stays must be good
    enough each time. Several objectives are compared by Pareto rank.
    """

    def __init__(
        self,
        percentile: float,
        n_startup_trials: int = 5,
        n_warmup_steps: int = 0,
        interval_steps: int = 1,
    ) -> None:
        self.percentile = number("percentile", percentile)
        if not 0 <= self.percentile < 100:
            raise FatalValueError(
                f"percentile={percentile}: it must be 0 or more, and below 100, which would end no trial"
            )
        self.n_startup_trials = whole_number("n_startup_trials", n_startup_trials)
        self._rhythm = Rhythm(n_warmup_steps, interval_steps)
        self._standings: Standings | None = None

    def judge(self, history: History, trial: Trial, run: Run) -> str | None:
        if trial.objective is None:
            return None
        if self._standings is None or self._standings.lineage is not history.lineage:
            self._standings = Standings(history, trial.objective, has_pruned=False)
        place = self._standings.place(history, trial, run)
        if place is None or not self._rhythm.is_due(place.step, place.former):
            return None
        if place.others < self.n_startup_trials:
            return None
        return place.text if 100 * place.better > self.percentile * place.others else None


class MedianPruner(PercentilePruner):
    """Ends a trial if, at a step, more than half of the other trials had been better by then.

    n_startup_trials, n_warmup_steps, interval_steps: see `PercentilePruner`.
    """

    def __init__(
        self, n_startup_trials: int = 5, n_warmup_steps: int = 0, interval_steps: int = 1
    ) -> None:
        super().__init__(50.0, n_startup_trials, n_warmup_steps, interval_steps)
