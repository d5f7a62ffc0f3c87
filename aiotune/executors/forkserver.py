"""The fork server: imports the frameworks once, then forks a child for each run, watches and ends the children.

The guardian starts it; it runs no user code and touches no device. One thread, one loop over three things: the
control socket (requests), the caller's death, and signals: SIGCHLD, and SIGTERM, by which it ends. It alone
signals runs, whose parent it is, so that no process id can be reused under it. It ends with the caller, and
nothing that a run has started outlives the run: each run is the subreaper of what it starts, and this process
of what a dead run has left.

With the start method "spawn" it imports nothing and starts a new interpreter for each run; all else is alike.

One byte on the control socket tells that the imports are done; requests.py has what is asked on it. Each run's
status socket gets one frame when its process is made, `{"pid": ...}`, or refused,
`{"refused": text, "is_missing": bool}`, also if the caller hung up before; the first again at each request to
kill it, as a sign of life; and one when it is over and all its processes gone: `{"exit": code}` or
`{"signal": number}`. If memory was what ended it, that frame has `"memory": why` and `"may_retry": bool`, too;
and `"is_counted": True` if another process killed it, for the kernel counted no lack of memory.

While runs are alive it looks after two things, as seldom as it may: memory (memory_watch.py) and the length of
their logs (log_cap.py).
"""

from __future__ import annotations

import contextlib
import gc
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from aiotune.executors.birth import SERVER_OOM_SCORE, fork_child, spawn_child
from aiotune.executors.log_cap import LogCap
from aiotune.executors.memory_readings import MemoryReader
from aiotune.executors.memory_watch import MEMORY_REMEDY, MemoryWatch, Shortage
from aiotune.executors.oom_kills import OomKills, oom_counter
from aiotune.executors.preload import ImportGuard, import_modules
from aiotune.executors.requests import RUN, Request, receive_request
from aiotune.executors.system import (
    POLL_SECONDS,
    become_subreaper,
    catch_signals,
    caught_signals,
    children,
    die_with,
    end_children,
    is_hung_up,
    kill,
    kill_group,
    kill_with_group,
    raise_oom_score,
    reap_children,
    reset_signals,
)
from aiotune.executors.wire import Frame, encode_frame

__all__ = ["TERM_SECONDS", "main"]

TERM_SECONDS = 0.5  # between SIGTERM and SIGKILL
_REAP_SECONDS = 2.0  # for a run's killed descendants to vanish, before its end is told anyway
_SPARE_DESCRIPTORS = 4  # beside a request's: to list the processes, and some more
_GIVEN_UP: Frame = {"refused": "the run was given up", "is_missing": False}
_NO_DESCRIPTORS: Frame = {
    "refused": "no descriptors are left for another run: raise `ulimit -n`, or run fewer at a time",
    "is_missing": False,
}
_KERNEL = f"the kernel killed the run, for memory ran out: {MEMORY_REMEDY}"


@dataclass(slots=True)
class _Run:
    """A run with its process. Its process group has its `pid` as number. `shortage`: why it was killed."""

    pid: int
    status: socket.socket
    log: LogCap | None
    shortage: Shortage | None = None
    is_killed: bool = False  # on request
    term_at: float = float("inf")
    kill_at: float = float("inf")
    outcome: Frame | None = None  # set once the child is dead
    report_by: float = float("inf")


def main(config: Mapping[str, Any], *, caller: int | None, guardian: int) -> NoReturn:
    """Serve until the caller lets go. `config`: control (fd), start_method, preload (modules).

    `caller` becomes readable when the caller dies; None where the system has no such descriptor.
    """
    reset_signals()  # SIGTERM ends the imports at once
    die_with(guardian, signal.SIGTERM)
    become_subreaper()
    raise_oom_score(SERVER_OOM_SCORE)
    control = socket.socket(fileno=config["control"])
    control.set_inheritable(False)
    refusal = None
    is_spawning = config["start_method"] == "spawn"
    if not is_spawning:
        with ImportGuard(control, caller):
            refusal = _prepare_forks(config["preload"])
    server = _ForkServer(control, caller, guardian, refusal, is_spawning=is_spawning)
    with contextlib.suppress(OSError):
        control.send(b".")  # nothing else is ever sent on it
    try:
        server.serve()
    finally:
        server.shut_down()
        os._exit(0)


def _prepare_forks(preload: list[str]) -> Frame | None:
    """Import what the children share; return what to answer to every request if that fails."""
    from aiotune.executors.child import run_child  # noqa: F401, for every child to have
    from aiotune.executors.libraries import prepare_pools

    refusal = import_modules(preload)
    prepare_pools()
    gc.collect()
    gc.freeze()  # the collector would else touch, and so copy, the shared pages in every child
    return refusal


class _ForkServer:
    def __init__(
        self,
        control: socket.socket,
        caller: int | None,
        guardian: int,
        refusal: Frame | None,
        *,
        is_spawning: bool,
    ) -> None:
        self._control = control
        self._caller = caller
        self._guardian = guardian
        self._refusal = refusal
        self._is_spawning = is_spawning
        self._runs: dict[int, _Run] = {}
        self._is_over = False
        self._memory = MemoryWatch(MemoryReader())
        self._oom_kills = OomKills(oom_counter())
        self._wakeup = catch_signals(signal.SIGCHLD, signal.SIGTERM)
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ, self._on_request)
        self._selector.register(self._wakeup, selectors.EVENT_READ, self._on_signal)
        if caller is not None:
            self._selector.register(caller, selectors.EVENT_READ, self._on_caller_death)

    def serve(self) -> None:
        while not self._is_over:
            for key, _ in self._selector.select(self._seconds_to_deadline()):
                handler: Callable[[], None] = key.data
                handler()
            self._enforce_deadlines()
            self._look_after()
            self._report_ended()
            if os.getppid() != self._guardian:
                self._is_over = True

    def shut_down(self) -> None:
        """Kill every run and everything that they started, within bounded time."""
        for run in self._runs.values():
            if run.outcome is None:
                kill_with_group(run.pid, signal.SIGKILL)
        end_children(self._wakeup, _REAP_SECONDS)

    # --- what may happen ---

    def _on_request(self) -> None:
        request = receive_request(self._control)
        if request is None:
            self._is_over = True  # the last user let go
            return
        for fd in request.descriptors:
            os.set_inheritable(fd, False)  # they arrive as the system's calls have it
        if request.what == RUN:
            self._admit(request)
        else:
            self._end(request.number, request.amount / 1000)

    def _on_signal(self) -> None:
        if signal.SIGTERM in caught_signals(self._wakeup):
            self._is_over = True
        reap_children(self._on_death)

    def _on_caller_death(self) -> None:
        self._is_over = True

    # --- one run ---

    def _admit(self, request: Request) -> None:
        """Start a run, or refuse it at the limit on descriptors: the system drops those that do not fit."""
        fds = request.descriptors
        if len(fds) == request.amount and _has_spare_descriptors():
            status, facts = (socket.socket(fileno=fd) for fd in fds[:2])
            self._start(request, facts, status, fds[2:])
            return
        for fd in fds[:1]:
            with socket.socket(fileno=fd) as end:
                _send(end, _NO_DESCRIPTORS)
        for fd in fds[1:]:
            os.close(fd)

    def _start(
        self, request: Request, facts: socket.socket, status: socket.socket, kept: Sequence[int]
    ) -> None:
        """Start a run, or refuse it. `kept`: the payload, and what the run holds; closed here, as the rest."""
        status.setblocking(False)
        if self._refusal is not None:
            _send(status, self._refusal)
            status.close()
        elif is_hung_up(facts.fileno()):  # cancelled, as a rule during the imports
            _send(status, _GIVEN_UP)
            status.close()
        else:
            self._start_process(request, facts, status, kept)
        facts.close()
        for fd in kept:
            os.close(fd)

    def _start_process(
        self, request: Request, facts: socket.socket, status: socket.socket, kept: Sequence[int]
    ) -> None:
        payload, *held = kept
        self._oom_kills.note()
        try:
            if self._is_spawning:
                pid = spawn_child(facts, payload, held)
            else:
                pid = fork_child(facts, payload, held, lambda: self._let_go(status))
        except OSError as error:
            _send(status, {"refused": f"no process can be started: {error}", "is_missing": False})
            status.close()
            return
        log = None if request.terms.log is None else LogCap(request.terms.log)
        self._runs[request.number] = _Run(pid, status, log)
        self._memory.add(request.number, pid, request.terms.memory_bytes)
        _send(status, {"pid": pid})

    def _let_go(self, status: socket.socket) -> None:
        """Close what belongs to the server, by its objects, so that none closes a number used anew later."""
        for run in self._runs.values():
            run.status.close()
        self._selector.close()
        for end in (self._control, status):
            end.close()

    def _end(self, number: int, delay_seconds: float) -> None:
        run = self._runs.get(number)
        if run is None:
            return
        if delay_seconds == 0:
            _send(run.status, {"pid": run.pid})
        if run.outcome is not None:
            return
        now = time.monotonic()
        if delay_seconds == 0:
            run.kill_at = now
        else:
            run.term_at = min(run.term_at, now + delay_seconds)
            run.kill_at = min(run.kill_at, now + delay_seconds + TERM_SECONDS)

    def _seconds_to_deadline(self) -> float | None:
        due = [min(run.term_at, run.kill_at, run.report_by) for run in self._runs.values()]
        due += [run.log.next_look for run in self._runs.values() if run.log is not None]
        due.append(self._memory.next_look)
        seconds = max(0.0, min(due) - time.monotonic())
        if self._caller is None:
            seconds = min(seconds, POLL_SECONDS)
        return None if seconds == float("inf") else seconds

    def _enforce_deadlines(self) -> None:
        now = time.monotonic()
        for run in self._runs.values():
            if run.outcome is not None:
                continue
            if run.kill_at <= now:
                run.term_at = run.kill_at = float("inf")
                run.is_killed = True
                kill_with_group(run.pid, signal.SIGKILL)
            elif run.term_at <= now:
                run.term_at = float("inf")
                kill_with_group(run.pid, signal.SIGTERM)

    def _look_after(self) -> None:
        """Keep logs short, and kill runs for memory, where it is time to look."""
        now = time.monotonic()
        for run in self._runs.values():
            if run.log is not None and run.log.next_look <= now:
                run.log.look()
        if self._memory.next_look > now:
            return
        self._oom_kills.note()
        for shortage in self._memory.look():
            run = self._runs[shortage.number]
            run.shortage = shortage
            kill_with_group(run.pid, signal.SIGKILL)

    # --- the dead ---

    def _on_death(self, pid: int, code: int) -> None:
        for number, run in self._runs.items():
            if run.pid == pid and run.outcome is None:
                kill_group(pid, signal.SIGKILL)
                self._memory.remove(number)
                run.outcome = {"exit": code} if code >= 0 else self._killed(run, -code)
                run.term_at = run.kill_at = float("inf")
                run.report_by = time.monotonic() + _REAP_SECONDS

    def _killed(self, run: _Run, number: int) -> Frame:
        """Return how a run was ended by a signal: by whom, if that is known."""
        outcome: Frame = {"signal": number}
        if number != signal.SIGKILL:
            return outcome
        if run.shortage is not None:
            return {**outcome, "memory": run.shortage.why, "may_retry": run.shortage.may_retry}
        if run.is_killed or not self._oom_kills.is_known:
            return outcome
        if self._oom_kills.has_killed():
            return {**outcome, "memory": _KERNEL, "may_retry": True}
        return {**outcome, "is_counted": True}

    def _report_ended(self) -> None:
        """Tell the end of each dead run once nothing is left of any of them."""
        ended = [number for number, run in self._runs.items() if run.outcome is not None]
        if not ended:
            return
        is_clean = not self._kill_adopted()
        now = time.monotonic()
        for number in ended:
            run = self._runs[number]
            if run.outcome is not None and (is_clean or run.report_by <= now):
                if run.log is not None:
                    run.log.look()  # what was written since the last look
                    run.log.close()
                _send(run.status, run.outcome)
                run.status.close()
                del self._runs[number]

    def _kill_adopted(self) -> bool:
        """Kill what dead runs left behind: children of this process that it did not make. Were there any?

        What living runs have started is theirs, even if its own parent is dead: they are subreapers.
        """
        own = {run.pid for run in self._runs.values() if run.outcome is None}
        adopted = [pid for pid in children() if pid not in own]
        for pid in adopted:
            kill(pid, signal.SIGKILL)
        return bool(adopted)


def _has_spare_descriptors() -> bool:
    """Tell whether enough are left for the next request to be answered, and for runs to be ended rightly."""
    try:
        with contextlib.ExitStack() as stack:
            for _ in range(_SPARE_DESCRIPTORS):
                stack.callback(os.close, os.dup(0))
    except OSError:
        return False
    return True


def _send(status: socket.socket, frame: Frame) -> None:
    """Send a small frame; nobody may be listening any more, and this never waits."""
    with contextlib.suppress(OSError):
        status.send(encode_frame(frame))
