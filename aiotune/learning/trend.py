"""What earlier searches taught, as a first guess of this one's scores.

A Gaussian process for each earlier search, over scores that are standardised within it: its data, and so the
size of its scores, may have been others. Their mean is the prior mean of this search's own process, times a
factor that its own scores decide (Rasmussen and Williams 2006, section 2.7; Golovin et al. 2017, section 3.3,
stack processes likewise).

Shapes: m points, c columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aiotune.learning.gaussian_process import Array, GaussianProcess, Slope
from aiotune.learning.kernel import KernelParameters

__all__ = ["Shifted", "Trend"]

_TRUST = 5.0  # observations that the factor 1 counts as, before this search has any of its own


class Trend:
    """The mean of what several processes predict."""

    def __init__(self, processes: Sequence[GaussianProcess]) -> None:
        self._processes = processes

    def mean(self, columns: Array) -> Array:
        """Return the guess at points: (m, c) -> (m,)."""
        mean: Array = np.mean([each.predict(columns)[0] for each in self._processes], axis=0)
        return mean

    def slope(self, columns: Array) -> Array:
        """Return its gradient: (m, c) -> (m, c)."""
        slopes = [each.predict_slope(columns).mean_slope for each in self._processes]
        slope: Array = np.mean(slopes, axis=0)
        return slope

    def factor(self, guesses: Array, targets: Array) -> float:
        """Return what to multiply guesses by to suit targets: ridge regression towards 1, at least 0."""
        if not guesses.size:
            return 1.0
        spread = _TRUST * max(float(np.mean(guesses * guesses)), 1e-12)
        product = float(guesses @ targets) + spread
        return max(product / (float(guesses @ guesses) + spread), 0.0)


class Shifted:
    """A process of what a trend leaves unexplained, and that trend: predicts as a process does."""

    def __init__(self, rest: GaussianProcess, trend: Trend, factor: float) -> None:
        self._rest = rest
        self._trend = trend
        self._factor = factor

    @property
    def x(self) -> Array:
        """The points that the process has seen."""
        return self._rest.x

    @property
    def parameters(self) -> KernelParameters:
        return self._rest.parameters

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Return mean and standard deviation: (m, c) -> (m,), (m,)."""
        mean, std = self._rest.predict(x)
        return mean + self._factor * self._trend.mean(x), std

    def predict_slope(self, x: Array) -> Slope:
        """Return the prediction with its gradients."""
        rest = self._rest.predict_slope(x)
        return rest._replace(
            mean=rest.mean + self._factor * self._trend.mean(x),
            mean_slope=rest.mean_slope + self._factor * self._trend.slope(x),
        )
