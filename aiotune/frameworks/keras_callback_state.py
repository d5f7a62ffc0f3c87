"""What callbacks remember from epoch to epoch, as JSON values and arrays: patience, the best value, counters.

An attribute is kept if it is made of numbers, strings, arrays, and lists, tuples and dicts of these. Models,
files and functions are not: `on_train_begin` makes them anew. What has changed since then is written, and put
back after the `on_train_begin` of the run that goes on.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Sequence
from types import FunctionType
from typing import Any

import numpy as np

from aiotune.frameworks.array_file import is_storable
from aiotune.frameworks.keras_build import require_keras

__all__ = [
    "Attributes",
    "NotKept",
    "attributes_of",
    "decoded",
    "encoded",
    "memories_of",
    "remember",
]

Array = np.ndarray[Any, Any]

_OF_THE_TRAINING = frozenset({"params", "_model", "model"})  # Keras sets them in each `fit`


class NotKept(Exception):
    """A value that has no form on disk."""


# By name: the value as JSON, and a digest of each of its arrays. Callbacks may hold large ones: no copies.
Attributes = dict[str, tuple[Any, list[bytes]]]


def attributes_of(callbacks: Sequence[Any]) -> list[Attributes]:
    """Return what each callback holds, to compare with later."""
    return [
        {name: (value, _digests(arrays)) for name, (value, arrays) in held.items()}
        for held in map(_attributes, callbacks)
    ]


def memories_of(
    callbacks: Sequence[Any], first: Sequence[Attributes], arrays: list[Array]
) -> list[dict[str, Any]]:
    """Return what each callback has come to know since it held `first`; its arrays are added to `arrays`.

    What is as it was is no memory: the program may give the callback another value for it.
    """
    return [_memory_of(each, held, arrays) for each, held in zip(callbacks, first, strict=True)]


def remember(
    callbacks: Sequence[Any],
    memories: Sequence[dict[str, Any]],
    arrays: Sequence[Array],
    *,
    is_foreign: bool = False,
) -> None:
    """Give callbacks back what they knew, those of the same class at the same place.

    is_foreign: the state was reached with other hyperparameters, of which the arguments of a constructor may be
    made.
    """
    for callback, memory in zip(callbacks, memories, strict=False):
        if memory["class"] != _name(callback):
            continue
        # Of the names in a file only those count that would be written.
        excluded = _never_kept(type(callback))
        if is_foreign:
            excluded |= _arguments(type(callback))
        for name, value in memory["values"].items():
            if name not in excluded and not name.startswith("__"):
                setattr(callback, name, decoded(value, arrays))


def _memory_of(callback: Any, first: Attributes, arrays: list[Array]) -> dict[str, Any]:
    values = {}
    for name, held in _attributes(callback).items():
        value, found = held
        if name not in first or first[name] != (value, _digests(found)):
            values[name] = _moved(value, len(arrays))
            arrays.extend(found)
    return {"class": _name(callback), "values": values}


def _digests(arrays: Sequence[Array]) -> list[bytes]:
    return [_digest(each) for each in arrays]


def _digest(array: Array) -> bytes:
    digest = hashlib.blake2b(f"{array.dtype}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.digest()


def _attributes(callback: Any) -> dict[str, tuple[Any, list[Array]]]:
    kind = type(callback)
    excluded = _never_kept(kind)
    held: dict[str, tuple[Any, list[Array]]] = {}
    for name, value in vars(callback).items():
        if name in excluded:
            continue
        arrays: list[Array] = []
        try:
            held[name] = encoded(value, arrays), arrays
        except (NotKept, RecursionError):  # a list that contains itself
            continue
    return held


def _never_kept(kind: type) -> frozenset[str]:
    return _OF_THE_TRAINING | _configured_by_keras(kind) | _private_to_keras(kind)


def _private_to_keras(kind: type) -> frozenset[str]:
    """Return the private names that the code of Keras's own classes mentions; others are a subclass's own."""
    functions = (function for each in _keras_classes(kind) for function in _functions_of(each))
    names = (name for function in functions for name in function.__code__.co_names)
    return frozenset(name for name in names if name.startswith("_"))


def _functions_of(kind: type) -> Iterator[FunctionType]:
    for member in vars(kind).values():
        found: Any = member.fget if isinstance(member, property) else member
        function = inspect.unwrap(found)
        if isinstance(function, FunctionType):
            yield function


def _configured_by_keras(kind: type) -> frozenset[str]:
    """Return the arguments of Keras's own classes: of these EarlyStopping negates `min_delta` at first use."""
    return frozenset().union(*(_arguments(each) for each in _keras_classes(kind)))


def _keras_classes(kind: type) -> list[type]:
    base = require_keras().callbacks.Callback
    above = [each for each in kind.__mro__ if issubclass(each, base) and each is not base]
    return [each for each in above if each.__module__.partition(".")[0] == "keras"]


def _arguments(kind: type) -> frozenset[str]:
    return frozenset(inspect.signature(kind.__init__).parameters)  # type: ignore[misc]


def _name(callback: Any) -> str:
    return f"{type(callback).__module__}.{type(callback).__qualname__}"


def encoded(value: Any, arrays: list[Array]) -> Any:
    """Return a value as JSON, or raise NotKept. An array joins `arrays`: its place there stays.

    A tuple, a dict, an array and a NumPy number are each a dict of one item, which says what it is.
    """
    match value:
        case None | bool() | int() | float() | str() if type(value) in _JSON_TYPES:
            return value
        case list() if type(value) is list:
            return [encoded(each, arrays) for each in value]
        case tuple() if type(value) is tuple:
            return {"tuple": [encoded(each, arrays) for each in value]}
        case dict() if type(value) is dict and all(type(key) is str for key in value):
            return {"dict": {key: encoded(each, arrays) for key, each in value.items()}}
        case np.ndarray() | np.generic():
            array = np.asarray(value)
            if not is_storable(array):
                raise NotKept
            arrays.append(array)
            return {"array" if isinstance(value, np.ndarray) else "number": len(arrays) - 1}
        case _:
            raise NotKept


def _moved(value: Any, offset: int) -> Any:
    """Return an encoded value whose arrays stand so many places later."""
    match value:
        case list():
            return [_moved(each, offset) for each in value]
        case {"tuple": items}:
            return {"tuple": _moved(items, offset)}
        case {"dict": items}:
            return {"dict": {key: _moved(each, offset) for key, each in items.items()}}
        case {"array": place}:
            return {"array": place + offset}
        case {"number": place}:
            return {"number": place + offset}
        case _:
            return value


_JSON_TYPES = (type(None), bool, int, float, str)


def decoded(value: Any, arrays: Sequence[Array]) -> Any:
    """Return the value that was encoded."""
    match value:
        case list():
            return [decoded(each, arrays) for each in value]
        case {"tuple": items}:
            return tuple(decoded(each, arrays) for each in items)
        case {"dict": items}:
            return {key: decoded(each, arrays) for key, each in items.items()}
        case {"array": place}:
            return arrays[place].copy()
        case {"number": place}:
            return arrays[place][()]
        case _:
            return value
