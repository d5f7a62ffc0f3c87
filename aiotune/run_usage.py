"""What one run takes of its GPUs, from its start to its end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from aiotune.clock import Clock
from aiotune.devices.base import Pool
from aiotune.devices.lease import Lease
from aiotune.trial import Run
from aiotune.usage import Usage

__all__ = ["RunUsage", "lost_usage"]


class RunUsage:
    """One run on its lease, since now. `is_told`: what it took is in the fact of its end."""

    def __init__(self, pool: Pool, lease: Lease, clock: Clock) -> None:
        self.lease = lease
        self.is_told = False
        self._pool = pool
        self._clock = clock
        self._since = clock.monotonic()
        self._peak_bytes: int | None = None

    def measure(self, peak_bytes: int) -> None:
        """Take note of what its framework says of its peak memory."""
        self._peak_bytes = max(peak_bytes, self._peak_bytes or 0)
        self._pool.measure_gpu(self.lease, peak_bytes)

    def so_far(self) -> Usage | None:
        """Return what it took until now; None without GPUs. To be asked before the lease is released."""
        usage = self._pool.usage(self.lease, self._since, self._clock.monotonic())
        if usage is None or self._peak_bytes is None:
            return usage
        return replace(usage, peak_bytes=max(self._peak_bytes, usage.peak_bytes or 0))


def lost_usage(run: Run, others: Iterable[Run], until: float | None) -> Usage | None:
    """Return what a run took that ended with the process that followed it, which left no figures.

    others: the runs that ended in the same way. until: when that process was last known to be there, in
    seconds since 1970, so that the time is the least that it can have been; None: not known.
    """
    if until is None or not run.gpus:
        return None
    sharing = sum(each.has_share and each.gpus == run.gpus for each in others)
    seconds = max(0.0, until - run.started_at) * len(run.gpus)
    return Usage(seconds / (max(1, sharing) if run.has_share else 1), is_estimated=True)
