"""Work in a thread of its own, which may never return."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

import anyio

from aiotune.clock import Clock
from aiotune.tasks import begin_whole, whole

__all__ = ["OwnThread"]

T = TypeVar("T")


class OwnThread(Generic[T]):
    """One call in a thread that begins at once.

    A daemon: threads of a pool are waited for when the interpreter ends, and this one may hang for ever.
    """

    def __init__(self, work: Callable[[], T], *, name: str) -> None:
        self._work = work
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._done = anyio.Event()
        self._results: list[T] = []  # one at most
        self._errors: list[BaseException] = []
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    @property
    def is_over(self) -> bool:
        """Whether the call has returned, or raised."""
        return bool(self._results or self._errors)

    async def result(self, clock: Clock, *, patience_seconds: float) -> T:
        """Return what the call returned, or raise what it raised.

        Cancelled, it waits so long for the thread and then leaves it alone.
        """
        try:
            await self._done.wait()
        except BaseException:
            await whole(self._wait_end(clock, patience_seconds))
            raise
        if self._errors:
            raise self._errors[0]
        return self._results[0]

    async def _wait_end(self, clock: Clock, longest_seconds: float) -> None:
        ends = [begin_whole(self._done.wait()), begin_whole(clock.sleep(longest_seconds))]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for each in ends:
            each.cancel("one is enough")
        await asyncio.wait(ends)

    def _run(self) -> None:
        try:
            self._results.append(self._context.run(self._work))
        except BaseException as error:
            self._errors.append(error)
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._done.set)
