from __future__ import annotations

import asyncio
import traceback

import anyio
import pytest

from aiotune.calling import blaming, called, error_text
from aiotune.errors import FatalRuntimeError
from tests.support.records import trial


class Owner:
    def on_trial_end(self, trial: object) -> None:
        raise KeyError("the hook is broken")

    async def on_search_begin(self) -> None:
        await asyncio.sleep(0)
        raise OSError("no network")

    async def pre_create_trial(self) -> None:
        task = asyncio.create_task(asyncio.sleep(60))
        task.cancel()
        await task


async def test_an_error_is_the_same_and_says_which_hook_has_raised_it() -> None:
    with pytest.raises(KeyError) as caught:
        await called(Owner().on_trial_end, trial(number=3))
    assert "raised in Owner.on_trial_end(), for trial 0003" in caught.value.__notes__[0]
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert frames[-1].name == "on_trial_end"
    with pytest.raises(OSError, match="no network") as waited:
        await called(Owner().on_search_begin)
    text = error_text(waited.value)
    assert text.startswith("OSError: no network\nraised in Owner.on_search_begin();")


async def test_a_hook_of_either_kind_is_called() -> None:
    calls: list[object] = []

    async def wait(value: int) -> None:
        await asyncio.sleep(0)
        calls.append(value)

    await called(calls.append, 1)
    await called(wait, 2)
    assert calls == [1, 2]


async def test_a_cancellation_that_nobody_asked_for_is_an_error() -> None:
    with pytest.raises(FatalRuntimeError, match="awaited something that was cancelled"):
        await called(Owner().pre_create_trial)


@pytest.mark.parametrize("by_scope", [True, False])
async def test_a_hook_can_be_cancelled(by_scope: bool) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    if by_scope:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(called, hang)
                await anyio.wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught
        return
    task = asyncio.create_task(called(hang))
    await anyio.wait_all_tasks_blocked()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_what_does_not_raise_is_left_alone() -> None:
    with blaming("nobody"):
        pass
    with pytest.raises(KeyboardInterrupt) as caught, blaming("nobody"):
        raise KeyboardInterrupt
    assert error_text(caught.value) == "KeyboardInterrupt: "
