from __future__ import annotations

from dataclasses import replace

from aiotune.devices.device import Device, Reading
from aiotune.devices.meter import Meter
from aiotune.devices.pool import DevicePool
from aiotune.resources import Resources
from aiotune.run_usage import RunUsage, lost_usage
from aiotune.trial import Run, RunState, Usage
from tests.support.records import run
from tests.support.virtual_clock import VirtualClock

CARD = Device("GPU-1", "A100", 80 * 2**30)
GIB = 2**30


def pool_of(meter: Meter | None = None) -> DevicePool:
    return DevicePool([CARD], cores=range(4), slots=2, meter=meter)


def test_a_run_took_its_card_since_it_began() -> None:
    clock, pool = VirtualClock(), pool_of()
    clock.advance(100)
    lease = pool.lease_nowait(Resources())
    assert lease is not None
    usage = RunUsage(pool, lease, clock)
    clock.advance(8)
    assert usage.so_far() == Usage(8)


def test_a_run_on_the_processor_took_nothing() -> None:
    clock, pool = VirtualClock(), pool_of()
    lease = pool.lease_nowait(Resources(gpus=0))
    assert lease is not None
    usage = RunUsage(pool, lease, clock)
    usage.measure(5)
    assert usage.so_far() is None


def test_the_peak_is_the_larger_of_what_the_framework_says_and_what_was_read() -> None:
    clock, meter = VirtualClock(), Meter()
    pool = pool_of(meter)
    meter.note(CARD.uuid, -1, Reading(used_bytes=0), 0)
    lease = pool.lease_nowait(Resources())
    assert lease is not None
    usage = RunUsage(pool, lease, clock)
    clock.advance(2)
    usage.measure(3 * GIB)
    usage.measure(2 * GIB)
    assert usage.so_far() == Usage(2, 3 * GIB)
    meter.note(CARD.uuid, 1, Reading(used_bytes=4 * GIB), 1)
    assert usage.so_far() == Usage(2, 4 * GIB)


def left(started_at: float, **changes: object) -> Run:
    at = replace(run(state=RunState.RUNNING), started_at=started_at, devices=("GPU-1",))
    return replace(at, **changes)  # type: ignore[arg-type]


def test_a_run_that_died_with_its_process_took_the_time_that_is_known() -> None:
    alone = left(100.0, devices=("GPU-1", "GPU-2"))
    assert lost_usage(alone, [alone], 130.0) == Usage(60, is_estimated=True)
    assert lost_usage(alone, [alone], 90.0) == Usage(0, is_estimated=True)  # the clock was set
    assert lost_usage(alone, [alone], None) is None
    assert lost_usage(left(100.0, devices=("cpu:0-3",)), [], 130.0) is None


def test_those_that_died_together_shared_the_card() -> None:
    several = [left(100.0, gpu_memory=GIB) for _ in range(3)]
    elsewhere = left(100.0, gpu_memory=GIB, devices=("GPU-2",))
    assert lost_usage(several[0], [*several, elsewhere], 130.0) == Usage(10, is_estimated=True)


def test_a_pool_asks_its_meter() -> None:
    meter = Meter()
    meter.note(CARD.uuid, 0, Reading(energy_joules=0), 1)
    meter.note(CARD.uuid, 10, Reading(energy_joules=500), 1)
    pool = pool_of(meter)
    lease = pool.lease_nowait(Resources())
    assert lease is not None
    assert pool.usage(lease, 0, 10) == Usage(10, None, 500)
