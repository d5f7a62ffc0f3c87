"""What `fit` trains with: the arguments x, y and sample_weight, and rows of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from aiotune.frameworks.rows import take_rows

__all__ = ["FitData", "is_one_array"]


@dataclass(frozen=True, slots=True)
class FitData:
    """What `fit` calls x, y and sample_weight: each an array, or arrays in tuples, lists and dicts."""

    x: Any
    y: Any = None
    sample_weight: Any = None

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> FitData:
        """Return what is among the arguments of `fit`, x and y by place or by name, the weights by name."""
        x = args[0] if args else kwargs.get("x")
        y = args[1] if len(args) > 1 else kwargs.get("y")
        return cls(x, y, kwargs.get("sample_weight"))

    @property
    def named(self) -> dict[str, Any]:
        """What there is of it, by its name."""
        given = {"x": self.x, "y": self.y, "sample_weight": self.sample_weight}
        return {name: each for name, each in given.items() if each is not None}

    def rows(self, rows: npt.NDArray[Any]) -> FitData:
        """Return these rows, (n,), of every array."""
        return FitData(*(_rows_of(each, rows) for each in (self.x, self.y, self.sample_weight)))

    def instead(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments with this in the place of what `of` found among them."""
        own = {name: value for name, value in self.named.items() if name in kwargs}
        return (*(self.x, self.y)[: len(args)], *args[2:]), {**kwargs, **own}

    def as_validation(self) -> tuple[Any, ...]:
        """Return it as Keras's `validation_data`."""
        if self.sample_weight is not None:
            return self.x, self.y, self.sample_weight
        return (self.x,) if self.y is None else (self.x, self.y)


def is_one_array(thing: object) -> bool:
    """Return whether it is data by itself: not None, and no tuple, list or dict of arrays."""
    return not isinstance(thing, list | tuple | dict) and thing is not None


def _rows_of(thing: Any, rows: npt.NDArray[Any]) -> Any:
    match thing:
        case None:
            return None
        case tuple() | list():
            items: Callable[[Any], Any] = getattr(
                type(thing), "_make", type(thing)
            )  # a named tuple's
            return items([_rows_of(each, rows) for each in thing])
        case dict():
            return {key: _rows_of(each, rows) for key, each in thing.items()}
        case _:
            return take_rows(thing, rows)
