"""Calls in tasks of their own, work that must be done whole, turns."""

from __future__ import annotations

import asyncio
import threading

import anyio
import anyio.to_thread
import pytest

from aiotune.tasks import (
    Changes,
    Turns,
    begin_whole,
    beside,
    in_own_task,
    in_thread,
    made_in_thread,
    undisturbed,
)


async def test_a_bare_cancellation_waits_for_a_shielded_cleanup() -> None:
    begun, cleaning, may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()
    is_clean = False

    async def work() -> None:
        nonlocal is_clean
        try:
            begun.set()
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                cleaning.set()
                await may_end.wait()
                is_clean = True

    task = asyncio.create_task(in_own_task(work))
    await begun.wait()
    task.cancel()
    await cleaning.wait()
    task.cancel()  # an impatient caller's
    await asyncio.sleep(0)
    assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert is_clean


async def test_what_it_returns_and_raises_comes_as_it_is() -> None:
    async def fine() -> str:
        return "fine"

    async def broken() -> str:
        raise LookupError("mine")

    assert await in_own_task(fine) == "fine"
    with pytest.raises(LookupError, match="mine"):
        await in_own_task(broken)


async def test_turns_are_taken_one_after_the_other_for_each_name() -> None:
    turns, diary = Turns(), []

    async def take(name: str, number: int) -> None:
        async with turns.of(name):
            diary.append((name, number, "in"))
            await anyio.lowlevel.checkpoint()
            diary.append((name, number, "out"))

    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(take, "a", number)
        tasks.start_soon(take, "b", 0)
    of_a = [(number, what) for name, number, what in diary if name == "a"]
    assert of_a == [(n, what) for n in range(3) for what in ("in", "out")]
    assert diary.index(("b", 0, "in")) < diary.index(("a", 0, "out"))


async def test_a_turn_is_given_up_by_whoever_is_cancelled() -> None:
    turns = Turns()
    async with turns.of("a"), anyio.create_task_group() as tasks:
        tasks.start_soon(enter, turns)
        await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    await enter(turns)


async def enter(turns: Turns) -> None:
    async with turns.of("a"):
        pass


# Beside a block


async def test_work_beside_a_block_has_begun_with_it_and_ends_with_it() -> None:
    story: list[str] = []

    async def work() -> None:
        story.append("begun")
        try:
            await anyio.sleep_forever()
        finally:
            story.append("ended")

    async with beside(work):
        story.append("block")
    assert story == ["begun", "block", "ended"]


async def test_an_error_of_the_work_takes_the_place_of_the_block() -> None:
    was_cancelled = False

    async def work() -> None:
        await asyncio.sleep(0)
        raise ValueError("of the work")

    async def block() -> None:
        nonlocal was_cancelled
        async with beside(work):
            try:
                await anyio.sleep_forever()
            except asyncio.CancelledError:
                was_cancelled = True
                raise

    with pytest.raises(ValueError, match="of the work"):
        await block()
    assert was_cancelled


async def test_an_error_of_the_block_is_raised_bare() -> None:
    with pytest.raises(KeyError):
        async with beside(anyio.sleep_forever):
            raise KeyError("of the block")


async def test_a_block_that_is_cancelled_ends_the_work_beside_it() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    with anyio.CancelScope() as scope:
        async with beside(work):
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert ended.is_set()


async def test_work_that_is_done_early_leaves_the_block_alone() -> None:
    async def work() -> None:
        pass

    async with beside(work):
        for _ in range(5):
            await asyncio.sleep(0)
        is_through = True
    assert is_through


# Work that must be done whole


class Step:
    """Work that waits to be let go on, and what it makes."""

    def __init__(self) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()

    def make(self) -> str:
        self.begun.set()
        assert self.may_end.wait(60)
        return "made"


async def begun(step: Step) -> None:
    await anyio.to_thread.run_sync(step.begun.wait)


async def test_a_thread_has_returned_before_its_cancelled_caller_goes_on() -> None:
    step = Step()
    task = asyncio.create_task(in_thread(step.make))
    await begun(step)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    step.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("how", ["Task.cancel", "scope"])
async def test_what_a_thread_has_made_is_not_lost(how: str) -> None:
    step, had = Step(), []

    async def caller(scope: anyio.CancelScope) -> None:
        with scope:
            had.append(await made_in_thread(step.make))
            await anyio.lowlevel.checkpoint()
            had.append("not cancelled")

    scope = anyio.CancelScope()
    task = asyncio.create_task(caller(scope))
    await begun(step)
    if how == "scope":
        scope.cancel()
    else:
        task.cancel()
    await asyncio.sleep(0)
    step.may_end.set()
    await asyncio.wait({task})
    assert had == ["made"]
    assert task.cancelled() == (how == "Task.cancel")


async def test_nothing_is_made_for_who_is_cancelled_already() -> None:
    had: list[str] = []
    with anyio.CancelScope() as scope:
        scope.cancel()
        await made_in_thread(lambda: had.append("made"))
    assert scope.cancelled_caught
    assert had == []


async def test_errors_of_what_must_be_done_whole_come_as_they_are() -> None:
    def fail() -> None:
        raise LookupError("mine")

    for call in (in_thread, made_in_thread):
        with pytest.raises(LookupError, match="mine"):
            await call(fail)


async def test_a_timeout_around_a_thread_is_a_timeout_and_no_more() -> None:
    step = Step()

    async def caller() -> str:
        try:
            async with asyncio.timeout(None) as timeout:
                timeout.reschedule(asyncio.get_running_loop().time())
                await in_thread(step.make)
        except TimeoutError:
            await asyncio.sleep(0)  # a cancellation that is left would show here
            return "timed out"
        return "not timed out"

    task = asyncio.create_task(caller())
    await begun(step)
    step.may_end.set()
    assert await task == "timed out"


def test_a_loop_that_shuts_down_waits_for_what_must_be_done_whole() -> None:
    story: list[str] = []

    async def close() -> None:
        with anyio.move_on_after(0):  # its own scopes may end what it waits for
            await anyio.sleep_forever()
        for _ in range(3):
            await asyncio.sleep(0)
        story.append("closed")

    async def main() -> None:
        closing = begin_whole(close())
        assert not closing.cancel()

    asyncio.run(main())
    assert story == ["closed"]


async def test_who_waits_undisturbed_learns_of_the_cancellation_at_the_end() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(undisturbed(future))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    future.set_exception(LookupError("told to nobody"))
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_changes_while_one_looks_is_not_missed() -> None:
    changes = Changes()
    before = changes.next()
    changes.tell()  # between taking it and waiting for it
    await before.wait()
    after = changes.next()
    assert not after.is_set()
    assert changes.next() is after
    changes.tell()
    changes.tell()
    assert after.is_set()
