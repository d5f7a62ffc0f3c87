"""Runs in the caller's own event loop: for async functions; on request for others too, for a debugger."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import cast

from aiotune.errors import FatalTypeError
from aiotune.executors.base import (
    Assignment,
    Execution,
    Executor,
    Failed,
    Finished,
    RunEvent,
)
from aiotune.executors.context import (
    Program,
    RunContext,
    StopRun,
    abort,
    finish,
    perform,
)
from aiotune.tasks import whole
from aiotune.trial import FailureKind

__all__ = ["AsyncProgram", "InlineExecution", "InlineExecutor"]

_LOGGER = logging.getLogger(__name__)

_CANCEL_SECONDS = 1.0  # for a cancelled program to unwind

AsyncProgram = Callable[[RunContext], Awaitable[Finished]]


class InlineExecutor(Executor):
    """Runs an async program as a task of the running loop, any number at a time.

    grace_seconds: between a request to stop and the program's cancellation. allow_blocking: take a plain
    function, too; it holds up the loop, and with it the whole search, while it runs.
    """

    writes_logs = False

    def __init__(
        self,
        program: AsyncProgram | Program,
        *,
        allow_blocking: bool = False,
        grace_seconds: float = 10.0,
    ) -> None:
        if not (allow_blocking or _is_async(program)):
            raise FatalTypeError(
                f"{program!r} is a plain function, which would block the event loop: make it "
                "`async def`, use the process executor, or pass allow_blocking=True to debug it"
            )
        self._program = program
        self._grace_seconds = grace_seconds
        self._executions: set[InlineExecution] = set()

    async def start(self, assignment: Assignment, *, held: Sequence[int] = ()) -> InlineExecution:
        """Start a run. Its process is this one, which keeps `held` open as it is."""
        execution = InlineExecution(
            self._program,
            assignment,
            grace_seconds=self._grace_seconds,
            on_close=self._executions.discard,
        )
        self._executions.add(execution)
        return execution

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await whole(self._close())

    async def _close(self) -> None:
        for execution in list(self._executions):
            await execution.close()


class InlineExecution(Execution):
    """A run that is a task of the loop; also the channel of its program.

    Invariant: the last item of `_arrived` is the ending, put there when the task is done.
    """

    def __init__(
        self,
        program: AsyncProgram | Program,
        assignment: Assignment,
        *,
        grace_seconds: float,
        on_close: Callable[[InlineExecution], object],
    ) -> None:
        self._program = program
        self._grace_seconds = grace_seconds
        self._on_close = on_close
        self._arrived: asyncio.Queue[RunEvent] = asyncio.Queue()
        self._stop_reason: str | None = None
        self._is_closed = False
        self._timer: asyncio.TimerHandle | None = None
        # Its parent is this execution: `close` ends it, and the executor closes every execution.
        self._task = asyncio.create_task(
            self._perform(RunContext(assignment, self)), name=f"run {assignment.trial_id}"
        )
        self._task.add_done_callback(self._on_done)

    def emit(self, event: RunEvent) -> None:
        self._arrived.put_nowait(event)

    @property
    def stop_reason(self) -> str | None:
        return self._stop_reason

    async def events(self) -> AsyncGenerator[RunEvent, None]:
        try:
            event: RunEvent | None = None
            while not (self._is_closed or isinstance(event, Finished | Failed)):
                event = await self._arrived.get()
                yield event
        finally:
            await whole(self.close())

    def request_stop(self, reason: str) -> None:
        if self._stop_reason is None and not self._task.done():
            self._stop_reason = reason
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._grace_seconds, self._cancel_or_abandon)

    async def close(self) -> None:
        """Cancel the program if it still runs, and return when it has unwound. Bounded."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task], timeout=_CANCEL_SECONDS)
            if not self._task.done():
                _LOGGER.error("%s swallows its cancellation and is left alone", self._program)
        self._on_close(self)

    async def _perform(self, run: RunContext) -> Finished | Failed:
        if not _is_async(self._program):
            return perform(cast("Program", self._program), run)
        program = cast("AsyncProgram", self._program)
        try:
            run.start()
            return finish(run, await program(run))
        except (Exception, StopRun, SystemExit) as error:
            return abort(run, error)

    def _on_done(self, task: asyncio.Task[Finished | Failed]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.emit(self._ending(task))

    def _ending(self, task: asyncio.Task[Finished | Failed]) -> Finished | Failed:
        if not task.cancelled():
            return task.result()
        if self._stop_reason is not None:
            return Finished(is_stopped=True)
        return Failed(FailureKind.USER_ERROR, "user code cancelled its own task")

    def _cancel_or_abandon(self) -> None:
        """Cancel the program; should it swallow that, tell its end without it."""
        self._task.cancel()
        self._timer = asyncio.get_running_loop().call_later(
            _CANCEL_SECONDS, self.emit, Finished(is_stopped=True)
        )


def _is_async(program: object) -> bool:
    return inspect.iscoroutinefunction(program) or inspect.iscoroutinefunction(
        getattr(program, "__call__", None)  # noqa: B004  (an object with an async __call__)
    )
