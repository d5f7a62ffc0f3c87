"""Processes that share cards: no card is in two leases, both progress, and a lock ends with its last user."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from aiotune.devices.ledger import Ledger
from aiotune.devices.locks import CardLocks
from aiotune.devices.pool import DevicePool
from aiotune.events import EndReason
from aiotune.executors.base import Assignment, Finished
from aiotune.executors.payload import Payload
from aiotune.executors.process import ProcessExecutor
from aiotune.executors.world import World
from aiotune.objective import Objective
from aiotune.oracles.random_search import RandomSearchOracle
from aiotune.resources import Resources
from tests.contracts.executor_contract import next_observed
from tests.support.card_sharing import CARDS, searching, with_family
from tests.support.fake_executor import FakeExecution, FakeExecutor, declaring
from tests.support.leasing import gpus, take
from tests.support.processes import all_gone
from tests.support.programs import line_of, program
from tests.support.runs import assign, collect, ending
from tests.support.searches import SearchOfFakes
from tests.support.virtual_clock import VirtualClock

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")

RUN = """
import asyncio, sys
from pathlib import Path
from tests.support import card_sharing
function, *words = sys.argv[1:]
arguments = (int(word) if word.isdecimal() else Path(word) for word in words)
asyncio.run(getattr(card_sharing, function)(*arguments))
"""


def sharer(function: str, *arguments: object) -> Any:
    """Run a function of `card_sharing` in a process of its own."""
    return program(RUN, function, *arguments)


@pytest.fixture
def locks(tmp_path: Path) -> Path:
    return tmp_path / "locks"


# --- leases of two processes ---

LEASES = 500  # of each


def send_line(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_two_processes_share_cards(tmp_path: Path, locks: Path) -> None:
    diaries = [tmp_path / "one", tmp_path / "two"]
    with ExitStack() as stack:
        both = [
            stack.enter_context(sharer("lease_often", locks, diary, LEASES, seed))
            for seed, diary in enumerate(diaries)
        ]
        for process in both:
            assert line_of(process) == "ready"
        for process in both:
            send_line(process)
        assert [process.wait() for process in both] == [0, 0]
    leases = sorted(
        (since, until, who, cards)
        for who, diary in enumerate(diaries)
        for since, until, cards in map(json.loads, diary.read_text().splitlines())
    )
    assert len(leases) == 2 * LEASES
    for card in CARDS:
        holders = [lease for lease in leases if card in lease[3]]
        assert len(holders) > LEASES / 4
        for before, after in pairwise(holders):
            assert before[1] <= after[0], f"{card} was in two leases: {before} and {after}"
    progress = Counter(who for _, _, who, _ in leases[:LEASES])  # while both were at it
    assert min(progress.values()) > LEASES / 10
    assert len(progress) == 2


def test_cards_of_a_killed_process_are_the_other_ones(tmp_path: Path, locks: Path) -> None:
    with sharer("hold_all", locks) as holder:
        assert line_of(holder) == "held"
        with sharer("take_all", locks) as other:
            (card, reason), *_ = json.loads(line_of(other)).items()
            assert card in CARDS
            assert f"process {holder.pid} " in reason
            holder.kill()
            assert json.loads(line_of(other)) == list(CARDS)
            assert other.wait() == 0


# --- a lock ends with the run ---


@contextmanager
def halted(*processes: psutil.Process) -> Iterator[None]:
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


def test_lock_outlives_a_killed_caller_and_ends_with_its_run(tmp_path: Path, locks: Path) -> None:
    mine = CardLocks(locks)
    with sharer("hold_with_a_run", locks, tmp_path) as caller:
        told = json.loads(line_of(caller))
        run, server = psutil.Process(int(told["pid"])), psutil.Process(int(told["server"]))
        guardian = server.parent()
        assert guardian is not None
        with halted(guardian, server):  # they would kill the run
            caller.kill()
            caller.wait()
            assert [mine.take(card) for card in CARDS] == [None] * 4
            assert f"a run of process {caller.pid} " in str(mine.holder("a"))
            assert run.is_running()
        assert all_gone([guardian, server, run], seconds=10)
        assert None not in [mine.take(card) for card in CARDS]


@asynccontextmanager
async def executing(
    program: Any, method: Any = "fork", **variables: str
) -> AsyncIterator[ProcessExecutor]:
    world = World.current({**os.environ, **variables})
    with Payload.create(program) as payload:
        async with ProcessExecutor(payload, start_method=method, world=world) as executor:
            yield executor


def open_files(pid: float) -> list[str]:
    """Return the names of the files that a process has open."""
    folder = Path(f"/proc/{int(pid)}/fd")
    return [Path(os.readlink(each)).name for each in folder.iterdir()]


@pytest.mark.parametrize("method", ["fork", "spawn"])
async def test_only_the_run_and_its_forks_hold_its_cards(
    tmp_path: Path, locks: Path, method: str
) -> None:
    mine, others = CardLocks(locks), CardLocks(locks)
    guards = [mine.take(card) for card in "ab"]
    async with executing(with_family, method, KERAS_TEST="held") as executor:
        execution = await executor.start(assign(tmp_path), held=[each for each in guards if each])
        async with aclosing(execution.events()) as events:
            pids = (await next_observed(events)).metrics
            for card in "ab":
                mine.drop(card)
            # A run beside it, and who comes between, have nothing of it.
            beside = await executor.start(assign(tmp_path, number=1))
            async with aclosing(beside.events()) as its_events:
                other_pids = (await next_observed(its_events)).metrics
                for who in ("pid", "forked"):
                    assert {"a.lock", "b.lock"} < set(open_files(pids[who]))
                for pid in (pids["executed"], pids["server"], *other_pids.values()):
                    assert not {"a.lock", "b.lock"} & set(open_files(pid))
            assert [others.take(card) for card in "ab"] == [None, None]
        assert None not in [others.take(card) for card in "ab"]


async def test_search_inside_of_a_run_has_the_cards_of_the_run(tmp_path: Path, locks: Path) -> None:
    around = CardLocks(locks)
    guards = [around.take(card) for card in "abc"]
    async with executing(searching, AIOTUNE_LOCK_DIR=str(locks)) as executor:
        execution = await executor.start(
            assign(tmp_path, gpus=("a", "b")), held=[each for each in guards[:2] if each]
        )
        last = ending(await collect(execution))
    assert last == Finished({"a": 1.0, "b": 1.0, "c": 0.0, "d": 1.0})


# --- the way from the lease to the run ---


class Old(FakeExecutor):
    """An executor of the user's own, written before there were locks."""

    async def start(self, assignment: Assignment) -> FakeExecution:  # type: ignore[override]
        return await super().start(assignment)


class Wide(FakeExecutor):
    """One that passes on what it is given."""

    async def start(self, *arguments: Any, **options: Any) -> FakeExecution:
        return await super().start(*arguments, **options)


def scoring() -> Any:
    return declaring(lambda hp: hp.Float("x", 0.0, 1.0), lambda values: float(str(values["x"])))


@pytest.mark.parametrize(("kind", "numbers"), [(FakeExecutor, {1}), (Wide, {1}), (Old, {0})])
async def test_runs_of_a_search_are_given_the_locks_of_their_cards(
    tmp_path: Path, locks: Path, kind: type[FakeExecutor], numbers: set[int]
) -> None:
    ledger = Ledger()
    ledger.locks = CardLocks(locks)
    executor = kind(scoring())
    oracle = RandomSearchOracle(objective=Objective("score", "max"), max_trials=4)
    search = SearchOfFakes(
        oracle, executor, tmp_path, slots=2, ledger=ledger, devices=gpus(8, 8), cores=4
    )
    assert (await search.run()).reason is EndReason.MAX_TRIALS
    assert len(executor.assignments) == 4
    assert {len(held) for held in executor.held} == numbers
    assert search.pool.free == search.pool.total
    others = CardLocks(locks)
    assert None not in [others.take(card) for card in "ab"]


# --- one ledger ---


def card_sharers(directory: Path, clock: VirtualClock) -> tuple[DevicePool, CardLocks]:
    """Return a pool of one card, and another process's locks."""
    ledger = Ledger()
    ledger.locks = CardLocks(directory, clock=clock, tenure_seconds=600.0)
    pool = DevicePool(gpus(8), cores=range(8), slots=8, ledger=ledger)
    return pool, CardLocks(directory, clock=clock)


QUARTER = Resources(gpus=0.25, cpus=1)


def test_runs_that_share_a_card_hold_one_lock(locks: Path) -> None:
    pool, other = card_sharers(locks, VirtualClock())
    one, two = take(pool, QUARTER), take(pool, QUARTER)
    assert one.guards == two.guards
    one.release()
    assert other.take("a") is None
    two.release()
    assert other.take("a") is not None


@pytest.mark.parametrize("is_patient", [True, False])
def test_shared_card_is_emptied_for_another_process_after_a_while(
    locks: Path, is_patient: bool
) -> None:
    clock = VirtualClock()
    pool, other = card_sharers(locks, clock)
    leases = [take(pool, QUARTER)]
    assert other.take("a") is None
    clock.advance(599.0)
    leases.append(take(pool, QUARTER))
    clock.advance(1.0)
    if is_patient:
        assert pool.lease_nowait(QUARTER) is None
        for lease in leases:
            lease.release()
        assert pool.lease_nowait(QUARTER) is None
        assert other.take("a") is not None
    else:
        other.leave("a")
        leases.append(take(pool, QUARTER))


def test_locks_of_leases_that_go_with_their_pool_are_dropped(locks: Path) -> None:
    pool, other = card_sharers(locks, VirtualClock())
    take(pool)
    assert other.take("a") is None
    del pool
    gc.collect()
    assert other.take("a") is not None


def test_card_is_locked_until_its_memory_is_back(locks: Path) -> None:
    ledger, other = Ledger(), CardLocks(locks)
    ledger.locks = CardLocks(locks)
    pool = DevicePool(gpus(8, 8), cores=range(4), slots=2, ledger=ledger)
    vacated: list[str] = []
    leave = ledger.tend("ab", vacated.append)
    for lease in (take(pool), take(pool)):
        lease.release()
    assert vacated == ["a", "b"]
    assert [other.take(uuid) for uuid in "ab"] == [None, None]
    ledger.restore("a")
    assert other.take("a") is not None
    ledger.withhold("b", "it is broken")  # of which others may think what they like
    assert other.take("b") is not None
    leave()


def test_nothing_stays_locked_when_the_watch_ends(locks: Path) -> None:
    ledger, other = Ledger(), CardLocks(locks)
    ledger.locks = CardLocks(locks)
    pool = DevicePool(gpus(8, 8), cores=range(4), slots=2, ledger=ledger)
    leave = ledger.tend("ab", lambda uuid: None)
    kept, released = take(pool), take(pool)
    released.release()
    leave()
    assert [other.take(uuid) is not None for uuid in "ab"] == [False, True]
    kept.release()
    assert other.take("a") is not None


def test_several_cards_are_locked_all_or_none(locks: Path) -> None:
    ledger, other = Ledger(), CardLocks(locks)
    ledger.locks = CardLocks(locks)
    pool = DevicePool(gpus(8, 8, 8), cores=range(4), slots=2, ledger=ledger)
    assert other.take("b") is not None
    lease = take(pool, Resources(gpus=2, cpus=1))
    assert lease.gpus == ("a", "c")
    assert len(lease.guards) == 2
    lease.release()
    assert pool.lease_nowait(Resources(gpus=3, cpus=1)) is None
    assert [other.take(uuid) is not None for uuid in "ac"] == [True, True]
