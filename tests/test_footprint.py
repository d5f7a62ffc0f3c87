from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from aiotune.executors.footprint import Footprint, peak_bytes, private_bytes

MEGABYTE = 2**20

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")


class Machine:
    """A clock, and a measure that takes time on it."""

    def __init__(self, *sizes: int | None, cost: float) -> None:
        self.now = 100.0
        self.looks = 0
        self._sizes: Iterator[int | None] = iter(sizes)
        self._cost = cost

    def measure(self) -> int | None:
        self.now += self._cost
        self.looks += 1
        return next(self._sizes)

    def footprint(self, told: list[int]) -> Footprint:
        return Footprint(told.append, measure=self.measure, clock=lambda: self.now)


def test_looks_cost_less_than_a_percent() -> None:
    machine = Machine(*range(1000, 2000), cost=0.01)
    footprint = machine.footprint([])
    begin = machine.now
    while machine.now < begin + 100:
        footprint.look()
        machine.now += 0.1
    assert machine.looks > 10
    assert machine.looks * 0.01 < 0.01 * (machine.now - begin)


def test_the_first_look_is_told_and_then_new_peaks_only() -> None:
    machine = Machine(1000, 900, 1001, 2000, 1500, cost=0.001)
    told: list[int] = []
    footprint = machine.footprint(told)
    for _ in range(5):
        footprint.look()
        machine.now += 10
    assert told == [1000, 2000]


def test_the_last_look_is_never_too_early() -> None:
    machine = Machine(1000, 1001, 1001, cost=0.001)
    told: list[int] = []
    footprint = machine.footprint(told)
    footprint.look()
    footprint.look()
    assert told == [1000]
    footprint.look(is_last=True)
    footprint.look(is_last=True)
    assert told == [1000, 1001]


def test_a_system_that_does_not_say_is_asked_once() -> None:
    machine = Machine(None, cost=0.0)
    told: list[int] = []
    footprint = machine.footprint(told)
    for _ in range(3):
        footprint.look()
        machine.now += 10
    assert (told, machine.looks) == ([], 1)


@linux_only
def test_own_memory_counts_and_shared_memory_does_not() -> None:
    fd = os.memfd_create("payload")
    os.write(fd, bytes(64 * MEGABYTE))
    shared = mmap.mmap(fd, 0, access=mmap.ACCESS_COPY)
    before = private_bytes("self")
    touched = sum(shared[place] for place in range(0, len(shared), mmap.PAGESIZE))
    read = private_bytes("self")
    own = bytearray(b"x") * (32 * MEGABYTE)
    after = private_bytes("self")
    assert touched == 0
    assert read - before < 8 * MEGABYTE
    assert 31 * MEGABYTE < after - read < 40 * MEGABYTE
    del own
    shared.close()
    os.close(fd)


@linux_only
def test_memory_given_back_and_that_of_other_processes_counts() -> None:
    before = peak_bytes()
    assert before is not None
    code = "import sys; x = bytearray(b'x') * 2**26; print(); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with_child = peak_bytes()
        process.communicate()
    assert with_child is not None
    assert with_child - before > 60 * MEGABYTE
