from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path

import pytest

from aiotune.errors import FatalTypeError
from aiotune.executors.base import Executor, Failed, Finished
from aiotune.executors.context import RunContext
from aiotune.executors.inline import InlineExecutor
from tests.contracts.executor_contract import (
    AsyncProgram,
    ExecutorContract,
    next_observed,
)
from tests.support.runs import assign, ending, run_once


class TestContract(ExecutorContract):
    def make(
        self, program: AsyncProgram, *, grace_seconds: float = 10.0
    ) -> AbstractAsyncContextManager[Executor]:
        return InlineExecutor(program, grace_seconds=grace_seconds)


def plain(run: RunContext) -> Finished:
    run.report(loss=1.0)
    return Finished({"loss": 1.0})


def test_refuses_a_plain_function() -> None:
    with pytest.raises(FatalTypeError, match="allow_blocking=True"):
        InlineExecutor(plain)


async def test_runs_a_plain_function_on_request(tmp_path: Path) -> None:
    async with InlineExecutor(plain, allow_blocking=True) as executor:
        assert ending(await run_once(executor, tmp_path)) == Finished({"loss": 1.0})


async def test_runs_an_object_with_an_async_call(tmp_path: Path) -> None:
    class Program:
        async def __call__(self, run: RunContext) -> Finished:
            await asyncio.sleep(0)
            return Finished({"loss": 2.0})

    async with InlineExecutor(Program()) as executor:
        assert ending(await run_once(executor, tmp_path)) == Finished({"loss": 2.0})


async def test_program_that_cancels_itself_has_failed(tmp_path: Path) -> None:
    async def program(run: RunContext) -> Finished:
        raise asyncio.CancelledError

    async with InlineExecutor(program) as executor:
        last = ending(await run_once(executor, tmp_path))
    assert isinstance(last, Failed)
    assert "cancelled its own task" in last.message


async def test_program_is_unwound_when_the_run_is_ended_by_force(tmp_path: Path) -> None:
    unwound = asyncio.Event()

    async def program(run: RunContext) -> Finished:
        run.report(loss=1.0)
        try:
            await asyncio.Event().wait()
        finally:
            unwound.set()
        return Finished()

    async with InlineExecutor(program) as executor:
        execution = await executor.start(assign(tmp_path))
        async with aclosing(execution.events()) as events:
            await next_observed(events)
        assert unwound.is_set()


async def test_program_that_swallows_its_cancellation_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiotune.executors.inline._CANCEL_SECONDS", 0.02)
    release = asyncio.Event()

    async def program(run: RunContext) -> Finished:
        run.report(loss=1.0)
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return Finished({"loss": 3.0})

    async with InlineExecutor(program, grace_seconds=0.0) as executor:
        execution = await executor.start(assign(tmp_path))
        async with aclosing(execution.events()) as events:
            await next_observed(events)
            execution.request_stop("pruned")
            rest = [event async for event in events]
    assert ending(rest) == Finished(is_stopped=True)
    release.set()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others)


async def test_stop_after_the_end_changes_nothing(tmp_path: Path) -> None:
    async def program(run: RunContext) -> Finished:
        return Finished({"loss": 1.0})

    async def follow() -> AsyncIterator[object]:
        async with InlineExecutor(program) as executor:
            execution = await executor.start(assign(tmp_path))
            async for event in execution.events():
                execution.request_stop("late")
                yield event

    events = [event async for event in follow()]
    assert events[-1] == Finished({"loss": 1.0})
