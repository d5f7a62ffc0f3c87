"""What a fork server that was killed together with its guardian has left alive.

The two end what runs leave behind, for it becomes their child. If both are killed at once nobody has it as a
child: a daemon that a run has started, in a session of its own, would live on. So all that a fork server starts
bears a name in its environment, by which the caller finds it. What drops the environment is not found.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal

__all__ = ["FAMILY", "end_strays", "new_family"]

FAMILY = "AIOTUNE_FAMILY"  # a variable: which fork server a process comes from

_ROUNDS = 100
_ROUND_SECONDS = 0.05


def new_family() -> str:
    """Return a name that no other fork server has."""
    return secrets.token_hex(16)


def end_strays(family: str) -> None:
    """Kill every process of this name, and return when none is left, or after 5 s. Linux only."""
    mark = f"{FAMILY}={family}".encode()
    for _ in range(_ROUNDS):
        killed = [fd for pid in _processes() if (fd := _kill(pid, mark)) is not None]
        if not killed:
            return
        poll = select.poll()
        for fd in killed:
            poll.register(fd, select.POLLIN)
        poll.poll(_ROUND_SECONDS * 1000)
        for fd in killed:
            os.close(fd)


def _processes() -> list[int]:
    with contextlib.suppress(OSError):
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return []


def _kill(pid: int, mark: bytes) -> int | None:
    """Kill a process that bears the mark, and return its pidfd. None for others, and for what is dead."""
    try:
        fd = os.pidfd_open(pid)  # first: what is then read, and killed, is one and the same process
    except (AttributeError, OSError):
        return None
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            if mark in file.read().split(b"\0"):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
                return fd
    except OSError:
        pass  # it has ended, or belongs to somebody else
    os.close(fd)
    return None
