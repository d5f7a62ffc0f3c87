from __future__ import annotations

import asyncio

import pytest

from aiotune.clock import Clock, SystemClock
from tests.support.virtual_clock import VirtualClock


async def test_system_clock_reads_two_times_and_sleeps() -> None:
    clock: Clock = SystemClock()
    wall, before = clock.now(), clock.monotonic()
    await clock.sleep(0.001)
    assert clock.monotonic() >= before
    assert wall > 1_600_000_000


async def test_a_sleeper_wakes_when_the_clock_reaches_its_time_and_not_before() -> None:
    clock = VirtualClock()
    task = asyncio.create_task(clock.sleep(10))
    await clock.wait_sleeping()
    clock.advance(9.5)
    await asyncio.sleep(0)
    assert not task.done()
    clock.advance(0.5)
    await task
    assert clock.monotonic() == 10
    assert clock.sleeping == 0


async def test_sleepers_wake_in_the_order_of_their_times() -> None:
    clock = VirtualClock()
    woken: list[float] = []

    async def nap(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(seconds)

    async with asyncio.TaskGroup() as group:
        for seconds in (3.0, 1.0, 2.0):
            group.create_task(nap(seconds))
        await clock.wait_sleeping(3)
        clock.advance(5)
    assert woken == [1.0, 2.0, 3.0]


async def test_a_cancelled_sleeper_is_forgotten() -> None:
    clock = VirtualClock()
    task = asyncio.create_task(clock.sleep(10))
    await clock.wait_sleeping()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert clock.sleeping == 0


async def test_both_readings_of_a_virtual_clock_move_together() -> None:
    clock = VirtualClock(start=100.0)
    clock.advance(7)
    await clock.sleep(0)
    assert (clock.now(), clock.monotonic()) == (107.0, 7.0)
    with pytest.raises(ValueError, match="never goes back"):
        clock.advance(-1)
