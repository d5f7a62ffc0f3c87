"""One process owns a search: a lock on a file that also says who.

The lock is a POSIX record lock: the kernel releases it when its process dies, however it dies, and
a fork does not inherit it, so that no orphan keeps a dead owner's lock. It has two weaknesses, and
both are met here. It does not exclude within a process: a registry of held paths does. And closing
any descriptor of the file in the owning process drops it: a second attempt in that process is
refused by the registry before the file is opened.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from aiotune.clock import Clock, SystemClock
from aiotune.decoding import a_count, a_moment, a_text, parse_json, record_of
from aiotune.errors import StoreError, StoreLocked, StoreUnwritable
from aiotune.private_files import open_file, strangers
from aiotune.store.database import make_directory

__all__ = ["Owner", "hold_lock"]

_LOG = logging.getLogger(__name__)

_held: dict[Path, Owner] = {}  # of this process, by resolved path
os.register_at_fork(after_in_child=_held.clear)  # a fork inherits no lock


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a lock: the content of the file."""

    pid: int
    host: str
    since: float  # seconds since 1970


_CHECKS = {"pid": a_count, "host": a_text, "since": a_moment}


@contextmanager
def hold_lock(path: Path, *, clock: Clock | None = None) -> Iterator[Owner]:
    """Own the search whose lock file is `path` until the context is left; never wait for it.

    The file stays, emptied. StoreLocked if another process or another task of this one owns the
    search, StoreUnwritable if the file or a lock on it cannot be had.
    """
    now = (clock or SystemClock()).now()
    owner = Owner(pid=os.getpid(), host=socket.gethostname(), since=now)
    key = path.resolve()
    _register(key, owner)
    try:
        descriptor = _acquire(path)
        try:
            _write(descriptor, path, json.dumps(asdict(owner)))
            yield owner
        finally:
            _release(descriptor, owner)
    finally:
        _unregister(key, owner)


def _register(key: Path, owner: Owner) -> None:
    held = _held.setdefault(key, owner)
    if held is not owner:
        raise _locked(key, held)


def _unregister(key: Path, owner: Owner) -> None:
    if _held.get(key) is owner:  # not in a fork that unwinds its parent's block
        del _held[key]


def _acquire(path: Path) -> int:
    """Return a descriptor of the file that holds the lock."""
    make_directory(path.parent)
    _warn_of_strangers(path.parent)
    try:
        while True:
            descriptor = open_file(path, os.O_RDWR | os.O_CREAT)
            try:
                _lock(descriptor, path)
                if _is_current(descriptor, path):
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # its owner deleted it meanwhile: lock the new one
    except OSError as error:
        raise StoreUnwritable(
            f"{path} cannot be locked ({error.strerror}): check its rights and that its file "
            f"system knows locks, or choose another directory"
        ) from error


def _warn_of_strangers(directory: Path) -> None:
    who = strangers(directory)
    if who is not None:
        _LOG.warning(
            "others may change the files of this search in %s: %s. Choose a directory of your own",
            directory,
            who,
        )


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        raise _locked(path, _read_owner(descriptor)) from None


def _is_current(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _read_owner(descriptor: int) -> Owner | None:
    """Return who wrote the file; None if it is half written right now."""
    try:
        content = parse_json(os.pread(descriptor, 4096, 0).decode())
        return record_of(Owner, _CHECKS, content)
    except (OSError, TypeError, ValueError):
        return None


def _release(descriptor: int, owner: Owner) -> None:
    if os.getpid() == owner.pid:  # else a fork unwinds the block: its parent still owns the search
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
    os.close(descriptor)


def _write(descriptor: int, path: Path, content: str) -> None:
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, content.encode(), 0)
    except OSError as error:
        raise StoreUnwritable(
            f"{path} cannot be written ({error.strerror}): free some space, or choose another "
            f"directory"
        ) from error


def _locked(path: Path, owner: Owner | None) -> StoreError:
    if owner is None:
        return StoreLocked(
            f"another process runs the search in {path.parent}: wait for its end, or choose "
            f"another project_name"
        )
    since = datetime.fromtimestamp(owner.since, UTC).isoformat(" ", "seconds")
    is_here = owner.pid == os.getpid() and owner.host == socket.gethostname()
    who = "this process" if is_here else "another process"
    return StoreLocked(
        f"{who} (pid {owner.pid} on {owner.host}, since {since}) runs the search in {path.parent}: "
        f"wait for its end, end it, or choose another project_name",
        pid=owner.pid,
        host=owner.host,
    )
