from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from aiotune.resources import Limits
from aiotune.run_timer import RunTimer
from aiotune.trial import StopCause
from tests.support.virtual_clock import VirtualClock


class Watched:
    """A timer that is awaited; `reached` once it has returned."""

    def __init__(self, limits: Limits) -> None:
        self.clock = VirtualClock()
        self.timer = RunTimer(limits, self.clock)
        self.reached: StopCause | None = None

    async def wait(self) -> None:
        self.reached = await self.timer.wait_over()

    async def after(self, *seconds: float) -> StopCause | None:
        """Let time pass, in steps, and return what is reached then."""
        for each in seconds:
            self.clock.advance(each)
            await anyio.wait_all_tasks_blocked()
        return self.reached


@asynccontextmanager
async def watched(**limits: float) -> AsyncIterator[Watched]:
    run = Watched(Limits(**limits))  # type: ignore[arg-type]
    waiting = asyncio.create_task(run.wait())
    await run.clock.wait_sleeping()
    yield run
    waiting.cancel()


async def test_a_run_that_takes_too_long_whatever_it_tells() -> None:
    async with watched(trial_timeout=10) as run:
        run.timer.heard()
        assert await run.after(9.5) is None
        run.timer.heard()
        assert await run.after(0.5) is StopCause.TIMEOUT


async def test_silence_is_counted_from_the_last_sign() -> None:
    async with watched(stall_timeout=4) as run:
        assert await run.after(3) is None
        run.timer.heard()
        assert await run.after(1, 2) is None
        assert await run.after(1) is StopCause.STALL


async def test_silence_from_the_beginning_on_counts() -> None:
    async with watched(stall_timeout=4) as run:
        assert await run.after(4) is StopCause.STALL


async def test_whichever_limit_comes_first() -> None:
    async with watched(stall_timeout=4, trial_timeout=10) as run:
        for _ in range(3):
            assert await run.after(3) is None
            run.timer.heard()
        assert await run.after(1) is StopCause.TIMEOUT
    async with watched(stall_timeout=4, trial_timeout=10) as run:
        assert await run.after(4) is StopCause.STALL


async def test_no_silence_while_the_search_deals_with_an_event() -> None:
    async with watched(stall_timeout=4) as run:
        with run.timer.hearing():
            assert await run.after(4, 4, 3) is None
        assert await run.after(1, 2.9) is None
        assert await run.after(0.1) is StopCause.STALL


async def test_an_error_in_dealing_with_an_event_leaves_the_timer_counting() -> None:
    async with watched(stall_timeout=4) as run:
        with pytest.raises(ValueError, match="x"), run.timer.hearing():
            raise ValueError("x")
        assert await run.after(4) is StopCause.STALL


async def test_a_loop_that_stood_still_reads_what_came_before_it_decides() -> None:
    """As when the caller's code blocked it: the run's events wait unread."""
    async with watched(stall_timeout=4) as run:
        assert await run.after(60) is None
        run.timer.heard()
        assert await run.after(1, 2) is None
        assert await run.after(1) is StopCause.STALL
    async with watched(stall_timeout=4) as run:
        assert await run.after(60) is None
        assert await run.after(1) is StopCause.STALL  # nothing had come


async def test_a_loop_that_stood_still_gives_no_time_beyond_trial_timeout() -> None:
    async with watched(trial_timeout=4) as run:
        assert await run.after(60) is StopCause.TIMEOUT


def test_what_has_no_limit_needs_no_timer() -> None:
    assert not RunTimer(Limits(max_time=5), VirtualClock()).is_limited
    assert RunTimer(Limits(stall_timeout=5), VirtualClock()).is_limited
    assert RunTimer(Limits(trial_timeout=5), VirtualClock()).is_limited
