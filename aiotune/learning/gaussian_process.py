"""Gaussian process regression: a function fitted to a few values, and how sure it is of itself where.

Sources: R = Rasmussen and Williams, "Gaussian Processes for Machine Learning", MIT Press 2006, with the numbers
of equations and sections there. Targets are to be standardised, for the kernel's variance is 1. No knowledge of
searches.

Shapes: n points, m other points, c columns.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular

from aiotune.learning.kernel import Array, Indices, Kernel, KernelParameters

__all__ = ["Array", "GaussianProcess", "Indices", "Process", "Slope", "factorised", "inverted"]

_JITTER = 1e-8
_LEAST_STD = 1e-6  # below it, 1 - (almost 1) is rounding


class Slope(NamedTuple):
    """A prediction with its gradients. mean, std: (m,); mean_slope, std_slope: (m, c)."""

    mean: Array
    std: Array
    mean_slope: Array
    std_slope: Array


class Process(Protocol):
    """What predicts a function from values at some points."""

    @property
    def x(self) -> Array:
        """The points with a value: (n, c)."""

    @property
    def parameters(self) -> KernelParameters:
        """Those of its kernel."""

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Return mean and standard deviation of the function, without noise: (m, c) -> (m,), (m,)."""

    def predict_slope(self, x: Array) -> Slope:
        """Return the prediction with its gradients: (m, c)."""


class GaussianProcess:
    """The posterior given n points `x` (n, c) and targets `y` (n,).

    `alpha` is a further variance on the diagonal of the kernel matrix, the least noise assumed: one number, or
    one for each point, (n,).
    """

    def __init__(
        self,
        x: Array,
        y: Array,
        parameters: KernelParameters,
        *,
        groups: Indices,
        alpha: float | Array = 0.0,
    ) -> None:
        self._x = x
        self.y = y
        self._parameters = parameters
        self.groups = groups
        self.alpha = alpha
        self._kernel = Kernel(parameters, groups)
        self._scaled = self._kernel.scaled(x)
        kernel = self._kernel.between(self._scaled, self._scaled)
        kernel[np.diag_indices_from(kernel)] += parameters.noise + alpha
        self._factor = factorised(kernel)  # L, R algorithm 2.1
        self._weights = cho_solve((self._factor, True), y, check_finite=False)

    @property
    def x(self) -> Array:
        return self._x

    @property
    def parameters(self) -> KernelParameters:
        return self._parameters

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Return mean and standard deviation of the function, without noise: (m, c) -> (m,), (m,)."""
        across = self._kernel.between(self._kernel.scaled(x), self._scaled)
        mean = across @ self._weights  # R 2.25
        half = solve_triangular(self._factor, across.T, lower=True, check_finite=False)
        return mean, _std(np.einsum("ij,ij->j", half, half))  # R 2.26

    def predict_slope(self, x: Array) -> Slope:
        """Return the prediction at `x` (m, c) with its gradients; 0 for the std where that is least."""
        kernel, scaled = self._kernel, self._kernel.scaled(x)
        near = kernel.nearness(scaled, self._scaled)
        across = near.values
        solved = across @ self._inverse  # k(x)ᵀ K⁻¹: (m, n)
        std = _std(np.einsum("ij,ij->i", solved, across))
        weights = np.broadcast_to(self._weights, across.shape)
        mean_slope = kernel.pulled(scaled, self._scaled, near, weights)
        # The variance is 1 - kᵀ K⁻¹ k, so that its gradient is -2 (K⁻¹ k)ᵀ ∇k.
        std_slope = -kernel.pulled(scaled, self._scaled, near, solved) / std[:, None]
        std_slope[std <= _LEAST_STD] = 0.0
        return Slope(across @ self._weights, std, mean_slope, std_slope)

    def left_out(self) -> Array:
        """Return by how much each target is above what the process predicts without it: (n,). R 5.12."""
        errors: Array = self._weights / np.diagonal(self._inverse)
        return errors

    def extended(self, x: Array, y: Array) -> GaussianProcess:
        """Return the posterior given further points as well; the kernel's parameters stay."""
        alphas = np.broadcast_to(self.alpha, self.y.shape)
        least = alphas.min() if alphas.size else 0.0
        return GaussianProcess(
            np.vstack([self.x, x]),
            np.concatenate([self.y, y]),
            self.parameters,
            groups=self.groups,
            alpha=np.append(alphas, np.full(len(y), least)),
        )

    @cached_property
    def _inverse(self) -> Array:
        return inverted(self._factor)


def factorised(kernel: Array) -> Array:
    """Return the lower Cholesky factor, with the least jitter of 1e-8, 1e-7, ... that allows one."""
    jitter = _JITTER
    while True:
        try:
            factor: Array = cholesky(
                kernel + jitter * np.eye(len(kernel)), lower=True, check_finite=False
            )
        except LinAlgError:
            jitter *= 10.0
        else:
            return factor


def inverted(factor: Array) -> Array:
    """Return the inverse of the matrix that has this Cholesky factor."""
    inverse: Array = cho_solve((factor, True), np.eye(len(factor)), check_finite=False)
    return inverse


def _std(explained: Array) -> Array:
    """Return the standard deviation where the data explain so much of the prior variance 1."""
    std: Array = np.sqrt(np.maximum(1.0 - explained, _LEAST_STD**2))
    return std
