"""What runs in the forked child: enter the caller's world, load the program, perform it, send how it ended."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import select
import socket
import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from aiotune.executors.base import (
    Assignment,
    Failed,
    Finished,
    GpuMeasured,
    Measured,
    Noted,
    Observed,
    RunEvent,
)
from aiotune.executors.child_log import flush_output, redirect_output
from aiotune.executors.context import Program, RunContext, StopRun, ending_of, perform, run_seed
from aiotune.executors.footprint import Footprint
from aiotune.executors.gpu_memory import memory_limit, peak_bytes
from aiotune.executors.imports import Imports, import_hint, preloaded_frameworks
from aiotune.executors.libraries import Settings, apply_settings
from aiotune.executors.payload import PreludeError, load
from aiotune.executors.wire import (
    MAX_EVENT_BYTES,
    MAX_REPORT_BYTES,
    Frame,
    FrameDecoder,
    assignment_from_frame,
    encode_frame,
    event_to_frame,
)
from aiotune.executors.world import World
from aiotune.trial import FailureKind

__all__ = ["ChildChannel", "run_child"]

_CHUNK_BYTES = 65536
_MOST_NOTES = 100  # in a run: they are for people to read


class ChildChannel:
    """The child's end of the facts socket: events go up, a request to stop comes down. Thread-safe.

    There is no listening thread: a look at `stop_reason` is one system call that never waits.
    """

    def __init__(self, facts: socket.socket) -> None:
        self._facts = facts
        self._owner = os.getpid()
        self._process = self._owner  # that the locks, and what is unsent, belong to
        self._footprint = Footprint(self._tell_memory)
        self._gpu_footprint: Footprint | None = None
        self._decoder = FrameDecoder()
        self._sending = threading.RLock()  # a signal's handler may report in the midst of a report
        self._is_sending = False
        self._unsent = b""
        self._sent: list[int] = []  # how much of it went in each piece
        self._notes = 0
        self._looking = threading.Lock()
        self._stop_reason: str | None = None

    def receive_order(self) -> Frame:
        """Return the first frame, which says what to do; wait for it. EOFError if the caller is gone."""
        while True:
            data = self._facts.recv(_CHUNK_BYTES)
            if not data:
                raise EOFError
            frames = self._decoder.feed(data)
            if frames:
                self._notice(frames[1:])
                return frames[0]

    def measure_gpus(self, cards: int) -> None:
        """Tell from now on what the run has held of its `cards` GPUs, too."""
        measure = functools.partial(peak_bytes, cards)
        self._gpu_footprint = Footprint(self._tell_gpu_memory, measure=measure)

    def emit(self, event: RunEvent) -> None:
        """Send the event; waits while the caller is behind. Raises StopRun if the caller is gone.

        The memory that the run holds goes along, now and then; that of its GPUs also at its end.
        """
        if isinstance(event, Noted):
            self._notes += 1
            if self._notes > _MOST_NOTES:
                return
        if isinstance(event, Observed | Finished | Failed):
            self._footprint.look()
            if self._gpu_footprint is not None:
                self._gpu_footprint.look(is_last=not isinstance(event, Observed))
        self._send(event)

    @property
    def is_ours(self) -> bool:
        """Whether this is the run's process, and not a fork of it that user code has made."""
        return os.getpid() == self._owner

    def _tell_memory(self, memory_bytes: int) -> None:
        self._send(Measured(memory_bytes))

    def _tell_gpu_memory(self, memory_bytes: int) -> None:
        self._send(GpuMeasured(memory_bytes))

    def _send(self, event: RunEvent) -> None:
        is_report = isinstance(event, Observed | Finished)
        data = encode_frame(
            event_to_frame(event), MAX_REPORT_BYTES if is_report else MAX_EVENT_BYTES
        )
        self._begin_in_fork()
        try:
            with self._sending:
                self._unsent += data
                if not self._is_sending:  # else this is such a handler, and what it adds goes next
                    self._send_unsent()
        except OSError as error:
            _raise_foreign(error)
            self._stop_reason = "the search is gone"
            raise StopRun(self._stop_reason) from error

    def _begin_in_fork(self) -> None:
        """In a fork, leave to the run's own process what its threads were doing when it was forked."""
        if self._process != os.getpid():
            self._process = os.getpid()
            self._sending, self._looking = threading.RLock(), threading.Lock()
            self._unsent, self._sent, self._is_sending = b"", [], False

    def _send_unsent(self) -> None:
        """Send what waits. If a signal's handler raises in between, the rest goes before the next event."""
        self._is_sending = True
        try:
            while (position := sum(self._sent)) < len(self._unsent):
                self._send_piece(self._unsent[position:])
            self._unsent, self._sent = b"", []
        finally:
            self._is_sending = False

    def _send_piece(self, piece: bytes) -> None:
        try:
            # A handler runs after a call returns, and before its result is stored. Here the result is stored by
            # the same call, so that it is never forgotten what was sent.
            self._sent.extend(map(self._facts.send, (piece,)))
        except BlockingIOError:  # user code has set the socket so, of which it knows nothing
            poll = select.poll()
            poll.register(self._facts, select.POLLOUT)
            poll.poll()

    @property
    def stop_reason(self) -> str | None:
        self._begin_in_fork()
        with self._looking:
            if self._stop_reason is None:
                self._look()
            return self._stop_reason

    def _look(self) -> None:
        flags, decoder = socket.MSG_DONTWAIT, self._decoder
        if not self.is_ours:  # the run's own process must hear it: a fork takes nothing away
            flags, decoder = flags | socket.MSG_PEEK, copy.deepcopy(decoder)
        try:
            data = self._facts.recv(_CHUNK_BYTES, flags)
        except BlockingIOError:
            return
        except OSError as error:
            _raise_foreign(error)
            data = b""
        if data:
            self._notice(decoder.feed(data))
        else:
            self._stop_reason = "the search is gone"

    def _notice(self, frames: Iterable[Frame]) -> None:
        for frame in frames:
            self._stop_reason = self._stop_reason or frame.get("stop")


def _raise_foreign(error: OSError) -> None:
    """Raise an error that is none of the system's: a handler's TimeoutError, which is an OSError, too."""
    if error.errno is None:
        raise error


def run_child(facts: socket.socket, payload_fd: int, *, is_forked: bool = True) -> int:
    """Do the run that arrives on `facts`, to its end, and return the process's exit code.

    `is_forked`: from a fork server, which can import for it. The caller of this function must end the process
    with that code, by `os._exit`.
    """
    channel = ChildChannel(facts)
    try:
        order = channel.receive_order()
    except (EOFError, OSError):
        return 0  # the search was cancelled before the run began
    assignment = assignment_from_frame(order["assignment"])
    if assignment.gpus:
        channel.measure_gpus(len(assignment.gpus))
    imports, preloaded = Imports(), preloaded_frameworks()
    world = World.from_frame(order["world"])
    ending = _perform(assignment, world, payload_fd, channel, imports)
    if not channel.is_ours:
        return 0  # a fork that came out of the program: the run's own process tells the end
    with contextlib.suppress(StopRun):
        hint = import_hint(imports.seconds, preloaded) if is_forked else None
        if hint is not None:
            channel.emit(Noted(hint))
        _send_ending(channel, ending)
    flush_output()
    return 0


def _perform(
    assignment: Assignment,
    world: World,
    payload_fd: int,
    channel: ChildChannel,
    imports: Imports,
) -> Finished | Failed:
    try:
        redirect_output(Path(world.directory, assignment.log))
        world.enter(assignment)
        imports.install()
        _set_libraries(assignment, world, imports)
        program = load(payload_fd)
        os.close(payload_fd)
    except PreludeError as error:
        return _load_failure(error.__cause__ or error, "setup failed in the child")
    except BaseException as error:
        return _load_failure(error, "the program could not be loaded in the child")
    return _call(program, RunContext(assignment, channel))


def _set_libraries(assignment: Assignment, world: World, imports: Imports) -> None:
    apply_settings(
        Settings(
            seed=run_seed(assignment),
            threads=len(assignment.cores),
            has_gpu=bool(assignment.gpus),
            limit=memory_limit(assignment.gpu_memory, assignment.gpu_fraction),
        ),
        imports,
    )
    if world.keras is not None:
        imports.after("keras", world.keras.apply)


def _call(program: Program, run: RunContext) -> Finished | Failed:
    try:
        return perform(program, run)
    except BaseException as error:  # KeyboardInterrupt of user code: nobody above would report it
        return ending_of(error)


def _load_failure(error: BaseException, what: str) -> Finished | Failed:
    """Return what stands for a program that cannot be had: every further run would fail alike."""
    ending = ending_of(error)
    if isinstance(ending, Failed) and ending.kind is not FailureKind.OUT_OF_MEMORY:
        message = f"{what}: {ending.message}"
        return replace(ending, message=message, is_fatal=True, may_retry=False)
    return ending


def _send_ending(channel: ChildChannel, ending: Finished | Failed) -> None:
    try:
        channel.emit(ending)
    except (TypeError, ValueError) as error:  # metrics that are no numbers
        channel.emit(ending_of(error))
