"""Where a space promises most: many points, then the best of them refined within what the axes can have.

Sources: candidates, then gradients from the best of them, as Balandat et al. 2020 (BoTorch), appendix F; then a
step along each integer, and every category, as Hutter et al. 2011 (SMAC), section 4.3.

Shapes: m points, p axes, c columns.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from aiotune.oracles.acquisition import Acquisition
from aiotune.oracles.encoding import Encoding, Flags
from aiotune.oracles.gates import Gates
from aiotune.oracles.gaussian_process import Array, GaussianProcess, Indices

__all__ = ["Landscape"]

_DRAWN = 512
_NEARBY = 256
_PARENTS = (0.4, 0.25, 0.15, 0.12, 0.08)  # the shares of these near the best, the second, ...
_CLIMBERS = 4
_LEAST_APART = 0.1  # of one another, in lengthscales
_CLIMB_STEPS = 40
_ROUNDS = 3


class Landscape:
    """What each point of a space promises by a model of it."""

    def __init__(
        self, encoding: Encoding, gates: Gates, process: GaussianProcess, acquisition: Acquisition
    ) -> None:
        self._encoding = encoding
        self._gates = gates
        self._process = process
        self._acquisition = acquisition
        self._is_ordered = np.array([not each.is_nominal for each in encoding.axes], dtype=bool)
        self._is_continuous = np.array([each.levels is None for each in encoding.axes], dtype=bool)

    def promise(self, places: Array) -> Array:
        """Return what points promise, larger is better: (m, p) -> (m,)."""
        mean, std = self._process.predict(self._columns(places))
        return self._acquisition(mean, std)[0]

    def best_first(self, chance: np.random.Generator, best: Array) -> Array:
        """Return points that the axes can have, the most promising first. `best` (b, p): near these, too."""
        drawn = chance.random((_DRAWN, len(self._encoding.axes)))
        points = self._encoding.snapped(np.vstack([drawn, self._near(chance, best)]))
        refined = self._refined(self._starts(points))
        points = np.vstack([refined, points])
        return points[np.argsort(-self.promise(points), kind="stable")]

    def _columns(self, places: Array) -> Array:
        return self._encoding.columns(self._gates.masked(places))

    def _near(self, chance: np.random.Generator, best: Array) -> Array:
        """Return points that differ from the best ones a little, and in few axes."""
        count, axes = _NEARBY, best.shape[1]
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
        return np.where(self._is_ordered, np.where(is_moved, moved, centres), redrawn)

    def _starts(self, points: Array) -> Array:
        """Return some of the most promising points, at a distance from one another."""
        order = np.argsort(-self.promise(points), kind="stable")[: 25 * _CLIMBERS]
        scaled = self._process.scaled(self._columns(points[order]))
        chosen: list[int] = []
        for each in range(len(order)):
            apart = np.linalg.norm(scaled[chosen] - scaled[each], axis=1)
            if (apart > _LEAST_APART).all():
                chosen.append(each)
            if len(chosen) == _CLIMBERS:
                break
        return points[order[chosen]]

    def _refined(self, points: Array) -> Array:
        """Return points uphill of these: numbers by their slope, then integers and categories one by one."""
        points = self._encoding.snapped(self._climbed(points, self._is_ordered))
        for _ in range(_ROUNDS):
            better = np.array([self._best_neighbour(each) for each in points])
            if np.array_equal(better, points):
                break
            points = better
        return np.vstack([points, self._climbed(points[:1], self._is_continuous)])

    def _best_neighbour(self, point: Array) -> Array:
        """Return the most promising of the point and those one or two levels, or a category, away."""
        moves = [point]
        for index, axis in enumerate(self._encoding.axes):
            if axis.levels is None:
                continue
            level = int(axis.indices(point[index]))
            near = {level - 2, level - 1, level + 1, level + 2} & set(range(len(axis.levels)))
            for other in set(range(len(axis.levels))) - {level} if axis.is_nominal else near:
                moved = point.copy()
                moved[index] = axis.levels[other]
                moves.append(moved)
        neighbours = np.array(moves)
        return neighbours[int(np.argmax(self.promise(neighbours)))]  # type: ignore[no-any-return]

    def _climbed(self, points: Array, is_free: Flags) -> Array:
        """Return the points moved uphill along the free axes, which are ordered, by L-BFGS-B: (m, p) -> (m, p).

        One call for all: their sum rises where each of them does.
        """
        free = np.flatnonzero(is_free)
        if not free.size:
            return points

        def falling(flat: Array) -> tuple[float, Array]:
            moved = points.copy()
            moved[:, free] = flat.reshape(len(points), -1)
            promise, slope = self._slope(moved, free)
            return -float(promise.sum()), -slope.ravel()

        start = points[:, free].ravel()
        result = minimize(
            falling,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=[(0.0, 1.0)] * start.size,
            options={"maxiter": _CLIMB_STEPS, "ftol": 1e-9, "gtol": 1e-6},
        )
        climbed = points.copy()
        climbed[:, free] = result.x.reshape(len(points), -1)
        return climbed

    def _slope(self, places: Array, free: Indices) -> tuple[Array, Array]:
        """Return promise (m,) and its slope along the free axes (m, free); 0 where an axis is inactive."""
        masked = self._gates.masked(places)
        predicted = self._process.predict_slope(self._encoding.columns(masked))
        promise, by_mean, by_std = self._acquisition(predicted.mean, predicted.std)
        by_column = by_mean[:, None] * predicted.mean_slope + by_std[:, None] * predicted.std_slope
        slope = by_column[:, self._encoding.firsts[free]]
        return promise, np.where(np.isnan(masked[:, free]), 0.0, slope)
