"""The guardian: between the caller and its fork server, so that nothing outlives a fork server that is killed.

It forks the fork server before anything heavy is imported, and from then on only waits. It is the subreaper
of all: when the fork server dies, in whatever way, everything that it and its runs have started becomes the
guardian's and is killed. Then the guardian ends, which tells the caller that nothing is left. SIGTERM has it
kill the fork server first. If the guardian itself is killed, the system sends the fork server SIGTERM, and it
ends its runs. The two share a process group, which nobody else is in.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Mapping
from typing import Any, NoReturn

from aiotune.executors.system import (
    POLL_SECONDS,
    become_subreaper,
    catch_signals,
    caught_signals,
    end_children,
    kill,
    open_process,
    reset_signals,
)

__all__ = ["main"]

_ORPHAN_SECONDS = 2.5  # for a fork server to end by itself once the caller is dead
_BURY_SECONDS = 3.0  # for what the fork server left to vanish
_ENDINGS = frozenset({signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})


def main(config: Mapping[str, Any]) -> NoReturn:
    """Guard a fork server to its end. `config`: caller (pid), and what the fork server takes."""
    reset_signals()
    become_subreaper()
    caller = open_process(config["caller"])
    if os.getppid() != config["caller"]:  # it died before this process could watch it
        os._exit(0)
    wakeup = catch_signals(signal.SIGCHLD, *_ENDINGS)
    guardian = os.getpid()
    server = os.fork()
    if server == 0:
        _become_server(config, caller, guardian)
    try:
        os.close(config["control"])  # only the fork server's end is to be heard on it
        _wait_for_end(server, caller, config["caller"], wakeup)
        end_children(wakeup, _BURY_SECONDS)
    finally:
        os._exit(0)


def _become_server(config: Mapping[str, Any], caller: int | None, guardian: int) -> NoReturn:
    from aiotune.executors.forkserver import main  # here, so that the guardian stays small

    main(config, caller=caller, guardian=guardian)


def _wait_for_end(server: int, caller: int | None, caller_pid: int, wakeup: int) -> None:
    """Return when the fork server has ended; kill it when told to, or if it outlives the caller for long."""
    poll = select.poll()
    poll.register(wakeup, select.POLLIN)
    if caller is not None:
        poll.register(caller, select.POLLIN)
    kill_at = float("inf")
    is_orphan = False
    while not _has_ended(server):
        ready = dict(poll.poll(_milliseconds_until(kill_at, is_watched=caller is not None)))
        now = time.monotonic()
        if _ENDINGS & frozenset(caught_signals(wakeup)):
            kill_at = now
        if not is_orphan and (caller in ready or os.getppid() != caller_pid):
            is_orphan = True
            kill_at = min(kill_at, now + _ORPHAN_SECONDS)
            if caller is not None:
                poll.unregister(caller)
        if kill_at <= now:
            kill(server, signal.SIGKILL)
            kill_at = float("inf")


def _milliseconds_until(time_due: float, *, is_watched: bool) -> float | None:
    seconds = max(0.0, time_due - time.monotonic())
    if not is_watched:
        seconds = min(seconds, POLL_SECONDS)
    return None if seconds == float("inf") else seconds * 1000


def _has_ended(server: int) -> bool:
    """Bury the fork server if it is dead: its number is never used after that."""
    pid, _ = os.waitpid(server, os.WNOHANG)
    return pid == server
