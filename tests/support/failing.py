"""Tuners whose trials fail, each in the way that it is told. Children import it, so it imports little."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from aiotune import RandomSearch
from aiotune.errors import FailedTrialError, InfeasibleTrialError
from aiotune.executors.context import RunContext

MEMORY_BYTES = 2**27
_POLL_SECONDS = 0.005


def _raise(error: BaseException) -> None:
    raise error


def _die(number: int) -> None:
    os.kill(os.getpid(), number)
    signal.pause()


class ResourceExhaustedError(Exception):
    """As TensorFlow's, by its name."""


def _go_on(trial: RunContext) -> None:
    while not trial.should_stop:
        time.sleep(_POLL_SECONDS)


def _hang(trial: RunContext) -> None:
    while True:
        time.sleep(60)


def _grow(trial: RunContext) -> None:
    """Hold 8 MiB more at each step, up to much more than the run may."""
    held = [bytes([1]) * 2**23 for _ in range(2 * MEMORY_BYTES // 2**23)]
    _hang(trial)
    held.clear()


Way = Callable[[RunContext], object]

# By the first column of the table in docs/failures.md.
WAYS: Mapping[str, Mapping[str, Way]] = {
    "user code raised, called `sys.exit`, or gave no score": {
        "ValueError": lambda _: _raise(ValueError("the cat ate it")),
        "sys.exit": lambda _: sys.exit(3),
        "no score": lambda _: None,
    },
    "user code raised `FailedTrialError`": {
        "FailedTrialError": lambda _: _raise(FailedTrialError("hopeless")),
    },
    "the process died: a signal, an exit code": {
        "SIGSEGV": lambda _: _die(signal.SIGSEGV),
        "SIGKILL": lambda _: _die(signal.SIGKILL),
        "SIGTERM": lambda _: _die(signal.SIGTERM),
        "exit code": lambda _: os._exit(3),
        "abort": lambda _: os.abort(),
    },
    "memory ran out, of the machine or of a GPU": {
        "MemoryError": lambda _: _raise(MemoryError("too large")),
        "ResourceExhaustedError": lambda _: _raise(ResourceExhaustedError("OOM")),
    },
    "the run held more than `Resources(memory=...)`": {"grows": _grow},
    "the score is NaN": {"returned": lambda _: float("nan")},
    "no progress for `stall_timeout`": {"hangs": _hang},
    "longer than `trial_timeout`": {"goes on": _go_on},
    "user code raised `InfeasibleTrialError`": {
        "InfeasibleTrialError": lambda _: _raise(InfeasibleTrialError("no such machine")),
    },
}


class Failing(RandomSearch):
    """Trial n fails in the way `ways[n]`: a row of the table, and how."""

    def run_trial(self, trial: RunContext, ways: Sequence[tuple[str, str]]) -> object:
        trial.hyperparameters.Float("x", 0.0, 1.0)
        trial.report(0, noise=1.0)
        row, how = ways[trial.number]
        return WAYS[row][how](trial)
