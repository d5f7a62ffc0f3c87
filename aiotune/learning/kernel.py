"""How alike two points are: one kernel of all axes together, mixed with one for each axis alone.

Matérn 5/2 (Rasmussen and Williams 2006, eq. 4.17) with a lengthscale for each axis (eq. 5.1). Of all axes
together it can be anything; the mean of kernels of single axes is a sum of functions of one variable each
(Duvenaud et al. 2011, section 2), which few points suffice to learn. The share between the two is learnt, too:

    k(x, x') = (1 - s) M(|d|) + s / g Σ_j M(|d_j|),    d = (x - x') / lengthscales

Shapes: m and n points, c columns, g axes. A nominal axis has several columns, which share its lengthscale:
`groups` says for each column of which axis it is, (c,), ascending.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Array",
    "Indices",
    "Kernel",
    "KernelParameters",
    "axis_squares",
    "matern",
    "steepness",
]

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

_ROOT_5 = math.sqrt(5.0)


@dataclass(frozen=True, eq=False)
class KernelParameters:
    """lengthscales: (g,). noise: the variance of one observation's error. share: s above, of single axes."""

    lengthscales: Array
    noise: float
    share: float = 0.0


class Nearness(NamedTuple):
    """The kernel between two sets of scaled points, and how steep it is.

    values, together: (m, n). alone: (m, n, g). The latter two are the steepness of its two parts, each with its
    share.
    """

    values: Array
    together: Array
    alone: Array | None


class Kernel:
    """The kernel at given parameters. Its points are scaled: in units of the lengthscales."""

    def __init__(self, parameters: KernelParameters, groups: Indices) -> None:
        self._scales = parameters.lengthscales[groups]
        self._share = parameters.share
        self._groups = groups
        self._axes = len(parameters.lengthscales)

    def scaled(self, x: Array) -> Array:
        """Return points in units of the lengthscales: (m, c) -> (m, c)."""
        scaled: Array = x / self._scales
        return scaled

    def between(self, one: Array, other: Array) -> Array:
        """Return the kernel between two sets of scaled points: (m, c), (n, c) -> (m, n)."""
        mixed = matern(_distances(one, other))
        if not self._share:
            return mixed
        mixed *= 1.0 - self._share
        # One axis after the other: many points by many are a large array, for all axes a slow one.
        for axis in range(self._axes):
            columns = np.flatnonzero(self._groups == axis)
            alone = matern(_distances_along(one[:, columns], other[:, columns]))
            alone *= self._share / self._axes
            mixed += alone
        return mixed

    def nearness(self, one: Array, other: Array) -> Nearness:
        """Return the kernel between a few scaled points and others, with its steepness: (m, c), (n, c)."""
        distances = _distances(one, other)
        values, together = matern(distances), steepness(distances)
        if not self._share:
            return Nearness(values, together, None)
        distances = np.sqrt(axis_squares(one, other, self._groups))
        share = self._share / self._axes
        values = (1.0 - self._share) * values + share * matern(distances).sum(axis=2)
        return Nearness(values, (1.0 - self._share) * together, share * steepness(distances))

    def pulled(self, one: Array, other: Array, near: Nearness, weights: Array) -> Array:
        """Return Σ_i weights_mi ∇k(x_m, x_i), by the unscaled x_m: (m, c), (n, c), (m, n) -> (m, c).

        ∇M(|d|) = -steepness d / lengthscale.
        """
        pull = weights * near.together
        pulled: Array = pull @ other - pull.sum(axis=1, keepdims=True) * one
        if near.alone is not None:
            by_axis = np.einsum("mn,mng->mng", weights, near.alone)
            by_column = by_axis[:, :, self._groups]
            pulled += np.einsum("mnc,nc->mc", by_column, other) - by_column.sum(axis=1) * one
        pulled /= self._scales
        return pulled


def matern(distances: Array) -> Array:
    """Return M(r) = (1 + a + a²/3) exp(-a), with a = √5 r. Of the shape of the distances."""
    root = _ROOT_5 * distances
    value = root * root
    value /= 3.0
    value += root
    value += 1.0
    value *= np.exp(-root)
    return value


def steepness(distances: Array) -> Array:
    """Return -M'(r) / r, which is finite at 0. Of the shape of the distances."""
    root = _ROOT_5 * distances
    steep = np.exp(-root)
    root += 1.0
    steep *= root
    steep *= 5.0 / 3.0
    return steep


def axis_squares(one: Array, other: Array, groups: Indices) -> Array:
    """Return squared distances along each axis alone: (m, c), (n, c) -> (m, n, g)."""
    squares: Array = one[:, None, :] - other[None, :, :]
    squares *= squares
    firsts = np.flatnonzero(np.diff(groups, prepend=-1))
    if len(firsts) < len(groups):
        squares = np.add.reduceat(squares, firsts, axis=2)
    return squares


def _distances_along(one: Array, other: Array) -> Array:
    """Return the distances along one axis, of one column or several: (m, w), (n, w) -> (m, n)."""
    if one.shape[1] > 1:
        return _distances(one, other)
    distances = np.subtract.outer(one[:, 0], other[:, 0])
    return np.abs(distances, out=distances)


def _distances(one: Array, other: Array) -> Array:
    """Return the Euclidean distances between scaled points: (m, c), (n, c) -> (m, n)."""
    squares = (one * one).sum(axis=1)[:, None] + (other * other).sum(axis=1) - 2.0 * (one @ other.T)
    if one is other:
        np.fill_diagonal(squares, 0.0)
    np.maximum(squares, 0.0, out=squares)  # rounding may take them below 0
    distances: Array = np.sqrt(squares, out=squares)
    return distances
