"""One run in a process of its own, as the caller sees it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from pathlib import Path

import anyio
import anyio.lowlevel

from aiotune.errors import ExecutorError, MissingFramework
from aiotune.executors.base import Execution, Failed, Finished, RunEvent
from aiotune.executors.endings import unsaid_ending
from aiotune.executors.forkserver import TERM_SECONDS
from aiotune.executors.launch import Server, ServerLost
from aiotune.executors.requests import Terms
from aiotune.executors.wire import (
    MAX_EVENT_BYTES,
    Frame,
    FrameDecoder,
    WireError,
    encode_frame,
    event_from_frame,
)
from aiotune.tasks import in_thread, whole
from aiotune.trial import FailureKind

__all__ = ["ProcessExecution"]

_LOGGER = logging.getLogger(__name__)

_CHUNK_BYTES = 2**16
_MOST_EVENTS = 64  # in one turn of the loop: a run that floods it must not keep it from others
_LINGER_SECONDS = 2.0  # for a child to exit after its last event
_ANSWER_SECONDS = 5.0  # for the server to show a sign of life when told to kill a run
_KILL_ROUNDS = 6  # of that length, for a killed run to be gone: one with much on its GPU takes long


class ProcessExecution(Execution):
    """A run between `begin` and `close`. Two sockets lead to it: facts, to the child; status, to the server.

    Invariant: `_outcome` is None while a process of the run may be alive, unless it is given up.
    The end of a run is told by the status socket alone: a forgotten process may hold the facts socket open.
    """

    def __init__(
        self,
        server: Server,
        *,
        log: Path,
        grace_seconds: float,
        on_close: Callable[[ProcessExecution], object],
    ) -> None:
        self._server = server
        self._log = log
        self._grace_seconds = grace_seconds
        self._on_close = on_close
        self._number: int | None = None
        self._facts = _End()
        self._status = _End()
        self._outcome: Frame | None = None
        self._is_answered = False  # the server has shown a sign of life since last asked for one
        self._ending: Finished | Failed | None = None
        self._is_stop_requested = False
        self._is_closing = False
        self._end_by = float("inf")  # when the server must have told the end, by the loop's clock
        self._patience = anyio.CancelScope()  # of `events`, while it waits for the sockets
        self._waiting: anyio.Event | None = None  # set when `events` ceases to wait for the sockets
        self._closed = anyio.Event()

    async def begin(
        self,
        order: bytes,
        payload_fd: int,
        held: Sequence[int] = (),
        memory_bytes: int | None = None,
    ) -> None:
        """Have the run forked, with copies of the descriptors `held` for as long as it lives.

        memory_bytes: what it may hold of the machine's memory; None: no limit. ServerLost, MissingFramework or
        ExecutorError if that fails; then `close`.
        """
        with contextlib.ExitStack() as stack:
            theirs = [stack.enter_context(end.open()) for end in (self._facts, self._status)]
            self._server.watch(self._facts.socket, self._status.socket)
            self._number = self._server.run(
                facts=theirs[0],
                status=theirs[1],
                payload_fd=payload_fd,
                held=held,
                terms=Terms(memory_bytes, str(self._log)),
            )
        with contextlib.suppress(OSError):  # refused, or the server died: the status says which
            await asyncio.get_running_loop().sock_sendall(self._facts.socket, order)
        self._receive_status()
        while not (self._is_answered or self._outcome):
            await _wait_readable(self._status)
            self._receive_status()
        await self._check_begun()

    async def _check_begun(self) -> None:
        match self._outcome:
            case {"is_lost": True}:
                await self._wait_server_end()
                raise ServerLost("the fork server died")
            case {"refused": str(text), "is_missing": bool(is_missing)}:
                raise (MissingFramework if is_missing else ExecutorError)(text)

    async def events(self) -> AsyncGenerator[RunEvent, None]:
        if self._closed.is_set():
            return
        try:
            while self._outcome is None:
                await self._wait_news()
                for number, event in enumerate(self._receive_events(), 1):
                    yield event
                    if number % _MOST_EVENTS == 0:
                        await anyio.lowlevel.checkpoint()
                self._receive_status()
            if "is_lost" in self._outcome:
                await self._wait_server_end()
            while not self._facts.is_dry:
                for event in self._receive_events():
                    yield event
            yield self._ending or await self._unsaid_ending(self._outcome)
        finally:
            await whole(self.close())

    def request_stop(self, reason: str) -> None:
        if self._is_stop_requested or self._closed.is_set():
            return
        self._is_stop_requested = True
        # A child that does not read is ended all the same.
        with contextlib.suppress(OSError):
            self._facts.socket.send(encode_frame({"stop": reason}))
        self._end(self._grace_seconds)

    def kill(self) -> None:
        """End the run by force; returns at once."""
        self._end(0)

    async def close(self) -> None:
        """Return when no process of the run is left, which is forced. Bounded; may be called twice.

        A process that is not gone 30 s after its kill is left to the system, and logged.
        """
        if self._closed.is_set():
            return
        self._is_closing = True
        if self._outcome is None and self._number is not None and self._server.is_ours:
            self.kill()
            self._facts.hang_up()
            # Asked after the hang-up: else nothing is forked yet, and what hung up will not be.
            if self._server.is_ready:
                await self._wait_killed()
        self._server.unwatch(*self._facts.sockets, *self._status.sockets)
        self._facts.close()
        self._status.close()
        self._closed.set()
        self._on_close(self)

    # --- what arrives ---

    async def _wait_news(self) -> None:
        """Return when there is something to read; see to it that the end of a run comes that is due."""
        self._waiting = over = anyio.Event()
        try:
            with anyio.CancelScope(deadline=self._end_by) as self._patience:
                await _wait_readable(self._facts, self._status)
        finally:
            self._waiting = None
            over.set()
        if self._patience.cancelled_caught and not self._is_closing:
            self._end_by = float("inf")
            await self._wait_killed()  # the server should have ended it: does it still answer?

    def _receive_events(self) -> Iterator[RunEvent]:
        """Yield what has arrived on the facts socket, but keep the last event: the run may not be gone yet."""
        if self._facts.is_at_end:
            return
        try:
            for frame in self._facts.receive():
                event = event_from_frame(frame)
                if self._ending is not None:
                    pass  # what comes after a last event is none of the run's
                elif isinstance(event, Finished | Failed):
                    self._ending = event
                    self._end(_LINGER_SECONDS)
                else:
                    yield event
        except WireError as error:
            self._facts.is_at_end = self._facts.is_dry = True
            message = f"something other than aiotune wrote to the run's socket: {error}"
            self._ending = self._ending or Failed(FailureKind.CRASH, message)
            self.kill()
        if self._facts.is_at_end and self._outcome is None:
            self._end(_LINGER_SECONDS)  # it can report nothing more

    def _receive_status(self) -> None:
        try:
            for frame in self._status.receive():
                self._is_answered = True
                if "pid" not in frame:
                    self._outcome = frame
        except WireError:  # user code has got hold of the server's end: nothing that it says holds
            self._outcome = {"is_lost": True}
        if self._status.is_at_end and self._outcome is None:
            self._outcome = {"is_lost": True}

    async def _wait_killed(self) -> None:
        """Have the run killed until its end is told; give up a server that does not answer, or else the run."""
        for _ in range(_KILL_ROUNDS):
            self._is_answered = False
            self.kill()
            with anyio.move_on_after(_ANSWER_SECONDS):
                await (self._closed.wait() if self._waiting else self._wait_outcome())
            self._receive_status()  # the loop may have been blocked for all that time
            if self._outcome is not None or not self._is_answered:
                break
        if self._outcome is None and self._is_answered:
            _LOGGER.error("a run was killed and does not end; its devices may still be in use")
            self._outcome = {"is_stuck": True}
            await self._wake_reader()
        elif self._outcome is None:
            _LOGGER.error("the fork server does not answer and is ended; its runs are lost")
            await self._wait_server_end()
        elif "is_lost" in self._outcome:
            await self._wait_server_end()

    async def _wake_reader(self) -> None:
        """Let `events` come to its end, before the sockets are closed under it."""
        for own in (*self._facts.sockets, *self._status.sockets):
            with contextlib.suppress(OSError):
                own.shutdown(socket.SHUT_RDWR)
        if self._waiting is not None:
            await self._waiting.wait()

    async def _wait_outcome(self) -> None:
        self._receive_status()
        while self._outcome is None:
            await _wait_readable(self._status)
            self._receive_status()

    async def _wait_server_end(self) -> None:
        """Return when nothing is left of a server that has died, or whose time is up: the run neither."""
        self._server.kill()  # known before its end is noticed, lest a retry meets it again
        await in_thread(self._server.wait_end)

    def _end(self, delay_seconds: float) -> None:
        if self._number is not None and self._outcome is None:
            self._server.end(self._number, delay_seconds)
            due = anyio.current_time() + delay_seconds + TERM_SECONDS + _ANSWER_SECONDS
            self._end_by = min(self._end_by, due)
            self._patience.deadline = self._end_by

    async def _unsaid_ending(self, outcome: Frame) -> Finished | Failed:
        find = functools.partial(
            unsaid_ending,
            outcome,
            is_stop_requested=self._is_stop_requested,
            log=self._log,
            server_log=self._server.log,
        )
        return await anyio.to_thread.run_sync(find)


class _End:
    """The caller's end of a socket pair, without waiting, and the frames that arrive on it."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []  # none or one
        self.is_at_end = False  # nothing more will come
        self.is_dry = False  # nothing more has come yet
        self._decoder = FrameDecoder(MAX_EVENT_BYTES)

    def open(self) -> socket.socket:
        """Connect, and return the other end. ExecutorError if the process has no descriptors left."""
        try:
            own, other = socket.socketpair()
        except OSError as error:
            raise ExecutorError(f"no socket can be opened for a run: {error}") from error
        own.setblocking(False)
        self.sockets.append(own)
        return other

    @property
    def socket(self) -> socket.socket:
        return self.sockets[0]

    def receive(self) -> list[Frame]:
        """Return the frames that one chunk of bytes completes, if any has arrived. WireError."""
        try:
            data = self.socket.recv(_CHUNK_BYTES)
        except BlockingIOError:
            self.is_dry = True
            return []
        except OSError:
            data = b""
        self.is_at_end = self.is_dry = not data
        return self._decoder.feed(data)

    def hang_up(self) -> None:
        """Show the other side an end of file, also if another fork of this process holds a copy."""
        for own in self.sockets:
            with contextlib.suppress(OSError):
                own.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        for own in self.sockets:
            own.close()
        self.is_at_end = self.is_dry = True


async def _wait_readable(*ends: _End) -> None:
    """Return when one of the ends has something to read, or is at its end. Works on every asyncio loop."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    watched = [end.socket for end in ends if not end.is_at_end]
    try:
        for each in watched:
            loop.add_reader(each, _resolve, ready)
        await ready
    finally:
        # Removed at once: the loop would else call again and again until somebody reads.
        for each in watched:
            loop.remove_reader(each)


def _resolve(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
