"""The watch over cards, over their whole life, in virtual time; and the sensor's thread."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import anyio
import pytest

from aiotune.clock import SystemClock
from aiotune.devices.base import HELD, LOADED, SETTLING, Tell
from aiotune.devices.condition import (
    BENCH_SECONDS,
    CALM_SECONDS,
    CLEAN_SECONDS,
    FEW_FAILURES,
    LONGEST_CLEAN_SECONDS,
    SETTLE_SECONDS,
    Rules,
)
from aiotune.devices.device import Reading
from aiotune.devices.lease import Lease
from aiotune.devices.ledger import Ledger
from aiotune.devices.opening import open_pool
from aiotune.devices.sensing import Answer, SensorThread
from aiotune.devices.watch import Watch
from aiotune.errors import DeviceError, StoreError
from aiotune.events import DeviceChanged, EndReason, RunStarted
from aiotune.executors.base import Failed, Finished, RunEvent
from aiotune.objective import Objective
from aiotune.oracles.random_search import RandomSearchOracle
from aiotune.resources import Resources
from aiotune.settlement import Policy
from aiotune.tasks import beside
from aiotune.trial import FailureKind
from tests.support.fake_executor import FakeExecutor, Script
from tests.support.fake_nvml import FakeNvml, fake_cards
from tests.support.searches import SearchOfFakes
from tests.support.watched import GIB, GPU, FakeLocks, Machine, virtually

# New cards


@virtually
async def test_the_first_lease_comes_after_the_first_reading() -> None:
    machine = Machine.of(1)
    machine.sensor.cards["a"].takes = 3.0
    async with machine.tended():
        assert machine.pool.lease_nowait(GPU) is None
        async with machine.pool.lease(GPU):
            assert machine.clock.monotonic() == 3.0
    assert machine.told == []


@virtually
async def test_without_a_watch_nothing_is_withheld_and_afterwards_neither() -> None:
    machine = Machine.of(1)
    machine.sensor.cards["a"].theirs = 40 * GIB
    async with machine.tended():
        await machine.clock.sleep(1.0)
        assert machine.pool.lease_nowait(GPU) is None
    lease = machine.pool.lease_nowait(GPU)
    assert lease is not None
    lease.release()
    assert machine.ledger.withheld == {}


async def test_a_search_without_gpus_does_not_touch_the_driver() -> None:
    nvml = FakeNvml(fake_cards(2))
    pool = await open_pool(gpus=0, nvml=nvml, ledger=Ledger())
    told: list[str] = []

    async def tell(uuid: str, reason: str | None) -> None:
        told.append(uuid)

    threads = threading.active_count()
    await pool.tend(tell)
    assert threading.active_count() == threads
    assert not nvml.calls
    assert not told


# After a run


@virtually
async def test_a_card_is_leased_again_when_its_memory_is_back() -> None:
    machine = Machine.of(1)
    machine.lag = 0.3
    async with machine.tended():
        await machine.run_for(5.0)
        end = machine.clock.monotonic()
        assert machine.withheld("a") == SETTLING
        async with machine.pool.lease(GPU):
            assert machine.sensor.cards["a"].ours == 0
            assert machine.clock.monotonic() - end < 2 * machine.lag + 0.1  # the pause has doubled
    assert machine.told == []


@virtually
async def test_where_memory_is_back_at_once_the_next_lease_waits_for_one_reading() -> None:
    machine = Machine.of(1)
    async with machine.tended():
        await machine.run_for(5.0)
        end = machine.clock.monotonic()
        async with machine.pool.lease(GPU):
            assert machine.clock.monotonic() - end < 0.03


@virtually
async def test_memory_that_stays_is_quarantine_until_it_goes() -> None:
    machine = Machine.of(1)
    machine.lag = 60.0
    async with machine.tended():
        await machine.run_for(1.0)
        end = machine.clock.monotonic()
        async with machine.pool.lease(GPU):
            assert machine.clock.monotonic() - end == pytest.approx(61.0, abs=1.0)
    [(quarantined, _, reason), (back, _, _)] = machine.told
    assert quarantined - end == pytest.approx(SETTLE_SECONDS)
    assert reason is not None
    assert "60 GiB of its memory are in use" in reason
    assert back - end == pytest.approx(61.0, abs=1.0)


@virtually
async def test_a_driver_that_hangs_holds_up_neither_other_cards_nor_its_own_for_ever() -> None:
    machine = Machine.of(2)
    async with machine.tended():
        async with machine.pool.lease(GPU) as first:
            await machine.clock.sleep(2.0)
            machine.sensor.cards["a"].takes = machine.sensor.cards["b"].takes = math.inf
            await machine.clock.sleep(2.0)  # a question is under way
        await machine.clock.sleep(1.0)
        other = machine.pool.lease_nowait(GPU)  # the dispatcher goes on
        assert other is not None
        assert other.gpus != first.gpus
        await machine.clock.sleep(SETTLE_SECONDS)
        assert "the driver has not told" in (machine.withheld(first.gpus[0]) or "")
        machine.sensor.cards["a"].takes = machine.sensor.cards["b"].takes = 0.01
        async with machine.pool.lease(GPU) as again:
            assert again.gpus == first.gpus
    assert machine.news(first.gpus[0]) == [True, False]


@virtually
async def test_a_slow_card_delays_the_settling_of_another_by_its_reading_only() -> None:
    machine = Machine.of(2)
    async with machine.tended():
        async with machine.pool.lease(GPU):
            machine.sensor.cards["b"].takes = 4.0
            await machine.clock.sleep(30.0)
        released = machine.clock.monotonic()
        while machine.withheld("a"):
            await machine.clock.sleep(0.01)
        assert machine.clock.monotonic() - released <= 8.1
    assert machine.told == []


@virtually
async def test_runs_in_the_callers_process_keep_their_memory() -> None:
    machine = Machine.of(1, rules=Rules(judges_memory=False))
    machine.lag = math.inf
    async with machine.tended():
        async with machine.pool.lease(GPU):
            machine.sensor.cards["a"].own = 60 * GIB
            await machine.clock.sleep(5.0)
        async with machine.pool.lease(GPU):
            assert machine.clock.monotonic() < 6.0
    assert machine.told == []


# Neighbours


@virtually
async def test_a_busy_card_is_skipped_told_once_and_used_when_it_is_free(
    caplog: pytest.LogCaptureFixture,
) -> None:
    machine = Machine.of(2)
    machine.sensor.cards["a"].theirs = 12 * GIB
    with caplog.at_level(logging.INFO, logger="aiotune.devices"):
        async with machine.tended(), machine.pool.lease(GPU) as lease:
            assert lease.gpus == ("b",)
            for more in range(20):
                machine.sensor.cards["a"].theirs = (12 + more) * GIB
                await machine.clock.sleep(1.0)
            machine.sensor.cards["a"].theirs = 0
            freed = machine.clock.monotonic()
            async with machine.pool.lease(GPU) as second:
                assert second.gpus == ("a",)
                assert 0 <= machine.clock.monotonic() - freed - CALM_SECONDS <= 2.0
    assert machine.news("a") == [True, False]
    assert machine.news("b") == []
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert lines == [
        (
            "WARNING",
            "a is not used: 12 GiB of its memory are in use by another program (process 4711)",
        ),
        ("INFO", "a is used again"),
    ]


@virtually
async def test_with_busy_cards_in_use_a_neighbour_is_no_reason() -> None:
    machine = Machine.of(1, rules=Rules(skips_busy=False))
    machine.sensor.cards["a"].theirs = 40 * GIB
    async with machine.tended():
        await machine.run_for(5.0, used=20 * GIB)
        await machine.run_for(5.0, used=20 * GIB)
    assert machine.clock.monotonic() < 11.0
    assert machine.told == []


@virtually
async def test_a_neighbour_that_comes_during_a_run_does_not_end_it() -> None:
    machine = Machine.of(1)
    async with machine.tended():
        async with machine.pool.lease(GPU):
            machine.sensor.cards["a"].theirs = 30 * GIB
            await machine.clock.sleep(20.0)
            assert machine.withheld("a") is None
        await machine.clock.sleep(SETTLE_SECONDS + 1)
        assert machine.pool.lease_nowait(GPU) is None
        assert machine.news("a") == [True]
        machine.sensor.cards["a"].theirs = 0
        async with machine.pool.lease(GPU):
            pass
    assert machine.news("a") == [True, False]


@virtually
async def test_a_search_that_its_own_process_keeps_from_all_cards_ends_with_the_remedy() -> None:
    machine = Machine.of(2)
    for card in machine.sensor.cards.values():
        card.own = 70 * GIB
    with pytest.raises(DeviceError, match="this process itself holds 70 GiB"):
        await machine.live()
    assert machine.clock.monotonic() < 1.0


@virtually
async def test_its_own_memory_on_some_cards_or_for_runs_without_gpus_is_said_only() -> None:
    machine = Machine.of(2)
    machine.sensor.cards["a"].own = 70 * GIB
    async with machine.tended():
        async with machine.pool.lease(GPU) as lease:
            assert lease.gpus == ("b",)
        machine.sensor.cards["b"].own = 70 * GIB
        async with machine.pool.lease(Resources(gpus=0, cpus=1)):
            await machine.clock.sleep(30.0)
    assert machine.news("a") == [True]
    assert machine.news("b") == [True]


# Faults


@virtually
async def test_a_card_that_vanishes_is_used_again_when_it_is_back() -> None:
    machine = Machine.of(2)
    async with machine.tended():
        await machine.clock.sleep(1.0)
        machine.sensor.cards["a"].is_there = False
        await machine.clock.sleep(100.0)
        async with machine.pool.lease(GPU) as lease:
            assert lease.gpus == ("b",)
            machine.sensor.cards["a"].is_there = True
            back = machine.clock.monotonic()
            async with machine.pool.lease(GPU) as second:
                assert second.gpus == ("a",)
                assert machine.clock.monotonic() - back <= CLEAN_SECONDS + 2
    assert machine.news("a") == [True, False]


@virtually
async def test_an_event_of_the_driver_is_a_fault() -> None:
    machine = Machine.of(2)
    async with machine.tended():
        await machine.clock.sleep(1.0)
        machine.sensor.events = {"a": "Xid 48: memory error", "unknown": "Xid 79"}
        await machine.clock.sleep(2.0)
        assert machine.withheld("a") == "Xid 48: memory error"
        await machine.clock.sleep(CLEAN_SECONDS)
        assert machine.withheld("a") is None
    assert machine.news("a") == [True, False]


@virtually
async def test_a_card_on_which_runs_fail_is_kept_before_its_lease_is_released() -> None:
    machine = Machine.of(2)
    async with machine.tended():
        good = machine.pool.lease(Resources(gpus=1, cpus=1))
        async with good as lease:
            machine.pool.report(lease, failed=False)
            fine, other = lease.gpus[0], "b" if lease.gpus == ("a",) else "a"
            for number in range(FEW_FAILURES):
                async with machine.pool.lease(GPU) as bad:
                    assert bad.gpus == (other,)
                    machine.pool.report(bad, failed=True)
                    machine.pool.report(lease, failed=False)
                    is_kept = machine.withheld(other) is not None
                    assert is_kept is (number == FEW_FAILURES - 1)
            since = machine.clock.monotonic()
            async with machine.pool.lease(GPU) as bad:
                assert bad.gpus == (other,)
                assert machine.clock.monotonic() - since == pytest.approx(BENCH_SECONDS, abs=2)
    assert machine.news(other) == [True, False]
    assert machine.news(fine) == []


# Other processes


@virtually
async def test_a_card_of_another_process_is_looked_at_without_the_driver() -> None:
    machine = Machine.of(1)
    machine.ledger.locks = locks = FakeLocks()
    async with machine.tended():
        await machine.clock.sleep(1.0)
        locks.others["a"] = "process 12 of project x"
        machine.sensor.cards["a"].theirs = 40 * GIB
        assert machine.pool.lease_nowait(GPU) is None
        assert machine.withheld("a") == f"{HELD}: process 12 of project x"
        await machine.clock.sleep(1.0)
        reads, looks = machine.sensor.reads["a"], locks.looks["a"]
        await machine.clock.sleep(10.0)
        assert machine.sensor.reads["a"] == reads
        assert 190 <= locks.looks["a"] - looks <= 210
        machine.sensor.cards["a"].theirs = 0
        del locks.others["a"]
        freed = machine.clock.monotonic()
        async with machine.pool.lease(GPU):
            assert machine.clock.monotonic() - freed < 0.1
            assert locks.taken == {"a"}
    assert machine.told == []


@virtually
async def test_memory_of_the_process_that_has_the_lock_is_no_fault_of_ours() -> None:
    machine = Machine.of(1)
    machine.ledger.locks = locks = FakeLocks()
    async with machine.tended():
        await machine.run_for(1.0)
        await machine.clock.sleep(1.0)
        locks.others["a"] = "process 12"
        machine.sensor.cards["a"].theirs = 40 * GIB
        await machine.clock.sleep(60.0)
        assert machine.withheld("a") == f"{HELD}: process 12"
        locks.others.clear()
        machine.sensor.cards["a"].theirs = 0
        await machine.clock.sleep(0.2)
        assert machine.withheld("a") is None
    assert machine.told == []


@virtually
async def test_with_a_slow_driver_a_card_is_taken_in_the_moment_that_others_leave_for_it() -> None:
    machine = Machine.of(1)
    machine.ledger.locks = locks = FakeLocks()
    machine.sensor.cards["a"].takes = 1.0
    async with machine.tended():
        await machine.clock.sleep(3.0)
        locks.others["a"] = "process 12"
        assert machine.pool.lease_nowait(GPU) is None
        await machine.clock.sleep(5.0)
        locks.others.clear()
        freed = machine.clock.monotonic()
        async with machine.pool.lease(GPU):
            assert machine.clock.monotonic() - freed < 0.1


# Shared cards


@virtually
async def test_memory_of_others_on_a_shared_card_is_missing_to_further_runs() -> None:
    machine = Machine.of(1)
    half = Resources(gpus=0.5, gpu_memory="30GiB", cpus=1)
    async with machine.tended(), machine.pool.lease(half):
        machine.sensor.cards["a"].ours = 30 * GIB
        machine.sensor.cards["a"].theirs = 40 * GIB
        await machine.clock.sleep(2.0)
        assert machine.pool.lease_nowait(half) is None
        machine.sensor.cards["a"].theirs = 0
        async with machine.pool.lease(half) as second:
            assert second.gpus == ("a",)


@virtually
async def test_a_shared_card_settles_after_its_last_run() -> None:
    machine = Machine.of(1)
    machine.lag = 1.0
    half = Resources(gpus=0.5, gpu_memory="30GiB", cpus=1)
    async with machine.tended():
        async with machine.pool.lease(half) as first:
            async with machine.pool.lease(half) as second:
                with machine.running(second, 30 * GIB):
                    await machine.clock.sleep(1.0)
            assert machine.withheld("a") is None
            with machine.running(first, 30 * GIB):
                await machine.clock.sleep(1.0)
        assert machine.withheld("a") == SETTLING
        async with machine.pool.lease(GPU):
            assert machine.sensor.cards["a"].ours == 0


HALF = Resources(gpus="shared", gpu_memory="39GiB", cpus=1)
QUARTER = Resources(gpus="shared", gpu_memory="19GiB", cpus=1)


@virtually
async def test_a_busy_processor_is_not_shared_further_until_it_has_time_to_spare(
    caplog: pytest.LogCaptureFixture,
) -> None:
    machine = Machine.of(1)
    card = machine.sensor.cards["a"]
    async with machine.tended(), machine.pool.lease(QUARTER):
        card.utilisation = 1.0
        await machine.clock.sleep(1.5)  # a long step
        async with machine.pool.lease(QUARTER):
            await machine.clock.sleep(10.0)
            assert machine.pool.lease_nowait(QUARTER) is None
            assert machine.withheld("a") == f"{LOADED} to 100 %: no further run shares it"
            assert machine.pool.why(QUARTER) == f"a: {machine.withheld('a')}"
            assert machine.pool.why(GPU) == "a: shared by 2 runs"
            async with machine.pool.lease(Resources(gpus=0.5, cpus=1)):
                pass  # how many they are is what the user has said
            card.utilisation = 0.8
            async with machine.pool.lease(QUARTER):
                assert machine.clock.monotonic() < 14.0
    assert machine.told == []
    assert caplog.messages == []


@virtually
async def test_a_busy_card_settles_after_its_last_run_and_is_shared_again() -> None:
    machine = Machine.of(1)
    machine.ledger.locks = locks = FakeLocks()
    machine.lag = 1.0
    card = machine.sensor.cards["a"]
    card.utilisation = 1.0
    async with machine.tended():
        async with machine.pool.lease(HALF) as lease:
            with machine.running(lease, 30 * GIB):
                await machine.clock.sleep(10.0)
                assert machine.pool.lease_nowait(HALF) is None
        assert machine.withheld("a") == SETTLING
        assert locks.taken == {"a"}  # not for others either, until its memory is back
        async with machine.pool.lease(HALF), machine.pool.lease(HALF):
            assert card.ours == 0
            assert machine.clock.monotonic() < 13.0
    assert machine.told == []


@virtually
async def test_a_release_while_the_watch_restores_a_card_has_it_settle_all_the_same() -> None:
    class Late(Ledger):
        lease: Lease | None = None
        seen: str | None = None

        def restore(self, uuid: str, reason: str | None = None) -> None:
            if self.lease is not None:
                self.lease.release()
                super().restore(uuid, reason)
                self.lease, self.seen = None, self.withheld.get(uuid)
            else:
                super().restore(uuid, reason)

    ledger = Late()
    machine = Machine.of(1, ledger=ledger)
    card = machine.sensor.cards["a"]
    async with machine.tended():
        async with machine.pool.lease(HALF) as lease:
            card.utilisation = 1.0
            await machine.clock.sleep(5.0)
            ledger.lease, card.utilisation = lease, 0.5
            await machine.clock.sleep(2.0)
        assert ledger.seen == SETTLING
        async with machine.pool.lease(GPU):
            pass


@virtually
async def test_who_waits_for_a_whole_card_gets_a_busy_one_when_its_runs_have_ended() -> None:
    machine = Machine.of(1)
    card = machine.sensor.cards["a"]
    order: list[str] = []

    async def lease(name: str, resources: Resources, seconds: float) -> None:
        async with machine.pool.lease(resources):
            order.append(name)
            await machine.clock.sleep(seconds)

    async with machine.tended(), anyio.create_task_group() as tasks:
        tasks.start_soon(lease, "part", QUARTER, 20.0)
        await machine.clock.sleep(1.0)
        card.utilisation = 1.0
        tasks.start_soon(lease, "whole", GPU, 5.0)
        for _ in range(100):  # more than may pass it
            tasks.start_soon(lease, "small", QUARTER, 3.0)
        await machine.clock.sleep(10.0)
        before = len(order)
        await machine.clock.sleep(5.0)
        assert len(order) == before  # whoever has joined before it was found busy has ended
        card.utilisation = 0.5
    whole = order.index("whole")
    assert before < whole < 101
    assert len(order) == 102


# Several searches


@virtually
async def test_two_searches_watch_the_same_cards() -> None:
    first = Machine.of(2)
    second = Machine.of(2, ledger=first.ledger, sensor=first.sensor)
    async with first.tended():
        async with second.tended():
            first.sensor.cards["a"].theirs = 40 * GIB
            await first.clock.sleep(2.0)
            assert first.news("a") == second.news("a") == [True]
            await second.run_for(3.0)
        first.sensor.cards["a"].theirs = 0
        await first.clock.sleep(CALM_SECONDS + 2)
        assert first.news("a") == [True, False]
        assert second.news("a") == [True]
        leases = [first.pool.lease_nowait(GPU) for _ in range(2)]
        assert all(leases)
        for lease in leases:
            assert lease is not None
            lease.release()


@virtually
async def test_a_search_that_uses_busy_cards_defers_to_one_that_does_not() -> None:
    strict = Machine.of(1)
    lax = Machine.of(1, ledger=strict.ledger, sensor=strict.sensor, rules=Rules(skips_busy=False))
    strict.sensor.cards["a"].theirs = 40 * GIB
    async with lax.tended():
        async with strict.tended():
            await lax.clock.sleep(5.0)
            assert lax.pool.lease_nowait(GPU) is None
        async with lax.pool.lease(GPU):
            assert lax.clock.monotonic() <= 7.0


# What the watch tells


@virtually
async def test_an_error_of_who_is_told_ends_the_watch() -> None:
    machine = Machine.of(1)
    machine.sensor.cards["a"].fault = "lost"

    async def tell(uuid: str, reason: str | None) -> None:
        raise StoreError("the disk is full")

    with pytest.raises(StoreError, match="the disk is full"):
        async with beside(lambda: machine.pool.tend(tell)):
            await asyncio.sleep(60.0)
    assert machine.clock.monotonic() < 1.0
    assert machine.ledger.withheld == {}


@virtually
async def test_readings_go_to_the_meter() -> None:
    noted: list[tuple[str, float, int | None, int]] = []

    class Meter:
        def note(self, uuid: str, at: float, reading: Reading, leases: int) -> None:
            noted.append((uuid, at, reading.used_bytes, leases))

    machine = Machine.of(1, meter=Meter())
    async with machine.tended():
        await machine.run_for(5.0)
        await machine.clock.sleep(2.0)
    assert next(each for each in noted if each[3] == 0)[:3] == ("a", pytest.approx(0.001), 0)
    during = [used for _, _, used, leases in noted if leases == 1]
    assert len(during) == pytest.approx(5, abs=1)
    assert set(during) == {60 * GIB}


@virtually
async def test_after_the_watch_late_news_are_ignored() -> None:
    machine = Machine.of(1)
    machine.sensor.cards["a"].takes = 5.0
    async with machine.tended():
        await machine.clock.sleep(1.0)
    await machine.clock.sleep(10.0)  # the answer comes
    lease = machine.pool.lease_nowait(GPU)
    assert lease is not None
    machine.pool.report(lease, failed=True)
    lease.release()
    assert machine.ledger.withheld == {}


# Whole lives


@pytest.mark.parametrize("seed", range(8))
@virtually
async def test_in_any_life_no_unfit_card_is_leased_and_in_the_end_all_are(seed: int) -> None:
    machine = Machine.of(3)
    machine.ledger.locks = locks = FakeLocks()
    story = _Story(machine, locks, Random(seed))
    async with machine.tended():
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(story.lease_again_and_again)
            for uuid in machine.sensor.cards:
                tasks.start_soon(story.trouble, uuid)
        story.heal()
        with anyio.fail_after(BENCH_SECONDS + LONGEST_CLEAN_SECONDS + 60):
            async with machine.pool.lease(Resources(gpus=3, cpus=1)) as lease:
                assert set(lease.gpus) == {"a", "b", "c"}
    assert story.leases > 10
    assert locks.taken == set()


class _Story:
    """Tenants and troubles for some virtual minutes. Every lease is checked."""

    def __init__(self, machine: Machine, locks: FakeLocks, rng: Random) -> None:
        self.leases = 0
        self._machine = machine
        self._locks = locks
        self._rng = rng
        self._end = machine.clock.monotonic() + 200.0
        self._come: dict[str, float] = {}  # neighbours: when

    @property
    def _is_over(self) -> bool:
        return self._machine.clock.monotonic() >= self._end

    async def lease_again_and_again(self) -> None:
        machine, rng = self._machine, self._rng
        while not self._is_over:
            with anyio.move_on_after(self._end - machine.clock.monotonic()):
                size = rng.choice([1, 1, 1, 2])
                async with machine.pool.lease(Resources(gpus=size, cpus=1)) as lease:
                    self._check(lease.gpus)
                    self.leases += 1
                    machine.lag = rng.choice([0.0, 0.05, 1.0, 15.0])
                    with machine.running(lease):
                        await machine.clock.sleep(rng.choice([0.0, 0.3, 2.0, 20.0]))
                        machine.pool.report(lease, failed=rng.random() < 0.2)
            await machine.clock.sleep(rng.random())

    def _check(self, uuids: Iterable[str]) -> None:
        """Nothing speaks against the cards of a new lease, as far as a watch can know."""
        now = self._machine.clock.monotonic()
        for uuid in uuids:
            assert self._machine.withheld(uuid) is None
            assert self._machine.ledger.lease_count(uuid) == 1
            card = self._machine.sensor.cards[uuid]
            assert card.ours == 0, "the memory of the run before is not back"
            since = self._come.get(uuid)
            is_known = since is not None and now - since > 1.5 and card.takes < 1.0
            assert not is_known or uuid in self._locks.others, "a neighbour is there"

    async def trouble(self, uuid: str) -> None:
        machine, rng = self._machine, self._rng
        card = machine.sensor.cards[uuid]
        while not self._is_over:
            await machine.clock.sleep(rng.uniform(0.5, 60.0))
            match rng.randrange(5):
                case 0:
                    card.theirs, self._come[uuid] = 40 * GIB, machine.clock.monotonic()
                    await machine.clock.sleep(rng.uniform(0.1, 30.0))
                    card.theirs = 0
                    del self._come[uuid]
                case 1:
                    card.fault = "lost"
                    await machine.clock.sleep(rng.uniform(0.1, 10.0))
                    card.fault = None
                case 2:
                    machine.sensor.events[uuid] = "Xid 48"
                case 3:
                    card.takes = rng.choice([0.2, 4.0, math.inf])
                    await machine.clock.sleep(rng.uniform(0.1, 25.0))
                    card.takes = 0.001
                case _:
                    if uuid not in self._locks.taken:
                        self._locks.others[uuid] = "process 12"
                        await machine.clock.sleep(rng.uniform(0.1, 10.0))
                        del self._locks.others[uuid]

    def heal(self) -> None:
        self._locks.others.clear()
        for card in self._machine.sensor.cards.values():
            card.theirs, card.fault, card.takes = 0, None, 0.001


# Searches


def search_on(
    machine: Machine, executor: FakeExecutor, root: Path, **options: Any
) -> SearchOfFakes:
    return SearchOfFakes(
        RandomSearchOracle(objective=Objective("score", "min"), max_trials=4, seed=1),
        executor,
        root,
        slots=2,
        devices=machine.pool.devices,
        ledger=machine.ledger,
        **{"watch": machine.watch} | options,
    )


async def finish(script: Script) -> AsyncIterator[RunEvent]:
    yield Finished({"score": 0.0}, 0)


async def test_a_search_records_which_cards_it_does_not_use_and_why(tmp_path: Path) -> None:
    machine = Machine.of(2)
    machine.sensor.cards["a"].theirs = 40 * GIB
    search = search_on(machine, FakeExecutor(finish), tmp_path)
    assert (await search.run()).reason is EndReason.MAX_TRIALS
    [changed] = [fact for fact in search.store.facts if isinstance(fact, DeviceChanged)]
    assert changed.device == "a"
    assert changed.reason is not None
    assert "40 GiB" in changed.reason
    started = [fact.devices for fact in search.store.facts if isinstance(fact, RunStarted)]
    assert started == [("b",)] * 4
    assert machine.ledger.withheld == {}


async def test_a_search_whose_process_holds_all_cards_ends_with_the_remedy(tmp_path: Path) -> None:
    machine = Machine.of(2)
    for card in machine.sensor.cards.values():
        card.own = 70 * GIB
    search = search_on(machine, FakeExecutor(finish), tmp_path)
    with pytest.raises(DeviceError, match="restart the kernel"):
        await search.run()
    assert search.history.ended is not None
    assert search.history.ended.reason is EndReason.FAILED


class _Reports:
    """A watch that watches nothing."""

    def __init__(self) -> None:
        self.reports: list[bool] = []

    async def run(self, tell: Tell) -> None:
        await asyncio.sleep(math.inf)

    def report(self, lease: Lease, *, failed: bool) -> None:
        self.reports.append(failed)


CRASH = Failed(FailureKind.CRASH, "SIGSEGV")
OUT_OF_MEMORY = Failed(FailureKind.OUT_OF_MEMORY, "out of memory")


@pytest.mark.parametrize(
    ("ends", "resources", "expected"),
    [
        ([Finished({"score": 0.0}, 0)], Resources(), [False]),
        ([CRASH, Finished({"score": 0.0}, 0)], Resources(), [True, False]),
        ([CRASH, CRASH, CRASH], Resources(), [True]),  # retries of the same point
        ([OUT_OF_MEMORY] * 3, Resources(), [True]),
        ([OUT_OF_MEMORY, Finished({"score": 0.0}, 0)], Resources(gpus=0.5), [False]),
        ([OUT_OF_MEMORY] * 4, Resources(gpus=0.5), [True]),  # the second one was alone
        ([Failed(FailureKind.USER_ERROR, "ValueError: x")] * 3, Resources(), []),
        ([Failed(FailureKind.NAN, "nan")] * 3, Resources(), []),
        ([replace(CRASH, is_lost=True), Finished({"score": 0.0}, 0)], Resources(), [False]),
    ],
)
async def test_which_ends_of_runs_say_something_of_the_card(
    tmp_path: Path, ends: list[RunEvent], resources: Resources, expected: list[bool]
) -> None:
    machine, watch, left = Machine.of(1), _Reports(), list(ends)

    async def play(script: Script) -> AsyncIterator[RunEvent]:
        yield left.pop(0)

    search = search_on(
        machine,
        FakeExecutor(play),
        tmp_path,
        watch=watch,
        resources=resources,
        policy=Policy(retries=2),
    )
    search.oracle.max_trials = 1
    await search.run()
    assert watch.reports == expected


# Threads


async def test_releases_and_reports_come_from_any_thread() -> None:
    machine = Machine.of(1, clock=SystemClock())
    async with machine.tended():
        for _ in range(5):
            with anyio.fail_after(30):
                async with machine.pool.lease(GPU) as lease:
                    machine.sensor.reads.clear()
                    machine.sensor.cards["a"].ours = GIB
                    await asyncio.to_thread(machine.pool.report, lease, failed=False)
                    await asyncio.to_thread(lease.release)
                    assert machine.pool.lease_nowait(GPU) is None
        async with machine.pool.lease(GPU):
            assert machine.sensor.reads["a"] >= 1
    assert machine.told == []


class _Slow:
    """A sensor that hangs until told."""

    def __init__(self) -> None:
        self.asked, self.may_go, self.closed = (threading.Event() for _ in range(3))

    def open(self) -> None: ...

    def close(self) -> None:
        self.closed.set()

    def read(self, uuids: Iterable[str]) -> dict[str, Reading]:
        self.asked.set()
        self.may_go.wait(30)
        return {uuid: Reading() for uuid in uuids}

    def faults(self, timeout: float) -> dict[str, str]:
        return {}


async def test_a_watch_that_is_cancelled_does_not_wait_for_a_reading_under_way() -> None:
    sensor, ledger = _Slow(), Ledger()
    watch = Watch(["a"], ledger, sensor, clock=SystemClock())

    async def tell(uuid: str, reason: str | None) -> None: ...

    async with beside(lambda: watch.run(tell)):
        assert await asyncio.to_thread(sensor.asked.wait, 30)
        assert "a" in ledger.withheld
    assert ledger.withheld == {}
    assert not sensor.closed.is_set()
    sensor.may_go.set()
    assert await asyncio.to_thread(sensor.closed.wait, 30)
    await asyncio.sleep(0)


def answer_of(sensor: object) -> Answer:
    answers: list[Answer] = []
    is_there = threading.Event()

    def tell(answer: Answer) -> None:
        answers.append(answer)
        is_there.set()

    thread = SensorThread(sensor)  # type: ignore[arg-type]
    thread.ask(["a", "b"], tell)
    thread.close()
    assert is_there.wait(30)
    return answers[0]


def test_a_sensor_that_raises_is_a_fault_of_its_cards(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(_Slow):
        def read(self, uuids: Iterable[str]) -> dict[str, Reading]:
            raise ZeroDivisionError("a defect")

    answer = answer_of(Broken())
    assert {uuid: each.fault for uuid, each in answer.readings.items()} == dict.fromkeys(
        "ab", "it cannot be read: ZeroDivisionError: a defect"
    )
    assert "GPUs cannot be read" in caplog.text


def test_a_card_that_the_sensor_leaves_out_is_at_fault() -> None:
    class Forgetful(_Slow):
        def read(self, uuids: Iterable[str]) -> dict[str, Reading]:
            return {"a": Reading()}

    readings = answer_of(Forgetful()).readings
    assert readings["a"].fault is None
    assert readings["b"].fault == "the driver does not tell of it"
