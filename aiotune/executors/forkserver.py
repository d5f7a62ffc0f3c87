"""The fork server: imports the frameworks once, then forks a child for each run, watches and ends the children.

It is started by `launch`, runs no user code and touches no device. One thread, one loop over three things: the
control socket (requests), the caller's death, and SIGCHLD. It alone signals runs, whose parent it is, so that
no process id can be reused under it. It ends with the caller, and nothing that a run has started outlives it:
it is the subreaper of all.

Requests are of fixed size, with the descriptors of a new run attached. Each run's status socket gets one frame
when the run is forked, `{"pid": ...}`, or refused, `{"refused": text, "is_missing": bool}`; and one when it is
over and its process group gone: `{"exit": code}` or `{"signal": number}`.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import select
import selectors
import signal
import socket
import struct
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from aiotune.executors.child import run_child
from aiotune.executors.libraries import prepare_pools
from aiotune.executors.preload import HANG_UP, ImportGuard, import_modules
from aiotune.executors.wire import Frame, encode_frame

__all__ = ["END", "REQUEST", "RUN", "TERM_SECONDS", "main"]

REQUEST = struct.Struct("!BQI")  # what, which run, milliseconds
RUN = 1  # with three descriptors: facts, status, payload
END = 2  # SIGTERM after so many milliseconds, SIGKILL a little later; 0: SIGKILL now

TERM_SECONDS = 0.5  # between SIGTERM and SIGKILL
_REAP_SECONDS = 2.0  # for a run's killed descendants to vanish, before its end is told anyway
_POLL_SECONDS = 1.0  # between looks at the parent, where the system has no pidfd
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(slots=True)
class _Run:
    """A forked run. Its process group has its `pid` as number."""

    pid: int
    status: socket.socket
    term_at: float = float("inf")
    kill_at: float = float("inf")
    outcome: Frame | None = None  # set once the child is dead
    report_by: float = float("inf")


def main(config: Mapping[str, Any]) -> NoReturn:
    """Serve until the caller lets go. `config`: control (fd), caller (pid), preload (modules)."""
    _reset_signals()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    control = socket.socket(fileno=config["control"])
    control.set_inheritable(False)
    caller = _open_caller(config["caller"])
    with ImportGuard(control, caller):
        refusal = import_modules(config["preload"])
    prepare_pools()
    gc.collect()
    gc.freeze()  # the collector would else touch, and so copy, the shared pages in every child
    server = _ForkServer(control, caller, refusal)
    try:
        server.serve()
    finally:
        server.shut_down()
        os._exit(0)


class _ForkServer:
    def __init__(self, control: socket.socket, caller: int | None, refusal: Frame | None) -> None:
        self._control = control
        self._caller = caller
        self._caller_pid = os.getppid()
        self._refusal = refusal
        self._runs: dict[int, _Run] = {}
        self._is_over = False
        self._selector = selectors.DefaultSelector()
        self._wakeup, self._waker = socket.socketpair()
        for end in (self._wakeup, self._waker):
            end.setblocking(False)
        self._watch()

    def _watch(self) -> None:
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        self._selector.register(self._control, selectors.EVENT_READ, self._on_request)
        self._selector.register(self._wakeup, selectors.EVENT_READ, self._on_child)
        if self._caller is not None:
            self._selector.register(self._caller, selectors.EVENT_READ, self._on_caller_death)

    def serve(self) -> None:
        while not self._is_over:
            for key, _ in self._selector.select(self._seconds_to_deadline()):
                handler: Callable[[], None] = key.data
                handler()
            self._enforce_deadlines()
            self._report_ended()
            if self._caller is None and os.getppid() != self._caller_pid:
                self._is_over = True

    def shut_down(self) -> None:
        """Kill every run and everything that they started, within bounded time."""
        deadline = time.monotonic() + _REAP_SECONDS
        while time.monotonic() < deadline:
            for run in self._runs.values():
                if run.outcome is None:
                    _kill_group(run.pid, signal.SIGKILL)
            self._kill_adopted()
            if not self._reap():
                return
            select.select([self._wakeup], [], [], 0.05)
            self._drain_wakeup()

    # --- what may happen ---

    def _on_request(self) -> None:
        try:
            request, fds, _, _ = socket.recv_fds(self._control, REQUEST.size, 3)
        except ConnectionError:
            request, fds = b"", []
        if len(request) != REQUEST.size:
            self._is_over = True  # the last user let go
            return
        what, number, milliseconds = REQUEST.unpack(request)
        if what == RUN:
            facts, status, payload = fds
            self._start(number, socket.socket(fileno=facts), socket.socket(fileno=status), payload)
        else:
            self._end(number, milliseconds / 1000)

    def _on_child(self) -> None:
        self._drain_wakeup()
        self._reap()

    def _on_caller_death(self) -> None:
        self._is_over = True

    # --- one run ---

    def _start(
        self, number: int, facts: socket.socket, status: socket.socket, payload: int
    ) -> None:
        status.setblocking(False)
        if self._refusal is not None:
            _send(status, self._refusal)
            status.close()
        elif _is_hung_up(facts):  # cancelled while the frameworks were being imported
            status.close()
        else:
            self._fork(number, facts, status, payload)
        facts.close()
        os.close(payload)

    def _fork(self, number: int, facts: socket.socket, status: socket.socket, payload: int) -> None:
        try:
            pid = _fork()
        except OSError as error:
            _send(status, {"refused": f"no process can be forked: {error}", "is_missing": False})
            status.close()
            return
        if pid == 0:
            self._become_child(facts, status, payload)
        with contextlib.suppress(OSError):  # the child does it too: whoever is first
            os.setpgid(pid, pid)
        self._runs[number] = _Run(pid, status)
        _send(status, {"pid": pid})

    def _become_child(self, facts: socket.socket, status: socket.socket, payload: int) -> NoReturn:
        """Go on as the child of one run. The stack below is never returned to."""
        code = 1
        try:
            server = os.getppid()
            os.setpgid(0, 0)
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != server or server == 1:
                os._exit(1)
            _reset_signals()
            self._let_go(status)
            _close_all_but({facts.fileno(), payload})
            code = run_child(facts, payload)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)

    def _let_go(self, status: socket.socket) -> None:
        """Close what belongs to the server, by its objects, so that none closes a number used anew later."""
        for run in self._runs.values():
            run.status.close()
        self._selector.close()
        for end in (self._control, self._wakeup, self._waker, status):
            end.close()
        if self._caller is not None:
            os.close(self._caller)

    def _end(self, number: int, delay_seconds: float) -> None:
        run = self._runs.get(number)
        if run is None or run.outcome is not None:
            return
        now = time.monotonic()
        if delay_seconds == 0:
            run.kill_at = now
        else:
            run.term_at = min(run.term_at, now + delay_seconds)
            run.kill_at = min(run.kill_at, now + delay_seconds + TERM_SECONDS)

    def _seconds_to_deadline(self) -> float | None:
        due = [min(run.term_at, run.kill_at, run.report_by) for run in self._runs.values()]
        seconds = max(0.0, min(due, default=float("inf")) - time.monotonic())
        if self._caller is None:
            seconds = min(seconds, _POLL_SECONDS)
        return None if seconds == float("inf") else seconds

    def _enforce_deadlines(self) -> None:
        now = time.monotonic()
        for run in self._runs.values():
            if run.outcome is not None:
                continue
            if run.kill_at <= now:
                run.term_at = run.kill_at = float("inf")
                _kill_group(run.pid, signal.SIGKILL)
            elif run.term_at <= now:
                run.term_at = float("inf")
                _kill_group(run.pid, signal.SIGTERM)

    # --- the dead ---

    def _reap(self) -> bool:
        """Bury every dead child, own or adopted; tell whether children are left."""
        by_pid = {run.pid: run for run in self._runs.values() if run.outcome is None}
        while True:
            try:
                dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return False
            if dead is None:
                return True
            run = by_pid.pop(dead.si_pid, None)
            if run is not None:
                # Before it is buried: until then its number, and its group's, cannot be given to another.
                _kill_group(run.pid, signal.SIGKILL)
                run.outcome = _outcome(dead.si_code, dead.si_status)
                run.term_at = run.kill_at = float("inf")
                run.report_by = time.monotonic() + _REAP_SECONDS
            os.waitpid(dead.si_pid, 0)

    def _report_ended(self) -> None:
        """Tell the end of each dead run whose group is gone; of the last one, when nothing at all is left."""
        is_idle = all(run.outcome is not None for run in self._runs.values())
        is_clean = not (self._runs and is_idle) or not self._kill_adopted()
        now = time.monotonic()
        for number, run in list(self._runs.items()):
            if run.outcome is None:
                continue
            if (is_clean and _is_group_gone(run.pid)) or run.report_by <= now:
                _send(run.status, run.outcome)
                run.status.close()
                del self._runs[number]

    def _kill_adopted(self) -> bool:
        """Kill what runs left behind: children of this process that it did not fork. Were there any?"""
        own = {run.pid for run in self._runs.values() if run.outcome is None}
        adopted = [pid for pid in _children() if pid not in own]
        for pid in adopted:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(adopted)

    def _drain_wakeup(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wakeup.recv(4096):
                pass


def _open_caller(pid: int) -> int | None:
    """Return a descriptor that becomes readable when the caller dies; None where the system has none."""
    try:
        fd = os.pidfd_open(pid)
    except (AttributeError, OSError):
        fd = None
    if os.getppid() != pid:  # it died before this process could watch it
        os._exit(0)
    return fd


def _fork() -> int:
    """Fork without the warning about threads: they are idle pools of libraries that expect a fork."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _reset_signals() -> None:
    """Take no signal handling over from the caller; Ctrl-C is the caller's alone."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _close_all_but(kept: set[int]) -> None:
    """Close every descriptor above stderr but `kept`."""
    for fd in (int(name) for name in os.listdir("/dev/fd")):
        if fd > 2 and fd not in kept:
            with contextlib.suppress(OSError):
                os.close(fd)


def _children() -> list[int]:
    """Return the process ids of this process's children; empty where the system does not list them."""
    own = os.getpid()
    try:
        with open(f"/proc/{own}/task/{own}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def _kill_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _is_group_gone(pid: int) -> bool:
    try:
        os.waitid(os.P_PGID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


def _outcome(code: int, status: int) -> Frame:
    return {"exit": status} if code == os.CLD_EXITED else {"signal": status}


def _is_hung_up(peer: socket.socket) -> bool:
    poll = select.poll()
    poll.register(peer, HANG_UP)
    return bool(poll.poll(0))


def _send(status: socket.socket, frame: Frame) -> None:
    """Send a small frame; nobody may be listening any more, and this never waits."""
    with contextlib.suppress(OSError):
        status.send(encode_frame(frame))


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
