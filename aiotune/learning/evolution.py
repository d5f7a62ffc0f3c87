"""A distribution of points that evolves by CMA-ES, replayed from the trials of a search.

Hansen 2016, "The CMA evolution strategy: a tutorial"; numbers with steps as in Hamano et al. 2022 (CMA-ES with
margin), by the package `cmaes`, which no other module imports. A trial is told by where it was, whatever
distribution it came from: a point from elsewhere is an injected one, as in Hansen 2011.

Shapes: m points, p axes, d ordered ones among them.
"""

from __future__ import annotations

import math

import numpy as np
from cmaes import CMAwM

from aiotune.learning.encoding import Encoding
from aiotune.learning.gaussian_process import Array
from aiotune.learning.lessons import Lessons
from aiotune.space import unit_draw

__all__ = ["Evolution"]

_RESAMPLED = 20  # times, for a point within the box; then it is put on the edge
_BEST_SHARE = 0.25  # of the trials: they pass their names on
_CHANGED = 0.2  # of the names that are passed on are drawn anew


class Evolution:
    """The distribution that the trials of some lessons have led to.

    initial: so many trials come before the first generation, which begins at the best of them. sigma: its
    standard deviation then, in places. population: of a generation; None: 4 + 3 ln d, rounded down.
    """

    def __init__(
        self, lessons: Lessons, *, seed: int, initial: int, sigma: float, population: int | None
    ) -> None:
        self._lessons = lessons
        self._numbers = _Numbers(lessons.encoding)
        self._seed = seed
        self._initial = initial
        self._sigma = sigma
        self._population = population
        self._optimizer: CMAwM | None = None
        self._told = initial  # so many trials

    def points(self, count: int, chance: np.random.Generator) -> Array:
        """Return points of the distribution, after all trials that are over: (count, p)."""
        points = self._names(count, chance)
        if self._numbers.axes.size:
            optimizer = self._evolved()
            optimizer.reseed_rng(int(chance.integers(2**32)))
            drawn = np.array([optimizer.ask()[0] for _ in range(count)])
            points[:, self._numbers.axes] = self._numbers.places(drawn)
        return self._lessons.encoding.snapped(points)

    def _names(self, count: int, chance: np.random.Generator) -> Array:
        """Return points with places on nominal axes: those of the best trials, some drawn: (count, p)."""
        lessons = self._lessons
        scored = int(np.sum(~np.isnan(lessons.scores)))
        best = lessons.ranked(lessons.count)[: max(1, math.ceil(_BEST_SHARE * scored))]
        passed_on = lessons.places[chance.choice(best, size=count)]
        is_drawn = np.isnan(passed_on) | (chance.random(passed_on.shape) < _CHANGED)
        points: Array = np.where(is_drawn, chance.random(passed_on.shape), passed_on)
        return points

    def _evolved(self) -> CMAwM:
        """Return the optimizer, told of every generation that is complete."""
        count = self._lessons.count
        if count < self._initial:
            return self._begun(count)
        if self._optimizer is None:
            self._optimizer = self._begun(self._initial)
        while self._told + self._optimizer.population_size <= count:
            self._optimizer = self._after_generation(self._optimizer)
        return self._optimizer

    def _begun(self, count: int) -> CMAwM:
        """Return an optimizer that begins at the best of the first `count` trials."""
        lessons, numbers = self._lessons, self._numbers
        best = lessons.ranked(count)[:1]
        mean = np.full(numbers.axes.size, 0.5)
        if best.size and not np.isnan(lessons.scores[best[0]]):
            place = numbers.coordinates(lessons.places[best])[0]
            mean = np.where(np.isnan(place), mean, place)
        return CMAwM(
            mean,
            self._sigma,
            bounds=np.tile([0.0, 1.0], (mean.size, 1)),
            steps=numbers.steps,
            n_max_resampling=_RESAMPLED,
            population_size=self._population,
        )

    def _after_generation(self, optimizer: CMAwM) -> CMAwM:
        """Tell the optimizer of the next trials; return it, or one that begins anew if it has degenerated."""
        first, self._told = self._told, self._told + optimizer.population_size
        scores = self._lessons.scores[first : self._told]
        if np.isnan(scores).all():
            return optimizer  # nothing tells one from another
        # Ranks, for CMA-ES looks at no more, and scores may be infinite. Failed trials are the worst.
        ranks = np.argsort(np.argsort(np.where(np.isnan(scores), np.inf, scores), kind="stable"))
        where = [self._where(optimizer, index) for index in range(first, self._told)]
        with np.errstate(all="ignore"):
            optimizer.tell(list(zip(where, ranks.tolist(), strict=True)))
            is_sound = np.isfinite(optimizer.mean).all() and not optimizer.should_stop()
        return optimizer if is_sound else self._begun(self._told)

    def _where(self, optimizer: CMAwM, index: int) -> Array:
        """Return the coordinates of a trial; where it was inactive, any of the distribution's: (d,)."""
        where = self._numbers.coordinates(self._lessons.places[[index]])[0]
        number = self._lessons.trials[index].number
        optimizer.reseed_rng(int(unit_draw(self._seed, "inactive", number) * 2**32))
        found: Array = np.where(np.isnan(where), optimizer.ask()[1], where)
        return found


class _Numbers:
    """The ordered axes, as coordinates in [0, 1]: places, or for steps their rank from the first to the last.

    steps: (d,), between the ranks; 0 for an axis without.
    """

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        axes = [index for index, each in enumerate(encoding.axes) if not each.is_nominal]
        self.axes = np.array(axes, dtype=np.intp)
        levels = [encoding.axes[index].levels for index in axes]
        self.steps = np.array([0.0 if each is None else 1.0 / (len(each) - 1) for each in levels])

    def coordinates(self, places: Array) -> Array:
        """Return the coordinates of places on all axes, NaN where inactive: (m, p) -> (m, d)."""
        found = places[:, self.axes]
        for column, index in enumerate(self.axes):
            if self.steps[column]:
                ranks = self._encoding.axes[index].indices(found[:, column])
                found[:, column] = np.where(ranks < 0, np.nan, ranks * self.steps[column])
        return found

    def places(self, coordinates: Array) -> Array:
        """Return the places of coordinates: (m, d) -> (m, d)."""
        places = np.clip(coordinates, 0.0, 1.0)
        for column, index in enumerate(self.axes):
            levels = self._encoding.axes[index].levels
            if levels is not None:
                places[:, column] = levels[
                    np.rint(places[:, column] / self.steps[column]).astype(int)
                ]
        return places
