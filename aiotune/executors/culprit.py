"""Finds the one thing in a program that cannot be pickled, and the remedy for it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import FunctionType, MethodType, ModuleType

__all__ = ["CannotTravel", "Culprit", "find_culprit"]

_MAX_DEPTH = 6  # containers within containers; deeper, the path is no help
_MAX_ITEMS = 10_000  # of one container

_ELSEWHERE = (
    "Create it inside build or run_trial, where the child runs it; an argument of search() can be made there, "
    "too: pass aiotune.Lazy(a function that makes it)."
)
_REMEDIES: Mapping[str, str] = {
    "generator": "A generator lives in one process only: pass a list, an array or a PyDataset, or "
    "aiotune.Lazy(a function that makes the generator), or create it inside build or run_trial.",
    "async_generator": "Pass a list, or create the generator inside run_trial.",
    "coroutine": "It was called but not awaited: await it first and pass the result.",
    "IOBase": "Pass the file's path and open it inside build or run_trial.",
    "Iterator": "Pass what it iterates over, or create it inside build or run_trial.",
    "NumpyIterator": "Pass the dataset that it iterates over.",
    "Tensor": "Pass it as a NumPy array.",
    "Connection": "Open the connection inside build or run_trial.",
    "Task": "Await it first and pass the result.",
    "Future": "Await it first and pass the result.",
}


class CannotTravel(Exception):
    """Raised by a reducer for a thing that must not be sent: the message says why, and what to do instead."""

    def __init__(self, thing: object, message: str) -> None:
        super().__init__(message)
        self.thing = thing


@dataclass(frozen=True, slots=True)
class Culprit:
    """What cannot be pickled, the way to it from a part that the user knows, and how pickling it fails."""

    where: str
    thing: object
    error: Exception

    def __str__(self) -> str:
        if isinstance(self.error, CannotTravel):
            verb = "cannot" if self.is_innermost else "holds what cannot"
            return f"{self.where} {verb} be sent to a child process: {self.error}"
        return (
            f"{self.where} cannot be sent to a child process: it is of type {self.type_name}. "
            f"{self.remedy} ({type(self.error).__name__}: {self.error})"
        )

    @property
    def is_innermost(self) -> bool:
        """Whether it is known that nothing inside of it is to blame."""
        return isinstance(self.error, CannotTravel) and self.error.thing is self.thing

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
    parts: Mapping[str, object], failure_of: Callable[[object], Exception | None]
) -> Culprit | None:
    """Return the innermost unpicklable thing of the first part that has one, or None.

    `failure_of` pickles a thing and returns what that raises.
    """
    culprit = _first_culprit(parts.items(), failure_of)
    for _ in range(_MAX_DEPTH):
        if culprit is None or culprit.is_innermost:
            break
        where = culprit.where
        held = itertools.islice(_children(culprit.thing), _MAX_ITEMS)
        inner = _first_culprit(((f"{where}, {label}", each) for label, each in held), failure_of)
        if inner is None:
            break
        culprit = inner
    return culprit


def _first_culprit(
    named: Iterable[tuple[str, object]], failure_of: Callable[[object], Exception | None]
) -> Culprit | None:
    for where, thing in named:
        error = failure_of(thing)
        if error is not None:
            return Culprit(where, thing, error)
    return None


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
