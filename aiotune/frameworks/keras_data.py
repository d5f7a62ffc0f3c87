"""The data before the first trial: one element is read of each dataset, in the child that builds once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from aiotune.arguments import leaves, named_arguments
from aiotune.errors import FatalError, FatalValueError
from aiotune.frameworks.tf_data import is_tf_dataset

__all__ = ["check_data", "is_py_dataset"]

_REMEDY = (
    "If it can be read in this process only, pass aiotune.Lazy(function) instead: the function makes "
    "it, in each child process."
)


def check_data(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Read one element of every tf.data.Dataset, PyDataset and DataLoader among the arguments of `search()`.

    FatalValueError, which names the argument, for one that cannot be read here: no trial could.
    """
    for name, thing in leaves(named_arguments("search()", args, kwargs)):
        read = _reader(thing)
        if read is not None:
            _read(name, thing, read)


def _read(name: str, thing: object, read: Callable[[Any], object]) -> None:
    try:
        read(thing)
    except FatalError:
        raise
    except Exception as error:
        raise FatalValueError(
            f"{name} cannot be used in a child process: reading one element of it, before the first trial, "
            f"raised {type(error).__name__}: {error}. It is a {_kind_of(thing)}. {_REMEDY}"
        ) from error


def _kind_of(thing: object) -> str:
    return "tf.data.Dataset" if is_tf_dataset(thing) else type(thing).__qualname__


def _reader(thing: object) -> Callable[[Any], object] | None:
    """Return what reads one element of such a thing, or None if it is no dataset."""
    if is_tf_dataset(thing):
        return lambda dataset: list(dataset.take(1))
    if is_py_dataset(thing):
        return _read_batch
    if _is_a(thing, "torch", "utils", "data", "DataLoader"):
        return lambda loader: next(iter(loader), None)
    return None


def is_py_dataset(thing: object) -> bool:
    """Return whether it is a PyDataset of Keras, which is imported where there is one."""
    return _is_a(thing, "keras", "utils", "PyDataset")


def _is_a(thing: object, module: str, *path: str) -> bool:
    """Return whether it is an instance of that class; the module is not imported for it."""
    kind: object = sys.modules.get(module)
    for name in path:
        kind = getattr(kind, name, None)
    return isinstance(kind, type) and isinstance(thing, kind)


def _read_batch(dataset: Any) -> None:
    batches = dataset.num_batches
    if batches is None or batches > 0:
        dataset[0]
