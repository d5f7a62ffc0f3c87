"""A clock by which a test sees that the store waits for a lock, and takes its patience away."""

from __future__ import annotations

import asyncio

__all__ = ["WaitingClock"]


class WaitingClock:
    """`aiotune.clock.Clock`: `sleep` notes a failed attempt, and returns; only the test moves time."""

    def __init__(self) -> None:
        self.elapsed = 0.0
        self.failed_attempts = 0
        self._failed = asyncio.Event()

    def now(self) -> float:
        return 1_000_000_000.0 + self.elapsed

    def monotonic(self) -> float:
        return self.elapsed

    async def sleep(self, seconds: float) -> None:
        self.failed_attempts += 1
        self._failed.set()
        await asyncio.sleep(0)

    async def wait_for_a_failed_attempt(self) -> None:
        """Return once an attempt fails after this call."""
        self._failed.clear()
        await self._failed.wait()
