"""Reading a project's facts synchronously: before a search, or beside one in progress."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from aiotune.collecting import uncollected
from aiotune.errors import StoreUnreadable
from aiotune.events import Event, SearchOpened
from aiotune.store.database import MountTable, reading, version_of
from aiotune.store.encoding import decode_all
from aiotune.store.filesystem import read_mount_table
from aiotune.store.turns import turn_to_read

__all__ = ["Meta", "read_facts", "read_meta"]

_PIECE = 5000  # facts that are read at once: some hundredths of a second


@dataclass(frozen=True, slots=True)
class Meta:
    """What can be said of a project without reading all its facts."""

    schema: int  # version of the tables; 0 if there are none yet
    facts: int  # how many
    opened: SearchOpened | None  # the latest opening


def read_facts(
    path: Path,
    *,
    mount_table: MountTable = read_mount_table,
    may_stop: Callable[[], bool] = lambda: False,
) -> list[Event]:
    """Return every fact in order; none if the file is not there. StoreUnreadable.

    may_stop: asked now and then whether nobody wants them any more; then some are missing.
    One read-only look that sees a live writer's latest commit, never blocks it and changes nothing.
    """
    if not _is_there(path):
        return []
    with reading(path, mount_table=mount_table) as connection:
        with turn_to_read(path):
            version = version_of(connection, path)
        if version == 0:
            return []
        with uncollected():
            return list(decode_all(_rows(connection, path, may_stop), path))


def _rows(
    connection: sqlite3.Connection, path: Path, may_stop: Callable[[], bool]
) -> Iterator[tuple[int, str, str]]:
    """Yield number, kind and text of every fact.

    Piece by piece, each in a transaction of its own, so that none is open while facts are decoded:
    without a write-ahead log a writer would wait for it, and with one the log could not be emptied.
    The last piece ends with a whole commit, and what is before it never changes.
    """
    last = -(2**63)
    while True:
        with turn_to_read(path):
            piece = connection.execute(
                "SELECT seq, kind, data FROM events WHERE seq > ? ORDER BY seq LIMIT ?",
                (last, _PIECE),
            ).fetchall()
        yield from piece
        if len(piece) < _PIECE or may_stop():
            return
        last = piece[-1][0]


def read_meta(path: Path) -> Meta | None:
    """Return what `Meta` says of the project; None if the file is not there. StoreUnreadable."""
    if not _is_there(path):
        return None
    with reading(path) as connection, turn_to_read(path):
        version = version_of(connection, path)
        if version == 0:
            return Meta(schema=0, facts=0, opened=None)
        facts = connection.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0]
        rows = connection.execute(
            "SELECT 1, kind, data FROM events WHERE kind = 'SearchOpened' ORDER BY seq DESC LIMIT 1"
        )
        openings = list(decode_all(rows, path))
    opened = openings[0] if openings and isinstance(openings[0], SearchOpened) else None
    return Meta(schema=version, facts=facts, opened=opened)


def _is_there(path: Path) -> bool:
    try:
        path.lstat()  # a link that leads nowhere is there, and refused
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise StoreUnreadable(
            f"{path} cannot be read ({error.strerror}): check its rights"
        ) from error
    return True
