"""A call in a task of its own."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from aiotune.tasks import in_own_task


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
