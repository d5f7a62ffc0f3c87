"""Points that are drawn, none of them twice: random search, and the ground of oracles that learn.

The search walks a sequence of candidates 0, 1, 2, ... Candidate c draws the value of each name from
(seed, c, name), so its point depends on nothing else, however late the program declares the name. A candidate
that repeats a known point, or that the constraint refuses, is passed over, and one that might repeat a point
whose trial is still finding out its names is deferred.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

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
_MOST_REFUSALS = 20_000


class SamplingOracle(Oracle):
    """An oracle that can draw points, and knows which were tried. A finite space is exhausted exactly."""

    _tried: Tried | None = None
    _passed: _Passed | None = None

    def is_duplicate(self, history: History, trial: Trial) -> bool:
        """Tell whether the point of `trial`, by what is known of its path, was tried by another trial."""
        tried = self._catch_up(history, but=trial.trial_id)
        return tried.has_point(trial.values, self.fill(trial.stream), but=trial.trial_id)

    def draw(self, history: History) -> Answer:
        """Return the next point of the sequence."""
        tried = self._catch_up(history)
        space = self.tunable(history)
        passed = self._passed_over(history, space)
        unsettled = history.unsettled_trials()
        deferred = 0
        most_refusals = max(
            _MISSES_BEFORE_LISTING, min(space.size or _LARGEST_LIST, _MOST_REFUSALS)
        )
        # Repeats, and refusals by the constraint, since the last trial's candidate.
        in_vain = {False: 0, True: 0}
        for candidate in tried.unused():
            is_refused = passed.get(candidate)
            if is_refused is None:
                values = space.complete(self.drawn(candidate))
                if self._was_tried(tried, space, values, self.fill(candidate)):
                    passed[candidate] = is_refused = False
                elif not self.allows(history, values):
                    passed[candidate] = is_refused = True
                elif any(may_be_at(trial, values) for trial in unsettled):
                    is_refused = False
                    deferred += 1
                    if self.max_trials and history.counted() + deferred >= self.max_trials:
                        return Wait()
                else:
                    return Suggest(values, stream=candidate)
            # Counted beyond all trials only, for there it follows from the facts what was passed over.
            in_vain[is_refused] += candidate >= tried.first_undrawn
            if in_vain[False] >= _MISSES_BEFORE_LISTING or in_vain[True] >= most_refusals:
                break
        return self._draw_from_list(history, tried, space, refusals=in_vain[True])

    def fresh_stream(self, history: History) -> int:
        """Return a stream that no trial has had; the same one until the next trial."""
        return self._catch_up(history).first_free

    def new_ones(self, history: History, points: Iterable[Values], stream: int) -> Iterator[Values]:
        """Yield, lazily, those of `points` that are allowed and that no trial has had, or may turn out to have.

        `points` cover the tunable space; further names would be drawn from `stream`.
        """
        tried = self._catch_up(history)
        space = self.tunable(history)
        fill = self.fill(stream)
        unsettled = history.unsettled_trials()
        for values in points:
            is_old = self._was_tried(tried, space, values, fill)
            is_new = not is_old and not any(may_be_at(trial, values) for trial in unsettled)
            if is_new and self.allows(history, values):
                yield values

    def _catch_up(self, history: History, but: str = "") -> Tried:
        if self._tried is None or self._tried.lineage is not history.lineage:
            self._tried = Tried(history.lineage)
        self._tried.catch_up(history, but)
        return self._tried

    def _was_tried(self, tried: Tried, space: Space, values: Values, fill: Fill) -> bool:
        def complete(trial: Trial) -> Values:
            return space.complete(self.fill(trial.stream), trial.values)

        return tried.has_point(values, fill) or tried.has_broken(values, complete)

    def _passed_over(self, history: History, space: Space) -> dict[int, bool]:
        """Return the candidates to be passed over in this space; True: because the constraint refuses them."""
        passed = self._passed
        if passed is None or passed.lineage is not history.lineage or passed.space != space:
            passed = self._passed = _Passed(history.lineage, space)
        return passed.candidates

    def _draw_from_list(
        self, history: History, tried: Tried, space: Space, *, refusals: int
    ) -> Answer:
        """Return a point of a nearly exhausted space that no trial has or may turn out to have."""
        in_flight = history.trials_in_flight()
        is_listed = (space.size or _LARGEST_LIST) < _LARGEST_LIST
        if is_listed:
            stream = tried.first_free
            fill = self.fill(stream)
            left = [
                values
                for values in self._listed(history, space)
                if not self._was_tried(tried, space, values, fill)
                and not any(may_be_at(trial, values) for trial in in_flight)
            ]
            if left:
                chance = self.chance
                values = min(left, key=lambda each: unit_draw(chance, "list", point_key(each)))
                return Suggest(values, stream=stream)
        if in_flight:
            return Wait()
        if self.constraint is None:
            return Exhausted()
        if is_listed:
            count = len(self._listed(history, space))
            return Exhausted(
                f"constraint= allows {count} of {space.size} points, and all of them were tried"
            )
        return Exhausted(
            f"no further point was found: constraint= refused {refusals} points in a row that were drawn. "
            "Loosen it, or declare narrower ranges"
        )

    def _listed(self, history: History, space: Space) -> Sequence[Values]:
        """Return the points of a small space that the constraint allows."""
        if self.constraint is None:
            return list(space.points())
        assert self._passed is not None
        if self._passed.allowed is None:
            self._passed.allowed = [each for each in space.points() if self.allows(history, each)]
        return self._passed.allowed


class _Passed:
    """What was passed over in one space, kept to save work: all of it follows from the facts."""

    def __init__(self, lineage: object, space: Space) -> None:
        self.lineage = lineage
        self.space = space
        self.candidates: dict[int, bool] = {}
        self.allowed: list[Values] | None = (
            None  # the points of a small space that the constraint allows
        )
