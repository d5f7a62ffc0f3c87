"""What else than scores speaks for a point: that a trial there is likely to have one, and what users believe.

Shapes: m points, p axes, c columns.
"""

from __future__ import annotations

import numpy as np

from aiotune.learning.criterion import Criterion, Term
from aiotune.learning.feasibility import Feasibility
from aiotune.learning.gates import Gates
from aiotune.learning.gaussian_process import Array, Indices
from aiotune.learning.lessons import Lessons
from aiotune.learning.prior_term import PriorTerm
from aiotune.learning.priors import Priors

__all__ = ["likely_first", "side_terms"]

_MOST_POINTS = 100  # of the model of what breaks: the newest, and as many of the others
_BELIEVED_FOR = 10.0  # trials: so many weigh as much as the user's beliefs


def side_terms(lessons: Lessons, gates: Gates, priors: Priors | None) -> Criterion:
    """Return a term to be added to one that looks at scores; 0 everywhere where there is nothing else."""
    terms: list[Term] = []
    if lessons.is_broken.any():
        chosen = _chosen(lessons)
        columns = lessons.encoding.columns(gates.masked(lessons.places[chosen]))
        groups = lessons.encoding.groups
        terms.append(Feasibility(columns, lessons.is_broken[chosen], groups=groups))
    if priors is not None:
        # Hvarfner et al. 2022, eq. 6: the power of the beliefs falls as one over the number of trials.
        belief = PriorTerm(lessons.encoding, priors, gates.is_hidden)
        terms.append(_Scaled(belief, _BELIEVED_FOR / max(lessons.count, 1)))
    return Criterion(terms)


def likely_first(
    points: Array, lessons: Lessons, priors: Priors | None, chance: np.random.Generator
) -> Array:
    """Return points, each among the first with the probability that a trial there succeeds: (m, p) -> (m, p).

    For oracles that draw points and compare none.
    """
    gates = lessons.gates(lessons.count)
    columns = lessons.encoding.columns(gates.masked(points))
    likelihood = side_terms(lessons, gates, priors).value(columns)
    passes = np.log1p(-chance.random(len(points))) <= likelihood
    return np.vstack([points[passes], points[~passes]])


def _chosen(lessons: Lessons) -> Indices:
    """Return the trials that show what breaks."""
    if lessons.count <= _MOST_POINTS:
        return np.arange(lessons.count)
    newest = lessons.count - _MOST_POINTS // 2
    others = np.argsort(lessons.draws[:newest])[: _MOST_POINTS // 2]
    return np.append(np.sort(others), np.arange(newest, lessons.count))


class _Scaled:
    """A term, a number of times."""

    def __init__(self, term: Term, factor: float) -> None:
        self._term = term
        self._factor = factor

    def value(self, columns: Array) -> Array:
        return self._factor * self._term.value(columns)

    def slope(self, columns: Array) -> tuple[Array, Array]:
        value, slope = self._term.slope(columns)
        return self._factor * value, self._factor * slope
