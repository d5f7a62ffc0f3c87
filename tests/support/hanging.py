"""Tuners whose trials hang, each in the way that it is told. Children import it, so it imports little."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiotune import HyperModel, HyperParameters, RandomSearch
from aiotune.executors.context import RunContext

_POLL_SECONDS = 0.005


def _sleep() -> None:
    while True:
        time.sleep(60)


def _spin() -> None:
    while True:
        pass


def _deadlock() -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def _read() -> None:
    reader, _ = os.pipe()
    os.read(reader, 1)


def _deaf_to_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _sleep()


def _swallow() -> None:
    """Go on after whatever the handler of a signal raises."""

    def refuse(*_: object) -> None:
        raise RuntimeError("not now")

    signal.signal(signal.SIGTERM, refuse)
    while True:
        try:
            time.sleep(60)
        except RuntimeError:
            continue


def _stop_itself() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)
    _sleep()


def _wait_for_a_child() -> None:
    subprocess.run([sys.executable, "-c", "import time; time.sleep(600)"], check=False)


def _wait_for_a_thread() -> None:
    thread = threading.Thread(target=_sleep)
    thread.start()
    thread.join()


HANGS: Mapping[str, Callable[[], None]] = {
    "sleep": _sleep,
    "spin": _spin,
    "deadlock": _deadlock,
    "read": _read,
    "deaf to signals": _deaf_to_signals,
    "swallow": _swallow,
    "stopped": _stop_itself,
    "child": _wait_for_a_child,
    "thread": _wait_for_a_thread,
}
# Of these the log shows where they were: they neither take SIGTERM for themselves nor cannot run.
TELLING = {"sleep": "_sleep", "spin": "_spin", "deadlock": "_deadlock", "read": "_read"}


class Hanging(RandomSearch):
    """Trial n does what `kinds[n]` says: hang after one report, hang before it, or go on for a while."""

    def run_trial(self, trial: RunContext, kinds: Sequence[str]) -> float:
        x: float = trial.hyperparameters.Float("x", 0.0, 1.0)
        kind, _, when = kinds[trial.number].partition(", ")
        if when != "at once":
            trial.report(0, loss=x, pid=os.getpid())
        if kind in HANGS:
            HANGS[kind]()
        return x


class Busy(RandomSearch):
    """Goes on until a file is there, and shows it: by looks at `should_stop`, every other trial by reports."""

    def run_trial(self, trial: RunContext, gate: str) -> float:
        x: float = trial.hyperparameters.Float("x", 0.0, 1.0)
        trial.report(0, loss=x)
        while not (os.path.exists(gate) or trial.should_stop):
            time.sleep(_POLL_SECONDS)
            if trial.number % 2:
                trial.report(loss=x)
        return x


class HungModel(HyperModel):
    """Its names, or its build, never come."""

    def __init__(self, place: str) -> None:
        self.place = place

    def declare_hyperparameters(self, hp: HyperParameters) -> None:
        hp.Float("x", 0.0, 1.0)
        if self.place == "declare":
            _sleep()

    def build(self, hp: HyperParameters) -> Any:
        if self.place == "build":
            _sleep()
        return hp.get("x")


class Heavy:
    """It never arrives in the child."""

    def __reduce__(self) -> Any:
        return _sleep, ()


class Loaded(RandomSearch):
    """Its argument hangs when it is unpickled."""

    def run_trial(self, trial: RunContext, heavy: object) -> float:
        return trial.hyperparameters.Float("x", 0.0, 1.0)  # type: ignore[no-any-return]


def hung_setup() -> None:
    """Never return."""
    _sleep()
