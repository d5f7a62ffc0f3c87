"""Readings of the machine's memory, and of what runs hold of it. Linux; elsewhere there is nothing to read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from aiotune.devices.control_groups import NO_LIMIT, groups, read_field, read_number
from aiotune.executors.footprint import held_bytes, resident_bytes

__all__ = ["MemoryReader", "Readings", "Room"]

_MACHINE = "the machine"
_GROUP = "the control group"
# As long as so much of a group is left without its cached files, they are not counted: that read is dear.
_PLENTY_PARTS = 4


@dataclass(frozen=True, slots=True)
class Room:
    """What is left of the memory of `place`, of so much in total, in bytes. What only caches files is left."""

    place: str
    left_bytes: int
    total_bytes: int


class Readings(Protocol):
    """What a watch over memory asks."""

    def rooms(self) -> Sequence[Room]:
        """Return what is left, of the machine and of each control group with a limit; none: not known."""
        ...

    def resident(self, pid: int) -> int | None:
        """Return what a run has mapped and in memory, shared or not: cheap. None: not known, or it is gone."""
        ...

    def held(self, pid: int) -> int | None:
        """Return what a run holds for itself, with all that it started: dear. None as above."""
        ...


class MemoryReader:
    """Reads from `root`, where `proc` and `sys` are found; runs are this machine's.

    A group that has no limit now is not read again.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._meminfo = root / "proc/meminfo"
        version_2 = [_Group(each, _left_of_v2) for each in groups(root, "")]
        version_1 = [_Group(each, _left_of_v1) for each in groups(root, "memory")]
        total = _meminfo(self._meminfo).get("MemTotal")
        self._groups = [
            each for each in (*version_2, *version_1) if each.room(0, total) is not None
        ]

    def rooms(self) -> list[Room]:
        sizes = _meminfo(self._meminfo)
        total, available = sizes.get("MemTotal"), sizes.get("MemAvailable")
        swap = sizes.get("SwapFree", 0)
        rooms = [each.room(swap, total) for each in self._groups]
        found = [room for room in rooms if room is not None]
        if total and available is not None:
            found.append(Room(_MACHINE, available + swap, total))
        return found

    def resident(self, pid: int) -> int | None:
        return resident_bytes(pid)

    def held(self, pid: int) -> int | None:
        return held_bytes(pid)


@dataclass(frozen=True, slots=True)
class _Group:
    """A control group. `left_of` returns (limit, what is left of it) from its folder, given the free swap."""

    folder: Path
    left_of: Callable[[Path, int], tuple[int, int] | None]

    def room(self, swap_bytes: int, machine_bytes: int | None) -> Room | None:
        found = self.left_of(self.folder, swap_bytes)
        if found is None or found[0] >= (machine_bytes or NO_LIMIT):
            return None
        limit, left = found
        return Room(_GROUP, left, limit)


def _left_of_v2(group: Path, swap_bytes: int) -> tuple[int, int] | None:
    limit, used = read_number(group / "memory.max"), read_number(group / "memory.current")
    if limit is None or used is None:  # "max"
        return None
    left = limit - used
    if left >= limit // _PLENTY_PARTS:
        return limit, left
    swap_limit = read_number(group / "memory.swap.max")
    if swap_limit is not None:
        swap_bytes = min(swap_bytes, swap_limit - (read_number(group / "memory.swap.current") or 0))
    return limit, left + _cached(group, "") + max(0, swap_bytes)


def _left_of_v1(group: Path, swap_bytes: int) -> tuple[int, int] | None:
    limit = read_number(group / "memory.limit_in_bytes")
    used = read_number(group / "memory.usage_in_bytes")
    if limit is None or used is None or limit >= NO_LIMIT:
        return None
    left = limit - used
    if left >= limit // _PLENTY_PARTS:
        return limit, left
    return limit, left + _cached(group, "total_") + swap_bytes


def _cached(group: Path, prefix: str) -> int:
    stat = group / "memory.stat"
    return read_field(stat, f"{prefix}inactive_file") + read_field(stat, f"{prefix}active_file")


def _meminfo(path: Path) -> dict[str, int]:
    """Return the rows `Name: number kB`, in bytes."""
    sizes = {}
    try:
        text = path.read_text()
    except (OSError, ValueError):
        return {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        number = rest.split()[:1]
        if number and number[0].isdigit():
            sizes[name] = int(number[0]) * 1024
    return sizes
