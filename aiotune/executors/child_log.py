"""The log of a run, in its process: where stdout and stderr go, also those of native code."""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import io
import os
import signal
import sys
from pathlib import Path
from typing import Any

from aiotune.private_files import make_directories, open_log

__all__ = ["flush_output", "redirect_output"]

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class _LogFile(io.FileIO):
    """Drops what a full disk refuses: a run does not fail for what it prints."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            return memoryview(data).nbytes


def redirect_output(log: Path) -> None:
    """Send stdout and stderr, also of native code, to the end of the run's log, line by line.

    If there is no room for a log there is none.
    """
    fd = _open(log)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)
    # The originals, too: libraries print on them in spite of a stream that user code puts in their place.
    sys.stdout = sys.__stdout__ = _stream(1)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _stream(2)  # type: ignore[misc]
    faulthandler.enable(file=2)
    _show_where_it_hangs()


def flush_output() -> None:
    """Write out what waits. It never raises: user code may have closed a stream."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


def _show_where_it_hangs() -> None:
    """Let a run that does not hear a request to stop write, at SIGTERM, where each of its threads is.

    Not its forks: pools of processes end their workers so.
    """
    if sys.platform != "win32":
        faulthandler.register(signal.SIGTERM, file=2, chain=True)
        os.register_at_fork(after_in_child=_end_quietly)


def _end_quietly() -> None:
    """Let SIGTERM end a fork at once, unless user code has a handler of its own for it by now."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        faulthandler.unregister(signal.SIGTERM)


def _open(log: Path) -> int:
    try:
        make_directories(log.parent)
        return open_log(log)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)


def _stream(fd: int) -> io.TextIOWrapper:
    file = io.BufferedWriter(_LogFile(fd, "w", closefd=False))
    encoding = getattr(sys.stdout, "encoding", None)
    return io.TextIOWrapper(file, encoding, errors="backslashreplace", line_buffering=True)
