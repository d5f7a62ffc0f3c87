"""Random search without repeats, whatever runs beside it.

The search walks a sequence of candidates 0, 1, 2, ... Candidate c draws the value of each name from
(seed, c, name), so its point depends on nothing else, however late the program declares the name. The search's
points are the first `max_trials` distinct ones of that sequence: a candidate that repeats a known point is
passed over, and one that might repeat a point whose trial is still finding out its names is deferred. Hence
the number of slots and the order in which trials end change nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence

from aiotune.history import History
from aiotune.oracles.base import Answer, Exhausted, Oracle, Suggest, Wait
from aiotune.space import HyperParameter, Scalar, Space, point_key, unit_draw
from aiotune.trial import Trial, TrialState

__all__ = ["RandomSearchOracle"]

# So many candidates in a row without a new point: the space must be small and nearly used up, so list it.
# With a tenth of the points left, 200 misses in a row have a chance of 7e-10.
_MISSES_BEFORE_LISTING = 200
_LARGEST_LIST = 100_000

Fill = Callable[[HyperParameter], Scalar]


class RandomSearchOracle(Oracle):
    """Draws every trial at random. A finite space is exhausted exactly, without a repeat."""

    _tried: _Tried | None = None

    def ask(self, history: History, number: int) -> Answer:
        tried = self._catch_up(history)
        space = self.tunable(history)
        unsettled = [each for each in history.open_trials() if not each.is_path_complete]
        deferred = 0
        for candidate in tried.unused(_MISSES_BEFORE_LISTING):
            fill = self._fill(candidate)
            values = space.complete(fill)
            if tried.has_point(values, fill):
                tried.use(candidate)
            elif any(_agrees(trial, values) for trial in unsettled):
                deferred += 1
                if self.max_trials and history.counted() + deferred >= self.max_trials:
                    return Wait()
            else:
                return Suggest(values, stream=candidate)
        return self._ask_from_list(history, tried, space)

    def is_duplicate(self, history: History, trial: Trial) -> bool:
        """Tell whether the point of `trial`, by what is known of its path, was tried by another trial."""
        tried = self._catch_up(history, but=trial.trial_id)
        return tried.has_point(trial.values, self._fill(trial.stream), but=trial.trial_id)

    def _catch_up(self, history: History, but: str = "") -> _Tried:
        if self._tried is None or self._tried.history is not history:
            self._tried = _Tried(history)
        self._tried.catch_up(but)
        return self._tried

    def _fill(self, candidate: int) -> Fill:
        """Return the chance of one candidate: the value of any name, known or not."""
        if not self.tune_new_entries:
            known = {each.identity for each in self.hyperparameters.space}
            return lambda each: (
                each.from_unit(unit_draw(self.chance, candidate, each.name))
                if each.identity in known
                else each.default
            )
        return lambda each: each.from_unit(unit_draw(self.chance, candidate, each.name))

    def _ask_from_list(self, history: History, tried: _Tried, space: Space) -> Answer:
        """Return a point of a nearly exhausted space that no trial has or may turn out to have."""
        open_trials = history.open_trials()
        if (space.size or _LARGEST_LIST) < _LARGEST_LIST:
            stream = tried.first_free
            fill = self._fill(stream)
            left = [
                values
                for values in space.points()
                if not tried.has_point(values, fill)
                and not any(_agrees(trial, values) for trial in open_trials)
            ]
            if left:
                chance = self.chance
                values = min(left, key=lambda each: unit_draw(chance, "list", point_key(each)))
                return Suggest(values, stream=stream)
        return Wait() if open_trials else Exhausted()


class _Tried:
    """The points and candidates that the trials of a history have used. All of it follows from the history."""

    def __init__(self, history: History) -> None:
        self.history = history
        self._points: dict[tuple[object, ...], tuple[Sequence[HyperParameter], dict[str, str]]] = {}
        self._broken: dict[str, Trial] = {}  # over before its path was complete
        self._settled: set[str] = set()
        self._used: set[int] = set()
        self._numbers_read = 0
        self._ends_read = 0
        self._floor = 0  # every candidate below is used

    def catch_up(self, but: str) -> None:
        """Read the trials that came or settled since the last call; `but` is not to be settled yet."""
        for number in range(self._numbers_read, self.history.next_number):
            self._used.add(self.history.numbered(number).stream)
        self._numbers_read = self.history.next_number
        for trial in (
            *self.history.ended_trials(after=self._ends_read),
            *self.history.open_trials(),
        ):
            if trial.trial_id not in self._settled and trial.trial_id != but:
                self._settle(trial)
        self._ends_read = len(self.history.trials) - len(self.history.open_trials())

    def _settle(self, trial: Trial) -> None:
        if trial.state is TrialState.DUPLICATE:
            self._settled.add(trial.trial_id)
        elif trial.is_path_complete:
            key = tuple(each.identity for each in trial.space)
            _, points = self._points.setdefault(key, (trial.space, {}))
            points.setdefault(
                _text(trial.values[each.name] for each in trial.space), trial.trial_id
            )
            self._settled.add(trial.trial_id)
        elif trial.is_over:
            self._broken[trial.trial_id] = trial
            self._settled.add(trial.trial_id)

    def has_point(self, values: Mapping[str, Scalar], fill: Fill, but: str = "") -> bool:
        """Tell whether a run at `values`, and `fill` for other names, would take a point already tried.

        A program is taken to be a function of its values: it then walks the same path and meets the same names.
        """
        for space, points in self._points.values():
            point = _text(
                values[each.name] if each.name in values else fill(each) for each in space
            )
            if points.get(point, but) != but:
                return True
        return any(_agrees(trial, values) for key, trial in self._broken.items() if key != but)

    def unused(self, count: int) -> Sequence[int]:
        """Return the first `count` candidates that no trial has used, in order."""
        found: list[int] = []
        candidate = self._floor
        while len(found) < count:
            if candidate not in self._used:
                found.append(candidate)
            elif candidate == self._floor:
                self._floor += 1
            candidate += 1
        return found

    def use(self, candidate: int) -> None:
        """Pass over a candidate for good: its point is taken."""
        self._used.add(candidate)

    @property
    def first_free(self) -> int:
        """Return a candidate above all that were used, so that its chance is fresh."""
        return max(self._used, default=-1) + 1


def _agrees(trial: Trial, values: Mapping[str, Scalar]) -> bool:
    """Tell whether a point may be that of a trial whose names are not all known yet.

    A trial that has no value yet says nothing: it is not waited for.
    """
    return bool(trial.values) and all(
        _text([value]) == _text([values[name]])
        for name, value in trial.values.items()
        if name in values
    )


def _text(values: Iterable[Scalar]) -> str:
    """Return values as text that tells 1, 1.0, True and "1" apart."""
    return json.dumps(list(values))
