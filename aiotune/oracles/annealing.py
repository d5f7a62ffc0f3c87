"""Simulated annealing: a walk that takes worse points too, at first readily, later hardly ever.

Kirkpatrick et al. 1983; a worse point is accepted as in Metropolis et al. 1953. The walk's steps shorten as it
cools. All of its state is replayed from the trials in the order of their ends.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Unpack

from aiotune.history import History
from aiotune.objective import Objective
from aiotune.oracles.model_based import ModelBasedOracle, OracleOptions
from aiotune.oracles.options import number_above
from aiotune.space import Values, unit_draw

if TYPE_CHECKING:
    import numpy as np

    from aiotune.learning.encoding import Flags
    from aiotune.learning.gaussian_process import Array
    from aiotune.learning.lessons import Lessons

__all__ = ["SimulatedAnnealingOracle"]

_MOST_MEASURED = 20  # of the first scores: their spread is the unit of the temperature
_LAST_SHARE = 0.001  # of the initial temperature, that `max_trials` lead to
_COOLING = 0.95  # for each trial, if there is no such limit
_LONGEST, _SHORTEST = 0.5, 0.005  # steps, as a standard deviation in places
_MOVED = 2.0  # axes at a time, on average
_MOST_STEPS = 100  # are tried
_WIDER = (
    1.05  # than the last one, each: a short step may lead only to points that were tried before
)


class SimulatedAnnealingOracle(ModelBasedOracle):
    """Walks from point to neighbour; takes a worse one with a chance that falls as the walk cools.

    The walk begins at the best of the first points, which are drawn. initial_temperature: in units of the
    spread of the first scores: a point that is worse by so much is accepted with a chance of 1/e. cooling: what
    the temperature is multiplied by after each trial; None: such that it is down to a thousandth after
    `max_trials`, or 0.95 without that limit.
    """

    def __init__(
        self,
        objective: Objective | str | Sequence[Objective | str] | None = None,
        max_trials: int | None = 10,
        num_initial_points: int | None = None,
        initial_temperature: float = 0.3,
        cooling: float | None = None,
        **options: Unpack[OracleOptions],
    ) -> None:
        super().__init__(
            objective=objective,
            max_trials=max_trials,
            num_initial_points=num_initial_points,
            **options,
        )
        self.initial_temperature = number_above(0, "initial_temperature", initial_temperature)
        self.cooling = None if cooling is None else number_above(0, "cooling", cooling, at_most=1)
        self._walk: tuple[Lessons, _Walk] | None = None

    def proposals(
        self, history: History, lessons: Lessons, chance: np.random.Generator
    ) -> Iterator[Values]:
        from aiotune.learning.side_terms import likely_first

        initial = self.initial_points(lessons.encoding.space)
        cooling = self._cooling(initial)
        if self._walk is None or self._walk[0] is not lessons:
            self._walk = lessons, _Walk(self.chance, initial, self.initial_temperature, cooling)
        walk = self._walk[1]
        walk.follow(lessons)
        share = cooling ** max(lessons.count - initial, 0)
        width = max(_LONGEST * math.sqrt(share), _SHORTEST)
        points = _neighbours(lessons, walk.at, width, chance)
        points = likely_first(points, lessons, self.priors, chance)
        return map(lessons.encoding.values, points.tolist())

    def _cooling(self, initial: int) -> float:
        if self.cooling is not None:
            return self.cooling
        if self.max_trials is None:
            return _COOLING
        return float(_LAST_SHARE ** (1.0 / max(self.max_trials - initial, 1)))


class _Walk:
    """Where a walk is: the trial `at` of those that it followed, None while none has a score."""

    def __init__(self, seed: int, initial: int, temperature: float, cooling: float) -> None:
        self._seed = seed
        self._initial = initial
        self._temperature = temperature
        self._cooling = cooling
        self._followed = 0
        self._first_scores: list[float] = []
        self._unit = 0.0  # their spread
        self._score = math.inf
        self.at: int | None = None

    def follow(self, lessons: Lessons) -> None:
        """Take in the trials that are over since the last call."""
        for index in range(self._followed, lessons.count):
            score = float(lessons.scores[index])
            if self._is_accepted(score, index, lessons.trials[index].number):
                self.at, self._score = index, score
            if math.isfinite(score) and len(self._first_scores) < _MOST_MEASURED:
                self._first_scores.append(score)
                self._unit = statistics.pstdev(self._first_scores)
        self._followed = lessons.count

    def _is_accepted(self, score: float, index: int, number: int) -> bool:
        if not score < math.inf:
            return False
        if self.at is None or score <= self._score:
            return True
        if index < self._initial or self._unit == 0.0:
            return False
        temperature = self._temperature * self._cooling ** (index - self._initial)
        chance = unit_draw(self._seed, "accept", number)
        # exp(-loss / temperature) > chance, without a division: the temperature may have fallen to 0.
        loss = (score - self._score) / self._unit
        return loss < -temperature * math.log1p(-chance)


def _neighbours(
    lessons: Lessons, at: int | None, width: float, chance: np.random.Generator
) -> Array:
    """Return neighbours of a trial's point, the first within `width`, others farther and farther: (m, p)."""
    import numpy as np

    is_nominal = np.array([each.is_nominal for each in lessons.encoding.axes])
    place = np.full(is_nominal.size, np.nan) if at is None else lessons.places[at]
    shape = (_MOST_STEPS, is_nominal.size)
    anything = chance.random(shape)
    widths = np.minimum(width * _WIDER ** np.arange(_MOST_STEPS), _LONGEST)
    # Reflected at the ends, for steps that are cut off there would heap points up.
    stepped = np.abs((place + widths[:, None] * chance.standard_normal(shape) + 1.0) % 2.0 - 1.0)
    reached = np.where(is_nominal, anything, stepped)
    moved = np.where(_is_moved(place, is_nominal, width, chance), reached, place)
    return lessons.encoding.snapped(np.where(np.isnan(place), anything, moved))


def _is_moved(place: Array, is_nominal: Flags, width: float, chance: np.random.Generator) -> Flags:
    """Return which axes each neighbour differs in, one at least that is active at the point: (m, p).

    Names change seldom when steps are short: any other name is far away.
    """
    import numpy as np

    active = np.flatnonzero(~np.isnan(place))
    inclination = np.where(is_nominal, math.sqrt(width / _LONGEST), 1.0)
    rate = inclination * _MOVED / max(active.size, 1)
    is_moved: Flags = chance.random((_MOST_STEPS, place.size)) < rate
    if active.size:
        odds = inclination[active] / inclination[active].sum()
        first = chance.choice(active, size=_MOST_STEPS, p=odds)
        is_moved[np.arange(_MOST_STEPS), first] = True
    return is_moved
