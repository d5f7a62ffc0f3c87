"""A process that this one has started, held in a way that others in this process cannot break.

Somebody may reap every child with `os.waitpid(-1, 0)`, or ignore SIGCHLD: then `Popen.wait` knows no more how a
process ended, and its number may be another's by now. A pidfd is right whoever reaps.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time

from aiotune.executors.system import HANG_UP, is_hung_up, kill, kill_group, open_process

__all__ = ["ProcessHandle"]

_ROUND_SECONDS = 0.1  # between looks, where the system has no pidfd


class ProcessHandle:
    """Waits for the process and signals it, from any thread, without mistaking another for it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pid = process.pid
        self._process = process
        self._lock = threading.Lock()  # held by who signals, and by who buries
        self._is_buried = False
        self._pidfd = open_process(process.pid)

    def wait(self, seconds: float | None = None, *, hang_up: int | None = None) -> bool:
        """Wait until it has ended, or the other end of the socket `hang_up` is closed; not after `bury`.

        Tell whether it has ended.
        """
        if self._pidfd is None:
            return self._wait_in_rounds(seconds, hang_up)
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if hang_up is not None:
            poll.register(hang_up, HANG_UP)
        ready = poll.poll(None if seconds is None else seconds * 1000)
        return any(fd == self._pidfd for fd, _ in ready)

    def _wait_in_rounds(self, seconds: float | None, hang_up: int | None) -> bool:
        deadline = float("inf") if seconds is None else time.monotonic() + seconds
        while (is_alive := self._process.poll() is None) and time.monotonic() < deadline:
            if hang_up is None:
                time.sleep(_ROUND_SECONDS)
            elif is_hung_up(hang_up, _ROUND_SECONDS):
                break
        return not is_alive

    def send(self, number: signal.Signals) -> None:
        """Signal the process; nothing happens if it has ended."""
        with self._lock:
            if self._is_buried:
                return
            if self._pidfd is None:
                self._process.send_signal(number)
            else:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._pidfd, number)

    def kill_group(self) -> None:
        """Kill the process and its group, whose leader it is; nothing happens if it has ended."""
        with self._lock:
            if not self._is_buried:
                kill_group(self.pid, signal.SIGKILL)
                kill(self.pid, signal.SIGKILL)

    def bury(self) -> bool:
        """Reap the process, which has ended, and let go of it; tell whether it has exited by itself with 0.

        False, too, where that is not known, for somebody else has reaped it.
        """
        with self._lock:
            ended_well = self._reap()
            self._is_buried = True
            return ended_well

    def _reap(self) -> bool:
        if self._pidfd is None:
            return self._process.poll() == 0
        end = None
        with contextlib.suppress(ChildProcessError):  # somebody else has reaped it
            end = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        os.close(self._pidfd)
        self._process.returncode = 0  # else it would look for its end itself
        return end is not None and (end.si_code, end.si_status) == (os.CLD_EXITED, 0)
