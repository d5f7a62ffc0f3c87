"""Choice, Boolean and Fixed: values without a scale."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.kinds.base import Condition, HyperParameter
from aiotune.labels import Scalar, distinct, exact, is_scalar, matching, plain

__all__ = ["Boolean", "Choice", "Fixed"]


@dataclass(frozen=True, eq=False)
class Choice(HyperParameter):
    """One of `values`, which may be anything; duplicates are dropped.

    `options` are the scalars that stand for `values`, in order. `ordered`: whether the order has a
    meaning for oracles (default: if all are numbers, and none a boolean). `default`: without it None
    if that is among the values, else the first one.
    """

    name: str
    values: Sequence[object]
    ordered: bool | None = None
    default: Any = None  # any of `values` may be given; kept as its scalar
    conditions: tuple[Condition, ...] = ()
    options: tuple[Scalar, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.settle()
        pairs = distinct(_listed(self.name, self.values))
        if not pairs:
            raise FatalValueError(f"{self.name}: a Choice needs at least one value")
        object.__setattr__(self, "values", tuple(value for _, value in pairs))
        object.__setattr__(self, "options", tuple(scalar for scalar, _ in pairs))
        self._settle_order()
        if self.default is not None:
            object.__setattr__(self, "default", self.label_of(self.default))
        elif exact(None) not in self._indices:
            object.__setattr__(self, "default", self.options[0])

    def _settle_order(self) -> None:
        is_numeric = all(type(option) in (int, float) for option in self.options)
        if self.ordered is None:
            object.__setattr__(self, "ordered", is_numeric)
        elif self.ordered and not all(isinstance(option, int | float) for option in self.options):
            raise FatalValueError(
                f"{self.name}: ordered=True needs numbers, not {', '.join(map(repr, self.options))}"
            )

    @cached_property
    def _indices(self) -> dict[tuple[type, Scalar], int]:
        return {exact(option): index for index, option in enumerate(self.options)}

    @property
    def size(self) -> int:
        return len(self.options)

    @property
    def is_nominal(self) -> bool:
        return not self.ordered

    def value_at(self, index: int) -> Scalar:
        return self.options[index]

    def index_of(self, value: Scalar) -> int:
        return self._indices[exact(self.label_of(value))]

    def label_of(self, value: object) -> Scalar:
        """Return the option that stands for `value`, as `labels.matching` finds it."""
        value = plain(value)
        if is_scalar(value) and exact(value) in self._indices:
            return value
        index = matching(value, self.options, self.values)
        if index is None:
            raise self.refusal(value)
        return self.options[index]

    def value_of(self, scalar: Scalar) -> Any:
        return self.values[self.index_of(scalar)]

    def bound_to(self, declared: HyperParameter) -> HyperParameter:
        if not isinstance(declared, Choice):
            return self
        known = dict(zip(map(exact, declared.options), declared.values, strict=True))
        pairs = zip(self.options, self.values, strict=True)
        values = tuple(known.get(exact(each), old) for each, old in pairs)
        if all(new is old for new, old in zip(values, self.values, strict=True)):
            return self
        return _replaced(self, "values", values)

    def range_config(self) -> dict[str, Any]:
        return {"values": list(self.options), "ordered": self.ordered}

    def describe_range(self) -> str:
        return _shortened([json.dumps(option, ensure_ascii=False) for option in self.options])


@dataclass(frozen=True, eq=False)
class Boolean(HyperParameter):
    """False or True."""

    name: str
    default: bool = False
    conditions: tuple[Condition, ...] = ()

    def __post_init__(self) -> None:
        self.settle()
        default = False if self.default is None else self.label_of(self.default)
        object.__setattr__(self, "default", default)

    @property
    def size(self) -> int:
        return 2

    @property
    def is_nominal(self) -> bool:
        return True

    @property
    def values(self) -> tuple[bool, bool]:
        """Both, in the order of their numbers."""
        return (False, True)

    def value_at(self, index: int) -> bool:
        return index == 1

    def index_of(self, value: Scalar) -> int:
        return int(self.label_of(value))

    def label_of(self, value: object) -> bool:
        """Return True or False, also for 1 and 0."""
        value = plain(value)
        if type(value) in (bool, int) and value in (0, 1):
            return bool(value)
        raise self.refusal(value)

    def range_config(self) -> dict[str, Any]:
        return {}

    def describe_range(self) -> str:
        return ""


@dataclass(frozen=True, eq=False)
class Fixed(HyperParameter):
    """One value, which may be anything. `default` is the scalar that stands for it."""

    name: str
    value: object
    conditions: tuple[Condition, ...] = ()

    def __post_init__(self) -> None:
        self.settle()
        object.__setattr__(self, "value", plain(self.value))

    @cached_property
    def default(self) -> Scalar:  # type: ignore[override]
        return distinct([self.value])[0][0]

    @property
    def values(self) -> tuple[object]:
        """The one value."""
        return (self.value,)

    @property
    def size(self) -> int:
        return 1

    def value_at(self, index: int) -> Scalar:
        return self.default

    def index_of(self, value: Scalar) -> int:
        self.label_of(value)
        return 0

    def label_of(self, value: object) -> Scalar:
        value = plain(value)
        if matching(value, (self.default,), (self.value,)) is None:
            raise self.refusal(value)
        return self.default

    def value_of(self, scalar: Scalar) -> Any:
        self.label_of(scalar)
        return self.value

    def bound_to(self, declared: HyperParameter) -> HyperParameter:
        if not isinstance(declared, Fixed) or exact(declared.default) != exact(self.default):
            return self
        return _replaced(self, "value", declared.value)

    def range_config(self) -> dict[str, Any]:
        return {"value": self.default}

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["default"]
        return config

    def describe_range(self) -> str:
        return json.dumps(self.default, ensure_ascii=False)


def _listed(name: str, values: object) -> list[object]:
    """Return the values of a Choice. FatalTypeError for what has no order or is one value."""
    if isinstance(values, str | bytes):
        raise FatalTypeError(f"{name}: values must be a list, not the text {values!r}")
    if isinstance(values, set | frozenset):
        raise FatalTypeError(f"{name}: a set has no order; give a list, such as sorted(values)")
    if not isinstance(values, Iterable):
        raise FatalTypeError(f"{name}: values must be a list, not {values!r}")
    return list(values)


def _replaced(record: HyperParameter, field_name: str, value: object) -> HyperParameter:
    """Return a twin of `record` with one field changed, and nothing checked anew."""
    twin = object.__new__(type(record))
    twin.__dict__.update(record.__dict__)
    twin.__dict__[field_name] = value
    return twin


def _shortened(texts: Sequence[str], most: int = 12) -> str:
    """Return the texts with commas, the middle left out where there are more than `most`."""
    if len(texts) <= most:
        return ", ".join(texts)
    half = most // 2
    left_out = len(texts) - 2 * half
    return ", ".join([*texts[:half], f"... {left_out} more ...", *texts[-half:]])
