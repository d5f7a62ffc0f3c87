"""An oracle whose thread does not return, over fakes and a virtual clock."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest

from aiotune.asking import Asked, Asker
from aiotune.errors import FatalRuntimeError
from aiotune.events import EndReason, SearchEnded
from aiotune.executors.base import Observed, RunEvent
from aiotune.history import History
from aiotune.oracles.base import Answer, Oracle, Suggest, Verdict
from aiotune.resources import Limits
from aiotune.trial import Observation, Trial
from tests.support.fake_executor import FakeExecutor, Script, hanging
from tests.support.searches import SearchOfFakes, all_wait
from tests.support.virtual_clock import VirtualClock
from tests.test_scheduler import SCORE, random_oracle, states
from tests.test_stall import finishing

PATIENCE_SECONDS = 10


class Hung(Oracle):
    """It answers once; then it waits for the gate, in its thread."""

    asks_in_thread = True

    def __init__(self) -> None:
        super().__init__(objective=SCORE, max_trials=4, seed=1)
        self.gate = threading.Event()
        self.is_in = threading.Event()
        self.calls: list[str] = []

    def ask(self, history: History, number: int) -> Answer:
        if number > 0:
            self.is_in.set()
            self.gate.wait()
        return Suggest({}, number)

    def judge(self, trial: Trial, observation: Observation) -> Verdict:
        self.calls.append("judge")
        return Verdict.CONTINUE

    def tell(self, trial: Trial) -> None:
        self.calls.append("tell")


@pytest.fixture
def oracle() -> Iterator[Hung]:
    hung = Hung()
    yield hung
    hung.gate.set()
    for thread in threading.enumerate():
        if thread.name == "aiotune-oracle":
            thread.join()


async def wait_in(oracle: Hung) -> None:
    while not oracle.is_in.is_set():
        await anyio.lowlevel.checkpoint()
    await all_wait()


async def test_a_cancellation_waits_for_it_for_a_while_only(tmp_path: Path, oracle: Hung) -> None:
    executor = FakeExecutor(hanging)
    search = SearchOfFakes(oracle, executor, tmp_path, slots=2)
    running = asyncio.create_task(search.run())
    await wait_in(oracle)
    running.cancel()
    await search.clock.wait_sleeping()
    assert not running.done()
    search.clock.advance(PATIENCE_SECONDS)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert executor.running == []
    assert search.pool.free == search.pool.total
    resumed = search.again(random_oracle(), executor=FakeExecutor(finishing))
    await resumed.run()
    assert states(resumed.history) == ["COMPLETED"] * 4


@pytest.mark.parametrize("is_request", [True, False])
async def test_a_stop_does_not_wait_for_it_for_ever(
    tmp_path: Path,
    oracle: Hung,
    is_request: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def play(script: Script) -> AsyncIterator[RunEvent]:
        await wait_in(oracle)
        yield Observed(0, {"score": 1.0})
        async for event in hanging(script):
            yield event

    search = SearchOfFakes(
        oracle, FakeExecutor(play), tmp_path, slots=2, limits=Limits(max_time=60)
    )
    ends: list[SearchEnded] = []

    async def run() -> None:
        ends.append(await search.run())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await wait_in(oracle)
        while not search.history.trials or not search.history.numbered(0).runs:
            await anyio.lowlevel.checkpoint()
        await all_wait()
        if is_request:
            search.scheduler.request_stop()
        else:
            search.clock.advance(60)
        await all_wait()
        assert not ends
        search.clock.advance(PATIENCE_SECONDS)
    assert ends[0].reason is (EndReason.STOPPED if is_request else EndReason.TIME)
    assert oracle.calls == []  # nobody else calls it while a thread is in it
    assert "Hung.ask() has not returned for 10 s" in caplog.text


async def test_an_answer_that_comes_in_time_is_waited_for(
    tmp_path: Path, oracle: Hung, caplog: pytest.LogCaptureFixture
) -> None:
    search = SearchOfFakes(oracle, FakeExecutor(hanging), tmp_path, slots=2)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(search.run)
        await wait_in(oracle)
        search.scheduler.request_stop()
        await search.clock.wait_sleeping()
        oracle.gate.set()
    assert "has not returned" not in caplog.text
    assert len(search.history.trials) == 1


async def test_a_search_with_an_oracle_that_hangs_in_an_earlier_one_says_so(
    tmp_path: Path, oracle: Hung
) -> None:
    first = SearchOfFakes(oracle, FakeExecutor(hanging), tmp_path, slots=2)
    running = asyncio.create_task(first.run())
    await wait_in(oracle)
    running.cancel()
    await first.clock.wait_sleeping()
    first.clock.advance(PATIENCE_SECONDS)
    await asyncio.wait([running])
    with pytest.raises(FatalRuntimeError, match=r"Hung\.ask\(\) of an earlier search.*new tuner"):
        await first.again(oracle, slots=2).run()
    oracle.gate.set()
    while any(each.name == "aiotune-oracle" for each in threading.enumerate()):
        await anyio.lowlevel.checkpoint()
    again = first.again(oracle, slots=2, executor=FakeExecutor(finishing))
    await again.run()
    assert states(again.history) == ["COMPLETED"] * 4


async def test_whoever_waits_for_it_gets_no_answer_once_none_is_wanted(oracle: Hung) -> None:
    clock = VirtualClock()
    asker = Asker(oracle, History(), clock)
    answers: list[Asked | None] = []

    async def ask() -> None:
        answers.append(await asker.ask(1))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await wait_in(oracle)
        tasks.start_soon(ask)
        await all_wait()
        asker.close()
        await clock.wait_sleeping()
        clock.advance(PATIENCE_SECONDS)
    assert answers == [None, None]
    assert await asker.ask(2) is None
