"""The rows of whatever holds data: arrays, tables, tensors, sparse matrices, lists."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["count_rows", "take_rows"]


def count_rows(thing: Any) -> int | None:
    """Return the number of rows, or None if it has none: a number, a dataset, a generator."""
    shape = getattr(thing, "shape", None)
    if shape is not None:
        try:
            return int(shape[0])
        except (TypeError, IndexError):  # a scalar, or a tensor whose shape nobody knows
            return None
    return len(thing) if isinstance(thing, list | tuple) else None


def take_rows(thing: Any, rows: npt.NDArray[np.intp]) -> Any:
    """Return these rows, (n,), of it: the same kind of thing, a copy."""
    if hasattr(thing, "iloc"):  # pandas, whose own [] asks for labels
        return thing.iloc[rows]
    if isinstance(thing, list | tuple):
        return [thing[row] for row in rows]
    if _is_of_tensorflow(thing):
        return sys.modules["tensorflow"].gather(thing, rows)
    if hasattr(thing, "tocsr"):  # a sparse matrix: not every format has rows
        return thing.tocsr()[rows]
    return thing[rows]


def _is_of_tensorflow(thing: object) -> bool:
    return "tensorflow" in sys.modules and type(thing).__module__.startswith("tensorflow.python.")
