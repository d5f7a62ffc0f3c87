"""Locks on cards between processes: who leases a card holds the `flock` of its file.

The lock belongs to the open file, not to a process. Each run has a copy of the descriptor, so that the lock
lives until two things have happened: `drop`, or the caller's death, and the end of the run. Nothing here ever
unlocks a card's file, which would unlock it for the run, too: it only closes.

Who is refused a card waits for it, and shows that by a shared lock on a second file, `<UUID>.next`. Who has
dropped a card leaves it alone for a moment as long as somebody else waits: many short leases in one process
would else keep the card from all others.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
import weakref
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from aiotune.clock import Clock, SystemClock
from aiotune.devices.lock_files import (
    Holder,
    LockDirectory,
    read_holder,
    read_text,
    try_lock,
    write_holder,
)

__all__ = ["LEASED", "CardLocks", "open_locks"]

logger = logging.getLogger("aiotune.devices")

LEASED = "AIOTUNE_LEASED_GPUS"  # in the environment of a run: the UUIDs of its lease
_DIRECTORY = "AIOTUNE_LOCK_DIR"

_YIELD_SECONDS = 0.1  # ample for who waits, and looks every 50 ms
_TENURE_SECONDS = 600.0  # where runs overlap on a card, which stands empty when it changes hands
_ATTEMPTS = 10  # at a file that is deleted again and again
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
_FULL = "nobody, but no descriptor is left for its lock: raise `ulimit -n`"


@dataclass(frozen=True, slots=True)
class _Dropped:
    """When a card was dropped, and what its file said then."""

    at: float
    text: bytes


class CardLocks:
    """The locks that this process holds. Thread-safe; nothing waits.

    directory: where the lock files are. ours: cards that are ours by the lease of the run that this process
    belongs to: they need no lock. yield_seconds: how long a card that was dropped is left to those who wait.
    tenure_seconds: how long a card may be kept from them.

    A card whose file cannot be locked, for another reason than that somebody has it, is used without a lock,
    and one warning says so.
    """

    def __init__(
        self,
        directory: Path,
        *,
        ours: Collection[str] = (),
        clock: Clock | None = None,
        yield_seconds: float = _YIELD_SECONDS,
        tenure_seconds: float = _TENURE_SECONDS,
    ) -> None:
        self._directory = LockDirectory(directory)
        self._ours = frozenset(ours)
        self._clock = clock or SystemClock()
        self._yield_seconds = yield_seconds
        self._tenure_seconds = tenure_seconds
        # Reentrant: the garbage collector may release a lease while this thread is in here.
        self._lock = threading.RLock()
        self._held: dict[str, int] = {}  # descriptors, by UUID
        self._since: dict[str, float] = {}
        self._waiting: dict[str, int] = {}  # those of the second files
        self._dropped: dict[str, _Dropped] = {}
        self._warned: set[str] = set()
        weakref.finalize(self, _close_all, self._held, self._waiting)
        _ALL.add(self)

    def take(self, uuid: str) -> int | None:
        """Return the descriptor of the card's lock, which holds it; None if another has it or comes first.

        A card that is held already keeps its descriptor. After None this process waits for the card, for others
        to see, until it gets it or leaves.
        """
        with self._lock:
            if uuid not in self._held:
                fd = None if self._must_yield(uuid) else self._acquire(uuid)
                if fd is None:
                    self._wait(uuid)
                    return None
                self._held[uuid] = fd
                self._since[uuid] = self._clock.monotonic()
                self.leave(uuid)
            return self._held[uuid]

    def drop(self, uuid: str) -> None:
        """Close this process's copy of the lock; a run that has another keeps the card locked to its end."""
        with self._lock:
            fd = self._held.pop(uuid, None)
            self._since.pop(uuid, None)
            if fd is not None:
                with suppress(OSError):
                    self._dropped[uuid] = _Dropped(self._clock.monotonic(), read_text(fd))
                _close(fd)

    def leave(self, uuid: str) -> None:
        """Wait for the card no more: who drops it may have it again at once."""
        with self._lock:
            fd = self._waiting.pop(uuid, None)
            if fd is not None:
                _close(fd)

    def is_due(self, uuid: str) -> bool:
        """Tell whether this process has had the card for long, and another one waits for it."""
        with self._lock, suppress(OSError):
            if uuid in self._held:
                is_long = self._clock.monotonic() - self._since[uuid] >= self._tenure_seconds
                return is_long and self._has_others_waiting(uuid)
        return False

    def holder(self, uuid: str) -> str | None:
        """Return in words who keeps this process from taking the card now; None if nobody seems to."""
        with self._lock:
            if uuid in self._held:
                return None
            if uuid in self._waiting:
                self._wait(uuid)  # its lock may have failed before
            if self._must_yield(uuid):
                return "another process, which is about to take it"
            try:
                fd = self._directory.find(_file(uuid))
            except OSError as error:
                return _FULL if error.errno in _NO_DESCRIPTORS else None
            return None if fd is None else _look(fd)

    def _acquire(self, uuid: str) -> int | None:
        try:
            if uuid in self._ours:
                return _open_nothing()
            return self._lock_file(_file(uuid))
        except OSError as error:
            if error.errno in _NO_DESCRIPTORS:
                return None
            self._warn(uuid, error)
        try:
            return _open_nothing()
        except OSError:
            return None

    def _lock_file(self, name: str) -> int | None:
        for _ in range(_ATTEMPTS):
            fd = self._directory.open(name)
            try:
                if not try_lock(fd, fcntl.LOCK_EX):
                    os.close(fd)
                    return None
                if self._directory.has(name, fd):
                    write_holder(fd, Holder.current())
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # deleted meanwhile: lock the new one
        raise OSError(0, "somebody deletes it all the time", name)

    def _must_yield(self, uuid: str) -> bool:
        dropped = self._dropped.get(uuid)
        if dropped is None:
            return False
        with suppress(OSError):
            is_recent = self._clock.monotonic() - dropped.at < self._yield_seconds
            if is_recent and self._says(uuid, dropped.text):
                return self._has_others_waiting(uuid)
        del self._dropped[uuid]
        return False

    def _says(self, uuid: str, text: bytes) -> bool:
        """Tell whether the card's file still says this: if not, somebody else has had the card."""
        fd = self._directory.find(_file(uuid))
        if fd is None:
            return False
        try:
            return read_text(fd) == text
        finally:
            os.close(fd)

    def _has_others_waiting(self, uuid: str) -> bool:
        own = self._waiting.get(uuid)
        fd = self._directory.find(_next_file(uuid)) if own is None else own
        if fd is None:
            return False
        try:
            return not try_lock(fd, fcntl.LOCK_EX)
        finally:
            if own is None:
                os.close(fd)
            else:
                try_lock(fd, fcntl.LOCK_SH)  # again: the attempt has cost it

    def _wait(self, uuid: str) -> None:
        # Without it the card comes later, but it comes.
        with suppress(OSError):
            if uuid not in self._waiting:
                self._waiting[uuid] = self._directory.open(_next_file(uuid))
            try_lock(self._waiting[uuid], fcntl.LOCK_SH)

    def _warn(self, uuid: str, error: OSError) -> None:
        where = self._directory.path / (error.filename or "")
        reason = f"{where}: {error.strerror}"
        if reason not in self._warned:
            self._warned.add(reason)
            logger.warning(
                "%s is used without a lock, so that another process may lease it, too (%s): mend that, or set "
                "%s to a directory that all who share the cards can write to",
                uuid,
                reason,
                _DIRECTORY,
            )

    def begin_anew(self) -> None:
        """Let go of everything in a fork of the process that holds it."""
        self._lock = threading.RLock()
        _close_all(self._held, self._waiting)
        self._dropped.clear()


def open_locks(
    environment: Mapping[str, str], default: Path = Path("/tmp/aiotune-locks")
) -> CardLocks:
    """Return locks in the directory that the environment names, else in one for all users of the machine.

    TMPDIR has no say: it may be another one for each user, or job.
    """
    named = environment.get(_DIRECTORY)
    # Resolved if it is the user's own: a link in its place, which is not followed, would be another's doing.
    directory = Path(named).expanduser().absolute().resolve() if named else default
    return CardLocks(directory, ours=environment.get(LEASED, "").split(","))


def _file(uuid: str) -> str:
    return f"{quote(uuid, safe='')}.lock"  # old names of MIG instances have slashes


def _next_file(uuid: str) -> str:
    return f"{quote(uuid, safe='')}.next"


def _look(fd: int) -> str | None:
    """Return who holds the lock of this file, if anybody; the descriptor is closed."""
    try:
        # Shared: two that look at the same time must not see one another.
        return None if try_lock(fd, fcntl.LOCK_SH) else read_holder(fd)
    except OSError:
        return None
    finally:
        os.close(fd)


def _open_nothing() -> int:
    """Return a descriptor that locks nothing, for a card that is used without a lock."""
    return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


def _close_all(*descriptors: dict[str, int]) -> None:
    for each in descriptors:
        while each:
            _close(each.popitem()[1])


def _close(fd: int) -> None:
    with suppress(OSError):  # the user's code may have closed it, with all others
        os.close(fd)


# A fork must not keep the locks of this process, whose leases it does not have.
_ALL: weakref.WeakSet[CardLocks] = weakref.WeakSet()


def _begin_anew() -> None:
    for locks in list(_ALL):
        locks.begin_anew()


os.register_at_fork(after_in_child=_begin_anew)
