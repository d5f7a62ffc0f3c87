"""What every executor does: one suite, run over each implementation.

Programs are async, so that one loop can hold several; `make` turns one into what the executor runs.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path

import pytest

from aiotune.errors import FailedTrialError, FatalValueError, InfeasibleTrialError
from aiotune.executors.base import (
    Executor,
    Failed,
    Finished,
    GpuMeasured,
    Measured,
    Met,
    Observed,
    RunEvent,
    Started,
)
from aiotune.executors.context import RunContext
from aiotune.space import Float
from aiotune.trial import Budget, FailureKind
from tests.support.runs import assign, collect, ending, of_kind, run_once

AsyncProgram = Callable[[RunContext], Awaitable[Finished]]


def endless_program() -> AsyncProgram:
    async def program(run: RunContext) -> Finished:
        while True:
            run.report(loss=1.0)
            run.raise_if_stopped()
            await asyncio.sleep(0.001)

    return program


def deaf_program() -> AsyncProgram:
    async def program(run: RunContext) -> Finished:
        run.report(loss=1.0)
        await asyncio.Event().wait()
        return Finished()

    return program


def raising_program(error: BaseException) -> AsyncProgram:
    async def program(run: RunContext) -> Finished:
        run.hyperparameters.Boolean("bias")
        raise error

    return program


async def next_observed(events: AsyncIterator[RunEvent]) -> Observed:
    async for event in events:
        if isinstance(event, Observed):
            return event
    raise AssertionError("the run ended without a report")


class ExecutorContract:
    """Subclass it and implement `make`."""

    @abstractmethod
    def make(
        self, program: AsyncProgram, *, grace_seconds: float = 10.0
    ) -> AbstractAsyncContextManager[Executor]:
        """Return an executor of the program."""

    async def test_yields_the_events_of_a_run_in_their_order(self, tmp_path: Path) -> None:
        async def program(run: RunContext) -> Finished:
            run.report(loss=run.hyperparameters.Float("rate", 0, 1))
            run.report(5, loss=0.5)
            run.hyperparameters.Int("units", 1, 8)
            return Finished({"loss": 0.25}, best_step=5)

        async with self.make(program) as executor:
            events = await run_once(executor, tmp_path)
        measures = Measured | GpuMeasured  # which may come at any time
        events = [event for event in events if not isinstance(event, measures)]
        assert [type(event) for event in events] == [
            *(Started, Met, Observed, Observed, Met, Finished)
        ]
        _, early, first, second, late, last = events
        assert isinstance(early, Met)
        assert isinstance(late, Met)
        assert [each.name for each in early.space] == ["rate"]
        assert [each.name for each in late.added] == ["rate", "units"]
        assert (early.is_complete, late.is_complete) == (False, True)
        assert first == Observed(0, {"loss": early.values["rate"]})
        assert second == Observed(5, {"loss": 0.5})
        assert last == Finished({"loss": 0.25}, best_step=5)

    async def test_gives_the_assignment_to_the_program(self, tmp_path: Path) -> None:
        async def program(run: RunContext) -> Finished:
            assert run.trial_id == "17"
            assert run.budget == Budget(9, 3)
            assert run.directory.is_dir()
            assert run.checkpoint_dir.is_dir()
            return Finished({"rate": run.hyperparameters.get("rate"), "seed": run.seed})

        space = (Float("rate", 0.0, 1.0),)
        async with self.make(program) as executor:
            events = await run_once(
                executor,
                tmp_path,
                trial_id="17",
                budget=Budget(9, 3),
                values={"rate": 0.125},
                space=space,
            )
        last = ending(events)
        assert isinstance(last, Finished), last
        assert last.metrics["rate"] == 0.125
        assert 0 <= last.metrics["seed"] < 2**32

    async def test_not_a_number_arrives_as_such(self, tmp_path: Path) -> None:
        async def program(run: RunContext) -> Finished:
            run.report(loss=float("nan"), gain=float("inf"), cost=float("-inf"))
            return Finished()

        async with self.make(program) as executor:
            (observed,) = of_kind(await run_once(executor, tmp_path), Observed)
        assert observed.metrics["loss"] != observed.metrics["loss"]
        assert observed.metrics["gain"] == float("inf")
        assert observed.metrics["cost"] == float("-inf")

    async def test_stops_at_the_next_look(self, tmp_path: Path) -> None:
        async with self.make(endless_program()) as executor:
            execution = await executor.start(assign(tmp_path))
            async with aclosing(execution.events()) as events:
                await next_observed(events)
                execution.request_stop("pruned")
                execution.request_stop("again")
                rest = [event async for event in events]
        assert ending(rest) == Finished(is_stopped=True)

    async def test_result_returned_after_a_look_at_the_stop_counts_as_stopped(
        self, tmp_path: Path
    ) -> None:
        async def program(run: RunContext) -> Finished:
            while not run.should_stop:
                run.report(loss=1.0)
                await asyncio.sleep(0.001)
            return Finished({"loss": 1.0})

        async with self.make(program) as executor:
            execution = await executor.start(assign(tmp_path))
            async with aclosing(execution.events()) as events:
                await next_observed(events)
                execution.request_stop("pruned")
                rest = [event async for event in events]
        assert ending(rest) == Finished({"loss": 1.0}, is_stopped=True)

    async def test_program_deaf_to_the_stop_is_ended_after_the_grace(self, tmp_path: Path) -> None:
        async with self.make(deaf_program(), grace_seconds=0.01) as executor:
            execution = await executor.start(assign(tmp_path))
            async with aclosing(execution.events()) as events:
                await next_observed(events)
                execution.request_stop("pruned")
                rest = [event async for event in events]
        assert ending(rest) == Finished(is_stopped=True)

    @pytest.mark.parametrize(
        ("error", "kind", "is_fatal", "may_retry"),
        [
            (ValueError("no such layer"), FailureKind.USER_ERROR, False, True),
            (FailedTrialError("bad luck"), FailureKind.USER_ERROR, False, False),
            (InfeasibleTrialError("too big"), FailureKind.INFEASIBLE, False, False),
            (FatalValueError("wrong data"), FailureKind.USER_ERROR, True, False),
            (MemoryError("no memory"), FailureKind.OUT_OF_MEMORY, False, True),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
    )
    async def test_exception_becomes_a_failure(
        self,
        tmp_path: Path,
        error: Exception,
        kind: FailureKind,
        is_fatal: bool,
        may_retry: bool,
    ) -> None:
        async with self.make(raising_program(error)) as executor:
            events = await run_once(executor, tmp_path)
        last = ending(events)
        assert isinstance(last, Failed)
        assert (last.kind, last.is_fatal, last.may_retry) == (kind, is_fatal, may_retry)
        assert str(error) in last.message
        assert "in program" in (last.traceback or "")
        assert not last.is_lost
        (met,) = of_kind(events, Met)  # what it declared before it failed is not lost
        assert (list(met.values), met.is_complete) == (["bias"], False)

    async def test_exit_of_user_code_is_a_failure(self, tmp_path: Path) -> None:
        async with self.make(raising_program(SystemExit(3))) as executor:
            last = ending(await run_once(executor, tmp_path))
        assert isinstance(last, Failed)
        assert "sys.exit(3)" in last.message

    async def test_program_that_returns_something_else_fails(self, tmp_path: Path) -> None:
        async def program(run: RunContext) -> Finished:
            return 0.5  # type: ignore[return-value]

        async with self.make(program) as executor:
            last = ending(await run_once(executor, tmp_path))
        assert isinstance(last, Failed)
        assert "Finished" in last.message

    async def test_runs_are_independent(self, tmp_path: Path) -> None:
        async def program(run: RunContext) -> Finished:
            if run.number == 1:
                raise ValueError("only this one")
            return Finished({"number": float(run.number)})

        async with self.make(program) as executor:
            executions = [await executor.start(assign(tmp_path, number=n)) for n in range(3)]
            lasts = [
                ending(events)
                for events in await asyncio.gather(*(collect(each) for each in executions))
            ]
        assert [type(last) for last in lasts] == [Finished, Failed, Finished]
        assert lasts[2] == Finished({"number": 2.0})

    async def test_closing_the_iterator_ends_the_run(self, tmp_path: Path) -> None:
        async with self.make(deaf_program()) as executor:
            execution = await executor.start(assign(tmp_path))
            events = execution.events()
            await next_observed(events)
            await events.aclose()
            execution.request_stop("too late")  # and that is no error
            assert [event async for event in execution.events()] == []

    async def test_cancelling_the_iterating_task_ends_the_run(self, tmp_path: Path) -> None:
        async with self.make(deaf_program()) as executor:
            execution = await executor.start(assign(tmp_path))
            reported = asyncio.Event()

            async def follow() -> None:
                async with aclosing(execution.events()) as events:
                    async for event in events:
                        if isinstance(event, Observed):
                            reported.set()

            task = asyncio.create_task(follow())
            await reported.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    async def test_leaving_the_executor_ends_runs_that_nobody_follows(self, tmp_path: Path) -> None:
        async with self.make(deaf_program()) as executor:
            execution = await executor.start(assign(tmp_path))
        assert [event async for event in execution.events()] == []
