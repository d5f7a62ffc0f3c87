"""Whether the kernel has killed for want of memory: by its counters, for it tells nobody whom it killed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from aiotune.devices.control_groups import groups, read_field

__all__ = ["OomKills", "oom_counter"]

# A killed process is gone some moments after it was counted: one with much memory takes long to give it back.
_MEMORY_SECONDS = 5.0


class OomKills:
    """Remembers what the counter was a little while ago. Without a counter nobody was killed."""

    def __init__(
        self,
        read: Callable[[], int | None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._clock = clock
        self._readings: deque[tuple[float, int]] = deque()  # oldest first; the first may be older

    @property
    def is_known(self) -> bool:
        """Whether there is a counter, so that its silence means something."""
        return bool(self._readings)

    def note(self) -> None:
        """Read the counter: before the first run, and now and then."""
        count, now = self._read(), self._clock()
        if count is None:
            return
        self._readings.append((now, count))
        while len(self._readings) > 1 and self._readings[1][0] <= now - _MEMORY_SECONDS:
            self._readings.popleft()

    def has_killed(self) -> bool:
        """Tell whether there was a kill of late: since what was read some seconds ago."""
        self.note()
        return bool(self._readings) and self._readings[-1][1] > self._readings[0][1]


def oom_counter(root: Path = Path("/")) -> Callable[[], int | None]:
    """Return what reads how many processes the kernel has killed for want of memory; None: it does not tell.

    Of this process's control group, which its runs share, if that counts; else of the whole machine. root:
    where `proc` and `sys` are found.
    """
    files = [group / "memory.events" for group in groups(root, "")]
    files += [group / "memory.oom_control" for group in groups(root, "memory")]
    files.append(root / "proc/vmstat")
    counting = next((each for each in files if _has_count(each)), None)
    return lambda: None if counting is None else read_field(counting, "oom_kill")


def _has_count(path: Path) -> bool:
    try:
        return any(line.startswith("oom_kill ") for line in path.read_text().splitlines())
    except (OSError, ValueError):
        return False
