"""Hyperband: many points for few epochs, the best of them for more.

Li et al. 2018 (JMLR 18), Algorithm 1; the numbers are those of `brackets`. A trial is promoted as soon as its
place among the best of its rung is certain, and the next bracket's trials start while one waits for the ends of
a rung. So the promotions follow from the scores alone, whatever the number of slots and the order of the ends.

Everything is read off the trials' budgets and states: a resumed search goes on as the uninterrupted one would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from aiotune.errors import StoreMismatch
from aiotune.history import History
from aiotune.hyperparameters import HyperParameters
from aiotune.objective import Objective
from aiotune.oracles.base import Answer, Exhausted, Oracle, Promote, Suggest, Wait
from aiotune.oracles.brackets import Bracket, brackets_of, require_whole
from aiotune.oracles.random_search import RandomSearchOracle
from aiotune.space import Space
from aiotune.trial import Budget, Trial, TrialState

__all__ = ["HyperbandOracle"]


class HyperbandOracle(Oracle):
    """Draws points at random, trains them for few epochs, and goes on with the best. One trial for each point.

    max_epochs: what the last rung of a bracket trains for. factor: from one rung to the next, so many times
    fewer trials train for so many times more epochs. hyperband_iterations: how often all brackets are run.
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
    ) -> None:
        super().__init__(
            objective=objective,
            hyperparameters=hyperparameters,
            allow_new_entries=allow_new_entries,
            tune_new_entries=tune_new_entries,
            seed=seed,
            max_retries_per_trial=max_retries_per_trial,
            max_consecutive_failed_trials=max_consecutive_failed_trials,
        )
        self.brackets = brackets_of(max_epochs, factor)
        require_whole("hyperband_iterations", hyperband_iterations, at_least=1)
        self.max_epochs = max_epochs
        self.min_epochs = 1
        self.factor = factor
        self.hyperband_iterations = hyperband_iterations
        self._random = RandomSearchOracle(
            objective=self.objective,
            hyperparameters=hyperparameters,
            allow_new_entries=allow_new_entries,
            tune_new_entries=tune_new_entries,
        )
        self._random.hyperparameters = self.hyperparameters  # one object, whoever declares on it
        self._schedule: _Schedule | None = None

    def ask(self, history: History, number: int) -> Answer:
        schedule = self._schedule_of(history)
        schedule.catch_up(history)
        promotion = schedule.promotion()
        if promotion is not None:
            return promotion
        in_flight = history.trials_in_flight()
        place = schedule.place(self.hyperband_iterations)
        if place is None:
            return Wait() if in_flight else Exhausted("all brackets are done")
        answer = self._sampler.ask(history, number)
        if isinstance(answer, Suggest):
            return replace(answer, budget=place)
        if all(trial.is_path_complete for trial in in_flight):
            # No further point can come: the brackets are as large as they will be.
            promotion = schedule.promotion(is_full=True)
        return promotion or answer

    def is_duplicate(self, history: History, trial: Trial) -> bool:
        return self._sampler.is_duplicate(history, trial)

    def tunable(self, history: History) -> Space:
        return self._sampler.tunable(history)

    @property
    def draws_new_names(self) -> bool:
        return self._sampler.draws_new_names

    @property
    def _sampler(self) -> Oracle:
        """What proposes the points: with what this oracle was given since it was made."""
        self._random.seed = self.seed
        self._random.constraint, self._random.priors = self.constraint, self.priors
        return self._random

    def _schedule_of(self, history: History) -> _Schedule:
        if self._schedule is None or self._schedule.lineage is not history.lineage:
            self._schedule = _Schedule(history.lineage, self.brackets, self.objective)
        return self._schedule


class _Schedule:
    """The brackets as the trials of a search fill them. All of it follows from its history.

    lineage: that of the search's history; see `History`.
    """

    def __init__(self, lineage: object, plan: Sequence[Bracket], objective: Objective) -> None:
        self.lineage = lineage
        self._plan = plan
        self._objective = objective
        self._filled: dict[tuple[int, int], _Filled] = {}  # by iteration and number
        self._active: list[_Filled] = []  # those that may still need something, in order
        self._numbers_read = 0

    def catch_up(self, history: History) -> None:
        """Read what came since the last call. StoreMismatch for trials of another plan."""
        for number in range(self._numbers_read, history.next_number):
            trial = history.numbered(number)
            budget = trial.budget
            if budget is None or budget.bracket is None or budget.rung is None:
                continue  # another algorithm's: its point counts as tried
            filled = self._bracket_of(budget)
            if filled is None:
                raise StoreMismatch(
                    f"trial {trial.trial_id} of this project was trained with another max_epochs or factor "
                    f"({budget.epochs} epochs in rung {budget.rung} of bracket {budget.bracket}): restore "
                    "them, choose another project_name, or pass overwrite=True to begin anew"
                )
            filled.trial_ids.append(trial.trial_id)
        self._numbers_read = history.next_number
        for filled in self._active:
            filled.look(history)
        self._active = [each for each in self._active if not each.is_done]

    def promotion(self, *, is_full: bool = False) -> Promote | None:
        """Return a promotion that is certain by now. `is_full`: no bracket will get a further trial."""
        for filled in self._active:
            found = filled.promotion(self._objective, is_full=is_full)
            if found is not None:
                return found
        return None

    def place(self, iterations: int) -> Budget | None:
        """Return the budget of the next new trial, or None if all brackets of so many iterations are full."""
        for filled in self._active:
            if filled.has_place:
                return filled.budget(0)
        iteration, index = divmod(len(self._filled), len(self._plan))  # they begin in order
        return _Filled(self._plan[index], iteration).budget(0) if iteration < iterations else None

    def _bracket_of(self, budget: Budget) -> _Filled | None:
        """Return the bracket that the budget belongs to, which may begin now; None if there is none such."""
        plan = next((each for each in self._plan if each.number == budget.bracket), None)
        if plan is None or not _Filled(plan, budget.iteration).grants(budget):
            return None
        key = budget.iteration, plan.number
        if key not in self._filled:
            self._filled[key] = _Filled(plan, budget.iteration)
            self._active.append(self._filled[key])
        return self._filled[key]


@dataclass(slots=True)
class _Tally:
    """The trials of one rung. Those in the rungs above were in it, and are over with it."""

    entered: int = 0
    finished: int = 0  # have their result there, if only a failure
    lost: int = 0  # of these, those that can go no further
    waiting: list[Trial] = field(default_factory=list)  # of these, those that may be promoted


class _Filled:
    """One bracket of one iteration, with its trials.

    The k best of a rung with n trials go on. A trial is among them for certain, whatever the others reach,
    if fewer than k are better or have no result yet. Who was promoted before it counts as better: then at
    most k go on, and they are the k best.
    """

    def __init__(self, bracket: Bracket, iteration: int) -> None:
        self.trial_ids: list[str] = []  # with duplicates, which take no place
        self._bracket = bracket
        self._iteration = iteration
        self._tallies: list[_Tally] = []

    def budget(self, rung: int) -> Budget:
        """Return the budget of a rung."""
        rungs = self._bracket.rungs
        return Budget(
            rungs[rung].epochs,
            rungs[rung].initial_epoch,
            bracket=self._bracket.number,
            rung=rung,
            iteration=self._iteration,
            is_last=rung == len(rungs) - 1,
        )

    def grants(self, budget: Budget) -> bool:
        """Tell whether the budget is that of one of the rungs."""
        return any(self.budget(rung) == budget for rung in range(len(self._bracket.rungs)))

    def look(self, history: History) -> None:
        """Count the trials as they stand now."""
        self._tallies = [_Tally() for _ in self._bracket.rungs]
        for trial_id in self.trial_ids:
            trial = history.trial(trial_id)
            if trial.state is not TrialState.DUPLICATE:
                self._count(trial)

    def _count(self, trial: Trial) -> None:
        assert trial.budget is not None
        assert trial.budget.rung is not None
        rung = trial.budget.rung
        for below in self._tallies[:rung]:
            below.entered += 1
            below.finished += 1
        tally = self._tallies[rung]
        tally.entered += 1
        if trial.state is TrialState.PAUSED and trial.has_score:
            tally.finished += 1
            tally.waiting.append(trial)
        elif trial.state is TrialState.PAUSED or trial.is_over:
            tally.finished += 1
            tally.lost += 1

    @property
    def has_place(self) -> bool:
        return self._tallies[0].entered < self._bracket.size

    @property
    def is_done(self) -> bool:
        """Whether nothing can happen any more: it is full, and its last rung has all its results."""
        if self.has_place:
            return False
        expected = self._expected(self._bracket.size)[-1]
        return self._tallies[-1].finished >= expected

    def promotion(self, objective: Objective, *, is_full: bool) -> Promote | None:
        """Return a promotion that is certain: the highest rung's first, for it is the longest to run."""
        size = self._tallies[0].entered if is_full else self._bracket.size
        expected = self._expected(size)
        for rung in reversed(range(len(self._tallies) - 1)):
            tally, above = self._tallies[rung], self._tallies[rung + 1]
            unknown = expected[rung] - tally.finished
            if tally.waiting and above.entered + unknown < self._bracket.sizes(size)[rung + 1]:
                best = _best(tally.waiting, objective)
                return Promote(best.trial_id, self.budget(rung + 1))
        return None

    def _expected(self, size: int) -> list[int]:
        """Return how many trials each rung will have at most, if the first has `size`."""
        expected = [size]
        for planned, tally in zip(self._bracket.sizes(size)[1:], self._tallies, strict=False):
            expected.append(min(planned, expected[-1] - tally.lost))
        return expected


def _best(trials: Sequence[Trial], objective: Objective) -> Trial:
    """Return the best by score; of equal ones the oldest."""
    return trials[objective.best([_score(trial) for trial in trials])]


def _score(trial: Trial) -> float:
    assert trial.score is not None
    return trial.score
