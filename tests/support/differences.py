"""Slopes from finite differences, to hold analytic ones against."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from aiotune.learning.kernel import Array

__all__ = ["differences", "slopes_of"]


def differences(function: Callable[[Array], float], at: Array, step: float = 1e-5) -> Array:
    """Return the gradient of a function at a point, from its values beside it: (c,) -> (c,)."""
    beside = [
        (function(at + step * axis) - function(at - step * axis)) / (2 * step)
        for axis in np.eye(len(at))
    ]
    return np.array(beside)


def slopes_of(function: Callable[[Array], Array], at: Array, step: float = 1e-5) -> Array:
    """Return the gradients of a function of many points, (m, c) -> (m,), at each of them: (m, c)."""
    return np.array(
        [differences(lambda one: float(function(one[None])[0]), each, step) for each in at]
    )
