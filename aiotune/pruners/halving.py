"""Successive halving by stopping: at each rung only the best of those that got there go on.

Li et al. 2020 (ASHA), in the form that stops trials instead of pausing them; see Klein et al. 2020, section 3.
"""

from __future__ import annotations

from aiotune.history import History
from aiotune.oracles.options import whole_number
from aiotune.pruners.base import Pruner
from aiotune.pruners.standings import Place, Standings
from aiotune.trial import Run, Trial

__all__ = ["SuccessiveHalvingPruner"]


class SuccessiveHalvingPruner(Pruner):
    """At the ends of rungs, goes on with the best 1 / `reduction_factor` of the trials that got there by then.

    min_resource: how many steps the first rung has; each further one ends `reduction_factor` times later.
    min_early_stopping_rate: so many of the first rungs are passed over. n_brackets: trials are dealt out to
    so many groups, each of which passes over one rung more than the one before, as Hyperband's brackets do;
    trials of different groups are not compared.

    The first trials at a rung, fewer than `reduction_factor`, all go on. Nothing waits: a trial that passed
    is not called back when better ones come. Several objectives are compared by Pareto rank.
    """

    def __init__(
        self,
        min_resource: int = 1,
        reduction_factor: int = 4,
        min_early_stopping_rate: int = 0,
        n_brackets: int = 1,
    ) -> None:
        self.min_resource = whole_number("min_resource", min_resource)
        self.reduction_factor = whole_number("reduction_factor", reduction_factor, at_least=2)
        self.min_early_stopping_rate = whole_number(
            "min_early_stopping_rate", min_early_stopping_rate, at_least=0
        )
        self.n_brackets = whole_number("n_brackets", n_brackets)
        self._shares = _shares(self.n_brackets, self.reduction_factor)
        self._standings: Standings | None = None

    def bracket_of(self, trial: Trial) -> int:
        """Return the group of a trial, from 0, the one that ends the most trials."""
        place = _spread(trial.number)
        return next(bracket for bracket, below in enumerate(self._shares) if place < below)

    def judge(self, history: History, trial: Trial, run: Run) -> str | None:
        if trial.objective is None:
            return None
        if self._standings is None or self._standings.lineage is not history.lineage:
            self._standings = Standings(history, trial.objective, self.bracket_of, has_pruned=True)
        place = self._standings.place(history, trial, run)
        if place is None or not self._ends_rung(place, self.bracket_of(trial)):
            return None
        entered = place.others + 1
        if entered < self.reduction_factor or place.better < entered // self.reduction_factor:
            return None
        return f"{place.text}: one of {self.reduction_factor} goes on"

    def _ends_rung(self, place: Place, bracket: int) -> bool:
        """Tell whether a rung ends after the last step before this one that was looked at, and not after it."""
        end: int = self.min_resource * self.reduction_factor ** (
            self.min_early_stopping_rate + bracket
        )
        done = place.step + 1  # steps are counted from 0
        before = 0 if place.former is None else place.former + 1
        while end <= before:
            end *= self.reduction_factor
        return end <= done


def _shares(brackets: int, factor: int) -> list[float]:
    """Return the upper ends of parts of [0, 1), one for each bracket, so that all train about as many steps.

    Li et al. 2018 (Hyperband), Algorithm 1, line 3: with s rungs below its last, a bracket has as many trials
    as (number of brackets) / (s + 1) factor^s.
    """
    sizes = [factor ** (-bracket) / (brackets - bracket) for bracket in range(brackets)]
    ends = [sum(sizes[: bracket + 1]) / sum(sizes) for bracket in range(brackets - 1)]
    return [*ends, 1.0]


def _spread(number: int) -> float:
    """Return a place in [0, 1): those of the first n numbers lie evenly, for every n (van der Corput)."""
    digits = f"{number:b}"
    return int(digits[::-1], 2) / float(2 ** len(digits))
