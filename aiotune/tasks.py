"""Tasks of a call: what anyio's task groups leave to be said."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

__all__ = ["in_own_task"]

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
