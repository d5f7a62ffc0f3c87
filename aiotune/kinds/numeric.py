"""Int and Float: ranges of numbers, with steps or without, spread linearly or in factors."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import cached_property
from typing import Any

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.kinds.base import Condition, HyperParameter, index_at
from aiotune.labels import Scalar, exact, plain

__all__ = ["Float", "Int"]

SAMPLINGS = ("linear", "log", "reverse_log")
_EXACT = Context(prec=40)  # decimal arithmetic: 3 steps of 0.1 are 0.3
_NEARLY = 1e-9  # of a step: how far a float may lie beside it by rounding


class _Numeric(HyperParameter):
    """Int and Float: a range, an optional step, and how the unit interval is spread over them."""

    min_value: float
    max_value: float
    step: float | None
    sampling: str | None

    def settle_numbers(self) -> None:
        """Check the range after its numbers were made plain, and resolve the default."""
        self.settle()
        low, high = self.min_value, self.max_value
        object.__setattr__(self, "sampling", _sampling(self.name, self.sampling))
        if low > high:
            raise FatalValueError(f"{self.name}: min_value={low} is above max_value={high}")
        if self.sampling != "linear" and low <= 0:
            raise FatalValueError(
                f"{self.name}: sampling={self.sampling!r} needs min_value above 0, not {low}"
            )
        if not math.isfinite(high - low if self.sampling == "linear" else high / low):
            raise FatalValueError(f"{self.name}: the range from {low} to {high} is too wide")
        self._check_step()
        if self.default is None:
            object.__setattr__(self, "default", low)
        elif not low <= self.default <= high:  # type: ignore[operator]
            raise FatalValueError(
                f"{self.name}: default={self.default} is outside of {low} to {high}"
            )

    def _check_step(self) -> None:
        if self.step is None:
            return
        if self.sampling == "linear" and not self.step > 0:
            raise FatalValueError(f"{self.name}: step={self.step} must be above 0")
        if self.sampling != "linear" and not self.step > 1:
            raise FatalValueError(
                f"{self.name}: step={self.step} must be above 1 with sampling={self.sampling!r}: "
                f"each value is the one before it times step"
            )

    def _off_step_default(self, value: float) -> bool:
        """Tell whether `value` is the default, which may lie between the steps."""
        return exact(value) == exact(self.default)

    def range_config(self) -> dict[str, Any]:
        return {
            "min_value": self.min_value,
            "max_value": self.max_value,
            "step": self.step,
            "sampling": self.sampling,
        }

    def describe_range(self) -> str:
        text = f"{self.min_value} to {self.max_value}"
        if self.step is not None and exact(self.step) != (int, 1):
            text += f", step {self.step}"
        return text if self.sampling == "linear" else f"{text}, {self.sampling}"


@dataclass(frozen=True, eq=False)
class Int(_Numeric):
    """Whole numbers from `min_value` to `max_value`, both included.

    `sampling`: "linear"; "log", under which each factor is as likely as the next (1 to 10, 10 to 100);
    "reverse_log", its mirror image. `step` is added under "linear" (default 1) and multiplied under
    the others; those have every whole number without it. `default`: in the range, not necessarily on
    a step; without it `min_value`.
    """

    name: str
    min_value: int
    max_value: int
    step: int | None = None
    sampling: str | None = "linear"
    default: int | None = None
    conditions: tuple[Condition, ...] = ()

    def __post_init__(self) -> None:
        for each in ("min_value", "max_value", "step", "default"):
            value = getattr(self, each)
            if value is not None or each.endswith("value"):
                object.__setattr__(self, each, _whole(self.name, each, value))
        if self.step is None and _sampling(self.name, self.sampling) == "linear":
            object.__setattr__(self, "step", 1)
        self.settle_numbers()

    @property
    def values(self) -> Sequence[int]:
        """Every value in order; not made before it is asked for, however many there are."""
        if self.step is None or self.sampling == "linear":
            return range(self.min_value, self.max_value + 1, self.step or 1)
        return tuple(map(self.value_at, range(self.size)))

    @cached_property
    def size(self) -> int:
        low, high, step = self.min_value, self.max_value, self.step
        if step is None:
            return high - low + 1
        if self.sampling == "linear":
            return (high - low) // step + 1
        count = 1
        while low * step**count <= high:
            count += 1
        return count

    def value_at(self, index: int) -> int:
        low, step = self.min_value, self.step
        if self.sampling == "linear" or step is None:
            return low + index * (step or 1)
        if self.sampling == "log":
            return low * int(step**index)
        return self.max_value + low - low * int(step ** (self.size - 1 - index))

    def index_of(self, value: Scalar) -> int:
        number = _whole(self.name, "value", value)
        if self.step is None:
            return min(max(number - self.min_value, 0), self.size - 1)
        return _nearest_index(self, number, self.size)

    def from_unit(self, u: float) -> int:
        """Return the value at `u` in [0, 1]. Every value can be had, up to 2**50 of them."""
        low, high = self.min_value, self.max_value
        if self.step is not None:
            return self.value_at(index_at(u, self.size))
        u = _clip(u) if self.sampling == "log" else 1 - _clip(u)
        number = min(max(math.floor(_warp(u, low, high + 1)), low), high)
        return number if self.sampling == "log" else high + low - number

    def to_unit(self, value: Scalar) -> float:
        if self.step is not None:
            return super().to_unit(value)
        low, high = self.min_value, self.max_value
        number = min(max(_whole(self.name, "value", value), low), high)
        if self.sampling == "log":
            return _unwarp(number + 0.5, low, high + 1)
        return 1 - _unwarp(high + low - number + 0.5, low, high + 1)

    def label_of(self, value: object) -> int:
        number = plain(value)
        if isinstance(number, float) and number.is_integer():
            number = int(number)
        if type(number) is not int or not self.min_value <= number <= self.max_value:
            raise self.refusal(value)
        if self._off_step_default(number) or self.value_at(self.index_of(number)) == number:
            return number
        raise self.refusal(value)


@dataclass(frozen=True, eq=False)
class Float(_Numeric):
    """Real numbers from `min_value` to `max_value`, both included if they are on a step.

    `sampling` and `step` as for `Int`; without a step the range is continuous. Values on steps are
    clean: 0.1, 0.2, 0.3.
    """

    name: str
    min_value: float
    max_value: float
    step: float | None = None
    sampling: str | None = "linear"
    default: float | None = None
    conditions: tuple[Condition, ...] = ()

    def __post_init__(self) -> None:
        for each in ("min_value", "max_value", "step", "default"):
            value = getattr(self, each)
            if value is not None or each.endswith("value"):
                object.__setattr__(self, each, _real(self.name, each, value))
        self.settle_numbers()

    @property
    def values(self) -> Sequence[float]:
        """Every value in order; of a continuous range ten, spread as `sampling` says."""
        if self.size is None:
            return tuple(self.from_unit((index + 0.5) / 10) for index in range(10))
        return tuple(map(self.value_at, range(self.size)))

    @cached_property
    def size(self) -> int | None:
        low, high, step = self.min_value, self.max_value, self.step
        if low == high:
            return 1
        if step is None:
            return None
        if self.sampling == "linear":
            span = _EXACT.subtract(Decimal(repr(high)), Decimal(repr(low)))
            return math.floor(_EXACT.divide(span, Decimal(repr(step))) + Decimal(_NEARLY)) + 1
        return math.floor(math.log(high / low) / math.log(step) + _NEARLY) + 1

    def value_at(self, index: int) -> float:
        size = self.finite_size()
        low, high = Decimal(repr(self.min_value)), Decimal(repr(self.max_value))
        step = Decimal(repr(self.step or 1.0))
        if self.sampling == "linear":
            return self._snapped(_EXACT.add(low, _EXACT.multiply(step, index)))
        power = index if self.sampling == "log" else size - 1 - index
        value = _EXACT.multiply(low, _EXACT.power(step, power))
        if self.sampling == "log":
            return self._snapped(value)
        return self._snapped(_EXACT.subtract(_EXACT.add(low, high), value))

    def _snapped(self, value: Decimal) -> float:
        """Return `value`, or the end of the range that it misses by rounding only."""
        number = float(value) + 0.0  # no -0.0
        for end in (self.min_value, self.max_value):
            if self._is_near(number, end):
                return end
        return min(max(number, self.min_value), self.max_value)

    def _is_near(self, one: float, other: float) -> bool:
        """Tell whether two numbers differ by rounding only, not by a step."""
        step = self.step or 0.0
        gap = step if self.sampling == "linear" else self.min_value * (step - 1)
        return abs(one - other) <= _NEARLY * gap + 4 * math.ulp(self.max_value)

    def index_of(self, value: Scalar) -> int:
        return _nearest_index(self, _real(self.name, "value", value), self.finite_size())

    def from_unit(self, u: float) -> float:
        if self.size is not None:
            return self.value_at(index_at(u, self.size))
        low, high, u = self.min_value, self.max_value, _clip(u)
        match self.sampling:
            case "linear":
                value = low + u * (high - low)
            case "log":
                value = _warp(u, low, high)
            case _:
                value = high + low - _warp(1 - u, low, high)
        return min(max(value, low), high)

    def to_unit(self, value: Scalar) -> float:
        if self.size is not None:
            return super().to_unit(value)
        low, high = self.min_value, self.max_value
        number = min(max(_real(self.name, "value", value), low), high)
        match self.sampling:
            case "linear":
                return _clip((number - low) / (high - low))
            case "log":
                return _clip(_unwarp(number, low, high))
            case _:
                return _clip(1 - _unwarp(high + low - number, low, high))

    def label_of(self, value: object) -> float:
        number = plain(value)
        if type(number) not in (int, float) or not self.min_value <= number <= self.max_value:  # type: ignore[operator]
            raise self.refusal(value)
        number = float(number)  # type: ignore[arg-type]
        if self.size is None or self._off_step_default(number):
            return number
        clean = self.value_at(self.index_of(number))
        if self._is_near(number, clean):
            return clean
        raise self.refusal(value)


def _clip(u: float) -> float:
    return min(max(u, 0.0), 1.0)


def _warp(u: float, low: float, high: float) -> float:
    """Return the number at `u` of a range that is walked in factors: low * (high / low) ** u."""
    return float(low * (high / low) ** u)


def _unwarp(number: float, low: float, high: float) -> float:
    return math.log(number / low) / math.log(high / low)


def _nearest_index(numeric: _Numeric, number: float, size: int) -> int:
    """Return which of the `size` steps of `numeric` is nearest to `number`."""
    if size == 1:
        return 0
    low, high, step = numeric.min_value, numeric.max_value, numeric.step or 1
    match numeric.sampling:
        case "linear":
            index = round((number - low) / step)
        case "log":
            index = round(math.log(max(number, low) / low) / math.log(step))
        case _:
            mirrored = max(high + low - number, low)
            index = size - 1 - round(math.log(mirrored / low) / math.log(step))
    return min(max(index, 0), size - 1)


def _sampling(name: str, sampling: object) -> str:
    text = "linear" if sampling is None else str(sampling).lower()
    if text not in SAMPLINGS:
        raise FatalValueError(
            f"{name}: sampling={sampling!r} is unknown: use {', '.join(map(repr, SAMPLINGS))}"
        )
    return text


def _number(name: str, argument: str, value: object) -> int | float:
    """Return a finite number; booleans are none."""
    number = plain(value)
    if type(number) not in (int, float):
        raise FatalTypeError(f"{name}: {argument} must be a number, not {value!r}")
    if abs(number) > sys.float_info.max or number != number:  # type: ignore[arg-type]
        raise FatalValueError(f"{name}: {argument} must be finite, not {value!r}")
    return number  # type: ignore[return-value]


def _whole(name: str, argument: str, value: object) -> int:
    number = _number(name, argument, value)
    if isinstance(number, float) and not number.is_integer():
        raise FatalValueError(
            f"{name}: {argument} must be a whole number, not {value!r}; for fractions use Float"
        )
    return int(number)


def _real(name: str, argument: str, value: object) -> float:
    return float(_number(name, argument, value)) + 0.0  # no -0.0
