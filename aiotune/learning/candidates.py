"""Points to choose among: anywhere, near the best so far, and one step from a point.

Shapes: m points, b best points, p axes.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import qmc

from aiotune.learning.encoding import Encoding
from aiotune.learning.gaussian_process import Array

__all__ = ["Candidates"]

_PARENTS = (0.4, 0.25, 0.15, 0.12, 0.08)  # the shares of these near the best, the second, ...
_MOST_SOBOL = 64  # axes; beyond, points of a sequence are hardly better spread than drawn ones
_STEPS = (1, 2)  # levels
_NAMES_KEPT = 0.7


class Candidates:
    """Makes points of one space, in terms of places on its axes."""

    def __init__(self, encoding: Encoding, chance: np.random.Generator) -> None:
        self._encoding = encoding
        self._chance = chance
        self._held: int | None = None
        self._is_ordered = np.array([not each.is_nominal for each in encoding.axes], dtype=bool)

    def anywhere(self, count: int) -> Array:
        """Return points spread over the whole space by a scrambled Sobol sequence: (count, p)."""
        axes = len(self._encoding.axes)
        if axes > _MOST_SOBOL:
            drawn = self._chance.random((count, axes))
        else:
            sequence = qmc.Sobol(axes, scramble=True, seed=self._chance)
            drawn = sequence.random_base2(int(np.ceil(np.log2(count))))[:count]
        return self._encoding.snapped(drawn)

    def holding(self, axis: int) -> Candidates:
        """Return the same, but that no neighbour of a point differs from it on this axis."""
        held = Candidates(self._encoding, self._chance)
        held._held = axis
        return held

    def box(self, centre: Array, length: float, lengthscales: Array) -> Array:
        """Return a box about a point, in proportion to the lengthscales: (p,), (p,) -> (p, 2).

        Where the point has no value, and where values are names, the box has all of the axis.
        """
        halves = 0.5 * length * lengthscales / np.exp(np.log(lengthscales).mean())
        box = np.clip(np.stack([centre - halves, centre + halves], axis=1), 0.0, 1.0)
        is_boxed = self._is_ordered & ~np.isnan(centre)
        return np.where(is_boxed[:, None], box, [0.0, 1.0])

    def within(self, count: int, centre: Array, box: Array) -> Array:
        """Return points of a box (p, 2) about a point (p,), most of them with its names: (count, p)."""
        drawn = self._chance.random((count, centre.size))
        boxed = box[:, 0] + (box[:, 1] - box[:, 0]) * drawn
        is_name = ~self._is_ordered & ~np.isnan(centre)
        is_kept = is_name & (self._chance.random(drawn.shape) < _NAMES_KEPT)
        return self._encoding.snapped(np.where(is_kept, centre, boxed))

    def clipped(self, points: Array, box: Array) -> Array:
        """Return points moved into a box: (m, p), (p, 2) -> (m, p)."""
        return self._encoding.snapped(np.clip(points, box[:, 0], box[:, 1]))

    def near(self, best: Array, count: int) -> Array:
        """Return points that differ from the best ones a little, and in few axes: (count, p).

        best: (b, p), best first, NaN where inactive.
        """
        chance, axes = self._chance, best.shape[1]
        weights = np.array(_PARENTS[: len(best)])
        centres = best[chance.choice(len(weights), size=count, p=weights / weights.sum())]
        centres = np.where(np.isnan(centres), chance.random((count, axes)), centres)
        is_moved = chance.random((count, axes)) < max(min(1.0, 3.0 / axes), 0.3)
        is_moved[np.arange(count), chance.integers(axes, size=count)] = True
        widths = 10.0 ** chance.uniform(-3.0, -0.5, size=(count, 1))
        moved = np.clip(centres + widths * chance.standard_normal((count, axes)), 0.0, 1.0)
        # A step has no meaning among names: half of those that are to move are drawn anew.
        is_redrawn = is_moved & (chance.random((count, axes)) < 0.5)
        redrawn = np.where(is_redrawn, chance.random((count, axes)), centres)
        points = np.where(self._is_ordered, np.where(is_moved, moved, centres), redrawn)
        return self._encoding.snapped(points)

    def neighbours(self, point: Array) -> Array:
        """Return the point, first, and those one or two levels, or a category, away from it: (m, p)."""
        moves = [point]
        for index, axis in enumerate(self._encoding.axes):
            if axis.levels is None or index == self._held:
                continue
            level = int(axis.indices(point[index]))
            levels = set(range(len(axis.levels)))
            near = levels & {level + sign * step for step in _STEPS for sign in (-1, 1)}
            for other in sorted(levels - {level} if axis.is_nominal else near):
                moved = point.copy()
                moved[index] = axis.levels[other]
                moves.append(moved)
        return np.array(moves)
