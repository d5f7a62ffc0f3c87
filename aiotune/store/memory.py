"""A store that forgets: the reference of the contract, and the double for tests and simulations."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from anyio.lowlevel import checkpoint

from aiotune.errors import StoreError
from aiotune.events import Event
from aiotune.store.base import Store
from aiotune.store.encoding import decode_all, encode

__all__ = ["MemoryStore"]


class MemoryStore(Store):
    """Keeps facts as JSON text, so that what a file could not hold fails here, too.

    Leaving it as a context manager closes it; entering it again opens it with its facts still
    there, as a resumed search would find them. While `fail_with` is set, `append` raises it and
    writes nothing.
    """

    def __init__(self) -> None:
        self.fail_with: Exception | None = None
        self._rows: list[tuple[int, str, str]] = []
        self._is_open = True

    async def __aenter__(self) -> Self:
        self._is_open = True
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_open = False

    @property
    def facts(self) -> list[Event]:
        """Every fact so far, in order; also after the store was closed."""
        return list(decode_all(self._rows, "the store in memory"))

    async def load(self) -> list[Event]:
        await checkpoint()
        return self.facts

    async def append(self, *facts: Event) -> int:
        encoded = [encode(fact) for fact in facts]
        if not self._is_open:
            raise StoreError("the store is closed: facts are recorded only inside its `async with`")
        if self.fail_with is not None:
            raise self.fail_with
        for kind, text in encoded:
            self._rows.append((len(self._rows) + 1, kind, text))
        number = len(self._rows)
        await checkpoint()  # as a file does: other tasks run before the caller goes on
        return number
