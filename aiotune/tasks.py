"""Tasks: what anyio's task groups and locks leave to be said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
import anyio.lowlevel

__all__ = ["Turns", "beside", "in_own_task"]

T = TypeVar("T")


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
