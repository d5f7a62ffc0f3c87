"""Cancelling a program at every instant: a scheduler that counts them, and the ways in which callers cancel.

    undisturbed = strike(perform, FAULTS["Task.cancel"], None)
    for instant in range(undisturbed.instants):
        struck = strike(perform, FAULTS["Task.cancel"], instant)
        assert struck.complaints == []

An instant is a moment in which a cancellation can arrive: a task has just begun to wait, or what it has
waited for has just come and it has not gone on yet. Those of all tasks of the loop count: whoever cancels the
outer one does it while any of them waits for whatever it may be.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import signal
import sys
import threading
import warnings
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import Any

import anyio

__all__ = ["BELL", "FAULTS", "Bell", "Fault", "LoopFactory", "Struck", "strike", "watchdog"]

LoopFactory = Callable[[], asyncio.AbstractEventLoop] | None
Perform = Callable[[], Awaitable[object]]

_LONGEST_SECONDS = 60.0  # far above what anything here takes


class _Instants:
    """Counts the instants of every task that its task factory makes, and calls `act` with each number."""

    def __init__(self, act: Callable[[int], object]) -> None:
        self._act = act
        self.count = 0

    def make_task(
        self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        return asyncio.Task(_Watched(coroutine, self.pass_one), loop=loop, **options)

    def pass_one(self) -> None:
        number, self.count = self.count, self.count + 1
        self._act(number)


class _Watched(Coroutine[Any, Any, Any]):
    """A coroutine that tells when it begins to wait, and when what it waits for has come."""

    def __init__(self, inner: Coroutine[Any, Any, Any], tell: Callable[[], object]) -> None:
        self._inner = inner
        self._tell = tell

    def send(self, value: Any) -> Any:
        return self._waiting_for(self._inner.send(value))

    def throw(self, *error: Any) -> Any:
        return self._waiting_for(self._inner.throw(*error))

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Any:
        return self._inner.__await__()

    def __getattr__(self, name: str) -> Any:  # cr_frame and its like, which anyio looks at
        return getattr(self._inner, name)

    def _waiting_for(self, future: Any) -> Any:
        if asyncio.isfuture(future):
            # Before the callback that wakes the task: its result is there, and can still get lost.
            future.add_done_callback(lambda _: self._tell())
        self._tell()
        return future


# --- who is cancelled, and how


@dataclass(slots=True)
class Target:
    """A program in progress, as its caller has hold of it."""

    task: asyncio.Task[Any]
    scope: anyio.CancelScope
    timeout: asyncio.Timeout
    bell: Bell


class Bell:
    """Is rung instead of a cancellation: the program itself then leaves something before its end."""

    current: ContextVar[Bell] = ContextVar("bell")  # that of the program in progress

    def __init__(self) -> None:
        self._is_rung = False
        self._callbacks: list[Callable[[], object]] = []

    def on_ring(self, callback: Callable[[], object]) -> None:
        self._callbacks.append(callback)

    def ring(self) -> None:
        if not self._is_rung:
            self._is_rung = True
            for callback in self._callbacks:
                callback()

    async def wait_or(self, ending: asyncio.Future[Any]) -> None:
        """Return when it is rung, or the ending is there."""
        if not self._is_rung:
            ringing = asyncio.get_running_loop().create_future()
            self.on_ring(partial(ringing.set_result, None))
            await asyncio.wait({ringing, ending}, return_when=asyncio.FIRST_COMPLETED)


@dataclass(frozen=True, slots=True)
class Fault:
    """A way to cancel.

    further: after how many instants more it is done again, and with `is_ceaseless` at each from then on.
    tears_down: the loop ends without the program, and cancels every task of it, one by one.
    """

    strike: Callable[[Target], object]
    further: int | None = None
    is_ceaseless: bool = False
    tears_down: bool = False

    def is_due(self, passed: int) -> bool:
        """Tell whether to strike when so many instants have passed since the first time."""
        if passed == 0:
            return True
        if self.further is None or passed < self.further:
            return False
        return self.is_ceaseless or passed == self.further


def _cancel(target: Target) -> None:
    target.task.cancel()


def _cancel_scope(target: Target) -> None:
    target.scope.cancel()


def _time_out(target: Target) -> None:
    target.timeout.reschedule(asyncio.get_running_loop().time())


def _interrupt(target: Target) -> None:
    # From the loop, as Ctrl-C: `asyncio.run` cancels its task at the first one, and at the second it raises.
    asyncio.get_running_loop().call_soon(_raise_interrupt, target)


def _raise_interrupt(target: Target) -> None:
    if not target.task.done():
        signal.raise_signal(signal.SIGINT)


FAULTS = {
    "Task.cancel": Fault(_cancel),
    "Task.cancel twice": Fault(_cancel, further=3),
    "Task.cancel without end": Fault(_cancel, further=1, is_ceaseless=True),
    "anyio scope": Fault(_cancel_scope),
    "asyncio.timeout": Fault(_time_out),
    "Ctrl-C": Fault(_interrupt),
    "Ctrl-C twice": Fault(_interrupt, further=3, tears_down=True),
}
BELL = Fault(lambda target: target.bell.ring())


# --- running a program


@dataclass(slots=True)
class Struck:
    """What became of a program that was cancelled, or not, if it ended before."""

    value: Any = None  # what it returned
    error: BaseException | None = None  # what it raised, as its caller saw it
    instants: int = 0  # how many there were
    place: str | None = None  # where it was cancelled: what the tasks waited for
    complaints: list[str] = field(default_factory=list)

    @property
    def was_struck(self) -> bool:
        return self.place is not None


def strike(
    perform: Perform, fault: Fault, instant: int | None, *, loop_factory: LoopFactory = None
) -> Struck:
    """Run a program as `asyncio.run` does, and cancel it at that instant, or never.

    To be called in the main thread. Complaints are: tasks and asynchronous generators that are left when the
    program has ended, errors that reach the loop's handler, and warnings, also of the garbage collector's.
    """
    struck = Struck()
    with watchdog(), _hearing(struck.complaints):
        _run(struck, perform, fault, instant, loop_factory)
        gc.collect()
    if fault.tears_down:
        # Of a task that is cancelled before its first step, anyio never awaits the function's coroutine.
        struck.complaints = [each for each in struck.complaints if "never awaited" not in each]
    return struck


def _run(
    struck: Struck, perform: Perform, fault: Fault, instant: int | None, loop_factory: LoopFactory
) -> None:
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        loop = runner.get_loop()
        loop.set_exception_handler(partial(_note_error, struck.complaints))
        host = _Host(perform)
        instants = _Instants(partial(_act, struck, host, fault, instant))
        loop.set_task_factory(instants.make_task)
        try:
            struck.value = runner.run(host.run())
        except (Exception, asyncio.CancelledError, KeyboardInterrupt) as error:
            struck.error = error
            _forget_frames(error)
        struck.instants = instants.count
        if host.target.task.done():  # else a second Ctrl-C came, and the runner ends all tasks now
            struck.complaints += host.left


def _forget_frames(error: BaseException | None) -> None:
    """Let go of what the frames hold that an error went through: it would look as if it were left."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _act(struck: Struck, host: _Host, fault: Fault, instant: int | None, number: int) -> None:
    if instant is None or number < instant or not fault.is_due(number - instant):
        return
    if host.target.task.done():
        return
    if struck.place is None:
        struck.place = _place()
    fault.strike(host.target)


def _place() -> str:
    """Return where the tasks of the running loop wait."""
    places = []
    for task in asyncio.all_tasks():
        waiting: Any = task.get_coro()
        name = "not begun"
        while waiting is not None:
            frame = getattr(waiting, "cr_frame", None)
            if frame is not None:
                name = f"{frame.f_code.co_qualname}:{frame.f_lineno}"
            waiting = getattr(waiting, "cr_await", None)
        places.append(name)
    return ", ".join(sorted(places))


class _Host:
    """Performs a program, with all that a caller may have around it, and sees what it leaves in the loop."""

    target: Target

    def __init__(self, perform: Perform) -> None:
        self._perform = perform
        self.left: list[str] = []

    async def run(self) -> Any:
        task = asyncio.current_task()
        assert task is not None
        generators = _Generators()
        value = None
        try:
            with anyio.CancelScope() as scope:
                async with asyncio.timeout(None) as timeout:
                    self.target = Target(task, scope, timeout, Bell())
                    Bell.current.set(self.target.bell)
                    value = await self._perform()
        finally:
            tasks = asyncio.all_tasks() - {task}
            self.left = [f"left: {each!r}" for each in tasks] + generators.left()
        return value


class _Generators:
    """The asynchronous generators that this thread begins from now on."""

    def __init__(self) -> None:
        self._begun: weakref.WeakSet[AsyncGenerator[Any, Any]] = weakref.WeakSet()
        self._abandoned: list[str] = []
        self._of_loop = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(self._begin, self._abandon)

    def left(self) -> list[str]:
        """Return those that are not closed, or had to be by the garbage collector."""
        sys.set_asyncgen_hooks(*self._of_loop)
        left = [each for each in self._begun if each.ag_frame is not None]
        return [f"not closed: {each!r}" for each in left] + self._abandoned

    def _begin(self, generator: AsyncGenerator[Any, Any]) -> None:
        self._begun.add(generator)
        assert self._of_loop.firstiter is not None
        self._of_loop.firstiter(generator)

    def _abandon(self, generator: AsyncGenerator[Any, Any]) -> None:
        self._abandoned.append(f"left to the garbage collector: {generator!r}")
        assert self._of_loop.finalizer is not None
        self._of_loop.finalizer(generator)


# --- complaints


def _note_error(
    complaints: list[str], loop: asyncio.AbstractEventLoop, context: dict[str, Any]
) -> None:
    complaints.append(f"{context['message']}: {context.get('exception')!r}")


@contextmanager
def _hearing(complaints: list[str]) -> Iterator[None]:
    """Note every warning, and every error that Python can raise nowhere: of a `__del__`, of a thread."""

    def note(unraisable: sys.UnraisableHookArgs) -> None:
        complaints.append(f"{unraisable.err_msg or 'ignored'}: {unraisable.exc_value!r}")

    def note_of_thread(failed: threading.ExceptHookArgs) -> None:
        complaints.append(f"{failed.thread}: {failed.exc_value!r}")

    former = sys.unraisablehook, threading.excepthook
    sys.unraisablehook, threading.excepthook = note, note_of_thread
    try:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            yield
        kinds = (ResourceWarning, RuntimeWarning)  # not closed, never awaited
        complaints += [str(each.message) for each in heard if issubclass(each.category, kinds)]
    finally:
        sys.unraisablehook, threading.excepthook = former


class _Hang(SystemExit):
    """One of the two kinds of errors that an event loop lets out of its callbacks."""


@contextmanager
def watchdog(seconds: float = _LONGEST_SECONDS) -> Iterator[None]:
    """End the block with an AssertionError if it hangs, and show where all threads are. In the main thread."""

    def bark(number: int, frame: FrameType | None) -> None:
        faulthandler.dump_traceback(all_threads=True)
        raise _Hang

    former = signal.signal(signal.SIGALRM, bark)
    # Again and again: what cleans up may hang, too.
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds / 10)
    try:
        yield
    except _Hang as error:
        raise AssertionError(f"it hangs: {seconds:.0f} s are over") from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
