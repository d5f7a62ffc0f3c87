from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from aiotune.executors.oom_kills import OomKills, oom_counter


class Kernel:
    """A counter and a clock."""

    def __init__(self, count: int | None = 7) -> None:
        self.count = count
        self.now = 0.0

    def kills(self) -> OomKills:
        return OomKills(lambda: self.count, clock=lambda: self.now)

    def kill(self) -> None:
        assert self.count is not None
        self.count += 1


def test_kills_of_before_do_not_count() -> None:
    kernel = Kernel()
    kills = kernel.kills()
    kills.note()
    assert kills.is_known
    assert not kills.has_killed()
    kernel.kill()
    assert kills.has_killed()


def test_kill_is_remembered_while_its_process_dies_and_not_for_ever() -> None:
    kernel = Kernel()
    kills = kernel.kills()
    kills.note()
    kernel.now = 100.0
    kernel.kill()
    kills.note()  # a look in between
    kernel.now = 103.0
    assert kills.has_killed()
    kernel.now = 106.0
    assert not kills.has_killed()


def test_without_a_counter_nothing_is_known() -> None:
    kills = Kernel(None).kills()
    kills.note()
    assert not kills.is_known
    assert not kills.has_killed()


V2 = "sys/fs/cgroup/job/memory.events"
V1 = "sys/fs/cgroup/memory/job/memory.oom_control"


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({V2: "oom 3\noom_kill 2\n", V1: "oom_kill 8\n", "proc/vmstat": "oom_kill 9\n"}, 2),
        ({V1: "under_oom 0\noom_kill 8\n", "proc/vmstat": "oom_kill 9\n"}, 8),
        ({V1: "under_oom 0\n", "proc/vmstat": "pgpgin 1\noom_kill 9\n"}, 9),
        ({}, None),
    ],
)
def test_counter_of_the_own_group_comes_first(
    tmp_path: Path, files: dict[str, str], count: int | None
) -> None:
    groups = {"proc/self/cgroup": "4:memory:/job\n0::/job\n"}
    for name, text in (files | groups).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    counter: Callable[[], int | None] = oom_counter(tmp_path)
    assert counter() == count
