"""Where good trials lie closer together than others do: the two densities of TPE, and their ratio.

Bergstra et al. 2011, section 4.1: with the good trials' density l(x) and the others' g(x), the expected
improvement rises with l(x) / g(x) (their eq. 4), so points are drawn from l and the one of the highest ratio
is taken.

Shapes: k trials in flight, m points, p axes.
"""

from __future__ import annotations

import math

import numpy as np

from aiotune.learning.gaussian_process import Array
from aiotune.learning.lessons import Lessons
from aiotune.learning.parzen import Parzen
from aiotune.learning.priors import Priors
from aiotune.learning.side_terms import side_terms

__all__ = ["Contrast"]

_MOST_GOOD = 25


class Contrast:
    """The densities of the good trials and of the others, after some lessons with at least one score.

    pending: (k, p), where trials are in flight; they count as bad, so that the next one keeps off (a constant
    liar: Ginsbourger et al. 2010, section 4.2). gamma: the share of good ones. prior_weight: of the uniform
    density among the kernels, each of which has 1 on average. beliefs: those of the user.
    """

    def __init__(
        self,
        lessons: Lessons,
        pending: Array,
        beliefs: Priors | None,
        *,
        gamma: float,
        prior_weight: float,
    ) -> None:
        self._encoding = lessons.encoding
        self._gates = lessons.gates(lessons.count)
        ranked = lessons.ranked(lessons.count)
        scored = int(np.sum(np.isfinite(lessons.scores)))
        good = min(math.ceil(gamma * lessons.count), _MOST_GOOD, scored)
        places = self._gates.masked(np.vstack([lessons.places[ranked], pending]))
        self._good = Parzen(self._encoding, places[:good], _by_rank(good), prior_weight)
        others = len(places) - good
        self._others = Parzen(self._encoding, places[good:], np.ones(others), prior_weight)
        self._beside = side_terms(lessons, self._gates, beliefs)

    def best_first(self, count: int, chance: np.random.Generator) -> Array:
        """Return points drawn from the good trials' density, those of the highest ratio first: (count, p)."""
        points = self._good.draw(count, chance)
        masked = self._gates.masked(points)
        ratio = self._good.log_density(masked) - self._others.log_density(masked)
        ratio += self._beside.value(self._encoding.columns(masked))
        return points[np.argsort(-ratio, kind="stable")]


def _by_rank(count: int) -> Array:
    """Return weights that fall with the rank, as those of CMA-ES do (Hansen 2016, eq. 49): 1 on average."""
    weights = math.log(count + 0.5) - np.log(np.arange(1, count + 1))
    by_rank: Array = weights / weights.mean()
    return by_rank
