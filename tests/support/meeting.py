"""A place where a child waits, in the midst of its run, until the test lets it go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["Meeting", "meeting"]

LONGEST_SECONDS = 120.0  # far above what anything takes; reaching it is a failure


class Meeting:
    """Where a child waits until the test lets it go on."""

    def __init__(self) -> None:
        self.port = 0
        self._arrived: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._arrived.put(writer)

    async def arrival(self) -> asyncio.StreamWriter:
        async with asyncio.timeout(LONGEST_SECONDS):
            return await self._arrived.get()


@asynccontextmanager
async def meeting() -> AsyncIterator[Meeting]:
    place = Meeting()
    server = await asyncio.start_server(place.meet, "127.0.0.1", 0)
    place.port = server.sockets[0].getsockname()[1]
    async with server:
        yield place
