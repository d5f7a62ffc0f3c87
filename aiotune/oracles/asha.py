"""ASHA, asynchronous successive halving: no trial ever waits for a rung to be complete.

Li et al. 2020 (MLSys, "A System for Massively Parallel Hyperparameter Tuning"), Algorithm 2: whenever there is
room, a trial among the best 1 / factor of those that have finished a rung so far is promoted, the highest rung
first; if there is none, a new trial begins. So no slot ever idles, and some trials are promoted that turn out
not to be among the best: **the promotions depend on the order in which runs end**, other than Hyperband's.

Everything is read off the trials' budgets, states and reports: a resumed search goes on as the uninterrupted
one would.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import accumulate
from typing import Literal, Unpack

from aiotune.errors import FatalValueError
from aiotune.history import History
from aiotune.learning.fidelity import Fidelities
from aiotune.objective import Objective
from aiotune.oracles.base import Answer, Exhausted, Oracle, Promote, Retire, Suggest, Verdict, Wait
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
from aiotune.oracles.ladder import Ladder
from aiotune.oracles.model_based import OracleOptions
from aiotune.oracles.stopping import Passes
from aiotune.space import unit_draw
from aiotune.trial import Budget, Observation, Trial

__all__ = ["AshaOracle", "Mode"]

Mode = Literal["promote", "stop"]


class AshaOracle(BudgetedOracle):
    """Trains many points for few epochs and the best of them for more, without ever waiting.

    max_epochs, factor, min_epochs: as for Hyperband. max_trials: how many points are tried; None: until the
    space is exhausted, or a limit of the search is reached. brackets: the first of Hyperband's; a trial is
    drawn into one of them, with the chance that Hyperband's numbers of trials give it. mode: "promote": a trial
    that has reached a rung pauses, and goes on when it is among the best there. "stop": a trial trains up to
    `max_epochs` in one run, and is stopped at the first rung where it is not among the best so far. A trial's
    score at a rung is its best one since the rung before; in mode "stop" since its begin, for that is what the
    score of a run is. sampler, resource: as for Hyperband.
    """

    def __init__(
        self,
        objective: Objective | str | Sequence[Objective | str] | None = None,
        max_epochs: int = 100,
        factor: int = 3,
        min_epochs: int = 1,
        max_trials: int | None = 100,
        brackets: int = 1,
        mode: Mode = "promote",
        sampler: str | Oracle = "random",
        resource: Resource = "epochs",
        **options: Unpack[OracleOptions],
    ) -> None:
        self.brackets = _first_brackets(brackets_of(max_epochs, factor, min_epochs), brackets)
        if mode not in ("promote", "stop"):
            raise FatalValueError(f'mode={mode!r}: "promote" or "stop" is needed')
        if mode == "stop" and resource == "data":
            raise FatalValueError(
                'mode="stop" cannot be had with resource="data": a run cannot get more data while it trains. '
                'Drop mode="stop"'
            )
        super().__init__(objective, max_trials, sampler, resource, **options)
        self.max_epochs = max_epochs
        self.min_epochs = min_epochs
        self.factor = factor
        self.mode: Mode = mode
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

    @property
    def needs_checkpoints(self) -> bool:
        return self.mode == "promote" and super().needs_checkpoints

    def fidelities(self) -> Fidelities:
        passed = {rung.epochs for each in self.brackets for rung in each.rungs}
        return Fidelities(self.objective, sorted(passed) if self.mode == "stop" else ())

    # --- asking ---

    def ask(self, history: History, number: int) -> Answer:
        if self.mode == "stop":
            self._passes.follow(history.lineage, history.trials.values())
            return self._beginning(history, number)
        field = self._field_of(history)
        field.catch_up(history)
        to_come = None if self.max_trials is None else self.max_trials - history.counted()
        decided = field.promotion() or field.retirement(to_come)
        if decided is not None:
            return decided
        answer = self._beginning(history, number)
        if history.has_trials_in_flight or isinstance(answer, Suggest):
            return answer
        return field.last_promotion() or answer

    def _beginning(self, history: History, number: int) -> Answer:
        """Return a new trial, if there is to be one."""
        if self.max_trials is not None and history.counted() >= self.max_trials:
            is_idle = not history.has_trials_in_flight
            return Exhausted("max_trials were tried") if is_idle else Wait()
        answer = self.suggestion(history, number)
        if isinstance(answer, Suggest):
            return replace(answer, budget=self._first_budget(answer.stream))
        return answer

    def _first_budget(self, stream: int) -> Budget:
        """Return the budget of a new trial, in a bracket that is drawn."""
        bracket = self.brackets[0] if len(self.brackets) == 1 else self._drawn_bracket(stream)
        if self.mode == "stop":
            return Budget(self.max_epochs, bracket=bracket.number)
        return budgets_of(bracket, resource=self.resource)[0]

    def _drawn_bracket(self, stream: int) -> Bracket:
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

    # --- judging ---

    def judge(self, trial: Trial, observation: Observation) -> Verdict:
        if self.mode == "promote":
            return Verdict.CONTINUE
        if not self._passes.has_begun:  # a resumed run may report before the first question
            self._passes.follow(None, self.trials.values())
        is_good = self._passes.is_among_the_best(trial, observation)
        return Verdict.CONTINUE if is_good else Verdict.STOP

    @cached_property
    def _passes(self) -> Passes:
        rungs = {each.number: [rung.epochs for rung in each.rungs[:-1]] for each in self.brackets}
        return Passes(rungs, self.factor, self.objective)


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
        """Read what came since the last call."""
        moved = history.moved_trials(after=self._moves_read)
        self._moves_read += len(moved)
        for trial in moved:
            budget = trial.budget
            ladder = None if budget is None else self._ladders.get(budget.bracket or 0)
            if budget is not None and ladder is not None and ladder.grants(budget):
                ladder.follow(trial)
            # else another algorithm's, or of another plan: its point counts as tried

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
