"""What a point promises, by a model's prediction there: larger is better.

Targets are minimised. Each function also gives the slopes by mean and by standard deviation, all of shape (m,),
so that what it promises can be climbed.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.special import erfcx, ndtr

from aiotune.learning.gaussian_process import Array

__all__ = ["Acquisition", "confidence_bound", "log_expected_improvement", "log_improvement"]

# (mean, std) -> promise, its slope by the mean, its slope by the std
Acquisition = Callable[[Array, Array], tuple[Array, Array, Array]]

_ROOT_2_PI = math.sqrt(2.0 * math.pi)


def confidence_bound(beta: float) -> Acquisition:
    """Promise the lower bound of what is plausible, mean - beta std, negated.

    Cox and John 1992; Srinivas et al. 2010, eq. 6. 0: only what looks best; larger: more of the unknown.
    """

    def promise(mean: Array, std: Array) -> tuple[Array, Array, Array]:
        return beta * std - mean, np.full_like(mean, -1.0), np.full_like(std, beta)

    return promise


def log_expected_improvement(best: float) -> Acquisition:
    """Promise the logarithm of how much a point is expected to fall below `best`.

    Jones et al. 1998, eq. 15: std h(u), h(u) = φ(u) + u Φ(u), u = (best - mean) / std. The logarithm keeps
    its slope where the improvement itself is 0 to machine precision: Ament et al. 2023, eq. 9.
    """

    def promise(mean: Array, std: Array) -> tuple[Array, Array, Array]:
        u = (best - mean) / std
        log_h, slope = log_improvement(u)
        return log_h + np.log(std), -slope / std, (1.0 - u * slope) / std

    return promise


def log_improvement(u: Array) -> tuple[Array, Array]:
    """Return ln h(u) and its derivative, Φ(u) / h(u): of what a standard normal falls below u on average.

    Below -1 the two terms of h cancel. There both are divided by φ(u), with Φ(u) = φ(u) √(π/2) erfcx(-u/√2);
    below -50 the series of erfcx for large arguments replaces it: h/φ = 1/u² (1 - 3/u² + ...).
    """
    near = np.maximum(u, -1.0)
    h = np.exp(-0.5 * near * near) / _ROOT_2_PI + near * ndtr(near)
    low = np.clip(u, -50.0, -1.0)
    mills = math.sqrt(0.5 * math.pi) * erfcx(-low / math.sqrt(2.0))  # Φ / φ
    lower = np.minimum(u, -50.0)
    tail = (1.0 - 3.0 / lower**2) / lower**2
    scaled = np.where(u < -50.0, tail, 1.0 + low * mills)  # h / φ
    log_phi = -0.5 * u * u - math.log(_ROOT_2_PI)
    ratio = np.where(u < -50.0, -lower * (1.0 + 2.0 / lower**2), mills / (1.0 + low * mills))
    is_near = u > -1.0
    return (
        np.where(is_near, np.log(h), log_phi + np.log(scaled)),
        np.where(is_near, ndtr(near) / h, ratio),
    )
