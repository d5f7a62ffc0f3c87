from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading

import anyio
import pytest

from aiotune.own_thread import OwnThread
from tests.support.virtual_clock import VirtualClock

NAME = contextvars.ContextVar("NAME", default="nobody")


async def test_it_returns_what_the_call_returns_and_raises_what_it_raises() -> None:
    clock = VirtualClock()
    assert await OwnThread(lambda: 3, name="three").result(clock, patience_seconds=1) == 3
    with pytest.raises(ZeroDivisionError):
        await OwnThread(lambda: 1 // 0, name="none").result(clock, patience_seconds=1)


async def test_it_is_a_daemon_with_the_context_of_its_caller() -> None:
    NAME.set("me")
    asked = OwnThread(lambda: (threading.current_thread(), NAME.get()), name="who")
    thread, name = await asked.result(VirtualClock(), patience_seconds=1)
    assert (thread, thread.daemon, thread.name, name) == (asked.thread, True, "who", "me")


async def test_cancelled_it_waits_for_the_thread() -> None:
    gate, clock = threading.Event(), VirtualClock()
    call = OwnThread(gate.wait, name="patient")
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_open_once_it_waits, clock, gate)
            scope.cancel()
            await call.result(clock, patience_seconds=10)
    assert scope.cancelled_caught
    assert call.is_over


async def _open_once_it_waits(clock: VirtualClock, gate: threading.Event) -> None:
    with anyio.CancelScope(shield=True):
        await clock.wait_sleeping()
        gate.set()


async def test_it_leaves_a_thread_alone_that_does_not_return() -> None:
    gate, clock = threading.Event(), VirtualClock()
    call = OwnThread(gate.wait, name="hung")
    waiting = asyncio.create_task(call.result(clock, patience_seconds=10))
    await anyio.wait_all_tasks_blocked()
    waiting.cancel()
    await clock.wait_sleeping()
    assert not waiting.done()
    clock.advance(10)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not call.is_over
    gate.set()
    call.thread.join()
    assert call.is_over


def test_a_thread_that_comes_back_after_its_loop_is_gone_harms_nobody() -> None:
    gate, clock = threading.Event(), VirtualClock()

    async def leave() -> OwnThread[bool]:
        call = OwnThread(gate.wait, name="late")
        waiting = asyncio.create_task(call.result(clock, patience_seconds=0))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        return call

    call = asyncio.run(leave())
    gate.set()
    call.thread.join()
    assert call.is_over


HUNG = """
import asyncio, threading
from aiotune.clock import SystemClock
from aiotune.own_thread import OwnThread

async def main():
    call = OwnThread(threading.Event().wait, name="hung")
    waiting = asyncio.create_task(call.result(SystemClock(), patience_seconds=0.01))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    print("left alone:", not call.is_over)

asyncio.run(main())
"""


def test_the_interpreter_does_not_wait_for_a_thread_that_hangs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HUNG], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "left alone: True\n"), done.stderr
