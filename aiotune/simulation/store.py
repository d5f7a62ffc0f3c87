"""A store that keeps nothing: a simulated search is read off its history, and over with it."""

from __future__ import annotations

from aiotune.events import Event
from aiotune.store.base import Store

__all__ = ["UnwrittenStore"]


class UnwrittenStore(Store):
    """Counts the facts, as every store does, and forgets them."""

    never_waits = True

    def __init__(self) -> None:
        self._count = 0

    async def load(self) -> list[Event]:
        return []

    async def append(self, *facts: Event) -> int:
        self._count += len(facts)
        return self._count
