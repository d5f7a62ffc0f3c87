"""Opening the file, for writing and for reading: identity, versions, errors that say what to do."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import Literal, TypeVar

from aiotune.errors import StoreError, StoreUnreadable, StoreUnwritable
from aiotune.store.schema import APPLICATION_ID, MIGRATIONS

__all__ = [
    "Durability",
    "connect_writer",
    "make_directory",
    "migrate",
    "reading",
    "translated",
    "version_of",
]

Durability = Literal["process", "full"]

BUSY_SECONDS = 5.0  # how long a write waits for a stranger's lock; readers never take one
_SYNCHRONOUS: dict[Durability, str] = {"process": "NORMAL", "full": "FULL"}
_NEEDS_WRITABLE_DIRECTORY = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}

_Connection = TypeVar("_Connection", bound=sqlite3.Connection)


def make_directory(path: Path) -> None:
    """Create the directory and its parents where they are missing, or raise StoreUnwritable."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise StoreUnwritable(
            f"{path} cannot be a directory, for a file is in the way: choose another directory "
            f"or project_name"
        ) from error
    except OSError as error:
        raise StoreUnwritable(
            f"directory {path} cannot be created ({error.strerror}): choose a directory that you "
            f"may write to"
        ) from error


def connect_writer(
    path: Path, *, durability: Durability, factory: type[_Connection]
) -> _Connection:
    """Open the database for writing; create it or bring its schema up to date where needed.

    The connection is in autocommit mode and belongs to the calling thread. StoreUnwritable,
    StoreUnreadable.
    """
    make_directory(path.parent)
    try:
        connection = sqlite3.connect(
            path, timeout=BUSY_SECONDS, isolation_level=None, factory=factory
        )
        try:
            _prepare(connection, path, durability)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise translated(error, path) from error
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, durability: Durability) -> None:
    version = version_of(connection, path)
    if version == 0:
        # Before the write-ahead log exists, so that the mark is in the file itself whatever happens
        # next.
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    mode = _pragma(connection, "journal_mode = WAL")
    if mode != "wal":
        raise StoreUnwritable(
            f"the file system of {path} has no shared memory for a write-ahead log (journal mode "
            f"{mode}): choose a directory on a local disk"
        )
    connection.execute(f"PRAGMA synchronous = {_SYNCHRONOUS[durability]}")
    migrate(connection, path)


def migrate(
    connection: sqlite3.Connection, path: Path, migrations: Sequence[Sequence[str]] = MIGRATIONS
) -> None:
    """Apply the steps that the file lacks, all of them or none. StoreUnreadable if it is newer."""
    try:
        # Even when nothing is to be done: a file that cannot be written shows here, before the
        # first fact.
        connection.execute("BEGIN IMMEDIATE")
        version = version_of(connection, path, newest=len(migrations))
        for statement in chain.from_iterable(migrations[version:]):
            connection.execute(statement)
        if version < len(migrations):
            connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.rollback()


def version_of(connection: sqlite3.Connection, path: Path, *, newest: int = len(MIGRATIONS)) -> int:
    """Return the schema's version; 0 for an empty file.

    StoreUnreadable if the file is another program's or newer.
    """
    application = _pragma(connection, "application_id")
    version = int(str(_pragma(connection, "user_version")))
    if application != APPLICATION_ID:
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if application or version or tables:
            raise StoreUnreadable(
                f"{path} is another program's database: choose another project_name or directory"
            )
    if version > newest:
        raise StoreUnreadable(
            f"{path} was written by a newer aiotune (schema {version}, this one knows {newest}): "
            f"upgrade aiotune, choose another project_name, or start over with overwrite=True"
        )
    return version


def _pragma(connection: sqlite3.Connection, pragma: str) -> object:
    row = connection.execute(f"PRAGMA {pragma}").fetchone()
    return row[0]


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open an existing database to read it, without locking anyone out and without changing it.

    A live writer's latest commits are seen. Where SQLite cannot open the file for want of a
    writable directory (it needs one for the index of a write-ahead log), a temporary copy is read.
    StoreUnreadable.

    The file itself is opened through SQLite only: closing any other descriptor of it would drop the
    locks of every connection that this process has to it. The copy is safe: no writer lives there.
    """
    try:
        with closing(_connect_reader(path)) as connection:
            yield connection
    except OSError as error:
        raise StoreUnreadable(
            f"{path} cannot be read ({error.strerror}): check its rights"
        ) from error
    except sqlite3.Error as error:
        translation = translated(error, path)
        if not isinstance(translation, StoreUnreadable):
            translation = StoreUnreadable(f"{path} cannot be read ({error}): check its rights")
        raise translation from error


def _connect_reader(path: Path) -> sqlite3.Connection:
    try:
        return _probed(path)
    except sqlite3.OperationalError as error:
        if _primary_code(error) not in _NEEDS_WRITABLE_DIRECTORY:
            raise
    with tempfile.TemporaryDirectory(prefix="aiotune-") as directory:
        copy = Path(directory) / path.name
        shutil.copyfile(path, copy)
        log = Path(f"{path}-wal")
        if log.exists():
            shutil.copyfile(log, f"{copy}-wal")
        # Once read into memory the copy is no longer needed, and its directory can go at once.
        with closing(_probed(copy)) as source:
            connection = sqlite3.connect(":memory:", isolation_level=None)
            try:
                source.backup(connection)
            except BaseException:
                connection.close()
                raise
    return connection


def _probed(path: Path) -> sqlite3.Connection:
    """Return a read-only connection that has read the file: opening alone finds nothing out."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS, isolation_level=None
    )
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def translated(error: sqlite3.Error, path: Path) -> StoreError:
    """Return aiotune's error for SQLite's; it says what is wrong with `path` and what to do."""
    match _primary_code(error):
        case sqlite3.SQLITE_NOTADB:
            return StoreUnreadable(
                f"{path} is no database: choose another project_name, or delete the file if nobody "
                f"needs it"
            )
        case sqlite3.SQLITE_CORRUPT:
            return StoreUnreadable(
                f"{path} is damaged ({error}): restore a copy, choose another project_name, "
                f"or start over with overwrite=True"
            )
        case sqlite3.SQLITE_FULL:
            return StoreUnwritable(
                f"no space is left to write {path}: free some, or choose another directory"
            )
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreUnwritable(
                f"another program keeps {path} locked for writing: end it, and run the search again"
            )
        case sqlite3.SQLITE_CONSTRAINT:
            return StoreError(
                f"another search writes to {path} at the same time ({error}): end one"
            )
        case (
            sqlite3.SQLITE_READONLY
            | sqlite3.SQLITE_CANTOPEN
            | sqlite3.SQLITE_PERM
            | sqlite3.SQLITE_IOERR
        ):
            return StoreUnwritable(
                f"{path} cannot be written ({error}): check the rights, the free space and that "
                f"the disk is not read-only, or choose another directory"
            )
        case _:
            return StoreError(f"{path}: {error}")


def _primary_code(error: sqlite3.Error) -> int:
    """Return SQLite's error code without its extension; -1 if the error is none of SQLite's own."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return -1 if code is None else code & 0xFF
