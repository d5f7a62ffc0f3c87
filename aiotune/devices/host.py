"""The processor side of the machine: cores, CPU quota and memory that this process may use.

Linux control groups of both versions are read, from the process's own group up to the root: the
tightest limit on that path is the one that holds. Elsewhere there is no quota, and no figure for
memory.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from aiotune.devices.control_groups import NO_LIMIT, groups, read_field, read_number, read_words

__all__ = ["Host", "read_host"]


@dataclass(frozen=True, slots=True)
class Host:
    """What runs on the processor can have."""

    cores: tuple[int, ...]  # the ones that this process may run on, ascending
    quota_cores: float | None = None  # CPU time per time; None: no limit
    memory_bytes: int | None = None  # available now, without swap; None: not known
    total_memory_bytes: int | None = None  # that can ever be had; None: not known

    @property
    def slots(self) -> int:
        """How many runs have a core and its time each; at least 1. Memory is another bound."""
        if self.quota_cores is None:
            return len(self.cores)
        return max(1, min(len(self.cores), int(self.quota_cores)))


def read_host(root: Path = Path("/")) -> Host:
    """Return what this process may use. It reads a few files: call it in a thread.

    root: where `proc` and `sys` are found.
    """
    return Host(_cores(), _quota_cores(root), _memory_bytes(root), _total_memory_bytes(root))


def _cores() -> tuple[int, ...]:
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def _quota_cores(root: Path) -> float | None:
    quotas = [_quota_v2(group) for group in groups(root, "")]
    quotas += [_quota_v1(group) for group in groups(root, "cpu")]
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota_v2(group: Path) -> float | None:
    """Read cpu.max: "max 100000" or "150000 100000", in microseconds of CPU time per period."""
    match read_words(group / "cpu.max"):
        case [quota, period] if quota.isdigit() and period.isdigit() and int(period):
            return int(quota) / int(period)
        case _:
            return None


def _quota_v1(group: Path) -> float | None:
    """Read cfs_quota_us, -1 if there is no limit, and the period that it is for."""
    quota = read_number(group / "cpu.cfs_quota_us")
    period = read_number(group / "cpu.cfs_period_us")
    return quota / period if quota and period and quota > 0 else None


def _memory_bytes(root: Path) -> int | None:
    rests = [_rest(group, "memory.max", "memory.current") for group in groups(root, "")]
    rests += [
        _rest(group, "memory.limit_in_bytes", "memory.usage_in_bytes")
        for group in groups(root, "memory")
    ]
    rests.append(_meminfo_available(root))
    return min((rest for rest in rests if rest is not None), default=None)


def _total_memory_bytes(root: Path) -> int | None:
    limits = [read_number(group / "memory.max") for group in groups(root, "")]
    limits += [read_number(group / "memory.limit_in_bytes") for group in groups(root, "memory")]
    limits.append(read_field(root / "proc/meminfo", "MemTotal:") * 1024 or None)
    return min((each for each in limits if each is not None and each < NO_LIMIT), default=None)


def _rest(group: Path, limit_file: str, usage_file: str) -> int | None:
    """Return limit less usage; cached files, dropped at need, do not count as used."""
    limit, usage = read_number(group / limit_file), read_number(group / usage_file)
    if limit is None or usage is None:
        return None
    return max(0, limit - usage + read_field(group / "memory.stat", "inactive_file"))


def _meminfo_available(root: Path) -> int | None:
    kibibytes = read_field(root / "proc/meminfo", "MemAvailable:")
    return kibibytes * 1024 or None
