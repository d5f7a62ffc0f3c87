"""The arguments of `search()` and its like: their names in errors, what stands in them, what must not."""

from __future__ import annotations

import inspect
import io
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from types import AsyncGeneratorType, GeneratorType
from typing import Any

from aiotune.errors import PayloadError

__all__ = ["in_lines", "leaves", "named_arguments", "refuse_iterators", "takes_keyword"]

_ITERATOR_MODULES = frozenset({"builtins", "itertools", "_csv"})


def named_arguments(
    call: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, object]:
    """Return the arguments of a call by the words in which an error names them."""
    return {
        **{f"argument {number} of {call}": each for number, each in enumerate(args, start=1)},
        **{f"the argument {name}= of {call}": each for name, each in kwargs.items()},
    }


def in_lines(kwargs: Mapping[str, Any], *, is_taken: bool) -> dict[str, Any]:
    """Return keywords that let Keras write a line for each epoch: its progress bars would fill the log.

    `is_taken`: the receiver knows `verbose`, also if it was not given. A `fit` of the user's own may pass one
    itself: it gets none that was not given.
    """
    is_wanted = kwargs.get("verbose", "auto") in ("auto", 1, True)
    if is_wanted and (is_taken or "verbose" in kwargs):
        return {**kwargs, "verbose": 2}
    return dict(kwargs)


def takes_keyword(function: Callable[..., Any], name: str) -> bool:
    """Return whether the function can be called with this keyword, as far as it tells."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # native code does not always tell
        return False
    return any(each.name == name or each.kind is each.VAR_KEYWORD for each in parameters)


def leaves(named: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Yield what stands in the named things, with words for where: the items of tuples, lists and dicts."""
    for name, thing in named.items():
        match thing:
            case tuple() | list():
                items = {f"{name}, item {place}": each for place, each in enumerate(thing)}
                yield from leaves(items)
            case dict():
                yield from leaves({f"{name}, key {key!r}": each for key, each in thing.items()})
            case _:
                yield name, thing


def refuse_iterators(named: Mapping[str, object]) -> None:
    """Raise PayloadError for an argument that one pass uses up, such as a generator or an open file.

    Iterators of the user's own classes may know better. Pickle would send some of these: an `enumerate`, with
    what it has not yet yielded.
    """
    for name, thing in leaves(named):
        if _is_used_up_by_a_pass(thing):
            raise PayloadError(
                f"{name} is of type {type(thing).__qualname__}, which one pass uses up, but every "
                f"run of the search needs it anew. {_remedy(thing)}"
            )


def _is_used_up_by_a_pass(thing: object) -> bool:
    if isinstance(thing, GeneratorType | AsyncGeneratorType | io.IOBase):
        return True
    if isinstance(thing, Iterator | AsyncIterator):
        return type(thing).__module__ in _ITERATOR_MODULES or _is_of_tensorflow(thing)
    return _is_of_tensorflow(thing) and type(thing).__name__ == "NumpyIterator"


def _is_of_tensorflow(thing: object) -> bool:
    return "tensorflow" in sys.modules and type(thing).__module__.startswith("tensorflow.python.")


def _remedy(thing: object) -> str:
    if isinstance(thing, io.IOBase):
        return "Pass the file's path and open it inside build or run_trial."
    if _is_of_tensorflow(thing):
        return "Pass the dataset itself."
    return (
        "Pass a list, an array, a tf.data.Dataset or a keras.utils.PyDataset, or "
        "aiotune.Lazy(function): the function makes it, in each child process."
    )
