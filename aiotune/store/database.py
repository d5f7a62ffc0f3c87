"""Opening the file, for writing and for reading: identity, versions, errors that say what to do."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import TypeVar

from aiotune.errors import StoreError, StoreUnreadable, StoreUnwritable
from aiotune.private_files import make_directories
from aiotune.store.filesystem import is_shared, read_mount_table
from aiotune.store.hardening import check_files, check_schema, harden, make_private
from aiotune.store.journal import (
    Durability,
    begin_journal,
    keep_off_shared_memory,
    sync_directories,
)
from aiotune.store.schema import APPLICATION_ID, MIGRATIONS
from aiotune.store.turns import turn_to_read

__all__ = [
    "Durability",
    "MountTable",
    "connect_writer",
    "is_locked",
    "make_directory",
    "migrate",
    "reading",
    "translated",
    "version_of",
]

MountTable = Callable[[], str]  # see `filesystem.read_mount_table`

BUSY_SECONDS = 5.0  # how long opening waits for a stranger's lock
_MOST_COPIES = 5  # of a file that is written to while it is copied
_NEEDS_WRITABLE_DIRECTORY = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}

_Connection = TypeVar("_Connection", bound=sqlite3.Connection)


def make_directory(path: Path) -> None:
    """Create the directory and its parents where they are missing, private, or raise StoreUnwritable."""
    try:
        make_directories(path)
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
    path: Path,
    *,
    durability: Durability,
    factory: type[_Connection],
    mount_table: MountTable = read_mount_table,
) -> _Connection:
    """Open the database for writing; create it or bring its schema up to date where needed.

    The connection is in autocommit mode and belongs to the calling thread. StoreUnwritable,
    StoreUnreadable.
    """
    make_directory(path.parent)
    _prepare_files(path)
    try:
        connection = sqlite3.connect(
            path, timeout=BUSY_SECONDS, isolation_level=None, factory=factory
        )
        try:
            harden(connection)
            _prepare(connection, path, durability, mount_table)
        except BaseException:
            connection.close()
            raise
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise translated(error, path) from error
    return connection


def _prepare_files(path: Path) -> None:
    try:
        check_files(path)
        make_private(path)
    except OSError as error:
        raise StoreUnwritable(
            f"{error.filename or path} cannot be written ({error.strerror}): check the rights, "
            f"and the free space, or choose another directory"
        ) from error


def _prepare(
    connection: sqlite3.Connection, path: Path, durability: Durability, mount_table: MountTable
) -> None:
    is_careful = is_shared(path, mount_table)
    if is_careful:
        keep_off_shared_memory(connection)
    version = version_of(connection, path)
    if version == 0:
        # Before the write-ahead log exists, so that the mark is in the file itself whatever happens
        # next.
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    begin_journal(connection, path, durability, is_shared=is_careful)
    migrate(connection, path)
    if durability == "full":
        sync_directories(path)


def migrate(
    connection: sqlite3.Connection, path: Path, migrations: Sequence[Sequence[str]] = MIGRATIONS
) -> None:
    """Apply the steps that the file lacks, all of them or none. StoreUnreadable if it is newer."""
    try:
        # Even when nothing is to be done: a file that cannot be written shows here, before the
        # first fact.
        connection.execute("BEGIN IMMEDIATE")
        version = version_of(connection, path, migrations)
        for statement in chain.from_iterable(migrations[version:]):
            connection.execute(statement)
        if version < len(migrations):
            connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.rollback()


def version_of(
    connection: sqlite3.Connection, path: Path, migrations: Sequence[Sequence[str]] = MIGRATIONS
) -> int:
    """Return the schema's version; 0 for an empty file.

    StoreUnreadable if the file is another program's or newer, or if its schema is not what the
    first steps make.
    """
    newest = len(migrations)
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
    check_schema(connection, path, migrations[: max(version, 0)])
    return max(version, 0)


def _pragma(connection: sqlite3.Connection, pragma: str) -> object:
    row = connection.execute(f"PRAGMA {pragma}").fetchone()
    return row[0]


@contextmanager
def reading(
    path: Path, *, mount_table: MountTable = read_mount_table
) -> Iterator[sqlite3.Connection]:
    """Open an existing database to read it, without locking anyone out and without changing it.

    A live writer's latest commits are seen. A temporary copy is read where SQLite cannot open the
    file for want of a writable directory (it needs one for the index of a write-ahead log, and to
    roll back what a dead writer had begun), and where a machine keeps a write-ahead log whose index
    this one cannot see. StoreUnreadable.

    The file itself is opened through SQLite only: closing any other descriptor of it would drop the
    locks of every connection that this process has to it. The copy is safe: no writer of this
    process lives there.
    """
    try:
        with closing(_connect_reader(path, mount_table)) as connection:
            yield connection
    except OSError as error:
        raise StoreUnreadable(
            f"{path} cannot be read ({error.strerror}): check its rights"
        ) from error
    except (sqlite3.Error, UnicodeDecodeError) as error:
        translation = translated(error, path)
        if not isinstance(translation, StoreUnreadable):
            translation = StoreUnreadable(f"{path} cannot be read ({error}): check its rights")
        raise translation from error


def _connect_reader(path: Path, mount_table: MountTable) -> sqlite3.Connection:
    check_files(path)
    if not (_has_log(path) and is_shared(path, mount_table)):
        try:
            with turn_to_read(path):
                return _probed(path, "ro")
        except sqlite3.OperationalError as error:
            if not _wants_room_beside(error):
                raise
    with tempfile.TemporaryDirectory(prefix="aiotune-") as directory:
        copy = _copied(path, Path(directory))
        # Once read into memory the copy is no longer needed, and its directory can go at once.
        with closing(_probed(copy, "rw")) as source:
            connection = sqlite3.connect(":memory:", isolation_level=None)
            try:
                harden(connection)
                source.backup(connection)
            except BaseException:
                connection.close()
                raise
    return connection


def _wants_room_beside(error: sqlite3.Error) -> bool:
    """Tell whether SQLite failed for want of a directory that it may write to, with room for an index."""
    name: str = getattr(error, "sqlite_errorname", "")
    is_of_index = name.startswith("SQLITE_IOERR_SHM")
    return is_of_index or _primary_code(error) in _NEEDS_WRITABLE_DIRECTORY


def _has_log(path: Path) -> bool:
    try:
        return _beside(path, "-wal").stat().st_size > 0
    except FileNotFoundError:
        return False


def _copied(path: Path, directory: Path) -> Path:
    """Copy the database with what belongs to it, all as of one moment, and return where it is.

    If another machine never stops writing, the last copy has to do: SQLite and the numbers of the
    facts tell whether it is whole.
    """
    for _ in range(_MOST_COPIES):
        before = _stamps(path)
        for suffix, stamp in before.items():
            target = _beside(directory / path.name, suffix)
            target.unlink(missing_ok=True)
            if stamp is not None:
                shutil.copyfile(_beside(path, suffix), target)
        if _stamps(path) == before:
            break
    return directory / path.name


def _stamps(path: Path) -> dict[str, tuple[int, int] | None]:
    """Return size and time of the database's files, by what their names end with; None for none."""
    stamps: dict[str, tuple[int, int] | None] = {}
    for suffix in ("", "-wal", "-journal"):
        try:
            found = _beside(path, suffix).stat()
        except FileNotFoundError:
            stamps[suffix] = None
        else:
            stamps[suffix] = found.st_size, found.st_mtime_ns
    return stamps


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _probed(path: Path, mode: str) -> sqlite3.Connection:
    """Return a connection that has read the file: opening alone finds nothing out."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
    )
    try:
        harden(connection)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def is_locked(error: sqlite3.Error) -> bool:
    """Tell whether another connection is in the way: the same may succeed a moment later."""
    codes = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
    return _primary_code(error) in codes


def translated(error: sqlite3.Error | UnicodeDecodeError, path: Path) -> StoreError:
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
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED | sqlite3.SQLITE_PROTOCOL:
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


def _primary_code(error: sqlite3.Error | UnicodeDecodeError) -> int:
    """Return SQLite's error code without its extension; -1 if the error is none of SQLite's own."""
    if isinstance(error, UnicodeDecodeError):  # of SQLite's message, which quotes what is damaged
        return sqlite3.SQLITE_CORRUPT
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return -1 if code is None else code & 0xFF
