from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from aiotune.executors.memory_readings import Room
from aiotune.executors.memory_watch import (
    MemoryWatch,
    in_want,
    in_words,
    reserve_bytes,
    too_large,
)

MIB = 2**20
GIB = 2**30


@dataclass
class Machine:
    """Readings of a made-up machine, and its clock: each exact measure takes `cost` seconds."""

    left: int = 100 * GIB
    total: int = 128 * GIB
    holds: dict[int, int] = field(default_factory=dict)
    shared: int = 0
    cost: float = 0.01
    now: float = 1000.0
    measures: int = 0

    def rooms(self) -> Sequence[Room]:
        return [Room("the machine", self.left, self.total)]

    def resident(self, pid: int) -> int | None:
        return self.holds[pid] + self.shared

    def held(self, pid: int) -> int | None:
        self.measures += 1
        self.now += self.cost
        return self.holds[pid]

    def watch(self, **limits: int | None) -> MemoryWatch:
        """Return a watch over runs "r1", "r2", ... with these limits."""
        watch = MemoryWatch(self, clock=lambda: self.now)
        for name, limit in limits.items():
            watch.add(int(name[1:]), int(name[1:]), limit)
        return watch


def test_run_beyond_its_limit_is_told_with_figures() -> None:
    shortage = too_large(3, int(6.1 * GIB), 4 * GIB)
    assert shortage is not None
    assert shortage.why.startswith("the run held 6.1 GiB, more than its 4 GiB")
    assert "Resources(memory=...)" in shortage.why
    assert not shortage.may_retry
    assert too_large(3, 4 * GIB, 4 * GIB) is None
    assert too_large(3, 4 * GIB, None) is None


def test_largest_run_goes_when_room_runs_out() -> None:
    shortage = in_want({1: GIB, 2: int(9.8 * GIB)}, [Room("the machine", 210 * MIB, 64 * GIB)])
    assert shortage is not None
    assert shortage.number == 2
    assert shortage.why.startswith(
        "the machine had 210 MiB left, and this run held most, 9.8 GiB: have fewer"
    )
    assert shortage.may_retry


@pytest.mark.parametrize(
    ("holds", "left"),
    [
        ({1: 10 * GIB}, 513 * MIB),  # enough is left
        ({1: 100 * MIB, 2: 100 * MIB}, 0),  # others have taken it
        ({}, 0),
    ],
)
def test_no_run_goes_without_need(holds: dict[int, int], left: int) -> None:
    assert in_want(holds, [Room("the machine", left, 64 * GIB)]) is None


@pytest.mark.parametrize(
    ("total", "reserve"), [(GIB, 64 * MIB), (8 * GIB, 256 * MIB), (512 * GIB, 512 * MIB)]
)
def test_reserve_grows_with_the_machine_within_bounds(total: int, reserve: int) -> None:
    assert reserve_bytes(Room("the machine", 0, total)) == reserve


@pytest.mark.parametrize(
    ("size", "words"), [(210 * MIB, "210 MiB"), (6 * GIB, "6 GiB"), (int(9.84 * GIB), "9.84 GiB")]
)
def test_sizes_in_words(size: int, words: str) -> None:
    assert in_words(size) == words


def test_what_is_shared_with_the_server_does_not_count() -> None:
    machine = Machine(holds={1: 100 * MIB}, shared=600 * MIB)
    watch = machine.watch(r1=512 * MIB)
    assert watch.look() == []
    machine.holds[1] = 513 * MIB
    machine.now = watch.next_look
    assert [each.number for each in watch.look()] == [1]


def test_run_that_is_ended_is_watched_no_more() -> None:
    machine = Machine(holds={1: 2 * GIB, 2: GIB})
    watch = machine.watch(r1=GIB, r2=None)
    assert [each.number for each in watch.look()] == [1]
    assert watch.look() == []
    watch.remove(1)
    watch.remove(2)
    assert watch.next_look == float("inf")


def test_second_run_is_spared_while_the_first_gives_back() -> None:
    machine = Machine(left=0, holds={1: 20 * GIB, 2: 30 * GIB})
    watch = machine.watch(r1=None, r2=None)
    assert [each.number for each in watch.look()] == [2]
    machine.now = watch.next_look
    assert watch.look() == []
    watch.remove(2)  # its memory is back, and it was not enough
    assert [each.number for each in watch.look()] == [1]


def test_room_is_looked_at_again_if_a_run_takes_long_to_die() -> None:
    machine = Machine(left=0, holds={1: 20 * GIB, 2: 30 * GIB})
    watch = machine.watch(r1=None, r2=None)
    watch.look()
    machine.now += 2.5
    assert [each.number for each in watch.look()] == [1]


def test_looks_are_seldom_where_there_is_much_room_and_frequent_where_there_is_little() -> None:
    machine = Machine(holds={1: GIB})
    watch = machine.watch(r1=None)
    watch.look()
    assert watch.next_look - machine.now == 1.0
    machine.left = 1 * GIB
    watch.look()
    assert 0.02 <= watch.next_look - machine.now <= 0.1


def test_exact_measures_take_two_parts_in_a_hundred_of_the_time() -> None:
    machine = Machine(holds={1: 900 * MIB}, shared=600 * MIB, cost=0.01)
    watch = machine.watch(r1=GIB)  # what is mapped is more than the limit: only measures tell
    begin = machine.now
    while machine.now < begin + 60:
        watch.look()
        machine.now = max(machine.now, watch.next_look)
    assert 10 < machine.measures <= 60 / (50 * 0.01)


def test_nothing_is_looked_at_without_runs() -> None:
    machine = Machine()
    assert machine.watch().next_look == float("inf")


def test_machine_that_tells_nothing_ends_no_run() -> None:
    class Silent(Machine):
        def rooms(self) -> Sequence[Room]:
            return []

        def resident(self, pid: int) -> int | None:
            return None

    machine = Silent()
    watch = machine.watch(r1=1)
    assert watch.look() == []
    assert watch.next_look - machine.now == 1.0
