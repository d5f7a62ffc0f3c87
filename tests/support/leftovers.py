"""What a piece of work has left in this process and around it: to be compared before and after."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aiotune.devices.ledger import shared_ledger
from aiotune.errors import StoreLocked
from aiotune.store.lock import hold_lock
from tests.support.processes import descendants, is_gone

__all__ = ["Surroundings", "cards_locked", "project_leftovers"]

_LONGEST_SECONDS = 10.0  # for a thread to end that has been told to


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What there is now: threads, descriptors with what they lead to, processes, temporary files."""

    threads: frozenset[threading.Thread]
    descriptors: frozenset[tuple[int, str]]
    processes: frozenset[int]
    files: frozenset[str]

    @classmethod
    def now(cls) -> Surroundings:
        return cls(
            frozenset(threading.enumerate()),
            frozenset(_descriptors()),
            frozenset(each.pid for each in descendants(os.getpid()) if not is_gone(each.pid)),
            frozenset(os.listdir(tempfile.gettempdir())),
        )

    def left(self) -> list[str]:
        """Return what is there now that was not then. Waits for threads that are about to end."""
        # The processes first, and without waiting: they must be gone when the work says that it is done.
        processes = self.now().processes - self.processes
        for thread in self.now().threads - self.threads:
            thread.join(_LONGEST_SECONDS)
        now = self.now()
        return [
            *(f"process {pid}" for pid in processes),
            *(f"thread {each.name}" for each in now.threads - self.threads),
            *(f"descriptor {fd}: {what}" for fd, what in now.descriptors - self.descriptors),
            *(f"temporary file {each}" for each in now.files - self.files),
        ]


def _descriptors() -> Iterator[tuple[int, str]]:
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            yield int(name), os.readlink(f"/proc/self/fd/{name}")


def cards_locked(directory: Path) -> Iterator[str]:
    """Yield the cards that somebody has locked."""
    for path in directory.glob("*.lock"):
        with path.open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield path.stem


def project_leftovers(root: Path) -> list[str]:
    """Return what is left of a search that must go with it: the lock of its project, leases, files."""
    left = [f"unfinished file {path}" for path in root.glob("**/writing.*")]
    left += [f"file {path.name}" for path in root.glob("study.db-*")]
    if shared_ledger().is_in_use:
        left.append("a lease, or somebody who waits for one")
    if (root / "study.lock").exists():
        try:
            with hold_lock(root / "study.lock"):
                pass
        except StoreLocked as error:
            left.append(f"the study's lock: {error}")
    return left
