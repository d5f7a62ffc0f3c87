"""Cross-validation of Keras models: a fold of the arrays of `search()` becomes `validation_data`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from aiotune.arguments import leaves
from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.executors.context import RunContext
from aiotune.folds import Folds, Sample
from aiotune.frameworks.rows import count_rows, take_rows
from aiotune.lazy import Lazy

__all__ = ["check_folds", "count_folds", "has_own_validation", "with_fold_held_out"]


def count_folds(folds: Folds, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Return into how many folds the data among the arguments of `search()` are split.

    FatalTypeError, FatalValueError for arguments that cannot be split, or that say otherwise how to validate.
    """
    return folds.count(_sample(_Data.of(args, kwargs), kwargs))


def check_folds(
    folds: Folds, args: tuple[Any, ...], kwargs: Mapping[str, Any], run: RunContext
) -> None:
    """Split off the first fold, for the errors alone. Data that are Lazy are left to the runs."""
    sample = _sample(_Data.of(args, kwargs), kwargs)
    if sample.length is not None:
        folds.split(sample, 0, run.assignment.seed)


def has_own_validation(kwargs: Mapping[str, Any]) -> bool:
    """Tell whether the arguments say how to validate."""
    return bool(_validations(kwargs))


def _validations(kwargs: Mapping[str, Any]) -> list[str]:
    """Return the arguments that say how to validate; `validation_split=0.0`, Keras's default, does not."""
    data = ["validation_data"] if kwargs.get("validation_data") is not None else []
    return [*data, *(["validation_split"] if kwargs.get("validation_split") else [])]


def with_fold_held_out(
    folds: Folds, args: tuple[Any, ...], kwargs: Mapping[str, Any], run: RunContext
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of `fit` for the run's fold: its rows are `validation_data`, x, y are the others."""
    data = _Data.of(args, kwargs)
    train, test = folds.split(_sample(data, kwargs), run.fold, run.assignment.seed)
    training, held_out = data.rows(train), data.rows(test)
    kwargs = {**kwargs, "validation_data": held_out.as_validation()}
    kwargs |= {name: value for name, value in training.named.items() if name in kwargs}
    return (*training.positional(len(args)), *args[2:]), kwargs


@dataclass(frozen=True, slots=True)
class _Data:
    """What `fit` calls x, y and sample_weight: each an array, or arrays in tuples, lists and dicts."""

    x: Any
    y: Any
    sample_weight: Any

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Data:
        x = args[0] if args else kwargs.get("x")
        if x is None:
            raise FatalTypeError(
                "folds splits the arrays of search(x, y, ...), and there is no x: pass it first, or by its "
                "name. To split in your own way override run_trial, which finds the fold in trial.fold"
            )
        if len(args) > 2:
            raise FatalTypeError(
                "folds splits x, y and sample_weight of search(x, y, sample_weight=...): name all that comes "
                "after y"
            )
        y = args[1] if len(args) > 1 else kwargs.get("y")
        return cls(x, y, kwargs.get("sample_weight"))

    @property
    def named(self) -> dict[str, Any]:
        given = {"x": self.x, "y": self.y, "sample_weight": self.sample_weight}
        return {name: each for name, each in given.items() if each is not None}

    def rows(self, rows: npt.NDArray[np.intp]) -> _Data:
        return _Data(*(_mapped(each, rows) for each in (self.x, self.y, self.sample_weight)))

    def positional(self, count: int) -> tuple[Any, ...]:
        """Return x and y as far as they were given by their place."""
        return (self.x, self.y)[:count]

    def as_validation(self) -> tuple[Any, ...]:
        if self.sample_weight is not None:
            return self.x, self.y, self.sample_weight
        return (self.x,) if self.y is None else (self.x, self.y)


def _sample(data: _Data, kwargs: Mapping[str, Any]) -> Sample:
    """Return what is split. FatalError for what cannot be."""
    given = _validations(kwargs)
    if given:
        raise FatalValueError(
            f"folds contradicts {given[0]}: each fold is validated on the rows that it holds out. Drop one of "
            "them"
        )
    named = {f"{name} of search()": each for name, each in data.named.items()}
    lengths = {name: _length(name, each) for name, each in leaves(named)}
    known = {name: length for name, length in lengths.items() if length is not None}
    if len(set(known.values())) > 1:
        listed = ", ".join(f"{name} has {length}" for name, length in known.items())
        raise FatalValueError(f"folds needs arrays of the same number of rows: {listed}")
    if len(known) < len(lengths) or not known:
        return Sample()
    length = next(iter(known.values()))
    x, y = (each if _is_array(each) else None for each in (data.x, data.y))
    return Sample(length, np.arange(length) if x is None else x, y)


def _length(name: str, leaf: Any) -> int | None:
    """Return the rows of an array; None for what is made later. FatalTypeError for what has no rows."""
    if leaf is None or isinstance(leaf, Lazy):
        return None
    length = count_rows(leaf)
    if length is None:
        raise FatalTypeError(
            f"folds splits arrays, and {name} is of type {type(leaf).__qualname__}: pass NumPy arrays, tensors "
            "or tables, or lists and dicts of them. For datasets override run_trial, and make there what "
            "belongs to trial.fold, one of trial.folds"
        )
    return length


def _is_array(thing: object) -> bool:
    return not isinstance(thing, list | tuple | dict | Lazy) and thing is not None


def _mapped(thing: Any, rows: npt.NDArray[np.intp]) -> Any:
    """Return the rows of every array in tuples, lists and dicts."""
    match thing:
        case None:
            return None
        case tuple() | list():
            items: Callable[[Any], Any] = getattr(
                type(thing), "_make", type(thing)
            )  # a named tuple's
            return items([_mapped(each, rows) for each in thing])
        case dict():
            return {key: _mapped(each, rows) for key, each in thing.items()}
        case _:
            return take_rows(thing, rows)
