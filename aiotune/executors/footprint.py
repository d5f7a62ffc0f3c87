"""How much memory a run holds for itself alone: what one more run like it would need."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["Footprint", "held_bytes", "peak_bytes", "private_bytes", "resident_bytes"]

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

# A look costs 2 to 15 ms beside TensorFlow: so seldom it takes half a percent of a run.
_COST_RATIO = 200
_SHORTEST_PAUSE_SECONDS = 0.05
_NEWS = 1.02  # a peak that grew by less is not told


class Footprint:
    """Tells the largest amount seen so far, seldom enough to cost less than 1 % of the run. Linux only.

    `tell` is called with bytes. `measure` returns them, or None where the system does not say.
    """

    def __init__(
        self,
        tell: Callable[[int], object],
        *,
        measure: Callable[[], int | None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._tell = tell
        self._measure = measure or peak_bytes
        self._clock = clock
        self._next_look = 0.0
        self._told = 0

    def look(self, *, is_last: bool = False) -> None:
        """Measure if it is time, and tell news. `is_last`: also if it is not time, and the least of news."""
        begin = self._clock()
        if begin < self._next_look and not is_last:
            return
        size = self._measure()
        end = self._clock()
        pause = max(_COST_RATIO * (end - begin), _SHORTEST_PAUSE_SECONDS)
        self._next_look = float("inf") if size is None else end + pause
        if size is not None and size > self._told * (1.0 if is_last else _NEWS):
            self._told = size
            self._tell(size)


def peak_bytes() -> int | None:
    """Return what this process and those that it started hold now, and what this one had more before."""
    if sys.platform != "linux":
        return None
    try:
        own = private_bytes("self")
        others = sum(map(_private_bytes_of, _descendants("self")))
        status = _table("/proc/self/status")
    except OSError:  # /proc is hidden, or older than smaps_rollup
        return None
    return own + others + max(0, status.get("VmHWM", 0) - status.get("VmRSS", 0))


def held_bytes(pid: int) -> int | None:
    """Return what a process and those that it started hold for themselves. None: not known, or it is gone."""
    try:
        return private_bytes(str(pid)) + sum(map(_private_bytes_of, _descendants(str(pid))))
    except (OSError, KeyError):
        return None


def resident_bytes(pid: int) -> int | None:
    """Return what a process and those that it started have mapped and in memory, shared or not.

    It costs a hundredth of `held_bytes`, and is never less. None: not known, or it is gone.
    """
    try:
        return _resident_bytes(str(pid)) + sum(map(_resident_bytes_of, _descendants(str(pid))))
    except (OSError, ValueError, IndexError):
        return None


def private_bytes(pid: str) -> int:
    """Return the bytes of memory that no other process shares, and that are no copy of a file. OSError.

    Memory that a fork has in common with the fork server costs nothing until it is written. The payload is
    memory that runs share, even if just one has it mapped now.
    """
    rollup = _table(f"/proc/{pid}/smaps_rollup")
    shared_memory = _table(f"/proc/{pid}/status").get("RssShmem", 0)
    # Pages that several map count at most half in Pss: what is above half of all is mapped here alone. It is
    # all dirty, for it was written once.
    only_here = max(0, 2 * rollup.get("Pss_Shmem", 0) - shared_memory)
    return max(0, rollup["Private_Dirty"] - only_here)


def _private_bytes_of(pid: str) -> int:
    try:
        return private_bytes(pid)
    except (OSError, KeyError):  # it has just ended
        return 0


def _resident_bytes(pid: str) -> int:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * _PAGE_BYTES


def _resident_bytes_of(pid: str) -> int:
    try:
        return _resident_bytes(pid)
    except (OSError, ValueError, IndexError):  # it has just ended
        return 0


def _descendants(pid: str) -> Iterator[str]:
    """Yield the processes that the process started, and those that these did; none where it is not told."""
    waiting = [pid]  # no recursion: user code may start a chain of processes of any length
    while waiting:
        for task in _entries(Path("/proc", waiting.pop(), "task")):
            with suppress(OSError):
                children = (task / "children").read_text().split()
                waiting += children
                yield from children


def _entries(directory: Path) -> list[Path]:
    try:
        return [directory / name for name in os.listdir(directory)]
    except OSError:
        return []


def _table(path: str) -> dict[str, int]:
    """Return the rows `Name: number kB` of a file of /proc, in bytes."""
    sizes = {}
    with open(path) as file:
        for line in file:
            words = line.split()
            if len(words) == 3 and words[2] == "kB":
                sizes[words[0].rstrip(":")] = int(words[1]) * 1024
    return sizes
