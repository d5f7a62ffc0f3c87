"""Gaussian process regression: a function fitted to a few values, and how sure it is of itself where.

Sources: R = Rasmussen and Williams, "Gaussian Processes for Machine Learning", MIT Press 2006, with the numbers
of equations and sections there. Kernel: Matern 5/2 (R 4.17) with a lengthscale for each parameter (R 5.1) and
unit variance, for the targets are to be standardised. Lengthscales and noise maximise the marginal likelihood
times priors (R 5.8, 5.9); the priors keep a fit to few points from claiming too much. No knowledge of searches.

Shapes: n points, m other points, c columns, g parameters. One parameter may have several columns, such as a
category its one-hot columns; they share its lengthscale. `groups` says for each column whose it is: (c,).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

__all__ = [
    "Array",
    "GaussianProcess",
    "Indices",
    "KernelParameters",
    "NegativePosterior",
    "Slope",
    "fit",
]

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

_ROOT_5 = math.sqrt(5.0)
_JITTER = 1e-8
_LEAST_STD = 1e-6  # below it, 1 - (almost 1) is rounding
_LENGTHSCALES = (5e-3, 1e3)  # bounds; the columns lie in [0, 1]
_NOISES = (1e-6, 2.0)  # bounds of the noise's variance, beside targets of variance 1
# Normal priors of the logarithms: centre and width. The centres are the modes, for they are densities of the
# logarithm: no factor 1/x. Measured against others of the literature: these find more with 20 to 50 points.
_LENGTHSCALE_PRIOR = (math.log(0.5), 1.0)
_NOISE_PRIOR = (-7.0, 2.0)


@dataclass(frozen=True, eq=False)
class KernelParameters:
    """lengthscales: (g,). noise: the variance of one observation's error."""

    lengthscales: Array
    noise: float


class Slope(NamedTuple):
    """A prediction with its gradients. mean, std: (m,); mean_slope, std_slope: (m, c)."""

    mean: Array
    std: Array
    mean_slope: Array
    std_slope: Array


class GaussianProcess:
    """The posterior given n points `x` (n, c) and targets `y` (n,).

    `alpha` is a further variance on the diagonal of the kernel matrix, the least noise assumed.
    """

    def __init__(
        self,
        x: Array,
        y: Array,
        parameters: KernelParameters,
        *,
        groups: Indices,
        alpha: float = 0.0,
    ) -> None:
        self.x = x
        self.y = y
        self.parameters = parameters
        self.groups = groups
        self.alpha = alpha
        self._scales = parameters.lengthscales[groups]
        self._scaled = x / self._scales
        kernel = _matern(_distances(self._scaled, self._scaled))
        kernel[np.diag_indices_from(kernel)] += parameters.noise + alpha
        self._factor = _factorised(kernel)  # L, R algorithm 2.1
        self._weights = cho_solve((self._factor, True), y, check_finite=False)

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Return mean and standard deviation of the function, without noise: (m, c) -> (m,), (m,)."""
        across = _matern(_distances(x / self._scales, self._scaled))
        mean = across @ self._weights  # R 2.25
        half = solve_triangular(self._factor, across.T, lower=True, check_finite=False)
        return mean, _std(np.einsum("ij,ij->j", half, half))  # R 2.26

    def predict_slope(self, x: Array) -> Slope:
        """Return the prediction at `x` (m, c) with its gradients; 0 for the std where that is least."""
        scaled = x / self._scales
        distances = _distances(scaled, self._scaled)
        across = _matern(distances)
        solved = across @ self._inverse  # k(x)ᵀ K⁻¹: (m, n)
        std = _std(np.einsum("ij,ij->i", solved, across))
        steepness = _matern_steepness(distances)
        mean_slope = self._pulled(scaled, steepness * self._weights)
        # The variance is 1 - kᵀ K⁻¹ k, so that its gradient is -2 (K⁻¹ k)ᵀ ∇k.
        std_slope = -self._pulled(scaled, steepness * solved) / std[:, None]
        std_slope[std <= _LEAST_STD] = 0.0
        return Slope(across @ self._weights, std, mean_slope, std_slope)

    def scaled(self, x: Array) -> Array:
        """Return points with each column in units of its lengthscale: (m, c) -> (m, c)."""
        scaled: Array = x / self._scales
        return scaled

    def extended(self, x: Array, y: Array) -> GaussianProcess:
        """Return the posterior given further points as well; the kernel's parameters stay."""
        return GaussianProcess(
            np.vstack([self.x, x]),
            np.concatenate([self.y, y]),
            self.parameters,
            groups=self.groups,
            alpha=self.alpha,
        )

    @cached_property
    def _inverse(self) -> Array:
        return _inverted(self._factor)

    def _pulled(self, scaled: Array, weights: Array) -> Array:
        """Return Σ_i weights_i ∇k(x, x_i), where ∇k(x, x_i) = -steepness (x - x_i) / l²: (m, c)."""
        sums = weights.sum(axis=1, keepdims=True)
        pulled: Array = (weights @ self._scaled - sums * scaled) / self._scales
        return pulled


def fit(
    x: Array, y: Array, *, groups: Indices, alpha: float = 0.0, starts: int = 2, steps: int = 50
) -> KernelParameters:
    """Return the parameters that maximise the posterior density, found from one or two fixed starts.

    x: (n, c), columns in [0, 1]; y: (n,), standardised; alpha: as for `GaussianProcess`.
    """
    count = int(groups.max()) + 1 if groups.size else 0
    bounds = [(math.log(low), math.log(high)) for low, high in [_LENGTHSCALES] * count + [_NOISES]]
    first = math.log(0.5 * max(count, 1) ** 0.25), math.log(1e-3)
    second = _LENGTHSCALE_PRIOR[0], math.log(0.1)  # everything is noise: a flat function
    objective = NegativePosterior(x, y, groups, alpha)
    found = [
        minimize(
            objective,
            np.array([lengthscale] * count + [noise]),
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": steps, "ftol": 2e-7, "gtol": 1e-3},
        )
        for lengthscale, noise in (first, second)[:starts]
    ]
    best = min(found, key=lambda result: float(result.fun))
    return KernelParameters(np.exp(best.x[:-1]), math.exp(best.x[-1]))


class NegativePosterior:
    """The negative logarithm of marginal likelihood times priors, of the parameters' logarithms (g + 1,).

    The last of them is that of the noise.
    """

    def __init__(self, x: Array, y: Array, groups: Indices, alpha: float) -> None:
        self._x = x
        self._y = y
        self._groups = groups
        self._alpha = alpha
        widths = np.full(groups.max() + 2 if groups.size else 1, _LENGTHSCALE_PRIOR[1])
        centres = np.full(widths.size, _LENGTHSCALE_PRIOR[0])
        centres[-1], widths[-1] = _NOISE_PRIOR
        self._centres, self._widths = centres, widths

    def __call__(self, logs: Array) -> tuple[float, Array]:
        """Return value and gradient."""
        off = (logs - self._centres) / self._widths
        value, slope = self._likelihood(np.exp(logs))
        return value + 0.5 * float(off @ off), slope + off / self._widths

    def _likelihood(self, parameters: Array) -> tuple[float, Array]:
        """Return R 5.8 and R 5.9, negated, the gradient by the logarithms."""
        scaled = self._x / parameters[:-1][self._groups]
        distances = _distances(scaled, scaled)
        kernel = _matern(distances)
        kernel[np.diag_indices_from(kernel)] += parameters[-1] + self._alpha
        factor = _factorised(kernel)
        weights = cho_solve((factor, True), self._y, check_finite=False)
        value = (
            0.5 * float(self._y @ weights)
            + float(np.log(np.diagonal(factor)).sum())
            + 0.5 * self._y.size * math.log(2.0 * math.pi)
        )
        inner = np.outer(weights, weights) - _inverted(factor)  # α αᵀ - K⁻¹
        # dk / d ln l_j = steepness (x_j - x'_j)² / l_j². The sum over all pairs of w (a - b)² is, w being
        # symmetric, 2 Σ a² w1 - 2 aᵀ w a: matrix products instead of an array of all differences.
        pairs = inner * _matern_steepness(distances)
        crossed = np.einsum("ic,ic->c", scaled, pairs @ scaled)
        by_column = crossed - pairs.sum(axis=1) @ (scaled * scaled)
        by_group = np.bincount(self._groups, by_column, minlength=parameters.size - 1)
        by_noise = -0.5 * parameters[-1] * float(np.trace(inner))
        return value, np.append(by_group, by_noise)


def _distances(one: Array, other: Array) -> Array:
    """Return the Euclidean distances between scaled points: (m, c), (n, c) -> (m, n)."""
    squares = (one * one).sum(axis=1)[:, None] + (other * other).sum(axis=1) - 2.0 * (one @ other.T)
    if one is other:
        np.fill_diagonal(squares, 0.0)
    distances: Array = np.sqrt(np.maximum(squares, 0.0))  # rounding may take them below 0
    return distances


def _matern(distances: Array) -> Array:
    """Return the kernel at scaled distances: R 4.17 with ν = 5/2."""
    root = _ROOT_5 * distances
    kernel: Array = (1.0 + root + root * root / 3.0) * np.exp(-root)
    return kernel


def _matern_steepness(distances: Array) -> Array:
    """Return -k'(r) / r, the derivative of R 4.17; it is finite at 0."""
    root = _ROOT_5 * distances
    steepness: Array = (5.0 / 3.0) * (1.0 + root) * np.exp(-root)
    return steepness


def _factorised(kernel: Array) -> Array:
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


def _inverted(factor: Array) -> Array:
    """Return the inverse of the matrix that has this Cholesky factor."""
    inverse: Array = cho_solve((factor, True), np.eye(len(factor)), check_finite=False)
    return inverse


def _std(explained: Array) -> Array:
    """Return the standard deviation where the data explain so much of the prior variance 1."""
    std: Array = np.sqrt(np.maximum(1.0 - explained, _LEAST_STD**2))
    return std
