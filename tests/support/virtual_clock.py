"""A clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field

__all__ = ["VirtualClock"]


@dataclass(order=True)
class _Sleeper:
    due: float
    serial: int  # sleepers of one due time wake in the order in which they fell asleep
    wake: asyncio.Event = field(compare=False)


class VirtualClock:
    """`aiotune.clock.Clock` for tests: `now` and `monotonic` move together, by `advance` only.

    Use it within one event loop. A test that must not advance before the code under test sleeps
    awaits `wait_sleeping` first.
    """

    def __init__(self, start: float = 1_000_000_000.0) -> None:
        self._start = start
        self._elapsed = 0.0
        self._serials = itertools.count()
        self._sleepers: list[_Sleeper] = []
        self._changed = asyncio.Event()

    @property
    def sleeping(self) -> int:
        """How many tasks sleep."""
        return len(self._sleepers)

    def now(self) -> float:
        return self._start + self._elapsed

    def monotonic(self) -> float:
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        """Return when the clock stands `seconds` further; for 0, after one turn of the loop."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        sleeper = _Sleeper(self._elapsed + seconds, next(self._serials), asyncio.Event())
        self._sleepers.append(sleeper)
        self._announce()
        try:
            await sleeper.wake.wait()
        finally:
            if sleeper in self._sleepers:  # cancelled
                self._sleepers.remove(sleeper)
                self._announce()

    def advance(self, seconds: float) -> None:
        """Move the clock and wake who is due, earliest first; they run when the caller awaits."""
        if seconds < 0:
            raise ValueError(f"a clock never goes back: advance({seconds})")
        self._elapsed += seconds
        due = sorted(each for each in self._sleepers if each.due <= self._elapsed)
        for sleeper in due:
            self._sleepers.remove(sleeper)
            sleeper.wake.set()
        self._announce()

    async def wait_sleeping(self, number: int = 1) -> None:
        """Return once at least `number` tasks sleep."""
        while len(self._sleepers) < number:
            await self._changed.wait()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
