"""What a forest of trees learnt from the trials of a search, and the points that it favours.

Shapes: k trials in flight, m points, p axes.
"""

from __future__ import annotations

import numpy as np

from aiotune.learning.acquisition import log_expected_improvement
from aiotune.learning.candidates import Candidates
from aiotune.learning.gaussian_process import Array, Indices
from aiotune.learning.lessons import Lessons
from aiotune.learning.local_search import LocalSearch
from aiotune.learning.priors import Priors
from aiotune.learning.side_terms import side_terms
from aiotune.learning.targets import standardised
from aiotune.learning.trees import Forest

__all__ = ["Woodland"]

_MOST_POINTS = 400  # of the model: the best half, and half of them any
_NEARBY, _ANYWHERE = 256, 256
_BEST, _CLIMBERS = 5, 6
_NAMED = 0.25  # of the points have names that are drawn: trees are sure of names too soon


class Woodland:
    """A forest over some lessons with at least one score.

    pending: (k, p), where trials are in flight: they are taken to end as the forest expects (the kriging
    believer of Ginsbourger et al. 2010, section 4.1). beliefs: those of the user.
    """

    def __init__(
        self,
        lessons: Lessons,
        pending: Array,
        beliefs: Priors | None,
        *,
        trees: int,
        chance: np.random.Generator,
    ) -> None:
        self._lessons = lessons
        self._gates = lessons.gates(lessons.count)
        self._chance = chance
        chosen = _chosen(lessons)
        columns = self._columns(lessons.places[chosen])
        targets = standardised(lessons.scores[chosen])
        self._forest = Forest(columns, targets, trees=trees, chance=chance)
        if len(pending):
            unknown = self._columns(pending)
            believed = np.append(targets, self._forest.predict(unknown)[0])
            columns = np.vstack([columns, unknown])
            self._forest = Forest(columns, believed, trees=trees, chance=chance)
        self._improvement = log_expected_improvement(float(targets.min()))
        self._beside = side_terms(lessons, self._gates, beliefs)

    def promise(self, places: Array) -> Array:
        """Return what points promise, larger is better: (m, p) -> (m,)."""
        columns = self._columns(places)
        improvement = self._improvement(*self._forest.predict(columns))[0]
        return improvement + self._beside.value(columns)

    def best_first(self) -> Array:
        """Return points of the space, the most promising first: (m, p)."""
        lessons = self._lessons
        candidates = Candidates(lessons.encoding, self._chance)
        best = lessons.places[lessons.ranked(lessons.count)[:_BEST]]
        points = np.vstack([candidates.near(best, _NEARBY), candidates.anywhere(_ANYWHERE)])
        is_nominal = np.array([each.is_nominal for each in lessons.encoding.axes])
        if is_nominal.any() and self._chance.random() < _NAMED:
            names = np.where(is_nominal, self._chance.random(is_nominal.size), points)
            points = lessons.encoding.snapped(names)
            return points[np.argsort(-self.promise(points), kind="stable")]
        search = LocalSearch(lessons.encoding, candidates, self.promise, self._chance)
        return search.best_first(points, _CLIMBERS)

    def _columns(self, places: Array) -> Array:
        return self._lessons.encoding.columns(self._gates.masked(places))


def _chosen(lessons: Lessons) -> Indices:
    """Return the trials that the forest learns from."""
    scored = np.flatnonzero(~np.isnan(lessons.scores))
    if len(scored) <= _MOST_POINTS:
        return scored
    ranked = scored[np.argsort(lessons.scores[scored], kind="stable")]
    best, others = ranked[: _MOST_POINTS // 2], ranked[_MOST_POINTS // 2 :]
    any_others = others[np.argsort(lessons.draws[others])][: _MOST_POINTS // 2]
    return np.sort(np.concatenate([best, any_others]))
