"""Runs that make no progress, over fakes and a virtual clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest

from aiotune.errors import FatalRuntimeError
from aiotune.events import EndReason, Event, RunEnded, SearchEnded
from aiotune.executors.base import Assignment, Finished, Observed, Progressed, RunEvent
from aiotune.executors.context import RunContext
from aiotune.executors.inline import InlineExecutor
from aiotune.oracles.random_search import RandomSearchOracle
from aiotune.plan import Hooks
from aiotune.resources import Limits
from aiotune.settlement import Policy
from aiotune.store.memory import MemoryStore
from aiotune.trial import FailureKind, StopCause, Trial
from tests.support.fake_executor import FakeExecution, FakeExecutor, Script, hanging
from tests.support.searches import SearchOfFakes, all_wait
from tests.test_scheduler import random_oracle, states

STALL = Limits(stall_timeout=4)


@dataclass
class Told:
    """A script whose events the test gives, one after the other."""

    left: list[RunEvent] = field(default_factory=list)
    news: anyio.Event = field(default_factory=anyio.Event)

    async def play(self, script: Script) -> AsyncIterator[RunEvent]:
        while not script.stop.is_set():
            async with anyio.create_task_group() as tasks:
                for each in (script.stop, self.news):
                    tasks.start_soon(_wait_for, each, tasks.cancel_scope)
            self.news = anyio.Event()
            while self.left:
                yield self.left.pop(0)
        yield Finished(is_stopped=True)

    async def tell(self, event: RunEvent) -> None:
        self.left.append(event)
        self.news.set()
        await all_wait()


async def _wait_for(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


@asynccontextmanager
async def searching(search: SearchOfFakes) -> AsyncIterator[list[SearchEnded]]:
    """Run the search beside the block, which begins when all wait; it must have ended with the block."""
    ends: list[SearchEnded] = []

    async def run() -> None:
        ends.append(await search.run())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await all_wait()
        yield ends


async def passing(search: SearchOfFakes, seconds: float) -> None:
    """Let time pass as it does: a clock that leaps is that of a loop which stood still."""
    for _ in range(round(2 * seconds)):
        search.clock.advance(0.5)
        await all_wait()


async def test_a_silent_run_is_ended_as_a_timeout_that_may_be_retried(tmp_path: Path) -> None:
    executor = FakeExecutor(hanging)
    search = SearchOfFakes(random_oracle(max_trials=1), executor, tmp_path, limits=STALL)
    async with searching(search) as ends:
        await passing(search, 4)
    assert ends[0].reason is EndReason.MAX_TRIALS
    trial = search.history.numbered(0)
    (run,) = trial.runs
    assert (trial.status, trial.failure) == ("FAILED", FailureKind.TIMEOUT)
    assert (run.stop_cause, run.may_retry) == (StopCause.STALL, True)
    assert trial.message is not None
    assert trial.message.startswith("it made no progress for stall_timeout")
    assert executor.assignments[0].stall_seconds == 4


async def test_every_event_is_progress(tmp_path: Path) -> None:
    told = Told()
    search = SearchOfFakes(
        random_oracle(max_trials=1), FakeExecutor(told.play), tmp_path, limits=STALL
    )
    async with searching(search) as ends:
        for step, event in enumerate((Progressed(), Observed(0, {"score": 1.0}), Progressed())):
            await passing(search, 3)
            await told.tell(event)
            assert not ends, step
        await passing(search, 3)
        await told.tell(Finished({"score": 1.0}))
    assert states(search.history) == ["COMPLETED"]


async def test_a_run_that_hangs_later_is_ended_too(tmp_path: Path) -> None:
    told = Told()
    search = SearchOfFakes(
        random_oracle(max_trials=1), FakeExecutor(told.play), tmp_path, limits=STALL
    )
    async with searching(search):
        await told.tell(Observed(0, {"score": 1.0}))
        await passing(search, 3)
        await told.tell(Progressed())
        await passing(search, 4)
    assert states(search.history) == ["FAILED"]
    assert search.history.numbered(0).score is None


async def test_a_stall_is_retried_from_where_the_run_was(tmp_path: Path) -> None:
    executor = FakeExecutor(hanging)
    search = SearchOfFakes(
        random_oracle(max_trials=1), executor, tmp_path, limits=STALL, policy=Policy(retries=2)
    )
    async with searching(search):
        await passing(search, 12)
    runs = search.history.numbered(0).runs
    assert [(run.attempt, run.continues) for run in runs] == [(0, None), (1, 0), (2, 1)]
    assert [each.continues for each in executor.assignments] == [False, True, True]


async def test_a_run_beyond_trial_timeout_is_not_retried(tmp_path: Path) -> None:
    search = SearchOfFakes(
        random_oracle(max_trials=1),
        FakeExecutor(hanging),
        tmp_path,
        limits=Limits(trial_timeout=4),
        policy=Policy(retries=2),
    )
    async with searching(search):
        await passing(search, 4)
    (run,) = search.history.numbered(0).runs
    assert (run.stop_cause, run.may_retry) == (StopCause.TIMEOUT, False)


async def test_stalls_do_not_count_as_failures_in_a_row(tmp_path: Path) -> None:
    oracle = random_oracle(max_trials=5, max_consecutive_failed_trials=2)
    search = SearchOfFakes(oracle, FakeExecutor(hanging), tmp_path, limits=STALL)
    async with searching(search) as ends:
        await passing(search, 20)
    assert ends[0].reason is EndReason.MAX_TRIALS
    assert states(search.history) == ["FAILED"] * 5


class SlowStore(MemoryStore):
    """Its writes of reports wait for the gate, as on a disk that is slow."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = anyio.Event()
        self.never_waits = False  # type: ignore[misc]

    async def append(self, *facts: Event) -> int:
        if any(type(fact).__name__ == "Reported" for fact in facts):
            await self.gate.wait()
        return await super().append(*facts)


async def test_a_slow_store_is_not_the_runs_silence(tmp_path: Path) -> None:
    told, store = Told(), SlowStore()
    search = SearchOfFakes(
        random_oracle(max_trials=1), FakeExecutor(told.play), tmp_path, limits=STALL, store=store
    )
    async with searching(search):
        await told.tell(Observed(0, {"score": 1.0}))
        await passing(search, 9)
        store.gate.set()
        await all_wait()
        await told.tell(Finished({"score": 1.0}))
    assert states(search.history) == ["COMPLETED"]


async def test_the_time_of_a_run_that_an_earlier_process_left_begins_anew(tmp_path: Path) -> None:
    first = SearchOfFakes(
        random_oracle(max_trials=1), FakeExecutor(hanging), tmp_path, limits=STALL
    )
    async with searching(first):
        await passing(first, 4)
    end = next(n for n, fact in enumerate(first.store.facts) if isinstance(fact, RunEnded))
    told = Told()
    resumed = first.again(
        random_oracle(max_trials=1),
        facts=first.store.facts[: end - 1],  # before the request to stop
        executor=FakeExecutor(told.play),
    )
    async with searching(resumed):
        await passing(resumed, 3)
        await told.tell(Finished({"score": 1.0}))
    assert [run.state for run in resumed.history.numbered(0).runs] == ["LOST", "FINISHED"]


# --- where nothing is there yet that could be asked to stop ---


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(stall_timeout=4), "made no progress for stall_timeout=4 s"),
        (Limits(trial_timeout=4), "took longer than trial_timeout=4 s"),
    ],
)
async def test_a_discovery_that_hangs_ends_the_search(
    tmp_path: Path, limits: Limits, words: str
) -> None:
    executor = FakeExecutor(hanging)
    search = SearchOfFakes(random_oracle(), executor, tmp_path, has_discovery=True, limits=limits)
    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            with pytest.raises(FatalRuntimeError, match=rf"{words}.*raise the limit") as caught:
                await search.run()
            assert "discovery" in str(caught.value)  # the path of its log

        tasks.start_soon(run)
        await search.clock.wait_sleeping()
        assert executor.assignments[0].stall_seconds == limits.stall_timeout
        search.clock.advance(4)
    assert executor.running == []
    assert search.history.ended is not None
    assert search.history.ended.reason is EndReason.FAILED


async def test_a_discovery_that_goes_on_may_take_its_time(tmp_path: Path) -> None:
    told = Told()

    async def play(script: Script) -> AsyncIterator[RunEvent]:
        if script.assignment.is_discovery:
            async for event in told.play(script):
                yield event
        else:
            yield Finished({"score": 0.0})

    search = SearchOfFakes(
        random_oracle(max_trials=2), FakeExecutor(play), tmp_path, has_discovery=True, limits=STALL
    )
    async with searching(search):
        for _ in range(3):
            await passing(search, 3)
            await told.tell(Progressed())
        await told.tell(Finished())
    assert len(search.history.trials) > 0


class Unstarted(FakeExecutor):
    """Its runs never begin, as where the import of a framework hangs."""

    async def start(self, assignment: Assignment, *, held: object = ()) -> FakeExecution:
        await anyio.sleep_forever()
        raise AssertionError


Stop = Callable[[SearchOfFakes], Awaitable[None]]


async def by_request(search: SearchOfFakes) -> None:
    search.scheduler.request_stop()


async def by_max_time(search: SearchOfFakes) -> None:
    search.clock.advance(60)


@pytest.mark.parametrize("stop", [by_request, by_max_time])
async def test_what_hangs_before_a_run_is_there_does_not_keep_the_search(
    tmp_path: Path, stop: Stop
) -> None:
    search = SearchOfFakes(
        random_oracle(), Unstarted(hanging), tmp_path, slots=2, limits=Limits(max_time=60)
    )
    async with searching(search) as ends:
        assert len(search.history.trials) == 2
        await stop(search)
    assert ends[0].reason in (EndReason.STOPPED, EndReason.TIME)
    runs = [trial.runs[0] for trial in search.history.trials.values()]
    assert [run.state for run in runs] == ["CANCELLED"] * 2
    assert search.pool.free == search.pool.total


@pytest.mark.parametrize("stop", [by_request, by_max_time])
@pytest.mark.parametrize("name", ["on_search_begin", "pre_create_trial", "on_trial_begin"])
async def test_a_hook_that_hangs_does_not_keep_the_search(
    tmp_path: Path, name: str, stop: Stop
) -> None:
    async def hang(*_: Trial) -> None:
        await anyio.sleep_forever()

    search = SearchOfFakes(
        random_oracle(),
        FakeExecutor(hanging),
        tmp_path,
        hooks=Hooks(**{name: hang}),
        limits=Limits(max_time=60),
    )
    async with searching(search) as ends:
        await stop(search)
    assert ends[0].reason in (EndReason.STOPPED, EndReason.TIME)
    resumed = search.again(random_oracle(), executor=FakeExecutor(finishing))
    await resumed.run()
    assert states(resumed.history) == ["COMPLETED"] * 4


async def finishing(script: Script) -> AsyncIterator[RunEvent]:
    yield script.met(lambda hp: hp.Float("x", 0, 1))
    yield Finished({"score": 0.0})


# --- async trials, in the caller's own loop ---


async def test_an_async_trial_that_hangs_is_ended(tmp_path: Path) -> None:
    endings: list[str] = []

    async def program(run: RunContext) -> Finished:
        run.hyperparameters.Float("x", 0, 1)
        try:
            await anyio.sleep_forever()
        finally:
            endings.append(run.trial_id)
        raise AssertionError

    executor = InlineExecutor(program, grace_seconds=0.0)
    oracle: RandomSearchOracle = random_oracle(max_trials=2)
    async with executor:
        search = SearchOfFakes(oracle, executor, tmp_path, limits=STALL)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(search.run)
            for number in range(2):
                await search.clock.wait_sleeping()
                await all_wait()
                search.clock.advance(4)
                while len(endings) <= number:
                    await anyio.lowlevel.checkpoint()
    assert endings == ["0000", "0001"]
    assert states(search.history) == ["FAILED"] * 2


async def test_a_look_at_should_stop_is_progress(tmp_path: Path) -> None:
    look = anyio.Event()

    async def program(run: RunContext) -> Finished:
        await look.wait()
        assert not run.should_stop
        await anyio.sleep_forever()
        raise AssertionError

    async with InlineExecutor(program, grace_seconds=0.0) as executor:
        search = SearchOfFakes(random_oracle(max_trials=1), executor, tmp_path, limits=STALL)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(search.run)
            await search.clock.wait_sleeping()
            await passing(search, 3)
            look.set()
            await all_wait()
            await passing(search, 3)
            assert states(search.history) == ["RUNNING"]
            await passing(search, 1)
    assert states(search.history) == ["FAILED"]
