"""Programs that a search of a hostile project, or of hostile code, runs in its children."""

from __future__ import annotations

import os
import socket
import stat
import struct
from pathlib import Path

from aiotune import RandomSearch
from aiotune.executors.context import RunContext

__all__ = ["Quick", "Saving", "Writing", "frame", "to_caller"]


class Quick(RandomSearch):
    """One report, and the end."""

    def run_trial(self, trial: RunContext) -> float:
        x = trial.hyperparameters.Float("x", 0.0, 1.0)
        trial.report(0, loss=x)
        print("x is", x)
        return x


class Saving(RandomSearch):
    """Writes a file into the checkpoint directory of its trial."""

    def run_trial(self, trial: RunContext) -> float:
        x = trial.hyperparameters.Float("x", 0.0, 1.0)
        Path(trial.checkpoint_dir, "weights").write_text("1.0")
        return x


class Writing(RandomSearch):
    """Writes bytes of its own to the caller's socket, in the first trial; then waits for its end."""

    def run_trial(self, trial: RunContext, content: bytes) -> float:
        x = trial.hyperparameters.Float("x", 0.0, 1.0)
        if trial.assignment.number == 0:
            to_caller(content)
            while True:
                trial.raise_if_stopped()
        return x


def to_caller(content: bytes) -> None:
    """Write to the only socket that a child has."""
    fds = (int(name) for name in os.listdir("/proc/self/fd"))
    (fd,) = [fd for fd in fds if is_socket(fd)]
    with socket.socket(fileno=os.dup(fd)) as end:
        end.setblocking(True)
        end.sendall(content)


def is_socket(fd: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:  # that of the listing itself
        return False


def frame(body: bytes) -> bytes:
    return struct.pack("!I", len(body)) + body
