"""Where a space promises most: many points, then the best of them refined within what the axes can have.

Sources: candidates, then gradients from the best of them, as Balandat et al. 2020 (BoTorch), appendix F; then a
step along each integer, and every category, as Hutter et al. 2011 (SMAC), section 4.3.

Shapes: m points, p axes, c columns.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize

from aiotune.learning.candidates import Candidates
from aiotune.learning.criterion import Term
from aiotune.learning.encoding import Encoding, Flags
from aiotune.learning.gates import Gates
from aiotune.learning.gaussian_process import Array, Indices

__all__ = ["Allows", "Landscape"]

Allows = Callable[[Array], Flags]  # (m, p) -> (m,): which points the user's constraint takes

_CLIMBERS = 4
_LEAST_APART = 0.1  # of one another, in lengthscales
_CLIMB_STEPS = 40
_ROUNDS = 3


class Landscape:
    """What each point of a space promises by a criterion. scales: (c,), lengthscales of the columns."""

    def __init__(
        self,
        encoding: Encoding,
        gates: Gates,
        criterion: Term,
        scales: Array,
        allows: Allows | None = None,
    ) -> None:
        self._encoding = encoding
        self._gates = gates
        self._criterion = criterion
        self._scales = scales
        self._allows = allows
        self._is_ordered = np.array([not each.is_nominal for each in encoding.axes], dtype=bool)
        self._is_continuous = np.array([each.levels is None for each in encoding.axes], dtype=bool)

    def promise(self, places: Array) -> Array:
        """Return what points promise, larger is better: (m, p) -> (m,)."""
        return self._criterion.value(self._columns(places))

    def best_first(
        self, points: Array, candidates: Candidates, bounds: Array | None = None
    ) -> Array:
        """Return points that the axes can have, the most promising first: `points` (m, p) and better ones.

        bounds: (p, 2), within which ordered axes are climbed; None: anywhere.
        """
        promise = self.promise(points)
        order = np.argsort(-promise, kind="stable")
        starts = self._starts(points[order])
        if not len(starts):
            return points[order]
        refined = self._refined(starts, candidates, bounds)
        points = np.vstack([refined, points[order]])
        promise = np.append(self.promise(refined), promise[order])
        return points[np.argsort(-promise, kind="stable")]

    def _columns(self, places: Array) -> Array:
        return self._encoding.columns(self._gates.masked(places))

    def _starts(self, points: Array) -> Array:
        """Return some of the most promising points, at a distance from one another. They come best first."""
        points = points[: 25 * _CLIMBERS]
        scaled = self._columns(points) / self._scales
        chosen: list[int] = []
        for each in range(len(points)):
            apart = np.linalg.norm(scaled[chosen] - scaled[each], axis=1)
            if (apart > _LEAST_APART).all() and self._is_allowed(points[each]):
                chosen.append(each)
            if len(chosen) == _CLIMBERS:
                break
        return points[chosen]

    def _is_allowed(self, point: Array) -> bool:
        return self._allows is None or bool(self._allows(point[None])[0])

    def _refined(self, points: Array, candidates: Candidates, bounds: Array | None) -> Array:
        """Return points uphill of these: numbers by their slope, then integers and categories one by one."""
        climbed = self._encoding.snapped(self._climbed(points, self._is_ordered, bounds))
        points = self._allowed_or(climbed, points)
        for _ in range(_ROUNDS):
            better = np.array([self._best_neighbour(each, candidates) for each in points])
            if np.array_equal(better, points):
                break
            points = better
        best = points[[int(np.argmax(self.promise(points)))]]
        polished = self._climbed(best, self._is_continuous, bounds)
        return np.vstack([points, self._allowed_or(polished, best)])

    def _allowed_or(self, moved: Array, points: Array) -> Array:
        """Return the moved points, but where the constraint refuses one, what it was moved from."""
        if self._allows is None:
            return moved
        return np.where(self._allows(moved)[:, None], moved, points)

    def _best_neighbour(self, point: Array, candidates: Candidates) -> Array:
        """Return the most promising of the point and its neighbours that are allowed."""
        neighbours = candidates.neighbours(point)
        promise = self.promise(neighbours)
        for each in np.argsort(-promise, kind="stable"):
            if promise[each] <= promise[0]:
                break
            if self._is_allowed(neighbours[each]):
                return neighbours[each]  # type: ignore[no-any-return]
        return point

    def _climbed(self, points: Array, is_free: Flags, bounds: Array | None) -> Array:
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

        start = points[:, free]
        low, high = (0.0, 1.0) if bounds is None else (bounds[free, 0], bounds[free, 1])
        lower = np.minimum(np.broadcast_to(low, start.shape), start).ravel()
        upper = np.maximum(np.broadcast_to(high, start.shape), start).ravel()
        result = minimize(
            falling,
            start.ravel(),
            jac=True,
            method="L-BFGS-B",
            bounds=list(zip(lower, upper, strict=True)),
            options={"maxiter": _CLIMB_STEPS, "ftol": 1e-9, "gtol": 1e-6},
        )
        climbed = points.copy()
        climbed[:, free] = result.x.reshape(len(points), -1)
        return climbed

    def _slope(self, places: Array, free: Indices) -> tuple[Array, Array]:
        """Return promise (m,) and its slope along the free axes (m, free); 0 where an axis is inactive."""
        masked = self._gates.masked(places)
        promise, by_column = self._criterion.slope(self._encoding.columns(masked))
        slope = by_column[:, self._encoding.firsts[free]]
        return promise, np.where(np.isnan(masked[:, free]), 0.0, slope)
