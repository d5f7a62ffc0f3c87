"""The store in one SQLite file: a writer task, and a transaction for whatever queued up."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiosqlite
import anyio

from aiotune.errors import FatalValueError, StoreError, StoreUnwritable
from aiotune.events import Event
from aiotune.store.base import Store
from aiotune.store.database import Durability, connect_writer, translated
from aiotune.store.encoding import encode
from aiotune.store.reader import read_facts
from aiotune.store.schema import Statement, derived, logged

__all__ = ["SqliteStore", "open_store"]

DRAIN_SECONDS = 30.0  # how long leaving the context waits for a disk that does not answer

_log = logging.getLogger(__name__)


@asynccontextmanager
async def open_store(
    path: Path, *, durability: Durability = "process"
) -> AsyncIterator[SqliteStore]:
    """Open the project's database, creating it where it is missing; leaving closes it.

    durability: "process" survives the death of the process at any instant; "full" the loss of
    power, too, at the price of waiting for the disk at each commit.

    Leaving writes what was handed over, even when cancelled. StoreUnwritable, StoreUnreadable.
    """
    if durability not in ("process", "full"):
        raise FatalValueError(f'durability={durability!r}: "process" or "full" is needed')
    # A task, for what is half open cannot be closed: cancelling the caller does not reach it.
    opening = asyncio.create_task(_open_store(path, durability))
    try:
        yield await asyncio.shield(opening)
    finally:
        await _uninterrupted(_close(opening))


async def _open_store(path: Path, durability: Durability) -> SqliteStore:
    outbox: list[Statement] = []
    connection = await _connect(partial(_connector, path, durability, outbox))
    last = await _last_number(connection, path)
    return SqliteStore(path, connection, outbox, last=last)


async def _close(opening: asyncio.Task[SqliteStore]) -> None:
    await asyncio.wait({opening})
    if not opening.cancelled() and opening.exception() is None:
        await opening.result().close()


async def _uninterrupted(work: Coroutine[Any, Any, None]) -> None:
    """Do the work to its end, and only then pass on whatever cancelled the caller meanwhile."""
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError as error:  # not of a scope, but by `Task.cancel`
                cancelled = error
    try:
        task.result()
    finally:
        if cancelled is not None:
            raise cancelled


class BatchConnection(sqlite3.Connection):
    """A connection whose `commit` executes what lies in `outbox` as one transaction and empties it.

    aiosqlite takes each call to its thread and back; so a whole transaction is one such trip.
    """

    outbox: list[Statement]

    def commit(self) -> None:
        statements = list(self.outbox)
        self.outbox.clear()
        try:
            self.execute("BEGIN IMMEDIATE")
            for sql, rows in statements:
                self.executemany(sql, rows)
            self.execute("COMMIT")
        finally:
            if self.in_transaction:
                self.rollback()


@dataclass(frozen=True, slots=True, eq=False)
class _Handover:
    """The facts of one `append`, encoded, and the future of its caller."""

    facts: Sequence[Event]
    encoded: Sequence[tuple[str, str]]
    written: asyncio.Future[int]

    def statements(self, last: int) -> list[Statement]:
        """Return what writes these facts after fact number `last`."""
        statements = []
        numbered = enumerate(zip(self.facts, self.encoded, strict=True), start=last + 1)
        for number, (fact, (kind, text)) in numbered:
            statements.append(logged(number, fact, kind=kind, text=text))
            statements.extend(derived(fact))
        return statements

    def resolve(self, number: int) -> None:
        if not self.written.done():  # a cancelled caller no longer waits
            self.written.set_result(number)

    def refuse(self, error: Exception) -> None:
        if self.written.done():
            _log.error("facts whose caller was cancelled are not written: %s", error)
        else:
            self.written.set_exception(error)


class SqliteStore(Store):
    """Facts in one file. `open_store` makes it; one event loop uses it, from any number of tasks.

    Invariants: only `_write` touches the connection; `_queue` is in the order of the calls of
    `append`, and futures are resolved in that order.
    """

    def __init__(
        self, path: Path, connection: aiosqlite.Connection, outbox: list[Statement], *, last: int
    ) -> None:
        self.path = path
        self._connection = connection
        self._outbox = outbox
        self._last = last
        self._queue: deque[_Handover] = deque()
        self._wake = asyncio.Event()
        self._is_closing = False
        self._writer = asyncio.create_task(self._write(), name=f"aiotune store {path}")

    async def load(self) -> list[Event]:
        # By a reader of its own: it holds up no writing, and giving up on it harms nothing.
        return await anyio.to_thread.run_sync(read_facts, self.path, abandon_on_cancel=True)

    async def append(self, *facts: Event) -> int:
        encoded = [encode(fact) for fact in facts]
        if self._is_closing:
            raise StoreError(
                f"{self.path} is closed: facts are recorded only inside its `async with`"
            )
        written: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._queue.append(_Handover(facts, encoded, written))
        self._wake.set()
        return await written

    async def close(self) -> None:
        """Write what was handed over, then close the file; its write-ahead log merges into it.

        For `open_store`, once. StoreUnwritable if the disk does not answer for DRAIN_SECONDS.
        """
        self._is_closing = True
        self._wake.set()
        with anyio.move_on_after(DRAIN_SECONDS) as scope:
            await asyncio.wait({self._writer})
            try:
                await self._connection.close()
            except sqlite3.Error as error:
                raise translated(error, self.path) from error
        if scope.cancelled_caught:
            self._writer.cancel()
            self._connection.stop()
            raise StoreUnwritable(
                f"{self.path}: the disk did not answer for {DRAIN_SECONDS:.0f} s; what was handed "
                f"over last may be lost"
            )
        if not self._writer.cancelled():  # a loop that shuts down cancels it before this task
            self._writer.result()

    async def _write(self) -> None:
        """Write what is handed over until `close`."""
        try:
            while self._queue or not self._is_closing:
                await self._wake.wait()
                self._wake.clear()
                while self._queue:
                    batch = list(self._queue)
                    self._queue.clear()
                    await self._write_batch(batch)
        finally:
            self._is_closing = True
            self._refuse_queued()

    async def _write_batch(self, batch: Sequence[_Handover]) -> None:
        """Write a batch in one transaction.

        If SQLite itself refuses (no space, no rights), the same holds for each of its facts, and
        all fail. Any other error lies in some fact: each caller's facts are then written alone, so
        that none fails for its neighbour.
        """
        try:
            await self._commit(batch)
        except (sqlite3.OperationalError, asyncio.CancelledError) as error:
            for each in batch:
                each.refuse(self._refusal(error))
            if isinstance(error, asyncio.CancelledError):
                raise
        except Exception as error:
            if len(batch) == 1:
                batch[0].refuse(self._refusal(error))
                return
            for each in batch:
                await self._write_batch([each])

    async def _commit(self, batch: Sequence[_Handover]) -> None:
        last, numbers = self._last, []
        self._outbox.clear()
        for each in batch:
            self._outbox.extend(each.statements(last))
            last += len(each.facts)
            numbers.append(last)
        await self._connection.commit()
        self._last = last
        for each, number in zip(batch, numbers, strict=True):
            each.resolve(number)

    def _refusal(self, error: BaseException) -> StoreError:
        """Return a new error for one caller: a shared one would collect all their tracebacks."""
        match error:
            case sqlite3.Error():
                refusal = translated(error, self.path)
            case asyncio.CancelledError():
                refusal = StoreError(f"{self.path}: the writer was cancelled before it had written")
            case _:
                refusal = StoreError(f"{self.path}: {type(error).__name__}: {error}")
        refusal.__cause__ = error
        return refusal

    def _refuse_queued(self) -> None:
        while self._queue:
            self._queue.popleft().refuse(
                StoreError(f"{self.path} was closed before it had written")
            )


async def _connect(connector: Callable[[], sqlite3.Connection]) -> aiosqlite.Connection:
    """Return a connection whose thread ends with the calling thread, if not before.

    aiosqlite does not wait for its thread when the connector raises, and the thread then reports to
    a loop that may be gone; so a connector that failed hands over a stand-in, which is closed.
    """
    failures: list[Exception] = []

    def connect() -> sqlite3.Connection:
        try:
            return connector()
        except Exception as error:
            failures.append(error)
            return sqlite3.connect(":memory:")

    connection = aiosqlite.Connection(connect, 64)
    await connection
    if failures:
        await connection.close()
        raise failures[0]
    _stop_with_this_thread(connection)
    return connection


def _connector(path: Path, durability: Durability, outbox: list[Statement]) -> BatchConnection:
    connection = connect_writer(path, durability=durability, factory=BatchConnection)
    connection.outbox = outbox
    return connection


async def _last_number(connection: aiosqlite.Connection, path: Path) -> int:
    """Return the number of the last fact; if that fails, close the connection first."""
    try:
        rows = await connection.execute_fetchall("SELECT coalesce(max(seq), 0) FROM events")
        return int(next(iter(rows))[0])
    except sqlite3.Error as error:
        await connection.close()
        raise translated(error, path) from error


# aiosqlite's thread keeps the interpreter alive until it is told to stop. A loop that is dropped in
# mid-search never tells it; so for each thread that runs loops a daemon waits for its end and does.
_open: dict[threading.Thread, weakref.WeakSet[aiosqlite.Connection]] = {}
os.register_at_fork(after_in_child=_open.clear)  # a fork inherits no daemon


def _stop_with_this_thread(connection: aiosqlite.Connection) -> None:
    """Have the connection's thread stopped at the end of the calling thread, if not before."""
    owner = threading.current_thread()
    if owner.daemon:  # never joined: it lives exactly as long as the main thread does
        owner = threading.main_thread()
    if owner not in _open:
        name = "aiotune-store"
        threading.Thread(target=_stop_after, args=(owner,), name=name, daemon=True).start()
    _open.setdefault(owner, weakref.WeakSet()).add(connection)


def _stop_after(owner: threading.Thread) -> None:
    owner.join()
    for connection in list(_open.pop(owner, ())):
        connection.stop()
