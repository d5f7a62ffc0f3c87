"""Finds the one thing in a program that cannot be pickled, and the remedy for it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import FunctionType, MethodType, ModuleType

__all__ = ["Culprit", "find_culprit"]

_MAX_DEPTH = 6  # containers within containers; deeper, the path is no help
_MAX_ITEMS = 10_000  # of one container

_ELSEWHERE = "Create it inside build or run_trial, where the child runs it."
_REMEDIES: Mapping[str, str] = {
    "generator": "A generator lives in one process only: pass a list, an array or a PyDataset, or "
    "create the generator inside build or run_trial.",
    "async_generator": "Pass a list, or create the generator inside run_trial.",
    "coroutine": "It was called but not awaited: await it first and pass the result.",
    "IOBase": "Pass the file's path and open it inside build or run_trial.",
    "DatasetV2": "Create the dataset inside build or run_trial, or pass arrays.",
    "Iterator": "Pass what it iterates over, or create it inside build or run_trial.",
    "Tensor": "Pass it as a NumPy array: tensor.numpy().",
    "Connection": "Open the connection inside build or run_trial.",
    "Task": "Await it first and pass the result.",
    "Future": "Await it first and pass the result.",
}


@dataclass(frozen=True, slots=True)
class Culprit:
    """What cannot be pickled, and the way to it from a part that the user knows."""

    where: str
    thing: object

    @property
    def type_name(self) -> str:
        kind = type(self.thing)
        return (
            kind.__qualname__
            if kind.__module__ == "builtins"
            else f"{kind.__module__}.{kind.__qualname__}"
        )

    @property
    def remedy(self) -> str:
        """What to do instead."""
        names = (kind.__name__.lstrip("_") for kind in type(self.thing).__mro__)
        return next((_REMEDIES[name] for name in names if name in _REMEDIES), _ELSEWHERE)


def find_culprit(
    parts: Mapping[str, object], is_picklable: Callable[[object], bool]
) -> Culprit | None:
    """Return the innermost unpicklable thing of the first part that has one, or None."""
    for name, part in parts.items():
        if not is_picklable(part):
            return _innermost(Culprit(name, part), is_picklable)
    return None


def _innermost(culprit: Culprit, is_picklable: Callable[[object], bool]) -> Culprit:
    for _ in range(_MAX_DEPTH):
        children = itertools.islice(_children(culprit.thing), _MAX_ITEMS)
        guilty = next(
            (
                Culprit(f"{culprit.where}, {label}", child)
                for label, child in children
                if not is_picklable(child)
            ),
            None,
        )
        if guilty is None:
            break
        culprit = guilty
    return culprit


def _children(thing: object) -> Iterable[tuple[str, object]]:
    """Yield what a container, function or object holds, each with words for where."""
    match thing:
        case dict():
            return ((f"key {key!r}", value) for key, value in thing.items())
        case list() | tuple() | set() | frozenset():
            return ((f"item {place}", value) for place, value in enumerate(thing))
        case FunctionType():
            return _captured(thing)
        case MethodType():
            return [("its object", thing.__self__), ("its function", thing.__func__)]
        case functools.partial():
            return [("its function", thing.func), ("its arguments", (thing.args, thing.keywords))]
        case type() | ModuleType():
            return ()
        case _:
            attributes = getattr(thing, "__dict__", {})
            return ((f"attribute {name!r}", value) for name, value in attributes.items())


def _captured(function: FunctionType) -> Iterator[tuple[str, object]]:
    """Yield the variables that a function takes along: its closure, the globals it names, its defaults."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"captured variable {name!r}", cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    for name in function.__code__.co_names:
        value = function.__globals__.get(name)
        if not isinstance(value, ModuleType):
            yield f"global variable {name!r}", value
    yield "its default arguments", (function.__defaults__, function.__kwdefaults__)
