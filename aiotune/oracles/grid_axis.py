"""The values that a grid has for one hyperparameter, in the order in which they are tried.

The default comes first, then the others from low to high (those of a Choice in their order). Where a range
has too many values, ten stand for it: a Float without a step, and an Int that is spread in factors without a
step, are taken at 0.05, 0.15, ..., 0.95 of the unit interval, as KerasTuner does.
"""

from __future__ import annotations

import math

from aiotune.labels import exact
from aiotune.space import Float, HyperParameter, Int, Scalar

__all__ = ["Axis"]

_SAMPLES = 10
_NEARLY = 1e-9  # of the range: how far a default may lie beside a sample by rounding


class Axis:
    """The values of `declared` on the grid. One that is not tuned has its default alone."""

    def __init__(self, declared: HyperParameter, *, is_tuned: bool = True) -> None:
        self.name = declared.name
        self.default = declared.default
        self._declared = declared
        self._samples = _samples(declared)
        others = len(self._samples) if self._samples is not None else declared.finite_size()
        self._rank = self._rank_of_default()
        self.size = others + (self._rank is None) if is_tuned else 1

    def value_at(self, index: int) -> Scalar:
        """Return value number `index`, 0 <= index < size; number 0 is the default."""
        if index == 0:
            return self.default
        rank = index - 1
        if self._rank is not None and rank >= self._rank:
            rank += 1
        return self._at(rank)

    def _at(self, rank: int) -> Scalar:
        """Return a value by its place from low to high."""
        return self._declared.value_at(rank) if self._samples is None else self._samples[rank]

    def _rank_of_default(self) -> int | None:
        """Return the default's place among the others, or None: it may lie between the steps."""
        if self._samples is not None:
            near = (rank for rank, value in enumerate(self._samples) if self._is_default(value))
            return next(near, None)
        rank = self._declared.index_of(self.default)
        return rank if exact(self._at(rank)) == exact(self.default) else None

    def _is_default(self, value: float) -> bool:
        default, declared = self.default, self._declared
        assert isinstance(default, int | float)
        assert isinstance(declared, Int | Float)
        width = declared.max_value - declared.min_value
        if declared.sampling != "linear":  # small numbers are far apart there
            width = min(abs(default), width)
        return math.isclose(value, default, rel_tol=0, abs_tol=_NEARLY * width)


def _samples(declared: HyperParameter) -> tuple[float, ...] | None:
    """Return the numbers that stand for a range, ascending, or None if all its values are taken."""
    match declared:
        case Float(size=None) | Int(step=None):
            units = [(2 * number + 1) / (2 * _SAMPLES) for number in range(_SAMPLES)]
            return tuple(sorted({declared.from_unit(unit) for unit in units}))
        case _:
            return None
