"""The events of a running search for any number of readers, none of whom can slow it down."""

from __future__ import annotations

from collections import deque

import anyio
from anyio.lowlevel import checkpoint

from aiotune.events import Event
from aiotune.history import History

__all__ = ["EventLog", "EventStream"]

# About 10 MB at most; a reader that is further behind than this loses the oldest events.
_LONGEST_LOG = 20_000


class EventLog:
    """The newest events of one search, numbered from 0. An observer of the recorder."""

    def __init__(self, longest: int = _LONGEST_LOG) -> None:
        self._events: deque[Event] = deque(maxlen=longest)
        self._count = 0
        self._is_closed = False
        self._grew = anyio.Event()

    def __call__(self, event: Event, history: History) -> None:
        self._events.append(event)
        self._count += 1
        self._wake()

    def close(self) -> None:
        """Say that no further event comes: readers end after the last one."""
        self._is_closed = True
        self._wake()

    def _wake(self) -> None:
        self._grew.set()
        self._grew = anyio.Event()

    async def read(self, position: int) -> tuple[Event, int] | None:
        """Return the event at `position`, or the oldest one kept after it, and its number.

        Waits for it if need be; None once the log is closed and read to its end.
        """
        while position >= self._count:
            if self._is_closed:
                return None
            await self._grew.wait()
        first = self._count - len(self._events)
        number = max(position, first)
        return self._events[number - first], number


class EventStream:
    """An async iterator over the events of a search, from its first one. Leave it at any point.

    `missed` counts events that this reader was too slow to see.
    """

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._next = 0
        self.missed = 0

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event:
        await checkpoint()  # a reader with much to catch up with must not hold the loop
        found = await self._log.read(self._next)
        if found is None:
            raise StopAsyncIteration
        event, number = found
        self.missed += number - self._next
        self._next = number + 1
        return event
