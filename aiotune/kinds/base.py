"""What every kind of hyperparameter is: an axis of the space, mapped to the unit interval and back.

One mapping serves every oracle. Values are JSON scalars: what is stored, compared and sent (see
`labels`). All records here are immutable.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any, Self

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.labels import Scalar, exact, is_scalar, label_of, plain

__all__ = ["Condition", "HyperParameter", "Identity", "index_at"]


@dataclass(frozen=True, eq=False)
class Condition:
    """Holds where the hyperparameter `name` has one of `values`; 1 and True are two values."""

    name: str
    values: tuple[Scalar, ...]

    def __post_init__(self) -> None:
        values = tuple(plain(value) for value in self.values)
        if not values:
            raise FatalValueError(f"a condition on {self.name!r} needs at least one value")
        for value in values:
            if not is_scalar(value):
                raise FatalTypeError(
                    f"a condition on {self.name!r} cannot hold {value!r}: give its label, "
                    f"{label_of(value)!r}"
                )
        object.__setattr__(self, "values", values)

    @cached_property
    def _key(self) -> tuple[str, frozenset[tuple[type, Scalar]]]:
        return self.name, frozenset(map(exact, self.values))

    def holds(self, values: Mapping[str, Scalar]) -> bool:
        return self.name in values and exact(values[self.name]) in self._key[1]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Condition) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __str__(self) -> str:
        return f"{self.name} in {', '.join(map(json.dumps, self.values))}"


Identity = tuple[str, tuple[Condition, ...]]


class HyperParameter(ABC):
    """One axis of the space. Two are equal if their kinds and configs are.

    The kinds are frozen dataclasses; their constructors take KerasTuner's arguments and `conditions`.
    Name and conditions are the identity: one name may be declared under several conditions.
    """

    name: str
    default: Scalar
    conditions: tuple[Condition, ...]

    @property
    @abstractmethod
    def size(self) -> int | None:
        """How many values there are; None if infinitely many."""

    @property
    def is_nominal(self) -> bool:
        """Whether its values have no order that means anything."""
        return False

    @abstractmethod
    def value_at(self, index: int) -> Scalar:
        """Return value number `index`, 0 <= index < size; for a finite one."""

    @abstractmethod
    def index_of(self, value: Scalar) -> int:
        """Return the number of the value nearest to `value`; for a finite one."""

    @abstractmethod
    def label_of(self, value: object) -> Scalar:
        """Return the scalar by which `value` is kept; FatalValueError if it is not in the range."""

    @abstractmethod
    def range_config(self) -> dict[str, Any]:
        """Return the part of the config that fixes the values and their order."""

    @abstractmethod
    def describe_range(self) -> str:
        """Return the range in words."""

    def from_unit(self, u: float) -> Scalar:
        """Return the value at `u` in [0, 1]; outside of it the nearest end counts."""
        return self.value_at(index_at(u, self.finite_size()))

    def to_unit(self, value: Scalar) -> float:
        """Return the middle of the part of [0, 1] that `from_unit` maps to `value`."""
        return (self.index_of(value) + 0.5) / self.finite_size()

    # KerasTuner's names. They speak of real values, where the methods above speak of what is kept.

    def prob_to_value(self, prob: float) -> Any:
        """Return the real value at `prob` in [0, 1]."""
        return self.value_of(self.from_unit(prob))

    def value_to_prob(self, value: object) -> float:
        """Return the middle of the part of [0, 1] that `prob_to_value` maps to `value`."""
        return self.to_unit(self.label_of(value))

    def random_sample(self, seed: int | None = None) -> Any:
        """Return a real value at random; the same one for the same seed."""
        return self.prob_to_value(Random(seed).random())

    def contains(self, value: object) -> bool:
        """Tell whether `value` is one of the scalars of this range, exact in type."""
        try:
            scalar = self.label_of(value)
        except FatalValueError:
            return False
        return is_scalar(value) and exact(scalar) == exact(value)

    def value_of(self, scalar: Scalar) -> Any:
        """Return the real value that is kept as `scalar`, where it is known; else the scalar."""
        return scalar

    def bound_to(self, declared: HyperParameter) -> HyperParameter:
        """Return this with the real values of `declared` behind the labels that both have."""
        return self

    def all_values(self) -> tuple[Scalar, ...]:
        """Return every value of a finite range in order. Look at `size` first: it may be large."""
        return tuple(map(self.value_at, range(self.finite_size())))

    @cached_property
    def identity(self) -> Identity:
        return self.name, self.conditions

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments in plain JSON values, laid out as KerasTuner's."""
        conditions = [
            {"class_name": "Parent", "config": {"name": each.name, "values": list(each.values)}}
            for each in self.conditions
        ]
        return {
            "name": self.name,
            "default": self.default,
            "conditions": conditions,
            **self.range_config(),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Return what `get_config` described; it also reads KerasTuner's."""
        conditions = tuple(
            Condition(each["config"]["name"], tuple(each["config"]["values"]))
            for each in config.get("conditions") or ()
        )
        return cls(**{**config, "conditions": conditions})

    def has_range_of(self, other: HyperParameter) -> bool:
        """Tell whether both have the same values in the same order; defaults may differ."""
        return self._range_key == other._range_key

    @cached_property
    def _range_key(self) -> str:
        return json.dumps([type(self).__name__, self.range_config()], sort_keys=True)

    @cached_property
    def _key(self) -> str:
        return json.dumps([type(self).__name__, self.get_config()], sort_keys=True)

    def finite_size(self) -> int:
        """Return the size; FatalValueError, with the remedy, if it is infinite."""
        if self.size is None:
            raise FatalValueError(
                f"{self.name}: {self} has infinitely many values: give it a step, or use a Choice"
            )
        return self.size

    def refusal(self, value: object) -> FatalValueError:
        """Return the error for a value outside of the range."""
        return FatalValueError(f"{self.name}: {value!r} is not in {self}")

    def settle(self) -> None:
        """Check what every kind has: its name and conditions."""
        if not isinstance(self.name, str) or not self.name:
            raise FatalTypeError(f"a hyperparameter needs a name, a string, not {self.name!r}")
        object.__setattr__(self, "conditions", tuple(self.conditions))
        if any(each.name == self.name for each in self.conditions):
            raise FatalValueError(f"{self.name}: it cannot be its own parent")

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, HyperParameter) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self  # immutable; the objects of a Choice are the user's own

    def __str__(self) -> str:
        return f"{type(self).__name__}({self.describe_range()})"


def index_at(u: float, size: int) -> int:
    """Return which of `size` equal parts of [0, 1] holds `u`; outside of it the nearest end counts."""
    return min(max(int(u * size), 0), size - 1)
