"""Hyperband: many points for few epochs, the best of them for more.

Li et al. 2018 (JMLR 18), Algorithm 1; the numbers are those of `brackets`. A trial is promoted as soon as its
place among the best of its rung is certain, and ends as soon as it is certain that it is not among them; the
next bracket's trials start while one waits for the ends of a rung. So the promotions follow from the scores
alone, whatever the number of slots and the order of the ends.

Everything is read off the trials' budgets and states: a resumed search goes on as the uninterrupted one would.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TypeVar

from aiotune.history import History
from aiotune.hyperparameters import HyperParameters
from aiotune.objective import Objective
from aiotune.oracles.base import Answer, Exhausted, Oracle, Promote, Retire, Suggest, Wait
from aiotune.oracles.brackets import (
    Bracket,
    BracketPlan,
    Resource,
    brackets_of,
    budgets_of,
    require_whole,
)
from aiotune.oracles.budgeted import BudgetedOracle
from aiotune.oracles.ladder import Ladder, mismatch
from aiotune.trial import Budget, Trial

__all__ = ["HyperbandOracle"]

Found = TypeVar("Found")


class HyperbandOracle(BudgetedOracle):
    """Trains points for few epochs, and goes on with the best. One trial for each point.

    max_epochs: what the last rung of a bracket trains for. factor: from one rung to the next, so many times
    fewer trials train for so many times more epochs. hyperband_iterations: how often all brackets are run.
    min_epochs: no rung trains for less. sampler: what says at which points: "random", "quasi_random", "tpe",
    "bayesian", "random_forest", "cmaes", or an oracle. resource: "epochs", or "data": then the rungs train anew
    on growing shares of the data, in parts of which `max_epochs` are all.
    """

    def __init__(
        self,
        objective: Objective | str | Sequence[Objective | str] | None = None,
        max_epochs: int = 100,
        factor: int = 3,
        hyperband_iterations: int = 1,
        seed: int | None = None,
        hyperparameters: HyperParameters | None = None,
        allow_new_entries: bool = True,
        tune_new_entries: bool = True,
        max_retries_per_trial: int = 0,
        max_consecutive_failed_trials: int = 3,
        *,
        min_epochs: int = 1,
        sampler: str | Oracle = "random",
        resource: Resource = "epochs",
    ) -> None:
        self.brackets = brackets_of(max_epochs, factor, min_epochs)
        require_whole("hyperband_iterations", hyperband_iterations, at_least=1)
        super().__init__(
            objective=objective,
            sampler=sampler,
            resource=resource,
            hyperparameters=hyperparameters,
            allow_new_entries=allow_new_entries,
            tune_new_entries=tune_new_entries,
            seed=seed,
            max_retries_per_trial=max_retries_per_trial,
            max_consecutive_failed_trials=max_consecutive_failed_trials,
        )
        self.max_epochs = max_epochs
        self.min_epochs = min_epochs
        self.factor = factor
        self.hyperband_iterations = hyperband_iterations
        self._schedule: _Schedule | None = None

    def plan(self) -> BracketPlan:
        return BracketPlan(self.brackets, self.hyperband_iterations, self.resource)

    def ask(self, history: History, number: int) -> Answer:
        schedule = self._schedule_of(history)
        schedule.catch_up(history)
        decided = schedule.promotion() or schedule.retirement()
        if decided is not None:
            return decided
        place = schedule.place(self.hyperband_iterations)
        if place is None:
            return Wait() if history.has_trials_in_flight else Exhausted("all brackets are done")
        answer = self.suggestion(history, number)
        if isinstance(answer, Suggest):
            return replace(answer, budget=place)
        return self._without_a_point(history, schedule) or answer

    def _without_a_point(self, history: History, schedule: _Schedule) -> Promote | None:
        """Return a promotion that is certain if no further point can come, and no bracket grows any more."""
        is_settled = all(trial.is_path_complete for trial in history.trials_in_flight())
        return schedule.last_promotion() if is_settled else None

    def _schedule_of(self, history: History) -> _Schedule:
        if self._schedule is None or self._schedule.lineage is not history.lineage:
            self._schedule = _Schedule(
                history.lineage, self.brackets, self.objective, self.resource
            )
        return self._schedule


class _Schedule:
    """The brackets as the trials of a search fill them. All of it follows from its history.

    lineage: that of the search's history; see `History`.
    """

    def __init__(
        self, lineage: object, plan: Sequence[Bracket], objective: Objective, resource: Resource
    ) -> None:
        self.lineage = lineage
        self._plan = plan
        self._objective = objective
        self._resource: Resource = resource
        self._moves_read = 0
        # By their place in the order in which they begin.
        self._begun: dict[int, _Filled] = {}
        self._next = 0  # the first that has not begun
        # Those that have changed since there was nothing to do for them, and those with a place, perhaps.
        self._to_promote = _Agenda()
        self._to_retire = _Agenda()
        self._to_fill = _Agenda()

    def catch_up(self, history: History) -> None:
        """Read what came since the last call. StoreMismatch for trials of another plan."""
        moved = history.moved_trials(after=self._moves_read)
        self._moves_read = history.move_count
        for trial in moved:
            budget = trial.budget
            if budget is not None and budget.bracket is not None and budget.rung is not None:
                self._follow(trial, budget)
            # else another algorithm's: its point counts as tried

    def promotion(self) -> Promote | None:
        """Return a promotion that is certain by now: the oldest bracket's first."""
        return self._to_promote.first(lambda index: self._begun[index].promotion())

    def last_promotion(self) -> Promote | None:
        """Return a promotion that is certain if no bracket gets a further trial."""
        for _, filled in sorted(self._begun.items()):
            found = filled.promotion(is_full=True)
            if found is not None:
                return found
        return None

    def retirement(self) -> Retire | None:
        """Return a trial that will never be promoted, whatever the others reach."""
        return self._to_retire.first(lambda index: self._begun[index].retirement())

    def place(self, iterations: int) -> Budget | None:
        """Return the budget of the next new trial, or None if all brackets of so many iterations are full."""
        place = self._to_fill.first(lambda index: self._begun[index].place())
        if place is not None:
            return place
        iteration, number = divmod(self._next, len(self._plan))
        if iteration >= iterations:
            return None
        return budgets_of(self._plan[number], iteration=iteration, resource=self._resource)[0]

    def _follow(self, trial: Trial, budget: Budget) -> None:
        index = self._index_of(budget)
        filled = self._begun.get(index) or self._filled(index)
        if not filled.ladder.grants(budget):
            raise mismatch(trial, budget)
        self._begun[index] = filled
        while self._next in self._begun:
            self._next += 1
        if filled.ladder.follow(trial):
            for agenda in (self._to_promote, self._to_retire, self._to_fill):
                agenda.add(index)

    def _index_of(self, budget: Budget) -> int:
        """Return the place of a bracket in the order in which they begin; that of any for one that is none."""
        assert budget.bracket is not None
        most = len(self._plan) - 1
        return budget.iteration * len(self._plan) + min(max(most - budget.bracket, 0), most)

    def _filled(self, index: int) -> _Filled:
        iteration, number = divmod(index, len(self._plan))
        bracket = self._plan[number]
        budgets = budgets_of(bracket, iteration=iteration, resource=self._resource)
        return _Filled(bracket, Ladder(budgets, self._objective))


class _Filled:
    """One bracket of one iteration, with its trials.

    The k best of a rung with n trials go on. A trial is among them for certain, whatever the others reach,
    if fewer than k are better or have no result yet. Who was promoted before it counts as better: then at
    most k go on, and they are the k best. It is not among them for certain if k are better.
    """

    def __init__(self, bracket: Bracket, ladder: Ladder) -> None:
        self.ladder = ladder
        self._bracket = bracket
        self._sizes = tuple(rung.size for rung in bracket.rungs)

    def place(self) -> Budget | None:
        """Return the budget of a further trial, or None if there is no place."""
        has_place = self.ladder.levels[0].entered < self._bracket.size
        return self.ladder.budgets[0] if has_place else None

    def promotion(self, *, is_full: bool = False) -> Promote | None:
        """Return a promotion that is certain: the highest rung's first, for it is the longest to run."""
        levels = self.ladder.levels
        sizes = self._bracket.sizes(levels[0].entered) if is_full else self._sizes
        expected = self._expected(sizes)
        for rung in reversed(range(len(levels) - 1)):
            level, above = levels[rung], levels[rung + 1]
            # A project that ASHA began may have more trials than are expected.
            unknown = max(expected[rung] - level.finished, level.training)
            if level.waiting and above.entered + unknown < sizes[rung + 1]:
                return Promote(level.waiting[0][2], self.ladder.budgets[rung + 1])
        return None

    def retirement(self) -> Retire | None:
        """Return a trial that is not among the best of its rung for certain: the worst of the lowest rung."""
        levels = self.ladder.levels
        for most, (level, above) in zip(self._sizes[1:], pairwise(levels), strict=True):
            if level.waiting and above.entered + len(level.waiting) > most:
                return Retire(level.waiting[-1][2])
        return None

    def _expected(self, sizes: Sequence[int]) -> list[int]:
        """Return how many trials each rung will have at most, of the `sizes` that it has place for."""
        expected = [sizes[0]]
        for planned, level in zip(sizes[1:], self.ladder.levels, strict=False):
            expected.append(min(planned, expected[-1] - level.lost))
        return expected


class _Agenda:
    """Numbers of what is to be looked at, lowest first, each once."""

    def __init__(self) -> None:
        self._heap: list[int] = []
        self._numbers: set[int] = set()

    def add(self, number: int) -> None:
        if number not in self._numbers:
            self._numbers.add(number)
            heapq.heappush(self._heap, number)

    def first(self, look: Callable[[int], Found | None]) -> Found | None:
        """Return the first that is found. Where nothing is found, there is no need to look again."""
        while self._heap:
            found = look(self._heap[0])
            if found is not None:
                return found
            self._numbers.remove(heapq.heappop(self._heap))
        return None
