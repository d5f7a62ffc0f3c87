"""Which trials are the best: the one place that sorts them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

from aiotune.objective import Objective
from aiotune.trial import Trial

__all__ = ["Ranking", "best_trials"]


def best_trials(trials: Iterable[Trial], objective: Objective, count: int) -> list[Trial]:
    """Return the `count` best trials that have a score, best first; of equal ones the older first.

    Failed and unfinished trials are never among them, so that there may be fewer than `count`. But a trial that
    has used up a budget (Hyperband) keeps that score while it is paused, goes on, or breaks later.
    """
    scored = (
        (_cost(trial, objective), index, trial)
        for index, trial in enumerate(trials)
        if trial.has_score
    )
    return [trial for _, _, trial in heapq.nsmallest(count, scored)]


def _cost(trial: Trial, objective: Objective) -> float:
    assert trial.score is not None
    return objective.cost(trial.score)


class Ranking:
    """The trials of one search, sorted by score as it goes on: then the best ones take no time to find.

    Trials are known by their numbers, so that whoever asks gets them as they are now.
    """

    def __init__(self, objective: Objective, trials: Iterable[Trial] = ()) -> None:
        self.objective = objective
        # Cost and number, also of scores that a trial has no longer; `best` passes these over.
        self._places: list[tuple[float, int]] = []
        self._is_sorted = True
        for trial in trials:
            self.note(trial)

    def note(self, trial: Trial) -> None:
        """Take in a trial whose score is new."""
        if trial.has_score:
            self._places.append((_cost(trial, self.objective), trial.number))
            self._is_sorted = False

    def sort(self) -> None:
        """Sort what is new, which the next question would do else; what is sorted takes hardly any time."""
        if not self._is_sorted:
            self._places.sort()
            self._is_sorted = True

    def best(self, count: int, numbered: Callable[[int], Trial]) -> list[Trial]:
        """Return the same as `best_trials` of all trials; `numbered` tells a trial by its number."""
        self.sort()
        found: dict[int, Trial] = {}
        for cost, number in self._places:
            if len(found) >= count:
                break
            trial = numbered(number)
            if trial.has_score and _cost(trial, self.objective) == cost:
                found[number] = trial
        return list(found.values())

    def copy(self) -> Ranking:
        taken = Ranking(self.objective)
        taken._places = list(self._places)
        taken._is_sorted = self._is_sorted
        return taken
