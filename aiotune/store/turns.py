"""Who reads next, where a database has no write-ahead log: the threads of a process one by one.

Readers share a lock there, and a writer that waits until they have left it lets no further process in. But
SQLite hands the lock that a thread has on to the other threads of its process, past the writer: some threads
that read on and on would keep it out for good.
"""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

__all__ = ["turn_to_read"]

_turn = threading.Lock()


def _begin_anew() -> None:
    global _turn
    _turn = threading.Lock()


os.register_at_fork(after_in_child=_begin_anew)  # who has it may be a thread that the child lacks


def turn_to_read(path: Path) -> AbstractContextManager[object]:
    """Return the context for one short transaction that reads the database at `path`."""
    # The log is there as long as a writer has the database open, at least.
    has_log = path.with_name(f"{path.name}-wal").exists()
    return nullcontext() if has_log else _turn
