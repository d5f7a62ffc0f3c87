"""ASHA, asynchronous successive halving: no trial ever waits for a rung to be complete.

Li et al. 2020 (MLSys, "A System for Massively Parallel Hyperparameter Tuning"), Algorithm 2: whenever there is
room, a trial among the best 1 / factor of those that have finished a rung so far is promoted, the highest rung
first; if there is none, a new trial begins. So no slot ever idles, and some trials are promoted that turn out
not to be among the best: **the promotions depend on the order in which runs end**, other than Hyperband's.

Everything is read off the trials' budgets and states: a resumed search goes on as the uninterrupted one would.
The variant that stops runs instead is in `stopping`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Unpack

from aiotune.errors import FatalValueError
from aiotune.history import History
from aiotune.objective import Objective
from aiotune.oracles.base import Answer, Exhausted, Oracle, Promote, Retire, Suggest, Wait
from aiotune.oracles.brackets import (
    Bracket,
    BracketPlan,
    Resource,
    Rung,
    brackets_of,
    budgets_of,
    require_whole,
)
from aiotune.oracles.budgeted import BudgetedOracle
from aiotune.oracles.ladder import Ladder, mismatch
from aiotune.oracles.model_based import OracleOptions
from aiotune.space import unit_draw
from aiotune.trial import Budget, Trial

__all__ = ["AshaOracle"]


class AshaOracle(BudgetedOracle):
    """Trains many points for few epochs and the best of them for more, without ever waiting.

    max_epochs, factor, min_epochs, sampler, resource: as for Hyperband. max_trials: how many points are tried;
    None: until the space is exhausted, or a limit of the search is reached. brackets: the first of Hyperband's;
    a trial is drawn into one of them, with the chance that Hyperband's numbers of trials give it.

    A trial that has reached a rung pauses, and goes on when it is among the best there. Its score at a rung is
    its best one since the rung before.
    """

    def __init__(
        self,
        objective: Objective | str | Sequence[Objective | str] | None = None,
        max_epochs: int = 100,
        factor: int = 3,
        min_epochs: int = 1,
        max_trials: int | None = 100,
        brackets: int = 1,
        sampler: str | Oracle = "random",
        resource: Resource = "epochs",
        **options: Unpack[OracleOptions],
    ) -> None:
        self.brackets = _first_brackets(brackets_of(max_epochs, factor, min_epochs), brackets)
        super().__init__(objective, max_trials, sampler, resource, **options)
        self.max_epochs = max_epochs
        self.min_epochs = min_epochs
        self.factor = factor
        self._field: _Field | None = None

    def plan(self) -> BracketPlan:
        """Return about what the search does: what a bracket gets is drawn, and promotions depend on times.

        FatalValueError without `max_trials`.
        """
        if self.max_trials is None:
            raise FatalValueError(
                "plan() needs max_trials: without, the search has no end of its own"
            )
        total = sum(each.size for each in self.brackets)
        planned = (
            _of_size(each, max(1, round(self.max_trials * each.size / total)), self.factor)
            for each in self.brackets
        )
        return BracketPlan(tuple(planned), 1, self.resource, is_estimate=True)

    def ask(self, history: History, number: int) -> Answer:
        field = self._field_of(history)
        field.catch_up(history)
        to_come = None if self.max_trials is None else self.max_trials - history.counted()
        decided = field.promotion() or field.retirement(to_come)
        if decided is not None:
            return decided
        answer = self.beginning(history, number)
        if history.has_trials_in_flight or isinstance(answer, Suggest):
            return answer
        return field.last_promotion() or answer

    def beginning(self, history: History, number: int) -> Answer:
        """Return a new trial, if there is to be one."""
        if self.max_trials is not None and history.counted() >= self.max_trials:
            is_idle = not history.has_trials_in_flight
            return Exhausted("max_trials were tried") if is_idle else Wait()
        answer = self.suggestion(history, number)
        if isinstance(answer, Suggest):
            return replace(answer, budget=self.first_budget(answer.stream))
        return answer

    def first_budget(self, stream: int) -> Budget:
        """Return what a new trial begins with."""
        return budgets_of(self.bracket_of(stream), resource=self.resource)[0]

    def bracket_of(self, stream: int) -> Bracket:
        """Return the bracket that a new trial is drawn into."""
        limits = list(accumulate(each.size for each in self.brackets))
        u = unit_draw(self.chance, "bracket", stream) * limits[-1]
        return self.brackets[bisect_right(limits, u)]

    def _field_of(self, history: History) -> _Field:
        if self._field is None or self._field.lineage is not history.lineage:
            ladders = {
                each.number: Ladder(budgets_of(each, resource=self.resource), self.objective)
                for each in self.brackets
            }
            self._field = _Field(history.lineage, ladders, self.factor)
        return self._field


class _Field:
    """The brackets of a search with their trials. All of it follows from its history.

    lineage: that of the search's history; see `History`.
    """

    def __init__(self, lineage: object, ladders: dict[int, Ladder], factor: int) -> None:
        self.lineage = lineage
        self._ladders = ladders
        self._factor = factor
        self._moves_read = 0
        # The highest rung first: of those that end at one epoch, that of the bracket with more rungs.
        rungs = [
            (ladder, index)
            for ladder in ladders.values()
            for index in range(len(ladder.levels) - 1)
        ]
        self._rungs = sorted(rungs, key=lambda each: -each[0].budgets[each[1]].epochs)

    def catch_up(self, history: History) -> None:
        """Read what came since the last call. StoreMismatch for trials of another plan that are not over."""
        moved = history.moved_trials(after=self._moves_read)
        self._moves_read = history.move_count
        for trial in moved:
            budget = trial.budget
            if budget is not None and budget.bracket is not None and budget.rung is not None:
                self._follow(trial, budget, budget.bracket)
            # else another algorithm's: its point counts as tried

    def _follow(self, trial: Trial, budget: Budget, bracket: int) -> None:
        ladder = self._ladders.get(bracket)
        if ladder is not None and ladder.grants(budget):
            ladder.follow(trial)
        elif not trial.is_over:
            raise mismatch(trial, budget)  # nothing would ever become of it

    def promotion(self) -> Promote | None:
        """Return a trial that is among the best 1 / factor of its rung, and waits there."""
        for ladder, index in self._rungs:
            level = ladder.levels[index]
            if level.waiting:
                best = level.waiting[0]
                if level.rank(best) < level.finished // self._factor:
                    return Promote(best[2], ladder.budgets[index + 1])
        return None

    def last_promotion(self) -> Promote | None:
        """Return the best of a rung from which nobody went on, once nothing more comes: rungs are too small."""
        for ladder, index in self._rungs:
            waiting = ladder.levels[index].waiting
            if waiting and ladder.levels[index + 1].entered == 0:
                return Promote(waiting[0][2], ladder.budgets[index + 1])
        return None

    def retirement(self, to_come: int | None) -> Retire | None:
        """Return a trial that cannot be among the best of its rung any more. to_come: so many new trials."""
        if to_come is None:
            return None
        for ladder in self._ladders.values():
            for level, most in zip(ladder.levels, self._most(ladder, to_come), strict=True):
                if level.waiting:
                    worst = level.waiting[-1]
                    if level.rank(worst) >= max(1, most // self._factor):
                        return Retire(worst[2])
        return None

    def _most(self, ladder: Ladder, to_come: int) -> Iterator[int]:
        """Yield how many trials each rung may have in the end."""
        # One in its first rung may turn out to be a duplicate, in whose place another one comes.
        below = max(to_come, 0) + sum(each.levels[0].training for each in self._ladders.values())
        for level in ladder.levels:
            yield level.entered + below
            below += level.training + len(level.waiting)


def _first_brackets(every: Sequence[Bracket], count: int) -> tuple[Bracket, ...]:
    require_whole("brackets", count, at_least=1)
    if count > len(every):
        raise FatalValueError(
            f"brackets={count}: max_epochs, factor and min_epochs make no more than {len(every)}"
        )
    return tuple(every[:count])


def _of_size(bracket: Bracket, size: int, factor: int) -> Bracket:
    """Return the bracket with so many trials, of whom one in `factor` goes on from each rung."""
    rungs: list[Rung] = []
    for rung in bracket.rungs:
        rungs.append(replace(rung, size=size))
        size = max(1, size // factor)
    return replace(bracket, rungs=tuple(rungs))
