"""Lazy: an argument of `search()` that is made in the child, where it is used.

def make_dataset(split):
    return tf.data.Dataset.from_generator(...)

await tuner.search(aiotune.Lazy(make_dataset, "train"), validation_data=aiotune.Lazy(make_dataset, "test"))
"""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

from aiotune.arguments import leaves
from aiotune.errors import FatalTypeError

__all__ = ["Lazy", "first_lazy", "resolved"]


class Lazy:
    """Stands for what `factory(*args, **kwargs)` returns, wherever it stands among the arguments of `search()`.

    The factory is called in the child, once per run for one and the same Lazy. What it takes and captures
    travels; what it makes need not. Calling a Lazy makes the object anew.
    """

    def __init__(self, factory: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        if not callable(factory):
            raise FatalTypeError(
                f"Lazy needs a function, not what it returned ({type(factory).__name__}): write "
                "aiotune.Lazy(make_data, ...) instead of aiotune.Lazy(make_data(...))"
            )
        if inspect.iscoroutinefunction(factory):
            raise FatalTypeError(
                f"{_name_of(factory)} is an async function, but a Lazy is made in a child process without an "
                "event loop: write `def`"
            )
        self.factory = factory
        self.args = args
        self.kwargs = kwargs

    def __call__(self) -> Any:
        return _made(self, {})

    def __repr__(self) -> str:
        short = reprlib.Repr()
        given = [short.repr(each) for each in self.args]
        given += [f"{name}={short.repr(value)}" for name, value in self.kwargs.items()]
        return f"Lazy({', '.join([_name_of(self.factory), *given])})"


def resolved(
    args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments with what each Lazy in them makes, also within tuples, lists and dicts.

    Raises what a factory raises, with a note that names it.
    """
    made: dict[int, tuple[Lazy, Any]] = {}
    return _resolved(tuple(args), made), _resolved(dict(kwargs), made)


def first_lazy(named: Mapping[str, object]) -> str | None:
    """Return the words for where the first Lazy stands, or None where there is none."""
    return next((name for name, thing in leaves(named) if isinstance(thing, Lazy)), None)


def _resolved(thing: Any, made: dict[int, tuple[Lazy, Any]]) -> Any:
    """Return the thing with every Lazy made; itself, not a copy, if it has none."""
    match thing:
        case Lazy():
            if id(thing) not in made:
                made[id(thing)] = (thing, _made(thing, made))
            return made[id(thing)][1]
        case tuple() | list():
            items = [_resolved(each, made) for each in thing]
            if all(new is old for new, old in zip(items, thing, strict=True)):
                return thing
            return _like(thing, items)
        case dict():
            values = {key: _resolved(each, made) for key, each in thing.items()}
            is_same = all(values[key] is each for key, each in thing.items())
            return thing if is_same else values
        case _:
            return thing


def _made(lazy: Lazy, made: dict[int, tuple[Lazy, Any]]) -> Any:
    args, kwargs = _resolved(lazy.args, made), _resolved(lazy.kwargs, made)
    try:
        return lazy.factory(*args, **kwargs)
    except Exception as error:
        error.add_note(f"raised by {lazy!r}, which makes an argument")
        raise


def _like(original: tuple[Any, ...] | list[Any], items: list[Any]) -> Any:
    if hasattr(original, "_fields"):  # a named tuple takes its items one by one
        return type(original)(*items)
    return type(original)(items)


def _name_of(factory: Callable[..., Any]) -> str:
    return str(getattr(factory, "__qualname__", None) or reprlib.repr(factory))
