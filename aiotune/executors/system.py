"""What the guardian, the fork server and the runs ask of the system.

It imports little, for the guardian is to stay small.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

__all__ = [
    "HANG_UP",
    "POLL_SECONDS",
    "become_subreaper",
    "catch_signals",
    "caught_signals",
    "children",
    "close_all_but",
    "die_with",
    "end_children",
    "interpreter_command",
    "is_hung_up",
    "kill",
    "kill_group",
    "kill_with_group",
    "leave_no_core",
    "open_process",
    "raise_oom_score",
    "reap_children",
    "reset_signals",
]

HANG_UP = getattr(select, "POLLRDHUP", select.POLLHUP)  # the other end of a socket is closed
POLL_SECONDS = 1.0  # between looks at the parent, where the system cannot tell of its end

_CAN_PEEK = hasattr(os, "waitid")  # not on macOS before Python 3.13
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_ROUND_SECONDS = 0.05  # between rounds of killing, if nothing is heard of the last one


def interpreter_command(entry: str, config: Mapping[str, Any]) -> list[str]:
    """Return the command for a new interpreter that calls `main(config)` of the module `entry`.

    Its `sys.path` is this process's.
    """
    code = (
        "import json, sys; config = json.loads(sys.argv.pop()); sys.path[:] = config['sys_path'];"
        f"from {entry} import main; main(config)"
    )
    path = [str(each) for each in sys.path]
    return [sys.executable or "python3", "-c", code, json.dumps({**config, "sys_path": path})]


# --- signals ---


def reset_signals() -> None:
    """Take no signal handling over from the parent; Ctrl-C is the caller's alone."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def catch_signals(*numbers: signal.Signals) -> int:
    """Return a descriptor that becomes readable at each of these signals: see `caught_signals`."""
    reader, writer = os.pipe()
    for end in (reader, writer):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in numbers:
        signal.signal(number, lambda *_: None)
    return reader


def caught_signals(wakeup: int) -> bytes:
    """Return the numbers of the signals caught since the last call; never waits."""
    try:
        return os.read(wakeup, 4096)
    except BlockingIOError:
        return b""


def kill(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may be gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def kill_group(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process group that may be gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def kill_with_group(pid: int, number: signal.Signals) -> None:
    """Send a signal to a child that is not buried yet, and to the process group that has its number.

    The child may have left that group.
    """
    kill_group(pid, number)
    with contextlib.suppress(ProcessLookupError):
        if os.getpgid(pid) != pid:
            kill(pid, number)


# --- the family ---


def open_process(pid: int) -> int | None:
    """Return a descriptor that becomes readable when the process dies; None where the system has none."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def die_with(parent: int, number: signal.Signals) -> None:
    """Have this process sent the signal when its parent dies; end it if that has happened. Linux only.

    The system means the thread that forked, so the parent must fork in its main thread.
    """
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os._exit(1)


def become_subreaper() -> None:
    """Have every orphan among this process's descendants made its child. Linux only."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def children() -> list[int]:
    """Return the process ids of the main thread's children; empty where the system does not list them.

    Orphans that a subreaper adopts become its main thread's.
    """
    own = os.getpid()
    try:
        with open(f"/proc/{own}/task/{own}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return [pid for pid, parent in _parents() if parent == own]


def end_children(wakeup: int, seconds: float) -> None:
    """Kill and bury every child and, if this is their subreaper, every descendant, in rounds.

    `wakeup` is from `catch_signals`, of SIGCHLD. After so many seconds it gives up.
    """
    poll = select.poll()
    poll.register(wakeup, select.POLLIN)
    deadline = time.monotonic() + seconds
    while reap_children() and time.monotonic() < deadline:
        for pid in children():
            kill(pid, signal.SIGKILL)
        poll.poll(_ROUND_SECONDS * 1000)
        caught_signals(wakeup)


def reap_children(on_death: Callable[[int, int], object] = lambda pid, code: None) -> bool:
    """Bury every dead child, own or adopted; tell whether children are left.

    `on_death` is first told its id, and its exit code or the negative number of the signal that killed it:
    until it is buried, its number and its group's cannot be given to another.
    """
    try:
        while dead := _next_dead():
            pid, code = dead
            on_death(pid, code)
            if _CAN_PEEK:
                os.waitpid(pid, 0)
    except ChildProcessError:
        return False
    return True


def _next_dead() -> tuple[int, int] | None:
    """Return a dead child, not buried if that is possible, and how it ended. ChildProcessError: no children."""
    if not _CAN_PEEK:
        pid, status = os.waitpid(-1, os.WNOHANG)
        return (pid, os.waitstatus_to_exitcode(status)) if pid else None
    dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if dead is None:
        return None
    return dead.si_pid, dead.si_status if dead.si_code == os.CLD_EXITED else -dead.si_status


def _parents() -> Iterator[tuple[int, int]]:
    """Yield every process with its parent, for kernels that keep no lists of children."""
    with contextlib.suppress(OSError):
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as file:
                # Behind the name, which may hold spaces: the state, then the parent.
                yield int(name), int(file.read().rpartition(")")[2].split()[1])


# --- limits ---


def raise_oom_score(score: int) -> None:
    """Have the kernel prefer this process, and what it starts, when it must kill one for memory. Linux only.

    A score that is higher already stays.
    """
    with contextlib.suppress(OSError, ValueError), open("/proc/self/oom_score_adj", "r+") as file:
        if int(file.read()) < score:
            file.seek(0)
            file.write(str(score))


def leave_no_core() -> None:
    """Have this process, and what it starts, leave no core dump, unless user code asks for one.

    Writing gigabytes to disk would put off the end of a crashed run, and what follows. A limit of 1 byte, and
    not of 0, for that also keeps the dump from a program that collects them, to which 0 is no limit.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0 if hard == 0 else 1, hard))


# --- descriptors ---


def is_hung_up(fd: int, seconds: float = 0.0) -> bool:
    """Tell whether the other end of the socket `fd` is closed; wait for that so long."""
    poll = select.poll()
    poll.register(fd, HANG_UP)
    return bool(poll.poll(seconds * 1000))


def close_all_but(kept: Collection[int]) -> None:
    """Close every descriptor above stderr but `kept`."""
    for fd in (int(name) for name in os.listdir("/dev/fd")):
        if fd > 2 and fd not in kept:
            with contextlib.suppress(OSError):
                os.close(fd)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
