"""Cross-validation of Keras models: a fold of the arrays of `search()` becomes `validation_data`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from aiotune.arguments import leaves
from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.executors.context import RunContext
from aiotune.folds import Folds, Sample
from aiotune.frameworks.fit_data import FitData, is_one_array
from aiotune.frameworks.rows import count_rows
from aiotune.lazy import Lazy

__all__ = ["check_folds", "count_folds", "has_own_validation", "with_fold_held_out"]


def count_folds(folds: Folds, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Return into how many folds the data among the arguments of `search()` are split.

    FatalTypeError, FatalValueError for arguments that cannot be split, or that say otherwise how to validate.
    """
    return folds.count(_sample(_data(args, kwargs), kwargs))


def check_folds(
    folds: Folds, args: tuple[Any, ...], kwargs: Mapping[str, Any], run: RunContext
) -> None:
    """Split off the first fold, for the errors alone. Data that are Lazy are left to the runs."""
    sample = _sample(_data(args, kwargs), kwargs)
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
    data = _data(args, kwargs)
    train, test = folds.split(_sample(data, kwargs), run.fold, run.assignment.seed)
    args, kwargs = data.rows(train).instead(args, kwargs)
    return args, {**kwargs, "validation_data": data.rows(test).as_validation()}


def _data(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> FitData:
    """Return what is split. FatalTypeError for arguments in which it cannot be told."""
    data = FitData.of(args, kwargs)
    if data.x is None:
        raise FatalTypeError(
            "folds splits the arrays of search(x, y, ...), and there is no x: pass it first, or by its "
            "name. To split in your own way override run_trial, which finds the fold in trial.fold"
        )
    if len(args) > 2:
        raise FatalTypeError(
            "folds splits x, y and sample_weight of search(x, y, sample_weight=...): name all that comes "
            "after y"
        )
    return data


def _sample(data: FitData, kwargs: Mapping[str, Any]) -> Sample:
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
    x, y = (each if is_one_array(each) else None for each in (data.x, data.y))
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
