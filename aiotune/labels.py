"""Values that JSON holds, and labels for those that it does not.

A hyperparameter's value is stored, compared and sent as a scalar. None, True, 3, 0.1 and "relu" are
scalars themselves; a function, a tuple, a class, any other object and the floats nan and inf are kept
by a label: a text that is the same in every process and names no memory address.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import TypeGuard

__all__ = [
    "Scalar",
    "Values",
    "distinct",
    "exact",
    "is_scalar",
    "label_of",
    "matching",
    "plain",
    "same",
]

Scalar = None | bool | int | float | str
Values = dict[str, Scalar]

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_LONGEST_LABEL = 200  # characters


def is_scalar(value: object) -> TypeGuard[Scalar]:
    """Tell whether strict JSON holds `value` as it is: exact types only, finite floats only."""
    kind = type(value)
    if kind is float:
        return math.isfinite(value)  # type: ignore[arg-type]
    return value is None or kind is bool or kind is int or kind is str


def plain(value: object) -> object:
    """Return a NumPy scalar, or another 0-d array, as a Python value; else `value` itself."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "shape", None) == () and hasattr(value, "dtype"):
        return item()
    return value


def exact(value: Scalar) -> tuple[type, Scalar]:
    """Return a key under which 1, True and 1.0 are three values."""
    return type(value), value


def same(one: object, other: object) -> bool:
    """Tell whether two values are one: the same object, or of one type, one label and equal."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if is_scalar(one) and is_scalar(other):
        return one == other
    if label_of(one) != label_of(other):
        return False
    try:
        return isinstance(one, float) or bool(one == other)  # nan is one value, though nan != nan
    except Exception:  # user-defined equality, and arrays, may refuse to answer
        return False


def label_of(value: object) -> str:
    """Return a text for a value that is no scalar. Two values may share one (see `distinct`)."""
    text = _text(value)
    if len(text) <= _LONGEST_LABEL:
        return text
    return text[: _LONGEST_LABEL - 3] + "..."


def distinct(values: Iterable[object]) -> tuple[tuple[Scalar, object], ...]:
    """Return each distinct value with its scalar before it, in order.

    Values that are the same are kept once. Scalars stand for themselves; a label that is taken gets
    "#2", "#3", ... in order, so that no two scalars of the answer are the same.
    """
    given = [plain(value) for value in values]
    taken = {exact(value) for value in given if is_scalar(value)}
    found: dict[tuple[type, Scalar], tuple[Scalar, object]] = {}
    labelled: dict[str, list[object]] = {}
    for value in given:
        if is_scalar(value):
            found.setdefault(exact(value), (value, value))
            continue
        label = label_of(value)
        alike = labelled.setdefault(label, [])
        if any(same(value, other) for other in alike):
            continue
        alike.append(value)
        scalar = _free(label, taken)
        taken.add(exact(scalar))
        found[exact(scalar)] = (scalar, value)
    return tuple(found.values())


def matching(value: object, scalars: Sequence[Scalar], values: Sequence[object]) -> int | None:
    """Return which of `values`, kept as `scalars`, a value means, or None.

    In this order: one of the scalars, exact in type; one of the values; the only scalar that is equal
    to it (1 for True); the one that has its label, for where only labels are known.
    """
    if is_scalar(value):
        for index, scalar in enumerate(scalars):
            if exact(scalar) == exact(value):
                return index
    for index, real in enumerate(values):
        if same(value, real):
            return index
    if is_scalar(value):
        equal = [index for index, scalar in enumerate(scalars) if scalar == value]
        return equal[0] if len(equal) == 1 else None
    label = label_of(value)
    return scalars.index(label) if label in scalars else None


def _free(label: str, taken: set[tuple[type, Scalar]]) -> str:
    """Return `label`, or the first of label#2, label#3, ... that is not taken."""
    number, free = 1, label
    while exact(free) in taken:
        number += 1
        free = f"{label}#{number}"
    return free


def _text(value: object) -> str:
    match value:
        case Enum():
            return f"{type(value).__name__}.{value.name}"
        case list() | tuple() | set() | frozenset() | dict() if _is_plain_container(value):
            return _container_text(value)
        case _ if isinstance(name := getattr(value, "__name__", None), str):
            return name  # functions, classes, modules
        case _ if type(value).__repr__ is object.__repr__:
            return type(value).__qualname__
        case _:
            return _repr_text(value)


def _is_plain_container(value: object) -> bool:
    return type(value) in (list, tuple, set, frozenset, dict)


def _container_text(value: Iterable[object]) -> str:
    """Return repr's text with the items' own labels; those of a set sorted, their order is chance."""
    match value:
        case Mapping():
            items = [f"{_item_text(key)}: {_item_text(item)}" for key, item in value.items()]
            return "{" + ", ".join(items) + "}"
        case set() | frozenset():
            texts = ", ".join(sorted(map(_item_text, value)))
            return f"{type(value).__name__}({texts})"
        case tuple():
            texts = ", ".join(map(_item_text, value))
            return f"({texts},)" if len(value) == 1 else f"({texts})"
        case _:
            return "[" + ", ".join(map(_item_text, value)) + "]"


def _item_text(value: object) -> str:
    item = plain(value)
    return repr(item) if is_scalar(item) else _text(item)


def _repr_text(value: object) -> str:
    try:
        return _ADDRESS.sub("", repr(value))
    except Exception:  # a broken __repr__ must not break the search
        return type(value).__qualname__
