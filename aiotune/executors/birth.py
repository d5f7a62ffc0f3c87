"""How the process of a run comes to be: by a fork of the server, or as a new interpreter."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from aiotune.executors.system import (
    become_subreaper,
    close_all_but,
    die_with,
    interpreter_command,
    leave_no_core,
    raise_oom_score,
    reset_signals,
)

__all__ = ["SERVER_OOM_SCORE", "fork_child", "main", "spawn_child"]

# Where memory runs out, the kernel is to kill a run, whatever else is there, and sooner the fork server than
# the caller, which holds the search. The score is on top of what a process holds, in thousandths of all memory.
_RUN_OOM_SCORE = 1000
SERVER_OOM_SCORE = 500


def fork_child(
    facts: socket.socket, payload: int, held: Sequence[int], let_go: Callable[[], None]
) -> int:
    """Fork the process of a run, in a group of its own, and return its id. OSError if that fails.

    `held` are descriptors that it keeps to its end. `let_go` closes there what belongs to this process.
    """
    server = os.getpid()
    pid = _fork()
    if pid == 0:
        _become_child(server, facts, payload, held, let_go)
    with contextlib.suppress(OSError):  # the child does it too: whoever is first
        os.setpgid(pid, pid)
    return pid


def spawn_child(facts: socket.socket, payload: int, held: Sequence[int]) -> int:
    """Start the process of a run as a new interpreter, in a group of its own, and return its id.

    `held` are descriptors that it keeps to its end. OSError if that fails.
    """
    config = {"server": os.getpid(), "facts": facts.fileno(), "payload": payload, "held": held}
    command = interpreter_command(__name__, config)
    passed = (facts.fileno(), payload, *held)
    for fd in passed:
        os.set_inheritable(fd, True)
    try:
        return os.posix_spawnp(command[0], command, os.environ, setpgroup=0)
    finally:
        for fd in passed:
            os.set_inheritable(fd, False)


def main(config: Mapping[str, Any]) -> NoReturn:
    """Go on as the run of a new interpreter. `config`: server (pid); facts, payload and held (descriptors)."""
    facts = socket.socket(fileno=config["facts"])
    for fd in (config["facts"], config["payload"], *config["held"]):
        os.set_inheritable(fd, False)
    _live(config["server"], facts, config["payload"], config["held"], is_forked=False)


def _become_child(
    server: int,
    facts: socket.socket,
    payload: int,
    held: Sequence[int],
    let_go: Callable[[], None],
) -> NoReturn:
    """Go on as a run. The stack below is never returned to."""
    try:
        os.setpgid(0, 0)
        let_go()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    _live(server, facts, payload, held, is_forked=True)


def _live(
    server: int, facts: socket.socket, payload: int, held: Sequence[int], *, is_forked: bool
) -> NoReturn:
    code = 1
    try:
        die_with(server, signal.SIGKILL)
        # What a run leaves behind stays below it, and becomes the server's at the run's end: so that the
        # server knows whose it was.
        become_subreaper()
        reset_signals()
        raise_oom_score(_RUN_OOM_SCORE)
        leave_no_core()
        close_all_but({facts.fileno(), payload, *held})
        from aiotune.executors.child import run_child

        code = run_child(facts, payload, is_forked=is_forked)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def _fork() -> int:
    """Fork without the warning about threads: they are idle pools of libraries that expect a fork."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()
