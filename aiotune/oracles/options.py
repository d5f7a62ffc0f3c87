"""Checks of the options that oracles take. Each returns the option, or says what it must be."""

from __future__ import annotations

import math

from aiotune.errors import FatalTypeError, FatalValueError

__all__ = ["number_above", "number_from", "whole_number"]


def number_above(least: float, name: str, value: float, *, at_most: float = math.inf) -> float:
    """Return a finite number above `least`. FatalTypeError, FatalValueError for anything else."""
    _require_number(name, value)
    if not (least < value <= at_most and math.isfinite(value)):
        limit = "finite" if math.isinf(at_most) else f"at most {at_most:g}"
        raise FatalValueError(f"{name}={value}: it must be above {least:g}, and {limit}")
    return float(value)


def number_from(least: float, name: str, value: float) -> float:
    """Return a finite number, `least` or more. FatalTypeError, FatalValueError for anything else."""
    _require_number(name, value)
    if not least <= value < math.inf:
        raise FatalValueError(f"{name}={value}: it must be {least:g} or more, and finite")
    return float(value)


def _require_number(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FatalTypeError(f"{name}={value!r}: a number is needed")


def whole_number(name: str, value: int, *, at_least: int = 1) -> int:
    """Return a whole number. FatalTypeError, FatalValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise FatalTypeError(f"{name}={value!r}: a whole number is needed")
    if value < at_least:
        raise FatalValueError(f"{name}={value}: it must be {at_least} or more")
    return value
