"""Points that are drawn, none of them twice: random search, and the ground of oracles that learn.

The search walks a sequence of candidates 0, 1, 2, ... Candidate c draws the value of each name from
(seed, c, name), so its point depends on nothing else, however late the program declares the name. A candidate
that repeats a known point is passed over, and one that might repeat a point whose trial is still finding out
its names is deferred.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from aiotune.history import History
from aiotune.oracles.base import Answer, Exhausted, Oracle, Suggest, Wait
from aiotune.oracles.tried import Fill, Tried, may_be_at
from aiotune.space import Space, Values, point_key, unit_draw
from aiotune.trial import Trial

__all__ = ["SamplingOracle"]

# So many candidates in a row without a new point: the space must be small and nearly used up, so list it.
# With a tenth of the points left, 200 misses in a row have a chance of 7e-10.
_MISSES_BEFORE_LISTING = 200
_LARGEST_LIST = 100_000


class SamplingOracle(Oracle):
    """An oracle that can draw points, and knows which were tried. A finite space is exhausted exactly."""

    _tried: Tried | None = None

    def is_duplicate(self, history: History, trial: Trial) -> bool:
        """Tell whether the point of `trial`, by what is known of its path, was tried by another trial."""
        tried = self._catch_up(history, but=trial.trial_id)
        return tried.has_point(trial.values, self.fill(trial.stream), but=trial.trial_id)

    def fill(self, candidate: int) -> Fill:
        """Return the chance of one candidate: the value of any name, known or not."""
        seed = self.chance
        if self.tune_new_entries:
            return lambda each: each.from_unit(unit_draw(seed, candidate, each.name))
        known = {each.identity for each in self.hyperparameters.space}
        return lambda each: (
            each.from_unit(unit_draw(seed, candidate, each.name))
            if each.identity in known
            else each.default
        )

    def draw(self, history: History) -> Answer:
        """Return the next point of the sequence."""
        tried = self._catch_up(history)
        space = self.tunable(history)
        unsettled = _unsettled(history)
        deferred = 0
        for candidate in tried.unused(_MISSES_BEFORE_LISTING):
            fill = self.fill(candidate)
            values = space.complete(fill)
            if self._was_tried(tried, space, values, fill):
                tried.use(candidate)
            elif any(may_be_at(trial, values) for trial in unsettled):
                deferred += 1
                if self.max_trials and history.counted() + deferred >= self.max_trials:
                    return Wait()
            else:
                return Suggest(values, stream=candidate)
        return self._draw_from_list(history, tried, space)

    def fresh_stream(self, history: History) -> int:
        """Return a stream that no trial has had; the same one until the next trial."""
        return self._catch_up(history).first_free

    def new_ones(self, history: History, points: Iterable[Values], stream: int) -> Iterator[Values]:
        """Yield, lazily, those of `points` that no trial has had, nor may turn out to have.

        `points` cover the tunable space; further names would be drawn from `stream`.
        """
        tried = self._catch_up(history)
        space = self.tunable(history)
        fill = self.fill(stream)
        unsettled = _unsettled(history)
        for values in points:
            is_old = self._was_tried(tried, space, values, fill)
            if not is_old and not any(may_be_at(trial, values) for trial in unsettled):
                yield values

    def _catch_up(self, history: History, but: str = "") -> Tried:
        if self._tried is None or self._tried.history is not history:
            self._tried = Tried(history)
        self._tried.catch_up(but)
        return self._tried

    def _was_tried(self, tried: Tried, space: Space, values: Values, fill: Fill) -> bool:
        def complete(trial: Trial) -> Values:
            return space.complete(self.fill(trial.stream), trial.values)

        return tried.has_point(values, fill) or tried.has_broken(values, complete)

    def _draw_from_list(self, history: History, tried: Tried, space: Space) -> Answer:
        """Return a point of a nearly exhausted space that no trial has or may turn out to have."""
        in_flight = history.trials_in_flight()
        if (space.size or _LARGEST_LIST) < _LARGEST_LIST:
            stream = tried.first_free
            fill = self.fill(stream)
            left = [
                values
                for values in space.points()
                if not self._was_tried(tried, space, values, fill)
                and not any(may_be_at(trial, values) for trial in in_flight)
            ]
            if left:
                chance = self.chance
                values = min(left, key=lambda each: unit_draw(chance, "list", point_key(each)))
                return Suggest(values, stream=stream)
        return Wait() if in_flight else Exhausted()


def _unsettled(history: History) -> list[Trial]:
    """Return the trials in flight whose names are not all known yet."""
    return [each for each in history.trials_in_flight() if not each.is_path_complete]
