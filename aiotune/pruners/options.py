"""Checks of the options that pruners take, beyond those of oracles."""

from __future__ import annotations

import math

from aiotune.errors import FatalTypeError, FatalValueError

__all__ = ["number"]


def number(name: str, value: float) -> float:
    """Return a finite number. FatalTypeError, FatalValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FatalTypeError(f"{name}={value!r}: a number is needed")
    if not math.isfinite(value):
        raise FatalValueError(f"{name}={value}: a finite number is needed")
    return float(value)
