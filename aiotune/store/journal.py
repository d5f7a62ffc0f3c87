"""How a database keeps what is committed: with a write-ahead log, or with a journal where that is not safe."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from aiotune.errors import StoreUnwritable

__all__ = ["Durability", "begin_journal", "keep_off_shared_memory", "sync_directories"]

Durability = Literal["process", "full"]

_LOG = logging.getLogger("aiotune")

# Of a write-ahead log: NORMAL hands each commit to the operating system, FULL waits for the disk, too.
_OF_LOG: Mapping[Durability, str] = {"process": "NORMAL", "full": "FULL"}
# Of a journal: with less than FULL, its pages may reach the disk in an order that nothing can be restored from.
_OF_JOURNAL: Mapping[Durability, str] = {"process": "FULL", "full": "EXTRA"}


def keep_off_shared_memory(connection: sqlite3.Connection) -> None:
    """Have a connection that has read nothing yet use no memory that it would share with other processes.

    Even if the file has a write-ahead log, which a machine left that had it on a disk of its own. It holds the
    file alone until `begin_journal`.
    """
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")


def begin_journal(
    connection: sqlite3.Connection, path: Path, durability: Durability, *, is_shared: bool
) -> None:
    """Choose the journal, and what a commit waits for. StoreUnwritable if the file system has none of them.

    Where the file system is shared with other machines, or knows no write-ahead log: one that is emptied
    after each commit. Readers and the writer then wait for each other for moments, and each commit waits for
    the disk.
    """
    has_log = not is_shared and _journal_mode(connection, "WAL") == "wal"
    if not has_log:
        mode = _journal_mode(connection, "TRUNCATE")
        if mode != "truncate":
            raise StoreUnwritable(
                f"the file system of {path} can keep no journal (mode {mode}): choose a directory on a local "
                "disk"
            )
        connection.execute("PRAGMA locking_mode = NORMAL")
        _warn(path, is_shared=is_shared)
    kind = (_OF_LOG if has_log else _OF_JOURNAL)[durability]
    connection.execute(f"PRAGMA synchronous = {kind}")
    if durability == "full":  # where a disk says too early that it has written: macOS
        connection.execute("PRAGMA fullfsync = ON")
        connection.execute("PRAGMA checkpoint_fullfsync = ON")


def _journal_mode(connection: sqlite3.Connection, wanted: str) -> str:
    return str(connection.execute(f"PRAGMA journal_mode = {wanted}").fetchone()[0])


def _warn(path: Path, *, is_shared: bool) -> None:
    why = (
        "is on a file system that other machines share"
        if is_shared
        else "can have no shared memory"
    )
    _LOG.warning(
        "%s %s: it is kept without a write-ahead log, which is safe, and slower by some milliseconds for each "
        "fact. A directory on a local disk is faster",
        path,
        why,
    )


def sync_directories(path: Path) -> None:
    """Wait until the disk has the entry of a file in its directory, and those of the directories above it.

    Else a loss of power could take a new project with all its facts. A directory that cannot be opened is not
    of this user's making, and was there before.
    """
    for directory in path.absolute().parents:
        try:
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return
        try:
            os.fsync(descriptor)
        except OSError:  # a file system without this: it keeps entries in its own way
            return
        finally:
            os.close(descriptor)
