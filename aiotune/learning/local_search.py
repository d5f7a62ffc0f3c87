"""Points uphill of some, where there is no slope to follow: the best of many neighbours, again and again.

Hutter et al. 2011 (SMAC), section 4.3: of a name the neighbours are the others, of a number those a normal step
away; all that are looked at in one round are judged at once.

Shapes: m points, p axes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from aiotune.learning.candidates import Candidates
from aiotune.learning.encoding import Encoding
from aiotune.learning.gaussian_process import Array

__all__ = ["LocalSearch"]

_STEPS = 4  # along each axis without levels, in each round
_WIDTH = 0.2  # of a step, as a standard deviation in places
_NARROWER = 0.6  # from round to round
_ROUNDS = 4
_MOST_AXES = 30  # are stepped along in a round, of those without levels


class LocalSearch:
    """Climbs a function of points, (m, p) -> (m,), on some axes."""

    def __init__(
        self,
        encoding: Encoding,
        candidates: Candidates,
        promise: Callable[[Array], Array],
        chance: np.random.Generator,
    ) -> None:
        self._continuous = np.flatnonzero([each.levels is None for each in encoding.axes])
        self._candidates = candidates
        self._promise = promise
        self._chance = chance

    def best_first(self, points: Array, starts: int) -> Array:
        """Return points and what lies uphill of the best of them, most promising first: (m, p) -> (m, p)."""
        promise = self._promise(points)
        order = np.argsort(-promise, kind="stable")
        points, promise = points[order], promise[order]
        climbed, height = points[:starts], promise[:starts]
        for turn in range(_ROUNDS):
            climbed, height = self._risen(climbed, height, _WIDTH * _NARROWER**turn)
        # Of equals, first those that did not need to be climbed to: they are spread by their makers.
        points, promise = np.vstack([points, climbed]), np.append(promise, height)
        return points[np.argsort(-promise, kind="stable")]

    def _risen(self, points: Array, height: Array, width: float) -> tuple[Array, Array]:
        """Return each point, or the best of its neighbours if that is higher."""
        around = [self._around(each, width) for each in points]
        promise = np.split(
            self._promise(np.vstack(around)), np.cumsum([len(each) for each in around])[:-1]
        )
        best = [int(np.argmax(each)) for each in promise]
        reached = np.array([each[index] for each, index in zip(around, best, strict=True)])
        value = np.array([each[index] for each, index in zip(promise, best, strict=True)])
        is_higher = value > height
        return np.where(is_higher[:, None], reached, points), np.where(is_higher, value, height)

    def _around(self, point: Array, width: float) -> Array:
        """Return the point and its neighbours."""
        axes = self._continuous
        if len(axes) > _MOST_AXES:
            axes = self._chance.choice(axes, size=_MOST_AXES, replace=False)
        axes = np.repeat(axes, _STEPS)
        stepped = np.repeat(point[None], len(axes), axis=0)
        moved = point[axes] + width * self._chance.standard_normal(len(axes))
        stepped[np.arange(len(axes)), axes] = np.clip(moved, 0.0, 1.0)
        return np.vstack([self._candidates.neighbours(point), stepped])
