"""The store in one SQLite file: a writer task, and a transaction for whatever queued up."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import aiosqlite
import anyio
import anyio.to_thread

from aiotune.clock import Clock, SystemClock
from aiotune.errors import FatalValueError, StoreError, StoreUnwritable
from aiotune.events import Event
from aiotune.store.base import Store
from aiotune.store.database import (
    Durability,
    MountTable,
    connect_writer,
    is_locked,
    translated,
)
from aiotune.store.encoding import encode
from aiotune.store.filesystem import read_mount_table
from aiotune.store.patience import ATTEMPT_SECONDS, Patience
from aiotune.store.reader import read_facts
from aiotune.store.schema import Statement, derived, logged
from aiotune.tasks import begin_whole, undisturbed, whole

__all__ = ["SqliteStore", "open_store"]

DRAIN_SECONDS = 30.0  # how long leaving the context waits for a disk that does not answer

_log = logging.getLogger(__name__)


@asynccontextmanager
async def open_store(
    path: Path,
    *,
    durability: Durability = "process",
    clock: Clock | None = None,
    mount_table: MountTable = read_mount_table,
) -> AsyncIterator[SqliteStore]:
    """Open the project's database, creating it where it is missing; leaving closes it.

    durability: "process" survives the death of the process at any instant; "full" the loss of
    power, too, at the price of waiting for the disk at each commit. clock: by which the store loses
    patience with a program that keeps the database locked. mount_table: see `filesystem`.

    Leaving writes what was handed over, even when cancelled. StoreUnwritable, StoreUnreadable.
    """
    if durability not in ("process", "full"):
        raise FatalValueError(f'durability={durability!r}: "process" or "full" is needed')
    # What is half open cannot be closed.
    opening = begin_whole(_open_store(path, durability, clock, mount_table))
    try:
        yield await asyncio.shield(opening)
    finally:
        await whole(_close(opening))


async def _open_store(
    path: Path, durability: Durability, clock: Clock | None, mount_table: MountTable
) -> SqliteStore:
    outbox: list[Statement] = []
    connection = await _connect(partial(_connector, path, durability, outbox, mount_table))
    last = await _last_number(connection, path)
    patience = Patience(path, clock or SystemClock())
    read = partial(read_facts, path, mount_table=mount_table)
    return SqliteStore(path, connection, outbox, last=last, patience=patience, read=read)


async def _close(opening: asyncio.Task[SqliteStore]) -> None:
    await asyncio.wait({opening})
    if opening.exception() is None:
        await opening.result().close()


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
        self,
        path: Path,
        connection: aiosqlite.Connection,
        outbox: list[Statement],
        *,
        last: int,
        patience: Patience,
        read: Callable[..., list[Event]],
    ) -> None:
        self.path = path
        self._connection = connection
        self._outbox = outbox
        self._last = last
        self._patience = patience
        self._read = read
        self._queue: deque[_Handover] = deque()
        self._wake = asyncio.Event()
        self._is_closing = False
        # Only `close` ends it: facts are written also while a loop shuts down.
        self._writer = begin_whole(self._write())

    async def load(self) -> list[Event]:
        # By a reader of its own, which holds up no writing. It must end with the caller: as long as it
        # has the file open, closing the store cannot tidy up.
        is_given_up = threading.Event()
        reading = begin_whole(
            anyio.to_thread.run_sync(partial(self._read, may_stop=is_given_up.is_set))
        )
        try:
            return await asyncio.shield(reading)
        except asyncio.CancelledError:
            is_given_up.set()
            with suppress(StoreError):
                await undisturbed(reading)
            raise

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
            self._writer.cancel("the disk does not answer")
            self._connection.stop()
            raise StoreUnwritable(
                f"{self.path}: the disk did not answer for {DRAIN_SECONDS:.0f} s; what was handed "
                f"over last may be lost"
            )
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
        """Write a batch in one transaction, trying again for a while if the file is locked.

        If SQLite itself refuses (no space, no rights), the same holds for each of its facts, and
        all fail. Any other error lies in some fact: each caller's facts are then written alone, so
        that none fails for its neighbour.
        """
        try:
            while not await self._commit(batch):
                await self._patience.wait()
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

    async def _commit(self, batch: Sequence[_Handover]) -> bool:
        """Write a batch; False if another program is in the way, and patience with it is left."""
        last, numbers = self._last, []
        self._outbox.clear()
        for each in batch:
            self._outbox.extend(each.statements(last))
            last += len(each.facts)
            numbers.append(last)
        try:
            await self._connection.commit()
        except sqlite3.OperationalError as error:
            if is_locked(error) and self._patience.is_left():
                return False
            raise
        self._patience.renew()
        self._last = last
        for each, number in zip(batch, numbers, strict=True):
            each.resolve(number)
        return True

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


class _Connection(aiosqlite.Connection):
    """A connection whose thread is gone when it is closed."""

    def __init__(self, connector: Callable[[], sqlite3.Connection]) -> None:
        self._threads: list[threading.Thread] = []  # one, once it has begun

        def connect() -> sqlite3.Connection:
            self._threads.append(threading.current_thread())
            return connector()

        super().__init__(connect, 64)

    async def close(self) -> None:
        await super().close()
        for thread in self._threads:
            thread.join()  # for a moment: it has told its end, and has nothing left to do


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

    connection = _Connection(connect)
    await connection
    if failures:
        await connection.close()
        raise failures[0]
    _stop_with_this_thread(connection)
    return connection


def _connector(
    path: Path, durability: Durability, outbox: list[Statement], mount_table: MountTable
) -> BatchConnection:
    connection = connect_writer(
        path, durability=durability, factory=BatchConnection, mount_table=mount_table
    )
    # From here on the writer tries again itself: a thread that waits in SQLite hears nothing else.
    connection.execute(f"PRAGMA busy_timeout = {round(1000 * ATTEMPT_SECONDS)}")
    connection.outbox = outbox
    return connection


async def _last_number(connection: aiosqlite.Connection, path: Path) -> int:
    """Return the number of the last fact; if that fails, close the connection first."""
    try:
        rows = await connection.execute_fetchall("SELECT coalesce(max(seq), 0) FROM events")
        return int(next(iter(rows))[0])
    except (sqlite3.Error, UnicodeDecodeError) as error:
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
