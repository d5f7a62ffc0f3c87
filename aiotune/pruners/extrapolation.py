"""Where a learning curve leads: three families of curves, averaged over their shapes by what the data say.

Domhan et al. 2015 fit such families by sampling. Here the shape and the noise are taken from a grid, and for
each pair of them the rest is linear, so that everything is exact and takes well below a millisecond.

A curve is the best loss so far, in units of what it has gained: y(t) = level + size * shape(t). t counts
reports from 1, shape(1) = 1, and it falls towards 0. Beliefs before any data: level ~ N(0, 1), size ~ N(1,
1); noise as listed. So what a curve will still gain is, by and large, at most what it has gained so far.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

__all__ = ["LEAST_POINTS", "chance_below"]

Array = npt.NDArray[np.float64]

LEAST_POINTS = 4  # as many as there are unknowns: level, size, shape, noise
_MOST_POINTS = 100
_POWERS = (0.25, 0.5, 1.0, 2.0, 4.0)  # pow3: t^-c
_RATES = tuple(2.0**k for k in range(-6, 2))  # exp3: exp(-c (t - 1))
_LOG_POWERS = (0.5, 1.0, 2.0, 4.0)  # log power: (log(t + 1) / log 2)^-c
_NOISE = (0.01, 0.03, 0.1, 0.3)
_LEVEL_BELIEVED, _SIZE_BELIEVED = 0.0, 1.0


def chance_below(steps: Sequence[int], losses: Sequence[float], end: int, goals: Array) -> Array:
    """Return the probability that a curve is below each goal at step `end`: (g,) -> (g,).

    steps, losses: a step, from 0, and the least loss so far, at least four of them, finite, not rising.
    """
    gap = (steps[-1] - steps[0]) / (len(steps) - 1)
    times = 1.0 + (np.asarray(steps, dtype=float) - steps[0]) / gap
    values = np.asarray(losses, dtype=float)
    unit = values[0] - values[-1]
    if not unit > 0:
        return np.asarray(goals > values[-1], dtype=float)
    chosen = _thinned(len(times))
    y = (values[chosen] - values[-1]) / unit
    shapes, at_end = _shapes(times[chosen]), _shapes(np.array([1.0 + (end - steps[0]) / gap]))[:, 0]
    means, deviations, weights = _predictions(shapes, y, at_end)
    wanted = (goals - values[-1]) / unit
    return np.asarray(weights @ ndtr((wanted[None, :] - means[:, None]) / deviations[:, None]))


def _thinned(count: int) -> npt.NDArray[np.intp]:
    """Return which points are looked at: all of a short curve, of a long one as many as take no time."""
    if count <= _MOST_POINTS:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, _MOST_POINTS).round().astype(np.intp))


def _shapes(times: Array) -> Array:
    """Return each shape at each time: (n,) -> (k, n)."""
    logs = np.log(times + 1.0) / np.log(2.0)
    return np.vstack(
        [
            times[None, :] ** -np.array(_POWERS)[:, None],
            np.exp(-np.array(_RATES)[:, None] * (times[None, :] - 1.0)),
            logs[None, :] ** -np.array(_LOG_POWERS)[:, None],
        ]
    )


def _predictions(shapes: Array, y: Array, at_end: Array) -> tuple[Array, Array, Array]:
    """Return mean, deviation and weight of each pair of shape and noise: (k, n), (n,), (k,) -> three of (k s,).

    Bayesian linear regression with known noise; Bishop 2006, eqs. 3.50, 3.51, 3.58 and 3.59. The weight is the
    evidence, of which what all pairs share is left out.
    """
    noise = np.array(_NOISE)[None, :] ** 2
    n = y.shape[0]
    s1, s2 = shapes.sum(axis=1)[:, None], (shapes**2).sum(axis=1)[:, None]
    y1, ys = y.sum(), (shapes @ y)[:, None]
    a, b, d = 1.0 + n / noise, s1 / noise, 1.0 + s2 / noise  # precision of (level, size)
    u, v = _LEVEL_BELIEVED + y1 / noise, _SIZE_BELIEVED + ys / noise
    determinant = a * d - b * b
    level, size = (d * u - b * v) / determinant, (a * v - b * u) / determinant
    g = at_end[:, None]
    variance = (d - 2.0 * b * g + a * g * g) / determinant + noise
    believed = _LEVEL_BELIEVED**2 + _SIZE_BELIEVED**2
    misfit = (y @ y) / noise + believed - (u * level + v * size)
    evidence = -0.5 * (n * np.log(noise) + np.log(determinant) + misfit)
    weights = np.exp(evidence - evidence.max())
    mean = level + size * g
    return mean.ravel(), np.sqrt(variance).ravel(), (weights / weights.sum()).ravel()
