"""The log of a run, kept from filling the disk: its beginning and its end stay, what is between is cut out.

The fork server does it while the run writes: the log is opened for appending, so that whoever holds it goes on
behind what is left. What is written in the moment of the cut, some microseconds, may be lost.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from aiotune.private_files import open_file

__all__ = ["CAP_BYTES", "LogCap"]

CAP_BYTES = 16 * 2**20  # of a run's log; between two looks it may be more

_KEPT_PARTS = 4  # a quarter of that is kept of the beginning, and one of the end
_PIECE_BYTES = 2**18  # of what is written during a cut
_LONGEST_LINE = 4096  # so far a cut is moved, to where a line ends
_SHORTEST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0
_COST_RATIO = (
    10  # a cut copies megabytes: one that writes without end must not keep the server busy
)


class LogCap:
    """Keeps the file at `path` below `cap_bytes`, each time it is told to look. Nothing of it raises."""

    def __init__(
        self,
        path: str,
        *,
        cap_bytes: int = CAP_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = Path(path)
        self._cap_bytes = cap_bytes
        self._clock = clock
        self._fd: int | None = None
        self._head_bytes: int | None = None  # what stays of the beginning, once it was cut
        self._cut_bytes = 0
        self._size = 0
        self._looked_at = clock()
        self.next_look = self._looked_at + _SHORTEST_PAUSE_SECONDS

    def look(self) -> None:
        """Cut the log if it is too long. Cheap if it is not."""
        begin = self._clock()
        size = 0
        with contextlib.suppress(OSError):  # not there yet, or gone, or the disk is full
            size = self._look()
        now = self._clock()
        grown, seconds = max(0, size - self._size), max(1e-3, begin - self._looked_at)
        self._size, self._looked_at = size, begin
        # Half of the time that it takes to reach the cap if it goes on growing so.
        pause = (self._cap_bytes - size) * seconds / (2 * grown) if grown else float("inf")
        pause = max(pause, _COST_RATIO * (now - begin), _SHORTEST_PAUSE_SECONDS)
        self.next_look = now + min(pause, _LONGEST_PAUSE_SECONDS)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _look(self) -> int:
        if self._fd is None:
            # Not made here: what stands in its place until the run replaces it is none of ours.
            self._fd = open_file(self._path, os.O_RDWR)
        size = os.fstat(self._fd).st_size
        if size <= self._cap_bytes:
            return size
        self._cut(self._fd, size)
        return os.fstat(self._fd).st_size

    def _cut(self, fd: int, size: int) -> None:
        kept = self._cap_bytes // _KEPT_PARTS
        if self._head_bytes is None:
            self._head_bytes = _end_of_line(fd, kept)
        tail = os.pread(fd, kept, size - kept)
        first = tail.find(b"\n", 0, _LONGEST_LINE) + 1  # 0 if there is none: cut in a line
        self._cut_bytes += size - self._head_bytes - len(tail) + first
        end = _write(fd, self._mark() + tail[first:], self._head_bytes)
        # Moved first and cut then, so that what is written meanwhile comes behind it: as much as there is room.
        most = end + kept
        while end < most and (written := os.pread(fd, min(_PIECE_BYTES, most - end), size)):
            size, end = size + len(written), _write(fd, written, end)
        os.ftruncate(fd, end)

    def _mark(self) -> bytes:
        text = (
            f"\n--- about {self._cut_bytes:,} bytes were cut out here: of a log longer than "
            f"{self._cap_bytes:,} bytes the beginning and the end are kept ---\n"
        )
        return text.encode()


def _end_of_line(fd: int, position: int) -> int:
    """Return where the last line ends before `position`, or that, if the line is long."""
    begin = max(0, position - _LONGEST_LINE)
    place = os.pread(fd, position - begin, begin).rfind(b"\n")
    return position if place < 0 else begin + place + 1


def _write(fd: int, data: bytes, position: int) -> int:
    """Write to that position, and return where it ends."""
    end = position + len(data)
    while position < end:
        position += os.pwrite(fd, memoryview(data)[position - end :], position)
    return end
