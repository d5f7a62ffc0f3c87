"""Population based training: values that change while the training goes on.

Jaderberg et al. 2017 (arXiv 1711.09846). A population trains side by side. After each interval the worst
members are replaced by descendants of the best ones, which go on from their training state with values nearby.
A member that is replaced ends; a descendant is a new trial, whose `parent` is the one that it descends from.

Who is replaced by whom follows from the scores alone, see `generations`, and each trial's chance from its
stream, which says where it belongs: in generation `stream // size`, at place `stream % size`. So everything is
read off the trials: a resumed search goes on as the uninterrupted one would.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from statistics import fmean

from aiotune.errors import FatalTypeError, FatalValueError, StoreMismatch
from aiotune.history import History
from aiotune.hyperparameters import HyperParameters
from aiotune.objective import Objective
from aiotune.oracles.base import Answer, Exhausted, Oracle, Promote, Retire, Suggest, Wait
from aiotune.oracles.explore import Exploration
from aiotune.oracles.generations import Generation
from aiotune.oracles.options import number_above, whole_number
from aiotune.space import Space, unit_draw
from aiotune.trial import Budget, Run, RunState, Trial, TrialState

__all__ = ["PopulationBasedTrainingOracle"]

_MOST_TRIES = 100  # to find a point nearby that the constraint allows


class PopulationBasedTrainingOracle(Oracle):
    """Trains a population, and replaces its worst members by descendants of its best ones.

    population_size: how many members. max_epochs: how far they train. interval: so many epochs lie between
    replacements; None: a tenth of `max_epochs`. quantile: the share of the members that is replaced each time,
    and of those that have descendants; one member at least. resample_probability: the chance that a value is
    drawn anew for a descendant, each by itself; else it is multiplied by one of `factors`. explore: the names
    whose values may change; None: all.
    """

    def __init__(
        self,
        objective: Objective | str | Sequence[Objective | str] | None = None,
        population_size: int = 10,
        max_epochs: int = 100,
        interval: int | None = None,
        quantile: float = 0.25,
        resample_probability: float = 0.25,
        factors: Sequence[float] = (0.8, 1.2),
        explore: Sequence[str] | None = None,
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
        self.population_size = whole_number("population_size", population_size, at_least=2)
        self.max_epochs = whole_number("max_epochs", max_epochs, at_least=2)
        self.interval = _interval(interval, self.max_epochs)
        self.quantile = number_above(0, "quantile", quantile, at_most=0.5)
        self._exploration = Exploration(
            _probability("resample_probability", resample_probability),
            _factors(factors),
            _names(explore),
        )
        self.budgets = _budgets(self.interval, self.max_epochs)
        self._population: _Population | None = None
        self._checked: Space | None = None  # it has all names that may change

    @property
    def replaced(self) -> int:
        """How many members are replaced in each generation, if no more of them are broken."""
        return max(1, int(self.quantile * self.population_size + 1e-9))  # 0.3 * 10 is 3

    def ask(self, history: History, number: int) -> Answer:
        self._check_names(history)
        population = self._population_of(history)
        population.catch_up(history)
        for generation in population.active:
            answer = self._begun(history, generation) or self._decided(history, generation)
            if answer is not None:
                return answer
        if history.has_trials_in_flight:
            return Wait()
        if population.is_extinct:
            return Exhausted("no member of the population is left: all of them failed")
        return Exhausted(f"the population was trained for {self.max_epochs} epochs")

    # --- answers ---

    def _begun(self, history: History, generation: Generation) -> Suggest | None:
        """Return the next member of the first generation. FatalValueError if the constraint refuses all."""
        place = len(generation.members)
        if generation.number > 0 or place == self.population_size:
            return None
        begun = self.completed(history, {}, Suggest({}, place, self.budgets[0]))
        if begun is None:
            raise FatalValueError(
                "constraint= refused every point that was drawn: loosen it, or declare narrower ranges"
            )
        return begun

    def _decided(self, history: History, generation: Generation) -> Answer | None:
        """Return what is certain of those that have reached the end of a generation, and is not done yet.

        A parent waits until it has no further descendant, for these begin with what it is where it waits.
        """
        following = generation.number + 1
        if following == len(self.budgets) or not generation.has_news:
            return None
        undecided = generation.undecided
        lost = [place for place in undecided if generation.is_replaced(place)]
        for place in lost:
            answer = self._replaced(history, generation, place)
            if answer is not None:
                return answer
        has_descendants_to_come = bool(lost) or generation.unknown > 0
        for place in undecided:
            waits = has_descendants_to_come and generation.may_be_parent(place)
            if generation.goes_on(place) and not waits:
                return Promote(generation.members[place], self.budgets[following])
        generation.has_news = False
        return None

    def _replaced(self, history: History, generation: Generation, place: int) -> Answer | None:
        """Return what makes room in a place, or who takes it, if that is certain."""
        member = history.trial(generation.members[place])
        if member.state is TrialState.PAUSED:
            return Retire(member.trial_id)
        if generation.is_extinct:
            return None
        parent = generation.parent_of(place, self.chance)
        if parent is None:
            return None
        return self._descendant(history, history.trial(parent), generation.number + 1, place)

    def _descendant(self, history: History, parent: Trial, generation: int, place: int) -> Suggest:
        """Return a new member near its parent; with the same values if the constraint refuses all others."""
        stream = generation * self.population_size + place
        space = self.tunable(history)
        suggested = Suggest(dict(parent.values), stream, self.budgets[generation], parent.trial_id)
        for attempt in range(_MOST_TRIES):
            drawn = self.drawn(stream if attempt == 0 else _spare(stream, attempt))
            chance = partial(unit_draw, self.chance, "explore", stream, attempt)
            values = self._exploration.near(space, parent.values, drawn, chance)
            if self.allows(history, values):
                return replace(suggested, values=values)
        return suggested

    # --- bookkeeping ---

    def _population_of(self, history: History) -> _Population:
        if self._population is None or self._population.lineage is not history.lineage:
            self._population = _Population(
                history.lineage, self.population_size, self.replaced, self.budgets, self.objective
            )
        return self._population

    def _check_names(self, history: History) -> None:
        """Check what may change against a space that is new. FatalValueError for unknown names."""
        space = history.space
        if space is not self._checked and len(space):
            self._exploration.check(space.grow(self.hyperparameters.space))
            self._checked = space


class _Population:
    """The generations as the trials of a search fill them. All of it follows from its history.

    lineage: that of the search's history; see `History`.
    """

    def __init__(
        self,
        lineage: object,
        size: int,
        replaced: int,
        budgets: Sequence[Budget],
        objective: Objective,
    ) -> None:
        self.lineage = lineage
        self._size = size
        self._budgets = budgets
        self._objective = objective
        self._generations = [Generation(each, size, replaced) for each in range(len(budgets))]
        self._first = 0  # of those that may still need something
        self._moves_read = 0

    def catch_up(self, history: History) -> None:
        """Read what came since the last call. StoreMismatch for trials of another plan."""
        moved = history.moved_trials(after=self._moves_read)
        self._moves_read = history.move_count
        for trial in moved:
            if trial.budget is not None and trial.budget.rung is not None:
                self._take_in(trial, trial.budget.rung)
        while self._generations[self._first].is_done:
            self._first += 1

    @property
    def active(self) -> Iterator[Generation]:
        """The generations that have begun and may still need something, the oldest first."""
        for generation in self._generations[self._first :]:
            if generation.members or generation.number == 0:
                yield generation

    @property
    def is_extinct(self) -> bool:
        """Whether the search ends with a generation that has no survivor."""
        return self._generations[self._first].is_extinct

    def _take_in(self, trial: Trial, rung: int) -> None:
        """Note where a trial trains, and what it has reached so far."""
        born, place = divmod(trial.stream, self._size)
        self._require_planned(trial, born, rung)
        for number in range(max(born, self._first), rung + 1):
            generation = self._generations[number]
            generation.enter(place, trial.trial_id)
            if number > 0:
                self._generations[number - 1].follow(place)
            if number < rung:
                generation.end(place, self._result(trial, number))
            elif trial.state is TrialState.PAUSED or trial.is_over:
                is_broken = trial.is_over and trial.state is not TrialState.COMPLETED
                generation.end(place, None if is_broken else self._result(trial, number))

    def _require_planned(self, trial: Trial, born: int, rung: int) -> None:
        budget = trial.budget
        is_planned = rung < len(self._budgets) and self._budgets[rung] == budget
        if not is_planned or born > rung or (trial.parent is None) != (born == 0):
            raise StoreMismatch(
                f"trial {trial.trial_id} of this project does not fit population_size={self._size}, "
                f"max_epochs={self._budgets[-1].epochs} and interval={self._budgets[0].epochs}: restore them, "
                "choose another project_name, or pass overwrite=True to begin anew"
            )

    def _result(self, trial: Trial, generation: int) -> float | None:
        """Return what a member had reached at the end of a generation, less being better; None without a score.

        What counts is the training state that a descendant would begin with: the last report, not the best.
        """
        values = [
            self._last_value(trial, run)
            for run in _last_runs(trial, self._budgets[generation])
            if run.state is RunState.FINISHED
        ]
        if not values or any(map(math.isnan, values)):
            return None
        return fmean(values) if self._objective.direction == "min" else -fmean(values)

    def _last_value(self, trial: Trial, run: Run) -> float:
        for each in reversed(trial.curve(run, of_budget=True)):
            if self._objective.has_value(each.metrics):
                return self._objective.get_value(each.metrics)
        return self._objective.get_value(run.metrics)


def _last_runs(trial: Trial, budget: Budget) -> list[Run]:
    """Return the last run of each repeat under a budget."""
    return list({run.repeat: run for run in trial.runs if run.budget == budget}.values())


def _spare(stream: int, attempt: int) -> int:
    """Return a number that is the stream of no trial: those are 0 or more."""
    return -1 - (stream * _MOST_TRIES + attempt)


def _budgets(interval: int, max_epochs: int) -> tuple[Budget, ...]:
    """Return how far a member trains in each generation."""
    ends = [*range(interval, max_epochs, interval), max_epochs]
    return tuple(
        Budget(end, begin, rung=number, is_last=end == max_epochs)
        for number, (begin, end) in enumerate(pairwise([0, *ends]))
    )


def _interval(interval: int | None, max_epochs: int) -> int:
    if interval is None:
        return max(1, max_epochs // 10)
    if whole_number("interval", interval) >= max_epochs:
        raise FatalValueError(
            f"interval={interval}: it must be below max_epochs={max_epochs}, or no member is ever replaced"
        )
    return interval


def _probability(name: str, value: float) -> float:
    return number_above(0, name, value, at_most=1) if value else 0.0


def _factors(factors: Sequence[float]) -> tuple[float, ...]:
    if not isinstance(factors, list | tuple) or not factors:
        raise FatalTypeError(
            f"factors={factors!r}: a list of numbers is needed, such as (0.8, 1.2)"
        )
    return tuple(number_above(0, "factors", each) for each in factors)


def _names(explore: Sequence[str] | None) -> frozenset[str] | None:
    if explore is None:
        return None
    if isinstance(explore, str) or not all(isinstance(each, str) for each in explore):
        raise FatalTypeError(f"explore={explore!r}: a list of names is needed")
    if not explore:
        raise FatalValueError(
            "explore=[]: descendants would all have their parents' values; name what may change"
        )
    return frozenset(explore)
