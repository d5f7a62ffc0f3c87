"""Tasks: what anyio's task groups and locks leave to be said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

__all__ = [
    "Changes",
    "Turns",
    "begin_whole",
    "beside",
    "in_own_task",
    "in_thread",
    "made_in_thread",
    "undisturbed",
    "whole",
]

T = TypeVar("T")


class Changes:
    """Something that changes again and again, for a task that looks and then waits for the next time."""

    def __init__(self) -> None:
        self._next = anyio.Event()

    def tell(self) -> None:
        """Say that something has changed."""
        self._next.set()

    def next(self) -> anyio.Event:
        """Return what the next `tell` sets. To be taken before looking, so that no change is missed."""
        if self._next.is_set():
            self._next = anyio.Event()
        return self._next


class _Whole(asyncio.Task[T]):
    """A task that nobody cancels but the scopes of anyio that it has opened itself: they give a message."""

    def cancel(self, msg: Any | None = None) -> bool:
        return False if msg is None else super().cancel(msg)


def begin_whole(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Begin work that must be done whole, for what is half done cannot be undone. It must end by itself, soon.

    Neither a bare `Task.cancel()` ends it nor a loop that shuts down and cancels all its tasks (at the second
    Ctrl-C): that waits for it. The shield of a scope withstands neither.
    """
    return _Whole(work, loop=asyncio.get_running_loop())


async def undisturbed(future: asyncio.Future[T]) -> T:
    """Wait for the future to its end, whoever cancels the caller; only then raise that cancellation."""
    if await _waited(future):
        if not future.cancelled():
            future.exception()  # it is told to nobody
        raise asyncio.CancelledError
    return future.result()


async def whole(work: Coroutine[Any, Any, T]) -> T:
    """Await work that must be done whole, in a task of its own: see `begin_whole`, and `undisturbed`."""
    return await undisturbed(begin_whole(work))


async def in_thread(function: Callable[[], T]) -> T:
    """Call what blocks for moments in a thread. It has returned when this does, whoever cancels."""
    return await whole(anyio.to_thread.run_sync(function))


async def made_in_thread(function: Callable[[], T]) -> T:
    """The same for what makes something that its caller must give back: it is returned in any case.

    A cancellation meanwhile holds from the next wait on. For tasks of our own: what a caller has around his
    (`asyncio.timeout`) expects to see a cancellation before the block ends.
    """
    await anyio.lowlevel.checkpoint_if_cancelled()  # nothing is begun for who is cancelled already
    making = begin_whole(anyio.to_thread.run_sync(function))
    if await _waited(making):
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()  # it counts the requests: this one is the same as before
        task.cancel()
    return making.result()


async def _waited(future: asyncio.Future[Any]) -> bool:
    """Return when the future is done; tell whether the running task was cancelled meanwhile."""
    was_cancelled = False
    with anyio.CancelScope(shield=True):
        while not future.done():
            try:
                await asyncio.wait({future})
            except asyncio.CancelledError:  # not of a scope, but by `Task.cancel`
                was_cancelled = True
    return was_cancelled


async def in_own_task(work: Callable[[], Awaitable[T]]) -> T:
    """Await it in a task of its own, and return when that has ended.

    A bare `task.cancel()`, as web servers and `asyncio.timeout` use it, pierces a shielded cleanup. The task
    group passes it on as a cancellation of its scope, which does not.
    """
    outcome: list[T | Exception] = []

    async def keep() -> None:
        try:
            outcome.append(await work())
        except Exception as error:  # the group would wrap it
            outcome.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keep)
    if not outcome:  # it was cancelled by somebody else than this group
        raise asyncio.CancelledError
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


@asynccontextmanager
async def beside(work: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Await `work` beside the block; it has begun when the block begins, and is cancelled when that ends.

    If it raises, the block is cancelled, and the error raised in its place.
    """
    errors: list[Exception] = []  # the group would wrap them

    async def keep() -> None:
        try:
            await work()
        except Exception as error:
            errors.append(error)
            tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keep)
        await anyio.lowlevel.checkpoint()
        try:
            yield
        except Exception as error:
            errors.append(error)
        tasks.cancel_scope.cancel()
    if errors:
        raise errors[0]


class Turns:
    """A lock for each of many names, of which there are as many as are in use."""

    def __init__(self) -> None:
        self._locks: dict[str, anyio.Lock] = {}

    @asynccontextmanager
    async def of(self, name: str) -> AsyncIterator[None]:
        """Hold the lock of a name, first come first served; at once, if it is free."""
        lock = self._locks.setdefault(name, anyio.Lock())
        try:
            lock.acquire_nowait()  # `acquire` would let a turn of the loop pass
        except anyio.WouldBlock:
            await lock.acquire()
        try:
            yield
        finally:
            lock.release()
            if not lock.locked():  # else it has been handed on
                self._locks.pop(name, None)
