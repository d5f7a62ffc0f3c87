from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiotune.devices.device import Device
from aiotune.devices.ledger import Ledger
from aiotune.devices.pool import Capacity, DevicePool, Lease
from aiotune.devices.run_memory import RUN_MEMORY_BYTES
from aiotune.errors import DeviceError, FatalValueError
from aiotune.resources import Resources
from tests.support.leasing import Tenant, gpus, settle, take

CPU = Resources(gpus=0)


def cpu_pool(cores: int = 4, slots: int = 4) -> DevicePool:
    return DevicePool([], cores=range(cores), slots=slots)


def gpu_pool(number: int = 2, cores: int = 4) -> DevicePool:
    return DevicePool(gpus(*[80] * number), cores=range(cores), slots=number)


# What a lease holds


def test_slots_of_the_processor_are_disjoint_equal_and_use_every_core() -> None:
    pool = cpu_pool(cores=8, slots=3)
    leases = [take(pool) for _ in range(3)]
    assert [lease.cores for lease in leases] == [(0, 1, 2), (3, 4, 5), (6, 7)]
    assert [lease.names for lease in leases] == [("cpu:0-2",), ("cpu:3-5",), ("cpu:6-7",)]
    assert all(lease.gpus == () for lease in leases)
    assert pool.lease_nowait(Resources()) is None


def test_one_slot_has_all_cores() -> None:
    assert take(cpu_pool(cores=4, slots=1)).cores == (0, 1, 2, 3)


def test_more_slots_than_cores_share_them_and_are_still_counted() -> None:
    pool = cpu_pool(cores=2, slots=4)
    leases = [take(pool) for _ in range(4)]
    assert {lease.cores for lease in leases} == {(0, 1)}
    assert pool.lease_nowait(Resources()) is None


def test_where_cores_are_shared_a_stated_number_goes_to_the_least_loaded() -> None:
    pool = cpu_pool(cores=2, slots=4)
    picked = [take(pool, Resources(cpus=1)).cores for _ in range(4)]
    assert picked == [(0,), (1,), (0,), (1,)]


def test_a_stated_number_of_cores_is_exclusive() -> None:
    pool = cpu_pool(cores=4, slots=4)
    big = take(pool, Resources(cpus=3))
    small = take(pool)
    assert sorted(big.cores + small.cores) == [0, 1, 2, 3]
    assert pool.lease_nowait(Resources()) is None


def test_a_share_is_had_even_where_no_share_is_whole() -> None:
    pool = cpu_pool(cores=4, slots=2)
    one, two = take(pool, Resources(cpus=1)), take(pool, Resources(cpus=1))
    three = pool.lease_nowait(Resources())
    assert three is None  # no slot
    one.release()
    assert two.cores == (1,)
    assert len(take(pool).cores) == 2


def test_gpus_come_with_a_share_of_the_cores_each() -> None:
    pool = gpu_pool(number=2, cores=4)
    one, two = take(pool), take(pool)
    assert (one.gpus, one.cores, one.names) == (("a",), (0, 1), ("a",))
    assert (two.gpus, two.cores) == (("b",), (2, 3))
    one.release()
    two.release()
    both = take(pool, Resources(gpus=2))
    assert (both.gpus, both.cores) == (("a", "b"), (0, 1, 2, 3))


def test_a_run_without_gpu_takes_cores_only() -> None:
    pool = gpu_pool(number=2, cores=4)
    lease = take(pool, CPU)
    assert (lease.gpus, lease.cores) == ((), (0, 1))
    assert pool.free == Capacity(("a", "b"), (2, 3), 1)


def test_the_smallest_card_that_fits_is_taken() -> None:
    pool = DevicePool(gpus(80, 24, None, 4), cores=range(4), slots=4)
    sized = [Resources(gpu_memory="20GiB"), Resources(), Resources(gpu_memory="4GiB")]
    assert [take(pool, each).gpus for each in sized] == [("b",), ("d",), ("a",)]
    assert take(pool, Resources(gpu_memory="200GiB")).gpus == ("c",)  # unknown memory: may fit


def test_total_free_and_release() -> None:
    pool = gpu_pool(number=2, cores=4)
    assert pool.total == pool.free == Capacity(("a", "b"), (0, 1, 2, 3), 2)
    lease = take(pool)
    assert pool.free == Capacity(("b",), (2, 3), 1)
    lease.release()
    other = take(pool)
    lease.release()  # the second time it must not free what is now another's
    assert pool.free == Capacity(("b",), (2, 3), 1)
    other.release()
    assert pool.free == pool.total


def test_all_or_nothing() -> None:
    pool = DevicePool(gpus(80, 80), cores=range(4), slots=4)
    held = take(pool, Resources(gpus=1, cpus=1))
    free = pool.free
    assert pool.lease_nowait(Resources(gpus=2)) is None
    assert pool.lease_nowait(Resources(gpus=1, cpus=4)) is None
    assert pool.free == free
    held.release()
    assert take(pool, Resources(gpus=2)).gpus == ("a", "b")


def test_has_room_takes_nothing() -> None:
    pool = gpu_pool(number=1)
    assert pool.has_room(Resources())
    assert pool.free == pool.total
    take(pool)
    assert not pool.has_room(Resources())


# What can never be served


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        (Resources(gpus=3), r"3 GPUs, and this machine has 2 .*\(why\).*lower Resources\(gpus"),
        (Resources(gpu_memory="40GiB"), r"1 GPU of 40 GiB.*card 8 \(8 GiB\), card 24 \(24 GiB\)"),
        (Resources(gpus=2, gpu_memory="20GiB"), r"2 GPUs of 20 GiB.*lower Resources\(gpu_memory"),
        (Resources(cpus=5), r"5 cores, and this machine has 4.*lower Resources\(cpus"),
    ],
)
async def test_the_impossible_is_refused_at_once(resources: Resources, message: str) -> None:
    pool = DevicePool(gpus(8, 24), cores=range(4), slots=2, problem="why")
    with pytest.raises(DeviceError, match=message):
        pool.resolve(resources)
    with pytest.raises(DeviceError):
        pool.lease_nowait(resources)
    with pytest.raises(DeviceError):
        async with pool.lease(resources):
            pass
    assert pool.free == pool.total


def test_memory_of_a_gpu_asks_for_a_gpu() -> None:
    with pytest.raises(DeviceError, match="1 GPU, and this machine has none"):
        cpu_pool().resolve(Resources(gpu_memory="1GiB"))


def test_what_is_left_open_is_resolved() -> None:
    assert cpu_pool(cores=6, slots=2).resolve(Resources()).gpus == 0
    assert cpu_pool(cores=6, slots=2).resolve(Resources()).cpus == 3
    assert cpu_pool(cores=2, slots=4).resolve(Resources()).cpus == 1
    request = DevicePool(gpus(8, 8, 8), cores=range(7), slots=3).resolve(Resources(gpus=2))
    assert (request.gpus, request.cpus) == (2, 4)
    assert gpu_pool().resolve(Resources()).gpus == 1


@pytest.mark.parametrize(
    ("devices", "cores", "slots"),
    [([], [], 1), ([], [0], 0), ([], [0, 0], 1), ([*gpus(8), *gpus(8)], [0], 1)],
)
def test_a_pool_of_nothing_or_of_twins_is_refused(
    devices: list[Device], cores: list[int], slots: int
) -> None:
    with pytest.raises(FatalValueError, match="pool"):
        DevicePool(devices, cores=cores, slots=slots)


# Waiting


async def test_equal_requests_are_served_in_the_order_of_their_arrival() -> None:
    pool, log = gpu_pool(number=1), list[Tenant]()
    tenants = [Tenant(pool, Resources(), log) for _ in range(5)]
    for tenant in tenants:
        await settle()
        assert log[-1] is tenant
        tenant.leave()
    await asyncio.gather(*(tenant.task for tenant in tenants))
    assert log == tenants
    assert pool.free == pool.total


async def test_a_request_that_fits_passes_one_that_does_not() -> None:
    pool, log = gpu_pool(number=2), list[Tenant]()
    first, both, small = (Tenant(pool, Resources(gpus=number), log) for number in (1, 2, 1))
    await settle()
    assert log == [first, small]
    small.leave()
    await settle()
    assert both.is_waiting
    first.leave()
    await settle()
    assert both.held is not None
    both.leave()
    await both.task


async def test_the_oldest_comes_first_among_those_that_fit() -> None:
    pool, log = gpu_pool(number=2), list[Tenant]()
    holder = Tenant(pool, Resources(gpus=2), log)
    await settle()
    both, small = (Tenant(pool, Resources(gpus=number), log) for number in (2, 1))
    await settle()
    holder.leave()
    await settle()
    assert log == [holder, both]
    assert small.is_waiting
    both.leave()
    small.leave()
    await asyncio.gather(both.task, small.task)


async def test_an_exception_gives_back() -> None:
    pool = cpu_pool()
    with pytest.raises(ZeroDivisionError):
        async with pool.lease(Resources()):
            raise ZeroDivisionError
    assert pool.free == pool.total


async def test_cancelling_a_waiter_leaks_nothing() -> None:
    pool = gpu_pool(number=1)
    holder = take(pool)
    waiter = Tenant(pool, Resources())
    await settle()
    waiter.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter.task
    holder.release()
    assert pool.free == pool.total


async def test_cancelling_a_waiter_that_was_just_served_passes_the_lease_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pool = gpu_pool(number=1)
    holder = take(pool)
    served, after = Tenant(pool, Resources()), Tenant(pool, Resources())
    await settle()
    holder.release()  # `served` has it now, and does not know yet
    served.task.cancel()
    await settle()
    assert served.task.cancelled()
    assert after.held is not None
    after.leave()
    await after.task
    assert pool.free == pool.total
    assert caplog.records == []  # the loop logs what breaks in its callbacks


def test_a_waiter_whose_loop_was_closed_does_not_keep_the_lease() -> None:
    pool = gpu_pool(number=1)
    holder = take(pool)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _loop, _context: None)  # it would complain of the lost task
    task = loop.create_task(pool.lease(Resources()).__aenter__())
    loop.run_until_complete(settle())
    loop.close()
    holder.release()
    assert not task.done()
    assert pool.free == pool.total


# Subscribers


def test_subscribers_hear_each_release_once_until_they_leave() -> None:
    pool, heard = cpu_pool(), list[int]()
    unsubscribe = pool.subscribe(lambda: heard.append(pool.free.slots))
    first, second = take(pool), take(pool)
    first.release()
    first.release()
    assert heard == [3]
    unsubscribe()
    unsubscribe()
    second.release()
    assert heard == [3]


def test_a_failing_subscriber_is_logged_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    pool, heard = cpu_pool(), list[str]()

    def fail() -> None:
        raise RuntimeError("boom")

    pool.subscribe(fail)
    pool.subscribe(lambda: heard.append("heard"))
    take(pool).release()
    assert heard == ["heard"]
    assert "a subscriber of the device pool failed" in caplog.text


# Memory


def memory_pool(runs: float, *, slots: int = 8, ledger: Ledger | None = None) -> DevicePool:
    """Return a pool on a machine with memory for so many runs that were not measured yet."""
    memory_bytes = int(runs * RUN_MEMORY_BYTES)
    return DevicePool([], cores=range(8), slots=slots, memory_bytes=memory_bytes, ledger=ledger)


def test_a_measure_moves_the_slots_both_ways_and_leaves_leases_alone() -> None:
    pool = memory_pool(2)
    leases = [take(pool), take(pool)]
    assert pool.lease_nowait(Resources()) is None
    pool.measure(RUN_MEMORY_BYTES // 4)  # and a quarter more
    assert (pool.slots, pool.free.slots) == (6, 4)
    leases += [take(pool) for _ in range(4)]
    assert pool.lease_nowait(Resources()) is None
    pool.measure(RUN_MEMORY_BYTES)
    pool.measure(RUN_MEMORY_BYTES // 2)  # the largest counts
    assert (pool.slots, pool.free.slots) == (1, 0)
    assert len({core for lease in leases for core in lease.cores}) == 6
    for lease in leases:
        assert not pool.has_room(Resources())
        lease.release()
    assert pool.has_room(Resources())
    assert pool.free == pool.total


def test_the_share_of_a_run_does_not_depend_on_memory() -> None:
    pool = memory_pool(1, slots=4)
    before = take(pool)
    before.release()
    pool.measure(1)
    after = take(pool)
    assert before.cores == after.cores == (0, 1)


async def test_a_smaller_measure_wakes_waiters_and_subscribers() -> None:
    pool, heard = memory_pool(1), list[int]()
    pool.subscribe(lambda: heard.append(pool.slots))
    tenants = [Tenant(pool, Resources()) for _ in range(3)]
    await settle()
    assert [tenant.is_waiting for tenant in tenants] == [False, True, True]
    pool.measure(RUN_MEMORY_BYTES // 3)
    await settle()
    assert [tenant.is_waiting for tenant in tenants] == [False, False, True]
    assert heard == [2]
    pool.measure(RUN_MEMORY_BYTES)
    assert heard == [2]
    for tenant in tenants:
        tenant.leave()
    await asyncio.gather(*(tenant.task for tenant in tenants))
    assert pool.free == pool.total


def test_a_measure_that_changes_the_slots_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "aiotune.devices")
    pool = memory_pool(2)
    for memory_bytes in (2**30, 2**29, 2**30):
        pool.measure(memory_bytes)
    assert caplog.messages == ["a run counts 1.25 GiB of memory, by measure: 6 slots (before: 2)"]


def test_where_memory_is_no_bound_measures_change_nothing() -> None:
    pool = cpu_pool(cores=4, slots=3)
    pool.measure(2**50)
    assert pool.slots == 3


# Random schedules

SIZES = st.builds(
    Resources,
    gpus=st.sampled_from([None, 0, 1, 2]),
    cpus=st.sampled_from([None, 1, 2]),
)
STEPS = st.one_of(
    st.tuples(st.just("arrive"), SIZES),
    st.tuples(st.just("take"), SIZES),
    st.tuples(st.sampled_from(["leave", "cancel", "release"]), st.integers(0, 9)),
    st.tuples(st.just("turn"), st.none()),
)


class Schedule:
    """Plays steps against a pool, and checks after each what must always hold."""

    def __init__(self, pool: DevicePool) -> None:
        self.pool = pool
        self.tenants: list[Tenant] = []
        self.taken: list[Lease] = []

    async def play(self, step: tuple[str, Any]) -> None:
        match step:
            case "arrive", resources:
                self.tenants.append(Tenant(self.pool, resources))
            case "take", resources:
                lease = self.pool.lease_nowait(resources)
                self.taken += [lease] if lease else []
            case "release", number if self.taken:
                self.taken.pop(number % len(self.taken)).release()
            case "leave", number if self.tenants:
                self.tenants[number % len(self.tenants)].leave()
            case "cancel", number if self.tenants:
                self.tenants[number % len(self.tenants)].task.cancel()
            case "turn", _:
                await settle()
                self.check_nobody_waits_in_vain()
        self.check()

    def check(self) -> None:
        leases = [*self.taken, *(t.held for t in self.tenants if t.held)]
        held = Counter(uuid for lease in leases for uuid in lease.gpus)
        cores = Counter(core for lease in leases for core in lease.cores)
        free, total = self.pool.free, self.pool.total
        assert len(leases) <= self.pool.slots
        assert max(held.values(), default=0) <= 1
        assert not held.keys() & set(free.gpus)
        assert all(lease.cores for lease in leases)
        if total.slots <= len(total.cores):
            assert max(cores.values(), default=0) <= 1
            assert not cores.keys() & set(free.cores)

    def check_nobody_waits_in_vain(self) -> None:
        assert not any(t.is_waiting and self.pool.has_room(t.resources) for t in self.tenants)

    async def end(self) -> None:
        for lease in self.taken:
            lease.release()
        for tenant in self.tenants:
            tenant.leave()
        await asyncio.gather(*(t.task for t in self.tenants), return_exceptions=True)
        assert all(t.task.cancelled() or t.task.exception() is None for t in self.tenants)
        assert self.pool.free == self.pool.total


@settings(deadline=None, max_examples=300)
@given(
    number=st.integers(2, 4),
    cores=st.integers(2, 9),
    steps=st.lists(STEPS, max_size=40),
)
def test_in_every_schedule_a_device_is_free_or_in_one_lease(
    number: int, cores: int, steps: list[tuple[str, Any]]
) -> None:
    async def run() -> None:
        schedule = Schedule(gpu_pool(number, cores))
        for step in steps:
            await schedule.play(step)
        await schedule.end()

    asyncio.run(run())


@settings(deadline=None, max_examples=100)
@given(count=st.integers(1, 8), cancelled=st.sets(st.integers(0, 7)))
def test_whoever_is_cancelled_the_others_keep_their_order(count: int, cancelled: set[int]) -> None:
    async def run() -> None:
        pool, log = cpu_pool(cores=1, slots=1), list[Tenant]()
        holder = take(pool)
        tenants = [Tenant(pool, Resources(), log) for _ in range(count)]
        await settle()
        for place in cancelled & set(range(count)):
            tenants[place].task.cancel()
        for tenant in tenants:
            tenant.leave()
        holder.release()
        await asyncio.gather(*(tenant.task for tenant in tenants), return_exceptions=True)
        assert log == [t for place, t in enumerate(tenants) if place not in cancelled]
        assert pool.free == pool.total

    asyncio.run(run())


# Threads


class Witness:
    """Who uses which GPU now, over all threads; it counts double use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_use: Counter[str] = Counter()
        self.uses = 0
        self.clashes = 0

    def enter(self, lease: Lease) -> None:
        with self._lock:
            self._in_use.update(lease.gpus)
            self.uses += 1
            self.clashes += any(self._in_use[uuid] > 1 for uuid in lease.gpus)

    def leave(self, lease: Lease) -> None:
        with self._lock:
            self._in_use.subtract(lease.gpus)


def test_searches_in_several_threads_share_one_pool() -> None:
    pool, witness = gpu_pool(number=2), Witness()

    async def lease_often() -> None:
        for turn in range(50):
            async with pool.lease(Resources(gpus=1 + turn % 2)) as lease:
                witness.enter(lease)
                await asyncio.sleep(0)
                witness.leave(lease)

    threads = [threading.Thread(target=asyncio.run, args=(lease_often(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (witness.uses, witness.clashes) == (200, 0)
    assert pool.free == pool.total


# --- memory that a run is said to take ---


def stated_pool(**options: Any) -> DevicePool:
    return DevicePool([], cores=range(8), slots=8, memory_bytes=16 * 2**30, **options)


def test_runs_of_which_memory_is_said_are_as_many_as_fit() -> None:
    pool = stated_pool(run_bytes=6 * 2**30)
    assert pool.slots == 2
    pool.measure(2**30)  # what one was measured to take does not count: it may hold more
    assert pool.slots == 2


@pytest.mark.parametrize("bounds_all", [True, False])
def test_what_is_said_of_each_run_counts(bounds_all: bool) -> None:
    pool = stated_pool(bounds_all=bounds_all)
    large, small = Resources(cpus=1, memory="10GiB"), Resources(cpus=1, memory="3GiB")
    held = take(pool, large)
    assert held.memory_bytes == 10 * 2**30
    assert not pool.has_room(large)
    assert pool.why(large) == "a run counts 10 GiB of memory, and so much is not left"
    assert take(pool, small).memory_bytes == 3 * 2**30
    held.release()
    assert pool.has_room(large)


def test_only_runs_of_which_memory_is_said_wait_where_it_bounds_not_all() -> None:
    pool = stated_pool(bounds_all=False)
    take(pool, Resources(cpus=1, memory="16GiB"))
    assert pool.slots == 8
    assert pool.has_room(Resources(cpus=1))
    assert not pool.has_room(Resources(cpus=1, memory="1GiB"))


def test_single_run_is_tried_and_the_impossible_is_refused() -> None:
    pool = stated_pool(total_memory_bytes=32 * 2**30)
    assert pool.has_room(Resources(memory="20GiB"))  # more than is available just now
    with pytest.raises(DeviceError, match=r"this machine has 32 GiB .*lower Resources\(memory"):
        pool.resolve(Resources(memory="33GiB"))
