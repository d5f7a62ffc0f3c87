"""The kernel's parameters that suit a few observations best: fitted by marginal likelihood, held by priors.

Rasmussen and Williams 2006, eq. 5.8 and 5.9, times priors that keep a fit to few points from claiming too much.
L-BFGS-B with analytic gradients, from fixed starts: the same data give the same parameters.

Shapes: n points, c columns, g axes, P = n (n - 1) / 2 pairs of points.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.linalg import cho_solve
from scipy.optimize import minimize

from aiotune.learning.gaussian_process import factorised, inverted
from aiotune.learning.kernel import (
    Array,
    Indices,
    KernelParameters,
    axis_squares,
    matern,
    steepness,
)

__all__ = ["NOISE_PRIOR", "NegativePosterior", "Prior", "fit"]

Prior = tuple[float, float]  # centre and width of a normal density

_LENGTHSCALES = (5e-3, 1e3)  # bounds; the columns lie in [0, 1]
_NOISES = (1e-6, 2.0)  # bounds of the noise's variance, beside targets of variance 1
_SHARE_LOGITS = (-6.0, 6.0)
# Normal priors of the logarithms, of the share its logit: centre and width. The centres are the modes, for they
# are densities of the logarithm: no factor 1/x. Measured against others: these find more with 20 to 50 points.
_LENGTHSCALE_PRIOR: Prior = (math.log(0.5), 1.0)
_SHARE_PRIOR: Prior = (0.0, 1.0)
NOISE_PRIOR: Prior = (-4.0, 1.5)


def fit(
    x: Array,
    y: Array,
    *,
    groups: Indices,
    alpha: float | Array = 0.0,
    is_additive: bool = False,
    starts: int = 2,
    steps: int = 50,
    noise_prior: Prior = NOISE_PRIOR,
) -> KernelParameters:
    """Return the parameters that maximise the posterior density, found from one or two fixed starts.

    x: (n, c), columns in [0, 1]; y: (n,), standardised; alpha: as for `GaussianProcess`. is_additive: whether
    the kernel may have a share of single axes. noise_prior: of the noise's logarithm.
    """
    axes = int(groups.max()) + 1 if groups.size else 0
    posterior = NegativePosterior(x, y, groups, alpha, noise_prior, is_additive=is_additive)
    smooth = [math.log(0.5 * max(axes, 1) ** 0.25)] * axes + [math.log(1e-3)]
    flat = [_LENGTHSCALE_PRIOR[0]] * axes + [math.log(0.1)]  # everything is noise
    found = [
        minimize(
            posterior,
            np.array(start + [_SHARE_PRIOR[0]] * is_additive),
            jac=True,
            method="L-BFGS-B",
            bounds=_bounds(axes, is_additive),
            options={"maxiter": steps, "ftol": 2e-7, "gtol": 1e-3},
        )
        for start in (smooth, flat)[:starts]
    ]
    best = min(found, key=lambda result: float(result.fun)).x
    share = _sigmoid(best[axes + 1]) if is_additive else 0.0
    return KernelParameters(np.exp(best[:axes]), math.exp(best[axes]), share)


def _bounds(axes: int, is_additive: bool) -> list[tuple[float, float]]:
    logs = [(math.log(low), math.log(high)) for low, high in [_LENGTHSCALES] * axes + [_NOISES]]
    return [*logs, _SHARE_LOGITS] if is_additive else logs


class NegativePosterior:
    """The negative logarithm of marginal likelihood times priors, with its gradient.

    A function of the logarithms of lengthscales and noise and, if it is additive, the logit of the share: (g +
    1,) or (g + 2,).
    """

    def __init__(
        self,
        x: Array,
        y: Array,
        groups: Indices,
        alpha: float | Array = 0.0,
        noise_prior: Prior = NOISE_PRIOR,
        *,
        is_additive: bool = False,
    ) -> None:
        self._y = y
        self._alpha = alpha
        self._is_additive = is_additive
        self._axes = int(groups.max()) + 1 if groups.size else 0
        # Each pair once: half the work, for a kernel matrix is symmetric and its diagonal is 1.
        self._pairs = np.triu_indices(len(x), k=1)
        self._squares = axis_squares(x, x, groups)[self._pairs]  # (P, g)
        priors = [_LENGTHSCALE_PRIOR] * self._axes + [noise_prior] + [_SHARE_PRIOR] * is_additive
        self._centres, self._widths = np.array(priors).T

    def __call__(self, logs: Array) -> tuple[float, Array]:
        """Return value and gradient."""
        off = (logs - self._centres) / self._widths
        value, slope = self._likelihood(logs)
        return value + 0.5 * float(off @ off), slope + off / self._widths

    def _likelihood(self, logs: Array) -> tuple[float, Array]:
        """Return eq. 5.8 and 5.9, negated."""
        noise = math.exp(logs[self._axes])
        kernel, slopes = self._kernel(logs)
        factor = factorised(self._filled(kernel, noise))
        weights = cho_solve((factor, True), self._y, check_finite=False)
        value = (
            0.5 * float(self._y @ weights)
            + float(np.log(np.diagonal(factor)).sum())
            + 0.5 * self._y.size * math.log(2.0 * math.pi)
        )
        inner = np.outer(weights, weights) - inverted(factor)  # α αᵀ - K⁻¹
        by_pair = -inner[self._pairs] @ slopes  # each pair stands twice in the trace of eq. 5.9
        by_noise = -0.5 * noise * float(np.trace(inner))
        return value, np.insert(by_pair, self._axes, by_noise)

    def _kernel(self, logs: Array) -> tuple[Array, Array]:
        """Return the kernel of each pair, (P,), and its slopes by all but the noise: (P, g or g + 1)."""
        squares = self._squares * np.exp(-2.0 * logs[: self._axes])
        distances = np.sqrt(squares.sum(axis=1))
        kernel, steep = matern(distances), steepness(distances)
        if not self._is_additive:
            return kernel, steep[:, None] * squares  # dM / d ln l_j = steepness d_j²
        share = _sigmoid(logs[-1])
        distances = np.sqrt(squares)
        mean = matern(distances).mean(axis=1)
        slopes = np.empty((len(kernel), self._axes + 1))
        slopes[:, -1] = share * (1.0 - share) * (mean - kernel)
        by_axis = slopes[:, :-1]
        np.multiply(steepness(distances), share / self._axes, out=by_axis)
        by_axis += (1.0 - share) * steep[:, None]
        by_axis *= squares
        return (1.0 - share) * kernel + share * mean, slopes

    def _filled(self, kernel: Array, noise: float) -> Array:
        """Return the kernel matrix of the observations: (P,) -> (n, n)."""
        matrix = np.empty((self._y.size, self._y.size))
        matrix[self._pairs] = kernel
        matrix.T[self._pairs] = kernel
        matrix[np.diag_indices_from(matrix)] = 1.0 + noise + self._alpha
        return matrix


def _sigmoid(logit: float) -> float:
    return 1.0 / (1.0 + math.exp(-logit))
