from __future__ import annotations

import os
from pathlib import Path

import pytest

from aiotune.devices.host import Host, read_host


def build(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_this_machine() -> None:
    host = read_host()
    assert len(host.cores) == len(set(host.cores)) >= 1
    if hasattr(os, "sched_getaffinity"):
        assert set(host.cores) == os.sched_getaffinity(0)
    assert 1 <= host.slots <= len(host.cores)


def test_a_machine_that_tells_nothing_has_no_bounds_but_its_cores(tmp_path: Path) -> None:
    host = read_host(tmp_path)
    assert (host.quota_cores, host.memory_bytes) == (None, None)
    assert host.slots == len(host.cores)


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "100000 0\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "junk"}, None),
        (  # the tightest on the way up
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/cpu.max": "400000 100000",
                "sys/fs/cgroup/a/cpu.max": "200000 100000",
            },
            2.0,
        ),
        (  # a path of the host's: only the mount's root is there
            {"proc/self/cgroup": "0::/docker/1f\n", "sys/fs/cgroup/cpu.max": "300000 100000"},
            3.0,
        ),
        ({"proc/self/cgroup": "0::/../x\n", "sys/fs/cgroup/cpu.max": "300000 100000"}, 3.0),
        (
            {
                "proc/self/cgroup": "4:memory:/\n3:cpu,cpuacct:/job\n0::/\n",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "250000",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000",
            },
            2.5,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            None,
        ),
    ],
)
def test_cpu_quota(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    assert read_host(build(tmp_path, files)).quota_cores == quota


@pytest.mark.parametrize(
    ("files", "memory_bytes"),
    [
        ({"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:    4000 kB\n"}, 4_096_000),
        (
            {
                "proc/meminfo": "MemAvailable: 4000 kB\n",
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/memory.max": "1000000",
                "sys/fs/cgroup/memory.current": "700000",
                "sys/fs/cgroup/memory.stat": "anon 1\ninactive_file 200000\n",
            },
            500_000,
        ),
        (
            {
                "proc/meminfo": "MemAvailable: 4000 kB\n",
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/memory.max": "max",
                "sys/fs/cgroup/memory.current": "700000",
            },
            4_096_000,
        ),
        (
            {
                "proc/self/cgroup": "5:memory:/j\n",
                "sys/fs/cgroup/memory/j/memory.limit_in_bytes": "900",
                "sys/fs/cgroup/memory/j/memory.usage_in_bytes": "1000",
            },
            0,
        ),
    ],
)
def test_memory(tmp_path: Path, files: dict[str, str], memory_bytes: int) -> None:
    assert read_host(build(tmp_path, files)).memory_bytes == memory_bytes


@pytest.mark.parametrize(
    ("host", "slots"),
    [
        (Host((0, 1, 2, 3)), 4),
        (Host((0, 1, 2, 3), quota_cores=2.9), 2),
        (Host((0, 1, 2, 3), quota_cores=0.5), 1),
        (Host((0, 1, 2, 3), quota_cores=9.0), 4),
        (Host((0, 1, 2, 3), memory_bytes=0), 4),  # another bound, which measures move
    ],
)
def test_slots_keep_to_cores_and_quota(host: Host, slots: int) -> None:
    assert host.slots == slots
