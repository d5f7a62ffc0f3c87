"""What a point promises, as a sum of terms: improvement, feasibility, what the user expects.

Shapes: m points, c columns (those of `encoding`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from aiotune.learning.acquisition import Acquisition
from aiotune.learning.gaussian_process import Array, Process

__all__ = ["Criterion", "Improvement", "Term"]


class Term(Protocol):
    """One reason for a point: larger is better. Terms are logarithms, or added as if they were."""

    def value(self, columns: Array) -> Array:
        """Return what points promise: (m, c) -> (m,)."""

    def slope(self, columns: Array) -> tuple[Array, Array]:
        """Return the same, and its gradient: (m, c) -> (m,), (m, c)."""


class Criterion:
    """The sum of several terms; itself a term."""

    def __init__(self, terms: Sequence[Term]) -> None:
        self._terms = terms

    def value(self, columns: Array) -> Array:
        total = np.zeros(len(columns))
        for term in self._terms:
            total += term.value(columns)
        return total

    def slope(self, columns: Array) -> tuple[Array, Array]:
        total, steepness = np.zeros(len(columns)), np.zeros_like(columns)
        for term in self._terms:
            value, slope = term.slope(columns)
            total += value
            steepness += slope
        return total, steepness


class Improvement:
    """What an acquisition function makes of a process's prediction."""

    def __init__(self, process: Process, acquisition: Acquisition) -> None:
        self._process = process
        self._acquisition = acquisition

    def value(self, columns: Array) -> Array:
        return self._acquisition(*self._process.predict(columns))[0]

    def slope(self, columns: Array) -> tuple[Array, Array]:
        predicted = self._process.predict_slope(columns)
        value, by_mean, by_std = self._acquisition(predicted.mean, predicted.std)
        slope = by_mean[:, None] * predicted.mean_slope + by_std[:, None] * predicted.std_slope
        return value, slope
