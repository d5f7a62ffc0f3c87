from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from aiotune.executors.footprint import held_bytes, resident_bytes
from aiotune.executors.memory_readings import MemoryReader, Room

MEMINFO = "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 400 kB\nSwapFree: 50 kB\n"
KIB = 1024


def build(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_machine_has_what_is_available_and_its_swap(tmp_path: Path) -> None:
    reader = MemoryReader(build(tmp_path, {"proc/meminfo": MEMINFO}))
    assert reader.rooms() == [Room("the machine", 450 * KIB, 1000 * KIB)]


def test_machine_that_tells_nothing_has_no_rooms(tmp_path: Path) -> None:
    assert MemoryReader(tmp_path).rooms() == []


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({"max": "400000", "current": "100000"}, 300_000),
        # Little is left: cached files count as left, and free swap, as far as the group may have it.
        (
            {"max": "400000", "current": "390000", "stat": "inactive_file 5000\nactive_file 300"},
            66_500,
        ),
        ({"max": "400000", "current": "390000", "stat": "", "swap.max": "0"}, 10_000),
        (
            {"max": "400000", "current": "399999", "swap.max": "700", "swap.current": "600"},
            101,
        ),
    ],
)
def test_group_of_version_2(tmp_path: Path, files: dict[str, str], left: int) -> None:
    group = {f"sys/fs/cgroup/job/memory.{name}": text for name, text in files.items()}
    root = build(tmp_path, {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/job\n", **group})
    assert MemoryReader(root).rooms()[0] == Room("the control group", left, 400_000)


def test_group_of_version_1(tmp_path: Path) -> None:
    folder = "sys/fs/cgroup/memory/job/memory"
    root = build(
        tmp_path,
        {
            "proc/meminfo": MEMINFO.replace("SwapFree: 50", "SwapFree: 0"),
            "proc/self/cgroup": "4:memory:/job\n",
            f"{folder}.limit_in_bytes": "400000",
            f"{folder}.usage_in_bytes": "390000",
            f"{folder}.stat": "total_inactive_file 20\ntotal_active_file 3\n",
        },
    )
    assert MemoryReader(root).rooms()[0] == Room("the control group", 10_023, 400_000)


@pytest.mark.parametrize("limit", ["max", "9223372036854771712", "2000000"])
def test_group_that_is_no_bound_is_passed_over(tmp_path: Path, limit: str) -> None:
    root = build(
        tmp_path,
        {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": "4:memory:/job\n0::/job\n",
            "sys/fs/cgroup/job/memory.max": limit,
            "sys/fs/cgroup/job/memory.current": "1",
            "sys/fs/cgroup/memory/job/memory.limit_in_bytes": limit,
            "sys/fs/cgroup/memory/job/memory.usage_in_bytes": "1",
        },
    )
    assert [room.place for room in MemoryReader(root).rooms()] == ["the machine"]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_what_a_process_holds_is_less_than_what_it_has_mapped() -> None:
    held, resident = held_bytes(os.getpid()), resident_bytes(os.getpid())
    assert held is not None
    assert resident is not None
    assert 2**20 < held < resident


def test_process_that_is_gone_has_no_figures() -> None:
    assert held_bytes(2**22 + 1) is None
    assert resident_bytes(2**22 + 1) is None
