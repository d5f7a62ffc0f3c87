"""A call in a task of its own."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from aiotune.tasks import Turns, beside, in_own_task


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
