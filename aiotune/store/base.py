"""The store's contract: an append-only log of facts that outlives the process.

A call returns once its fact is durable against the death of the process. Facts are numbered 1, 2,
3, ... in the order in which `append` was called, and callers resume in that order. Cancelling a
caller leaves its fact to be written: a fact handed over is never half there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from aiotune.events import Event

__all__ = ["Store"]


class Store(ABC):
    """Keeps the facts of one search. Opened and closed as an async context manager by its maker."""

    never_waits: ClassVar[bool] = (
        False  # `append` returns before another task can run: it cannot hang
    )

    @abstractmethod
    async def load(self) -> list[Event]:
        """Return every fact in order. For the opening of a search: it may take seconds."""

    @abstractmethod
    async def append(self, *facts: Event) -> int:
        """Write the facts in one transaction and return the number of the last one.

        Raises StoreUnwritable if the disk refuses; the facts are then not there, all of them.
        """
