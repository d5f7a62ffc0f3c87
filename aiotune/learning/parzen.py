"""Densities over a space: a kernel at each of some points, and a uniform prior; to be drawn from, and compared.

Bergstra et al. 2011, section 4, in the multivariate form of Falkner et al. 2018 (BOHB), section 3.2: the kernel
of a point is the product of one-dimensional ones, Gaussians cut off at the ends of an axis, and Aitchison and
Aitken's among names. On an axis with steps a Gaussian is integrated over the cell of each value. Where an axis
is inactive at a kernel's centre, the kernel is uniform; where it is inactive at a point, it does not count. So
the density is one over whole points of a space with conditions.

Shapes: n centres, m points, p axes, k = n + 1 kernels, the prior last.
"""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp, ndtr, ndtri

from aiotune.learning.encoding import Axis, Encoding
from aiotune.learning.gaussian_process import Array, Indices

__all__ = ["Parzen"]

_WIDTH = 0.7  # of a kernel, in units of what its centres are spread by, before it shrinks with their number
_LEAST_WIDTH, _MOST_WIDTH = 0.02, 0.5
_UNIFORM_VARIANCE = 1.0 / 12.0
_AWAY = 0.5  # the chance of a kernel among names to leave its centre, before it shrinks with their number
_TINY = 1e-300


class Parzen:
    """The mean of kernels at `places` (n, p), NaN where inactive, and of a uniform one.

    weights: (n,) of the kernels. prior_weight: of the uniform one.
    """

    def __init__(
        self, encoding: Encoding, places: Array, weights: Array, prior_weight: float
    ) -> None:
        self._encoding = encoding
        self._weights = np.append(weights, prior_weight) / (weights.sum() + prior_weight)
        share = _share(*places.shape)
        self._kernels = [
            _kernels(axis, places[:, index], share) for index, axis in enumerate(encoding.axes)
        ]

    def log_density(self, masked: Array) -> Array:
        """Return the logarithm of the density at points, NaN where inactive: (m, p) -> (m,)."""
        total = np.broadcast_to(np.log(self._weights), (len(masked), len(self._weights))).copy()
        for index, kernels in enumerate(self._kernels):
            is_active = ~np.isnan(masked[:, index])
            total[is_active] += kernels.log_density(masked[is_active, index])
        density: Array = logsumexp(total, axis=1)
        return density

    def draw(self, count: int, chance: np.random.Generator) -> Array:
        """Return points drawn from the density, with a place on every axis: (count, p)."""
        chosen = chance.choice(len(self._weights), size=count, p=self._weights)
        drawn = [kernels.draw(chosen, chance.random(count)) for kernels in self._kernels]
        return self._encoding.snapped(np.stack(drawn, axis=1))


def _kernels(axis: Axis, places: Array, share: float) -> _Ordered | _Nominal:
    return _Nominal(axis, places, share) if axis.is_nominal else _Ordered(axis, places, share)


class _Ordered:
    """Gaussians of one width on an axis of numbers; uniform for the prior and for inactive centres."""

    def __init__(self, axis: Axis, places: Array, share: float) -> None:
        centres = np.append(places, np.nan)
        self._is_uniform = np.isnan(centres)
        self._centres = np.where(self._is_uniform, 0.5, centres)
        self._width = _width(places[~np.isnan(places)], share)
        self._below = ndtr(-self._centres / self._width)
        self._inside = ndtr((1.0 - self._centres) / self._width) - self._below
        self._axis = axis

    def log_density(self, places: Array) -> Array:
        """Return the logarithm of each kernel's density, or of a cell's chance: (m,) -> (m, k)."""
        if self._axis.levels is None:
            z = (places[:, None] - self._centres) / self._width
            density = -0.5 * z * z - np.log(self._width * np.sqrt(2 * np.pi) * self._inside)
            return np.where(self._is_uniform, 0.0, density)
        middles = 0.5 * (self._axis.levels[1:] + self._axis.levels[:-1])
        edges = np.concatenate([[0.0], middles, [1.0]])
        level = self._axis.indices(places)
        low, high = edges[level][:, None], edges[level + 1][:, None]
        z_low, z_high = (low - self._centres) / self._width, (high - self._centres) / self._width
        # Of two tails, the difference is taken where both are small.
        is_above = z_low > 0
        mass = np.where(is_above, ndtr(-z_low) - ndtr(-z_high), ndtr(z_high) - ndtr(z_low))
        mass = np.where(self._is_uniform, high - low, mass / self._inside)
        logarithms: Array = np.log(np.maximum(mass, _TINY))
        return logarithms

    def draw(self, chosen: Indices, units: Array) -> Array:
        """Return a place from each of the chosen kernels, by the inverse of its distribution: (m,) -> (m,)."""
        mass = self._below[chosen] + units * self._inside[chosen]
        drawn = self._centres[chosen] + self._width * ndtri(np.clip(mass, 1e-15, 1.0 - 1e-15))
        places: Array = np.where(self._is_uniform[chosen], units, np.clip(drawn, 0.0, 1.0))
        return places


class _Nominal:
    """Kernels among names: most of the chance at the centre, the rest evenly on the others."""

    def __init__(self, axis: Axis, places: Array, share: float) -> None:
        assert axis.levels is not None
        self._levels = axis.levels
        self._axis = axis
        centres = np.append(axis.indices(places), -1)
        count = len(axis.levels)
        away = min(_AWAY * share, 1.0 - 1.0 / count)
        self._chances = np.full((len(centres), count), away / (count - 1))
        self._chances[np.arange(len(centres)), centres] = 1.0 - away
        self._chances[centres < 0] = 1.0 / count

    def log_density(self, places: Array) -> Array:
        """Return the logarithm of the chance that each kernel gives to a name: (m,) -> (m, k)."""
        density: Array = np.log(self._chances[:, self._axis.indices(places)].T)
        return density

    def draw(self, chosen: Indices, units: Array) -> Array:
        """Return a name from each of the chosen kernels: (m,) -> (m,)."""
        cumulated = np.cumsum(self._chances[chosen], axis=1)
        level = (units[:, None] > cumulated[:, :-1]).sum(axis=1)
        places: Array = self._levels[level]
        return places


def _share(count: int, axes: int) -> float:
    """Return what a kernel's width is to be multiplied by: n^(-1/(4 + p)), Scott's rule (1992, eq. 6.42)."""
    return float(max(count, 1) ** (-1.0 / (4.0 + axes)))


def _width(places: Array, share: float) -> float:
    """Return the standard deviation of kernels. With few centres the uniform density counts as one of them."""
    off = places - (places.mean() if places.size else 0.5)
    spread = np.sqrt((off @ off + _UNIFORM_VARIANCE) / (places.size + 1))
    return float(np.clip(_WIDTH * spread * share, _LEAST_WIDTH, _MOST_WIDTH))
