"""The points that a surrogate favours: where to look, candidates there, and the best of them refined.

Shapes: m points, b trials in flight, p axes, c columns.
"""

from __future__ import annotations

import numpy as np

from aiotune.learning.candidates import Candidates
from aiotune.learning.encoding import Flags
from aiotune.learning.focus import Anywhere, Boldly, Category, Focus, NearBest, foci
from aiotune.learning.gates import Gates
from aiotune.learning.gaussian_process import Array, Process
from aiotune.learning.landscape import Allows, Landscape
from aiotune.learning.lessons import Lessons
from aiotune.learning.surrogate import Surrogate

__all__ = ["Scout"]

_MOST_LISTED = 300  # a space with no more points is looked at as a whole
_BEST = 5
_SPREAD, _NEARBY = 512, 256  # candidates
_APART = 1e-3  # from what was tried, in lengthscales: closer, nothing is learnt
_APART_FROM_PENDING = 0.1
_LOOKS = 128  # at a category, to see whether it is worth a trial
_HOPE = 3.0  # standard deviations
_FIRST = 16  # points that are compared with all that was tried


class Scout:
    """Finds points by what a surrogate has learnt from lessons, which may grow."""

    def __init__(self, lessons: Lessons, surrogate: Surrogate) -> None:
        self._lessons = lessons
        self._surrogate = surrogate
        self._listed = _listed(lessons)  # the places of all points of a small space

    def best_first(
        self, pending: Array, turn: int, chance: np.random.Generator, allows: Allows | None
    ) -> Array:
        """Return points of the space, the most promising first: (m, p).

        pending: (b, p), where trials are in flight. turn: the number of the trial that is asked for. allows:
        what the user's constraint takes.
        """
        encoding = self._lessons.encoding
        gates = self._lessons.gates(self._lessons.count)
        under_way = encoding.columns(gates.masked(pending))
        processes = self._surrogate.processes(gates, under_way)
        candidates = Candidates(encoding, chance)
        focus = self._focus(turn, gates, processes[0], candidates)
        criterion = self._surrogate.criterion(gates, processes, focus)
        lengthscales = processes[0].parameters.lengthscales
        scales = lengthscales[encoding.groups]
        landscape = Landscape(encoding, gates, criterion, scales, allows)
        if self._listed is not None:
            order = np.argsort(-landscape.promise(self._listed), kind="stable")
            return self._listed[order]
        points = self._searched(landscape, focus, lengthscales, candidates)
        scaled = encoding.columns(gates.masked(points)) / scales
        is_known = self._is_near(scaled, under_way / scales, _APART_FROM_PENDING)
        is_known[:_FIRST] |= self._is_near(scaled[:_FIRST], processes[0].x / scales, _APART)
        return np.vstack([points[~is_known], points[is_known]])

    def _focus(self, turn: int, gates: Gates, process: Process, candidates: Candidates) -> Focus:
        """Return where to look. A front has many best points, and no one score that could be stale."""
        if self._lessons.goals.shape[1] > 1 or self._listed is not None:
            return Anywhere()
        return next(
            each
            for each in foci(self._lessons, turn)
            if not isinstance(each, Category) or self._has_hope(each, gates, process, candidates)
        )

    def _has_hope(
        self, category: Category, gates: Gates, process: Process, candidates: Candidates
    ) -> bool:
        """Tell whether a point of a category may still be the best, as far as the process can tell."""
        points = candidates.anywhere(_LOOKS)
        points[:, category.axis] = category.place
        mean, std = process.predict(self._lessons.encoding.columns(gates.masked(points)))
        known, _ = process.predict(process.x)
        return bool((mean - _HOPE * std).min() < known.min())

    def _searched(
        self, landscape: Landscape, focus: Focus, lengthscales: Array, candidates: Candidates
    ) -> Array:
        leaders = self._lessons.leaders()
        best = self._lessons.places[leaders[:_BEST]]
        match focus:
            case NearBest(length=length):
                box = candidates.box(best[0], length, lengthscales)
                near = candidates.clipped(candidates.near(best, _NEARBY), box)
                points = np.vstack([candidates.within(_SPREAD, best[0], box), near])
                return landscape.best_first(points, candidates, box)
            case Category(axis=axis, place=place):
                own = leaders[self._lessons.places[leaders, axis] == place][:_BEST]
                near = candidates.near(self._lessons.places[own] if len(own) else best, _NEARBY)
                points = np.vstack([candidates.anywhere(_SPREAD), near])
                points[:, axis] = place
                return landscape.best_first(points, candidates.holding(axis))
            case Anywhere() | Boldly():
                points = np.vstack([candidates.anywhere(_SPREAD), candidates.near(best, _NEARBY)])
                return landscape.best_first(points, candidates)

    def _is_near(self, points: Array, others: Array, least: float) -> Flags:
        """Tell which of some points are as good as others: (m, c), (n, c) -> (m,). All in lengthscales.

        In a space with levels only, points that differ do so by a level.
        """
        if all(axis.levels is not None for axis in self._lessons.encoding.axes) or not len(others):
            return np.zeros(len(points), dtype=bool)
        distances = np.linalg.norm(points[:, None] - others[None], axis=2)
        is_near: Flags = distances.min(axis=1) < least
        return is_near


def _listed(lessons: Lessons) -> Array | None:
    """Return the places of every point of a space that is small enough: (m, p)."""
    encoding = lessons.encoding
    space = encoding.space
    if not encoding.axes or space.size is None or space.size > _MOST_LISTED:
        return None
    return np.array([encoding.places(each, space.active(each)) for each in space.points()])
