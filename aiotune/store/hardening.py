"""A database that somebody else has made: what is made sure of before any of it is believed.

SQLite runs what a schema says: triggers, views and virtual tables at a write, functions in indexes and columns.
And it follows what lies beside the file: the end of a rollback journal may name another file, which is then
deleted. So the files must be plain ones of one name, the journal must name nobody, and the schema must be ours.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from functools import cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from aiotune.errors import StoreUnreadable
from aiotune.private_files import check_file, create_file, open_to_read

__all__ = ["MOST_BYTES", "check_files", "check_schema", "harden", "make_private"]

MOST_BYTES = 2**27  # of one fact, as text: a database of aiotune's never holds more

_BESIDE = ("-wal", "-shm", "-journal")
_JOURNAL_MARK = bytes.fromhex("d9d505f920a163d7")  # sqlite.org/fileformat.html, section 3
_MASTER = "SELECT type, name, tbl_name, rootpage, sql FROM sqlite_master"
_COMMENT = re.compile(r"--[^\n]*")
_SPACE = re.compile(r"\s+")
_AROUND = re.compile(r" ?([(),]) ?")


class _Object(NamedTuple):
    """A row of `sqlite_master`."""

    kind: object
    name: object
    table: object
    root: object
    sql: object


def check_files(path: Path) -> None:
    """Raise OSError, saying why, unless the database's files are plain ones, as far as they are there.

    Only what stands beside the database is opened: closing a descriptor of the file itself would drop the locks
    that this process has on it. StoreUnreadable for a journal that aiotune cannot have written.
    """
    for suffix in ("", *_BESIDE):
        check_file(_beside(path, suffix))
    _check_journal(_beside(path, "-journal"))


def make_private(path: Path) -> None:
    """Make the file, for its owner alone, if there is none. SQLite gives those beside it the same mode."""
    if os.path.lexists(path):
        return
    with suppress(FileExistsError):
        # New, so that no connection of this process has locks on it that closing could drop.
        os.close(create_file(path))


def harden(connection: sqlite3.Connection) -> None:
    """Let the connection trust nothing that stands in the file."""
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_BYTES)
    configure = getattr(connection, "setconfig", None)  # from Python 3.12 on
    if configure is not None:
        configure(getattr(sqlite3, "SQLITE_DBCONFIG_DEFENSIVE"), True)  # noqa: B009, not in 3.11


def check_schema(
    connection: sqlite3.Connection, path: Path, steps: Sequence[Sequence[str]]
) -> None:
    """Raise StoreUnreadable unless the tables and indexes that these steps make are there, and no others.

    Ordinary tables of the user's may stand beside them: nothing that runs by itself.
    """
    expected = _made_by(tuple(chain.from_iterable(steps)))
    is_empty = not expected  # a file of ours that has no version has nothing in it, either
    tables = {name for name, each in expected.items() if each[0] == "table"}
    found: set[str] = set()
    for each in (_Object(*row) for row in connection.execute(_MASTER)):
        name = str(each.name).lower()
        if name in expected:
            is_right = name not in found and _meaning(each) == expected[name]
            found.add(name)
        else:
            is_ordinary = each.kind in ("table", "index") and bool(each.root) and not is_empty
            is_right = is_ordinary and (str(each.table).lower() not in tables or each.sql is None)
        if not is_right:
            raise _foreign(path, f"{each.kind} {str(each.name)!r:.100} is none that aiotune made")
    missing = sorted(expected.keys() - found)
    if missing:
        raise _foreign(path, f"{missing[0]} is missing")


def _foreign(path: Path, what: str) -> StoreUnreadable:
    return StoreUnreadable(
        f"{path} has another schema than aiotune's ({what}): drop what was added, restore a copy, or choose "
        "another project_name"
    )


@cache
def _made_by(statements: tuple[str, ...]) -> dict[str, tuple[str, str, str]]:
    """Return what stands in a file after these: each object's meaning by its name."""
    with closing(sqlite3.connect(":memory:")) as connection:
        for statement in statements:
            connection.execute(statement)
        made = [_Object(*row) for row in connection.execute(_MASTER)]
    return {str(each.name).lower(): _meaning(each) for each in made}


def _meaning(each: _Object) -> tuple[str, str, str]:
    """Return kind, table and statement, whatever its comments and its spaces."""
    text = _SPACE.sub(" ", _COMMENT.sub(" ", str(each.sql))).strip()
    return str(each.kind), str(each.table).lower(), _AROUND.sub(r"\1", text)


def _check_journal(path: Path) -> None:
    """Raise StoreUnreadable for a rollback journal that names another file: aiotune's never do."""
    try:
        with open_to_read(path) as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - len(_JOURNAL_MARK)))
            end = file.read()
    except FileNotFoundError:
        return
    if size > len(_JOURNAL_MARK) and end == _JOURNAL_MARK:
        raise StoreUnreadable(
            f"{path} names another file, which opening the database could delete: aiotune did not write it; "
            "delete it if you know what it is, or choose another project_name"
        )


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
