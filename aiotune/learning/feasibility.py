"""How likely a trial is to end with a score: learnt from those that broke.

A Gaussian process over labels, +1 where a trial ended and -1 where it broke, is read through a probit: Φ of the
prediction in units of its own uncertainty (Rasmussen and Williams 2006, section 6.5, least-squares
classification with eq. 3.25's averaging). Weighted by this probability, an expected improvement becomes that of
Gardner et al. 2014, eq. 7, whose logarithm is a sum.

That weighs a trial as if a broken one cost nothing: where scores improve toward what breaks, six of ten broke.
So the probability counts many times, and the more trials break beyond a small share, the nearer to those that
ended must a point be. Measured on three such tasks: a third of the failures, and little less is found. All of
it counts only as far as the process foretells failures that it was not shown (each trial left out in turn):
what breaks at random can be avoided nowhere.
"""

from __future__ import annotations

import numpy as np
from scipy.special import erfcx, log_ndtr

from aiotune.learning.encoding import Flags
from aiotune.learning.gaussian_process import Array, GaussianProcess, Indices
from aiotune.learning.likelihood import fit

__all__ = ["Feasibility"]

_SPREAD = 0.05  # of a label, beside what the process is unsure of: how steep the probit is at best
_NOISE_PRIOR = (-4.0, 1.0)
_WEIGHT = 40.0
_FULL_SKILL = 0.25  # of foretelling what breaks, from which on it is fully believed
# So many failures, and this share of all trials, are the price of learning.
_FREE_FAILURES, _SHARE_OF_FAILURES = 1.0, 0.1
_MARGIN_PER_FAILURE, _MOST_MARGIN = 0.5, 0.9


class Feasibility:
    """The logarithm of the probability that a point is feasible, a number of times; a `Term`.

    columns: (n, c) of the trials that are over. is_broken: (n,).
    """

    def __init__(self, columns: Array, is_broken: Flags, *, groups: Indices) -> None:
        labels = np.where(is_broken, -1.0, 1.0)
        self._usual = float(labels.mean())  # of a point that is like no other
        parameters = fit(
            columns,
            labels - self._usual,
            groups=groups,
            starts=1,
            steps=20,
            noise_prior=_NOISE_PRIOR,
        )
        self._process = GaussianProcess(columns, labels - self._usual, parameters, groups=groups)
        skill = min(_skill(self._process) / _FULL_SKILL, 1.0)
        self._weight = 1.0 + (_WEIGHT - 1.0) * skill
        self._margin = _margin(is_broken) * skill

    def value(self, columns: Array) -> Array:
        mean, std = self._process.predict(columns)
        value: Array = self._weight * log_ndtr(self._z(mean, np.sqrt(_SPREAD + std * std)))
        return value

    def slope(self, columns: Array) -> tuple[Array, Array]:
        predicted = self._process.predict_slope(columns)
        width = np.sqrt(_SPREAD + predicted.std * predicted.std)
        z = self._z(predicted.mean, width)
        by_z = self._weight * _inverse_mills(z)
        by_mean, by_std = by_z / width, -by_z * z * predicted.std / width**2
        slope = by_mean[:, None] * predicted.mean_slope + by_std[:, None] * predicted.std_slope
        return self._weight * log_ndtr(z), slope

    def _z(self, mean: Array, width: Array) -> Array:
        z: Array = (self._usual + mean - self._margin) / width
        return z


def _margin(is_broken: Flags) -> float:
    """Return the label that a point must be above: higher, the more trials broke beyond their share."""
    excess = float(is_broken.sum()) - _FREE_FAILURES - _SHARE_OF_FAILURES * len(is_broken)
    return min(_MARGIN_PER_FAILURE * max(excess, 0.0), _MOST_MARGIN)


def _skill(process: GaussianProcess) -> float:
    """Return how much better than their mean the process foretells labels that it was not shown: 0 to 1.

    Where trials break at random, there is nothing to keep away from.
    """
    rest = process.left_out()
    spread = process.y - process.y.mean()
    # The mean, too, is to be without the label itself.
    scale = (len(rest) / max(len(rest) - 1, 1)) ** 2
    total = scale * float(spread @ spread)
    return max(0.0, 1.0 - float(rest @ rest) / total) if total > 0.0 else 0.0


def _inverse_mills(z: Array) -> Array:
    """Return the derivative of ln Φ: φ(z) / Φ(z), which is √(2/π) / erfcx(-z/√2)."""
    ratio: Array = np.sqrt(2.0 / np.pi) / erfcx(-z / np.sqrt(2.0))
    return ratio
