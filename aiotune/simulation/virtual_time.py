"""Virtual time: an event loop whose clock stands still while something can be done, and jumps when nothing can.

Nothing waits: a search of a year takes as long as its decisions. What is due at one moment happens in the order
in which it was scheduled, so the same program goes the same way each time.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextvars import Context
from typing import Any, TypeVar, TypeVarTuple, Unpack

from aiotune.errors import FatalRuntimeError

__all__ = ["VirtualClock", "run_virtually"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class VirtualClock:
    """`Clock` of the virtual time of the running loop. It begins at 0."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def run_virtually(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Return what the coroutine returns, run on a loop of its own in virtual time.

    It may be called anywhere and blocks: where a loop runs in this thread, it uses another thread.
    """
    time = _Time()
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _run(main, time)
    outcome: Future[T] = Future()
    thread = threading.Thread(target=_settle, args=(outcome, main, time), daemon=True)
    thread.start()
    try:
        return outcome.result()
    except KeyboardInterrupt:  # it reaches the main thread only
        time.is_interrupted = True
        raise


def _settle(outcome: Future[T], main: Callable[[], Coroutine[Any, Any, T]], time: _Time) -> None:
    try:
        outcome.set_result(_run(main, time))
    except BaseException as error:
        outcome.set_exception(error)


def _run(main: Callable[[], Coroutine[Any, Any, T]], time: _Time) -> T:
    with asyncio.Runner(loop_factory=lambda: _Loop(time)) as runner:
        return runner.run(main())


class _Time(selectors.SelectSelector):
    """The moment, as a selector: where a loop would wait for the world, time is over at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.is_interrupted = False  # set by another thread

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Let `timeout` seconds pass. The loop knows what is due next, and asks for no more."""
        if self.is_interrupted:
            self.is_interrupted = False  # the tasks are still to be cancelled
            raise KeyboardInterrupt
        if timeout is None:
            raise FatalRuntimeError(
                "the simulation stands still: something waits for what no device and no clock will bring. Code "
                "of your own that is called in it (a hook, an oracle) must not wait for threads or sockets"
            )
        self.now += max(0.0, timeout)
        return []


class _Loop(asyncio.SelectorEventLoop):
    """An event loop in virtual time. Nothing from outside reaches it: no socket, no other thread."""

    def __init__(self, time: _Time) -> None:
        super().__init__(time)
        self._virtual = time

    def time(self) -> float:
        return self._virtual.now

    def call_soon_threadsafe(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """Do without the byte by which a sleeping loop is woken: this one never sleeps."""
        return self.call_soon(callback, *args, context=context)
