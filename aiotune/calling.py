"""Calls of the user's code in the caller's process: an error says which of it has raised."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio

from aiotune.errors import FatalRuntimeError

__all__ = ["blaming", "called", "error_text"]

_KEPT = "every result so far is kept, and the next search() goes on from there"


@contextmanager
def blaming(what: str) -> Iterator[None]:
    """Add to an error that leaves the block what has raised it, as a note below its traceback."""
    try:
        yield
    except Exception as error:
        error.add_note(f"raised in {what}; {_KEPT}")
        raise


async def called(hook: Callable[..., Any], *args: object) -> None:
    """Call a hook of the user's, and await what it returns if it is `async def`.

    FatalRuntimeError if it ends with a cancellation that nobody has asked this task for.
    """
    with blaming(_name(hook, args)):
        result = hook(*args)
        if inspect.isawaitable(result):
            await _awaited(result)


async def _awaited(awaitable: Awaitable[object]) -> None:
    try:
        await awaitable
    except asyncio.CancelledError as error:
        if _is_cancelled():
            raise
        # It would end this task as if the search were cancelled, without a word.
        raise FatalRuntimeError(
            "it awaited something that was cancelled: catch asyncio.CancelledError there"
        ) from error


def _is_cancelled() -> bool:
    """Tell whether this task was asked to end, by a scope of anyio's or by `task.cancel()`."""
    task = asyncio.current_task()
    is_asked = task is not None and task.cancelling() > 0
    return is_asked or anyio.current_effective_deadline() == -float("inf")


def _name(hook: Callable[..., Any], args: tuple[object, ...]) -> str:
    name = getattr(hook, "__qualname__", type(hook).__name__)
    trial_id = next((getattr(each, "trial_id", None) for each in args), None)
    return f"{name}()" if trial_id is None else f"{name}(), for trial {trial_id}"


def error_text(error: BaseException) -> str:
    """Return an error in few lines: its type, what it says, and the notes on it."""
    return "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
