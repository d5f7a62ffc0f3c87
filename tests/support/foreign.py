"""What somebody might put into a project directory that he hands over, or into the socket of a run."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from aiotune.events import Event
from aiotune.store.schema import APPLICATION_ID
from aiotune.store.sqlite import open_store

__all__ = [
    "NAMES",
    "VALUES",
    "execute",
    "in_time",
    "obstacles",
    "put",
    "rewritten",
    "snapshot",
    "write_store",
]

_Answer = TypeVar("_Answer")
_DEADLINE_SECONDS = 60.0  # far above what anything takes: it hangs

# Names of all kinds: out of the directory, of devices, of nothing, too long, that a terminal obeys, and SQL.
NAMES = (
    *("../x", "..", ".", "/etc/passwd", "a/b", "", "a\0b", "a\nb", "x" * 300, "CON", "nul.txt"),
    *("C:\\x", "\x1b]0;title\x07", "\x1b[2J", "\u202eabc", "\u2066", "\ud800", "é" * 200, "a\rb"),
    *("~", "$HOME", "'; DROP TABLE events; --", '"', "%s%n", "{0.__class__}", "__class__"),
)
# Values of all types and sizes, as they stand in JSON.
VALUES = (
    *("null", "true", "-1", "1.5", "1e999", "-1e999", "NaN", "Infinity", '"nan"', '"inf"', '"1"'),
    *('""', "[]", "{}", "[[]]", '[{"a": 1}]', '{"float": "nan"}', '{"class_name": "os.system"}'),
    *("9223372036854775808", "1" + "0" * 400, "1" + "0" * 5000, "[" * 5000 + "]" * 5000),
    *('["../x"]', *(json.dumps(name) for name in NAMES)),
)


def in_time(call: Callable[[], _Answer]) -> _Answer:
    """Return what the call returns, or raise what it raises; AssertionError if it does not end."""
    answers: list[_Answer] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(_DEADLINE_SECONDS)
    assert not thread.is_alive(), "it hangs"
    if errors:
        raise errors[0]
    return answers[0]


def write_store(path: Path, facts: Sequence[Event]) -> None:
    async def main() -> None:
        async with open_store(path) as store:
            await store.append(*facts)

    asyncio.run(main())


def execute(path: Path, *statements: str) -> None:
    """Change the database as anybody can; it is one file afterwards."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def rewritten(path: Path, rows: Sequence[tuple[object, object, object]]) -> Path:
    """Return the database with these facts in its log: number, kind and text of each, unchecked."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute("DELETE FROM events")
        insert = "INSERT INTO events VALUES (?, 1.0, ?, NULL, ?)"
        connection.executemany(insert, rows)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


def obstacles(victim: Path) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Yield what may stand in the place of a file, by name: each makes it. Links lead to `victim`."""
    yield "a symbolic link", lambda path: path.symlink_to(victim)
    yield "a dangling link", lambda path: path.symlink_to(victim.with_name("new"))
    yield "a hard link", lambda path: path.hardlink_to(victim)
    yield "a FIFO", lambda path: os.mkfifo(path)
    yield "a link to a device", lambda path: path.symlink_to("/dev/zero")
    yield "a link to a FIFO", _link_to_fifo
    yield "a directory", lambda path: path.mkdir()


def _link_to_fifo(path: Path) -> None:
    fifo = path.with_name("a-fifo")
    os.mkfifo(fifo)
    path.symlink_to(fifo)


def put(path: Path, make: Callable[[Path], None]) -> None:
    """Let `make` put something in the place of a file."""
    path.unlink(missing_ok=True)
    make(path)


def snapshot(directory: Path) -> dict[str, bytes]:
    """Return every plain file below a directory, with its content."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
