"""Several pools on one ledger: who gets what, in which order, and that nobody waits for ever."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiotune.devices.ledger import Ledger
from aiotune.devices.pool import DevicePool, Lease
from aiotune.devices.run_memory import RUN_MEMORY_BYTES
from aiotune.events import EndReason, Event, RunEnded, RunStarted
from aiotune.objective import Objective
from aiotune.oracles.random_search import RandomSearchOracle
from aiotune.resources import Resources
from tests.support.fake_executor import FakeExecutor, declaring
from tests.support.leasing import Tenant, gpus, settle, take
from tests.support.searches import SearchOfFakes
from tests.support.tuned import Parabola, make

ONE = Resources(cpus=1)


def pools(number: int, *, cores: int = 2, slots: int | None = None) -> list[DevicePool]:
    """Return pools of the processor on one ledger."""
    ledger = Ledger()
    return [
        DevicePool([], cores=range(cores), slots=slots or cores, ledger=ledger)
        for _ in range(number)
    ]


def listen(pool: DevicePool) -> list[int]:
    """Subscribe, as whoever asks again does; return the free slots at each call."""
    heard: list[int] = []
    pool.subscribe(lambda: heard.append(pool.free.slots))
    return heard


# What is held


def test_a_gpu_is_in_one_lease_over_all_pools() -> None:
    ledger, cards = Ledger(), gpus(8, 8)
    one = DevicePool(cards, cores=range(4), slots=2, ledger=ledger)
    two = DevicePool(cards[:1], cores=range(4), slots=1, shares=2, ledger=ledger)
    lease = take(one)
    assert lease.gpus == ("a",)
    assert two.lease_nowait(Resources()) is None
    assert two.free.gpus == ()
    lease.release()
    other = take(two)
    assert (other.gpus, take(one).gpus) == (("a",), ("b",))


def test_a_core_is_in_one_lease_over_all_pools() -> None:
    one, two = pools(2, cores=3)
    cores = [take(pool).cores for pool in (one, two, one)]
    assert cores == [(0,), (1,), (2,)]
    assert two.lease_nowait(Resources()) is None
    assert two.free.slots == 2  # its own; it is the cores that are taken


def test_leases_that_overlap_neither_wait_for_cores_nor_keep_others_from_them() -> None:
    ledger = Ledger()
    crowd = DevicePool([], cores=range(2), slots=3, ledger=ledger)
    one = DevicePool([], cores=range(2), slots=2, ledger=ledger)
    assert [take(pool).cores for pool in (crowd, one, one)] == [(0, 1), (0,), (1,)]
    assert len([take(crowd), take(crowd)]) == 2
    assert crowd.lease_nowait(Resources()) is None


def test_a_pool_keeps_to_its_own_slots() -> None:
    ledger = Ledger()
    one = DevicePool([], cores=range(4), slots=1, shares=4, ledger=ledger)
    two = DevicePool([], cores=range(4), slots=2, shares=4, ledger=ledger)
    assert len([take(one), take(two), take(two)]) == 3
    assert one.lease_nowait(Resources()) is two.lease_nowait(Resources()) is None
    assert one.free.cores == (3,)


async def test_a_release_serves_the_waiters_of_all_pools_and_calls_all_subscribers() -> None:
    one, two, three = pools(3, cores=1)
    held = take(one)
    waiter = Tenant(two, Resources())
    heard = listen(one), listen(three)
    await settle()
    assert waiter.is_waiting
    held.release()
    await settle()
    assert waiter.held is not None
    assert heard == ([1], [1])
    waiter.leave()
    await waiter.task
    assert heard == ([1, 1], [1, 1])


# Who comes first


def test_who_has_less_comes_first_among_those_who_ask_again() -> None:
    rich, poor = pools(2)
    listen(rich), listen(poor)
    first, _ = take(rich), take(rich)
    assert rich.lease_nowait(ONE) is None  # it was refused before the other
    assert not poor.has_room(ONE)
    first.release()
    assert not rich.has_room(ONE)
    assert poor.has_room(ONE)
    assert not rich.has_room(ONE)  # the other has seen it, and will take it
    assert take(poor, ONE).cores == (0,)


def test_among_equals_who_asked_first_comes_first() -> None:
    holder, one, two = pools(3, cores=1)
    for pool in (holder, one, two):
        listen(pool)
    held = take(holder)
    turns = []
    for pool in (one, two, one, holder):
        assert pool.lease_nowait(ONE) is None
    for _ in range(6):
        held.release()
        held, pool = next(
            (lease, pool)
            for pool in (holder, two, one)
            if (lease := pool.lease_nowait(ONE)) is not None
        )
        turns.append((holder, one, two).index(pool))
        for other in (one, two, holder):
            other.has_room(ONE)
    assert turns == [1, 2, 0, 1, 2, 0]


def test_devices_are_gathered_for_a_pool_that_has_none_after_the_round_of_the_others() -> None:
    many, large = pools(2, cores=3)
    listen(many), listen(large)
    leases = [take(many) for _ in range(3)]
    assert large.lease_nowait(Resources(cpus=3)) is None
    for lease in leases[:2]:
        lease.release()
        leases.append(take(many, ONE))  # a core would idle beside the third
    for lease in leases[2:]:
        assert large.lease_nowait(Resources(cpus=3)) is None
        lease.release()
        assert many.lease_nowait(ONE) is None
    assert take(large, Resources(cpus=3)).cores == (0, 1, 2)


def test_what_a_full_pool_asked_for_does_not_make_it_older() -> None:
    ledger = Ledger()
    many = DevicePool([], cores=range(2), slots=2, ledger=ledger)
    large = DevicePool([], cores=range(2), slots=1, ledger=ledger)
    listen(many), listen(large)
    held = take(large)
    assert not large.has_room(Resources())
    assert not many.has_room(Resources())
    held.release()
    assert len([take(many), take(many)]) == 2  # a whole round, not half of one


def test_no_core_is_gathered_for_a_run_that_waits_for_a_gpu() -> None:
    ledger = Ledger()
    holder, waits = (
        DevicePool(gpus(8), cores=range(3), slots=1, shares=3, ledger=ledger) for _ in range(2)
    )
    processor = DevicePool([], cores=range(3), slots=3, ledger=ledger)
    listen(waits), listen(processor)
    held = take(holder)
    assert waits.lease_nowait(Resources(cpus=2)) is None
    cores = [take(processor), take(processor)]
    held.release()
    assert processor.lease_nowait(ONE) is None  # now it is the cores that it waits for
    cores[0].release()
    assert take(waits, Resources(cpus=2)).gpus == ("a",)


def test_a_request_that_does_not_fit_is_passed_if_its_pool_has_something() -> None:
    many, large = pools(2, cores=3)
    listen(many), listen(large)
    first, _, _ = take(many), take(many), take(large, ONE)
    assert large.lease_nowait(Resources(cpus=2)) is None
    first.release()
    assert take(many, ONE).cores == (0,)


async def test_a_waiter_of_a_pool_that_has_less_is_served_before_older_ones() -> None:
    rich, poor = pools(2)
    first, _ = take(rich), take(rich)
    older, younger = Tenant(rich, ONE), Tenant(poor, ONE)
    await settle()
    first.release()
    await settle()
    assert older.is_waiting
    assert younger.held is not None
    younger.leave()
    await settle()
    assert older.held is not None
    older.leave()
    await asyncio.gather(older.task, younger.task)


# A want goes


def refused(rich: DevicePool, poor: DevicePool, *, leases: int = 0) -> list[int]:
    """Let `poor` keep `rich` from the last core of two; return when `rich` is called."""
    heard = listen(rich)
    held = [take(poor) for _ in range(leases)]
    held += [take(rich) for _ in range(len(rich.free.cores))]
    assert poor.lease_nowait(ONE) is None
    held[-1].release()
    assert rich.lease_nowait(ONE) is None
    heard.clear()
    return heard


def test_who_leaves_keeps_nobody_out() -> None:
    rich, poor = pools(2)
    unsubscribe = poor.subscribe(lambda: None)
    heard = refused(rich, poor)
    unsubscribe()
    assert len(heard) == 1
    assert take(rich, ONE).cores == (1,)


def test_who_sees_room_and_has_leases_keeps_nobody_out() -> None:
    rich, poor = pools(2, cores=4)
    listen(poor)
    heard = refused(rich, poor, leases=1)
    assert poor.has_room(ONE)  # it may not want it: its oracle may wait for what it has in progress
    assert len(heard) == 1
    assert rich.has_room(ONE)


def test_who_cannot_hear_keeps_nobody_out(caplog: pytest.LogCaptureFixture) -> None:
    rich, poor = pools(2)

    def fail() -> None:
        raise RuntimeError("the event loop is closed")

    poor.subscribe(fail)
    lease, _ = take(rich), take(rich)
    assert poor.lease_nowait(ONE) is None
    lease.release()
    assert take(rich, ONE).cores == (0,)
    assert "the event loop is closed" in caplog.text


def test_who_takes_something_smaller_keeps_nobody_out_of_the_rest() -> None:
    holder, large, late = pools(3, cores=3)
    listen(large)
    heard = listen(late)
    take(holder)
    assert large.lease_nowait(Resources(cpus=3)) is None
    assert late.lease_nowait(ONE) is None
    take(large, ONE)
    assert len(heard) == 1
    assert take(late, ONE).cores == (2,)


def test_who_does_not_listen_keeps_nobody_out() -> None:
    rich, poor = pools(2)
    lease, _ = take(rich), take(rich)
    assert poor.lease_nowait(ONE) is None
    lease.release()
    assert rich.has_room(ONE)


async def test_a_waiter_that_is_cancelled_keeps_nobody_out() -> None:
    holder, waits, late = pools(3)
    heard = listen(late)
    take(holder)
    large = Tenant(waits, Resources(cpus=2))
    await settle()
    assert late.lease_nowait(ONE) is None
    large.task.cancel()
    await settle()
    assert len(heard) == 1
    assert late.has_room(ONE)


# Memory


def memory_pools(*runs: float) -> list[DevicePool]:
    """Return pools that found memory for so many runs, one after the other."""
    ledger = Ledger()
    return [memory_pool(each, ledger) for each in runs]


def memory_pool(runs: float, ledger: Ledger) -> DevicePool:
    memory_bytes = int(runs * RUN_MEMORY_BYTES)
    return DevicePool([], cores=range(16), slots=16, memory_bytes=memory_bytes, ledger=ledger)


def fill(pool: DevicePool) -> list[Lease]:
    """Take all that there is."""
    leases = []
    while lease := pool.lease_nowait(ONE):
        leases.append(lease)
    return leases


def test_memory_is_counted_over_all_pools() -> None:
    one, two = memory_pools(3, 3)
    assert (one.slots, two.slots) == (3, 3)
    take(one), take(one)
    assert len(fill(two)) == 1
    one.measure(RUN_MEMORY_BYTES * 2 // 5)  # what runs of the first count is half of it now
    assert len(fill(two)) == 1
    assert len(fill(one)) == 0


def test_the_only_run_of_all_is_never_refused_for_memory() -> None:
    one, two = memory_pools(0, 0)
    lease = take(one)
    assert two.lease_nowait(ONE) is None
    lease.release()
    assert len(fill(two)) == 1


def test_memory_in_use_when_a_pool_opens_is_not_counted_twice() -> None:
    ledger = Ledger()
    one = memory_pool(4, ledger)
    leases = fill(one)[1:]
    two = memory_pool(1, ledger)  # the runs of the other use what they count
    three = memory_pool(4, ledger)  # they use nothing yet
    assert (two.slots, three.slots) == (4, 4)
    for lease in leases:
        lease.release()
    assert len(fill(two)) == 3


def test_runs_that_memory_does_not_bound_are_not_counted() -> None:
    ledger = Ledger()
    other = DevicePool([], cores=range(16), slots=4, shares=16, ledger=ledger)
    bound = memory_pool(2, ledger)
    assert (len(fill(other)), len(fill(bound))) == (4, 2)


def test_no_core_is_gathered_for_a_run_that_waits_for_memory() -> None:
    ledger = Ledger()
    one, two = memory_pool(1, ledger), memory_pool(1, ledger)
    other = DevicePool([], cores=range(16), slots=16, ledger=ledger)
    listen(two)
    take(one)
    assert two.lease_nowait(Resources(cpus=15)) is None
    assert len(fill(other)) == 15


# Abandoned, forked, threaded


def test_the_leases_of_a_pool_that_nobody_knows_any_more_are_gone() -> None:
    ledger = Ledger()
    kept = DevicePool([], cores=range(2), slots=2, ledger=ledger)
    take(DevicePool([], cores=range(2), slots=2, ledger=ledger))
    gc.collect()
    assert kept.free == kept.total


def test_a_lease_keeps_itself() -> None:
    ledger = Ledger()
    kept = DevicePool([], cores=range(2), slots=2, ledger=ledger)
    lease = take(DevicePool([], cores=range(2), slots=2, ledger=ledger))
    gc.collect()
    assert kept.free.cores == (1,)
    lease.release()
    assert kept.free == kept.total


def test_a_fork_of_the_caller_begins_with_an_empty_ledger() -> None:
    script = """
        import os
        from aiotune.devices.ledger import shared_ledger
        from aiotune.devices.pool import DevicePool
        from aiotune.resources import Resources

        def lease():
            pool = DevicePool([], cores=[0], slots=1, ledger=shared_ledger())
            return pool.lease_nowait(Resources())

        held = lease()
        assert lease() is None
        with shared_ledger().lock:  # whatever a thread of the caller was at
            child = os.fork()
        if child == 0:
            os._exit(0 if lease() is not None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert lease() is None
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_pools_in_several_threads_share_one_machine() -> None:
    ledger, lock = Ledger(), threading.Lock()
    in_use, clashes, uses = Counter[int](), list[int](), list[int]()

    async def lease_often(number: int) -> None:
        pool = DevicePool([], cores=range(3), slots=3, ledger=ledger)
        for turn in range(50):
            async with pool.lease(Resources(cpus=1 + (turn + number) % 2)) as lease:
                with lock:
                    in_use.update(lease.cores)
                    clashes.extend(core for core in lease.cores if in_use[core] > 1)
                    uses.append(number)
                await asyncio.sleep(0)
                with lock:
                    in_use.subtract(lease.cores)

    threads = [
        threading.Thread(target=asyncio.run, args=(lease_often(number),)) for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clashes == []
    assert Counter(uses) == dict.fromkeys(range(4), 50)


# Searches


async def run_beside(
    tmp_path: Path, slots: tuple[int, int], cores: int, trials: int = 12
) -> list[str]:
    """Run two searches at once on one machine; return whose run began, in order."""
    ledger, order, searches = Ledger(), list[str](), list[SearchOfFakes]()
    for name, number in zip("ab", slots, strict=True):
        oracle = RandomSearchOracle(objective=Objective("score", "min"), max_trials=trials, seed=1)
        executor = FakeExecutor(
            declaring(lambda hp: hp.Float("x", 0, 1), lambda values: float(str(values["x"])))
        )
        searches.append(
            SearchOfFakes(
                oracle, executor, tmp_path / name, slots=number, cores=cores, ledger=ledger
            )
        )
        begun = executor.start

        async def start(assignment: Any, name: str = name, begun: Any = begun) -> Any:
            order.append(name)
            return await begun(assignment)

        executor.start = start  # type: ignore[method-assign]
    ends: list[EndReason] = []

    async def run(search: SearchOfFakes) -> None:
        ends.append((await search.run()).reason)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for search in searches:
                tasks.start_soon(run, search)
    assert ends == [EndReason.MAX_TRIALS] * 2
    for search in searches:
        started = [fact for fact in search.store.facts if isinstance(fact, RunStarted)]
        assert len(started) == trials
        assert search.pool.free == search.pool.total
    return order


@pytest.mark.parametrize(
    ("slots", "cores"),
    [((1, 1), 1), ((2, 2), 2), ((1, 2), 2), ((2, 1), 2), ((3, 1), 3), ((4, 2), 4)],
)
async def test_two_searches_that_both_want_everything_both_go_on(
    slots: tuple[int, int], cores: int, tmp_path: Path
) -> None:
    order = await run_beside(tmp_path, slots, cores)
    ends = min(max(i for i, each in enumerate(order) if each == name) for name in "ab")
    both = order[: ends + 1]  # while both have work
    # One slot on all cores needs them all: it gets its turn, once for each round of the other's runs.
    assert min(both.count("a"), both.count("b")) >= len(both) // (2 + cores)
    gaps = [len(gap) for name in "ab" for gap in "".join(both).split(name)]
    assert max(gaps) <= 2 * cores


async def test_real_searches_at_once_never_run_on_the_same_core(tmp_path: Path) -> None:
    in_use, clashes, runs = Counter[str](), list[str](), list[str]()

    def observe(name: str, fact: Event) -> None:
        match fact:
            case RunStarted():
                held[name, fact.trial_id] = fact.devices
                in_use.update(fact.devices)
                clashes.extend(core for core in fact.devices if in_use[core] > 1)
                runs.append(name)
            case RunEnded():  # recorded while the lease is held
                in_use.subtract(held[name, fact.trial_id])

    held: dict[tuple[str, str], tuple[str, ...]] = {}
    searches = [
        make(
            Parabola,
            tmp_path,
            max_trials=5,
            max_concurrent_trials=None,
            project_name=name,
            observers=[lambda fact, _history, name=name: observe(name, fact)],
        ).search()
        for name in "ab"
    ]
    with anyio.fail_after(60):
        await asyncio.gather(*searches)
    assert Counter(runs) == {"a": 5, "b": 5}
    assert clashes == []


# Random schedules


class Searcher:
    """Asks as a scheduler does: it sees room, makes up its mind a turn later, and takes; or it waits.

    is_fickle: while it has something in progress it may see room and not want it.
    """

    def __init__(self, pool: DevicePool, resources: Resources, runs: int, *, is_fickle: bool):
        self.pool = pool
        self.resources = resources
        self.left = runs
        self.held: list[Lease] = []
        self.is_woken = True
        self._is_fickle = is_fickle
        self._has_work = False  # asked for and recorded, but on no lease yet
        self._leave = pool.subscribe(self._wake)

    def _wake(self) -> None:
        self.is_woken = True

    @property
    def is_over(self) -> bool:
        return not self.left and not self.held

    def act(self) -> None:
        """Do one thing; what it does next it does when it is woken, by itself or by others."""
        self.is_woken = False
        if self.is_over:
            return self._leave()
        if not self.left:
            return None
        if self._has_work:
            lease = self.pool.lease_nowait(self.resources)
            if lease is not None:
                self.held.append(lease)
                self._has_work, self.is_woken = False, True
                self.left -= 1
        elif self.pool.has_room(self.resources) and not (self._is_fickle and self.held):
            self._has_work = self.is_woken = True
        return None

    def end_one(self) -> None:
        """End the oldest run."""
        if self.held:
            lease = self.held.pop(0)
            lease.release()
            self.is_woken = True


SIZES = st.builds(
    Resources, gpus=st.sampled_from([None, 0, 1, 2]), cpus=st.sampled_from([None, 1, 2, 3])
)
STEPS = st.one_of(
    st.tuples(st.just("arrive"), SIZES, st.integers(0, 9)),
    st.tuples(st.just("search"), SIZES, st.integers(0, 9)),
    st.tuples(
        st.sampled_from(["leave", "cancel", "end", "act", "stop"]),
        st.integers(0, 9),
        st.booleans(),
    ),
    st.tuples(st.just("measure"), st.integers(1, 2 * RUN_MEMORY_BYTES), st.integers(0, 9)),
    st.tuples(st.just("turn"), st.none(), st.none()),
)


class Schedule:
    """Plays steps against pools of one ledger, and checks after each what must always hold."""

    def __init__(self, makes: list[tuple[int, int, bool]]) -> None:
        ledger, cards = Ledger(), gpus(8, 8, 8)
        self.pools = [
            DevicePool(
                cards[number % 2 : 2 + number % 2],
                cores=range(4),
                slots=slots,
                shares=shares,
                memory_bytes=3 * RUN_MEMORY_BYTES if has_memory else None,
                ledger=ledger,
            )
            for number, (slots, shares, has_memory) in enumerate(makes)
        ]
        self.is_own = [max(slots, shares) <= 4 for slots, shares, _ in makes]
        self.tenants: list[Tenant] = []
        self.searchers: list[Searcher] = []
        self.homes: dict[Tenant, DevicePool] = {}

    async def play(self, step: tuple[str, Any, Any]) -> None:
        match step:
            case "arrive", resources, number:
                pool = self.pools[number % len(self.pools)]
                self.tenants.append(Tenant(pool, resources))
                self.homes[self.tenants[-1]] = pool
            case "search", resources, number:
                pool = self.pools[number % len(self.pools)]
                self.searchers.append(
                    Searcher(pool, resources, 1 + number % 4, is_fickle=number > 6)
                )
            case "leave", number, _ if self.tenants:
                self.tenants[number % len(self.tenants)].leave()
            case "cancel", number, _ if self.tenants:
                self.tenants[number % len(self.tenants)].task.cancel()
            case "end", number, _ if self.searchers:
                self.searchers[number % len(self.searchers)].end_one()
            case "act", number, _ if self.searchers:
                self.searchers[number % len(self.searchers)].act()
            case "stop", number, _ if self.searchers:
                searcher = self.searchers[number % len(self.searchers)]
                searcher.left, searcher.is_woken = 0, True
            case "measure", memory_bytes, number:
                self.pools[number % len(self.pools)].measure(memory_bytes)
            case "turn", _, _:
                await self.turn()
        self.check()

    async def turn(self) -> None:
        """Let everybody who was woken act until all sleep; then somebody must have something."""
        for _ in range(200):
            await settle()
            woken = [each for each in self.searchers if each.is_woken]
            if not woken:
                break
            for searcher in woken:
                searcher.act()
        else:
            raise AssertionError("they wake one another for ever")
        wants = [t for t in self.tenants if t.is_waiting]
        hungry = [s for s in self.searchers if s.left]
        assert self.leases() or not (wants or hungry)

    def leases(self) -> list[Lease]:
        held = [t.held for t in self.tenants if t.held]
        return held + [lease for searcher in self.searchers for lease in searcher.held]

    def check(self) -> None:
        leases = self.leases()
        held = Counter(uuid for lease in leases for uuid in lease.gpus)
        assert max(held.values(), default=0) <= 1
        exclusive = Counter(
            core for lease in leases if lease in self.exclusive for core in lease.cores
        )
        assert max(exclusive.values(), default=0) <= 1
        assert all(lease.cores for lease in leases)
        for pool in self.pools:
            assert not held.keys() & set(pool.free.gpus)
            assert 0 <= pool.free.slots <= pool.slots

    @property
    def exclusive(self) -> set[Lease]:
        """The leases of pools whose runs have cores for themselves."""
        own = [pool for pool, is_own in zip(self.pools, self.is_own, strict=True) if is_own]
        leases = {t.held for t, pool in self.homes.items() if t.held and pool in own}
        return leases | {lease for s in self.searchers if s.pool in own for lease in s.held}

    async def end(self) -> None:
        """Let everything run out: whoever still wants something gets it, turn by turn."""
        for _ in range(500):
            await self.turn()
            if not self.leases():
                break
            for tenant in self.tenants:
                if tenant.held:
                    tenant.leave()
            for searcher in self.searchers:
                searcher.end_one()
        assert all(t.task.done() for t in self.tenants)
        assert all(t.task.cancelled() or t.task.exception() is None for t in self.tenants)
        assert all(s.is_over for s in self.searchers)
        assert all(pool.free == pool.total for pool in self.pools)


POOLS = st.tuples(st.integers(1, 5), st.integers(1, 5), st.booleans())


@settings(deadline=None, max_examples=300)
@given(makes=st.lists(POOLS, min_size=2, max_size=4), steps=st.lists(STEPS, max_size=40))
def test_in_every_schedule_devices_are_in_one_lease_and_nobody_waits_for_ever(
    makes: list[tuple[int, int, bool]], steps: list[tuple[str, Any, Any]]
) -> None:
    async def run() -> None:
        schedule = Schedule(makes)
        for step in steps:
            await schedule.play(step)
        await schedule.end()

    asyncio.run(run())
