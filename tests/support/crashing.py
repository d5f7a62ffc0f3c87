"""Searches that are killed at an instant of choice, each in a process that is forked when it is needed.

`python -m tests.support.crashing` imports what a search needs and then forks a process for each order that it
reads: one line of JSON, answered by one line. A `Zygote` is the other end of it. The forked process writes down
each fact that it is shown, before it can be killed for it.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import queue
import select
import signal
import sqlite3
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from aiotune.events import Event, to_json
from aiotune.history import History
from tests.support import crashing_tuners
from tests.support.programs import obeying

__all__ = ["SEEN", "Ended", "Order", "Zygotes", "zygotes"]

SEEN = "seen"  # beside the project: a line for each fact that an observer of the newest session was shown
_LONGEST_SECONDS = 60.0
_NEEDED = ("aiotune.search", "aiotune.learning.scout", "aiotune.learning.one_thread", "cloudpickle")


@dataclass(frozen=True, slots=True)
class Order:
    """A session of a search, and when to kill it: nothing said, it goes to its end.

    fact: as this many facts have been shown. statement: as SQLite begins so many statements that change the
    database. seconds: after the fork.
    """

    kind: str
    directory: str
    fact: int | None = None
    statement: int | None = None
    seconds: float | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)  # of the tuner's options


@dataclass(frozen=True, slots=True)
class Ended:
    """How a session ended. error: its traceback, if it ended by itself and badly."""

    was_killed: bool
    seconds: float
    statements: int  # that it had begun, if it was not killed
    error: str | None


class Zygote:
    """Forks searching processes from one that has imported what they need."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, order: Order) -> Ended:
        """Return when the session has ended. AssertionError if it ended with an error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(asdict(order)), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        assert line, f"the zygote ended with {self._process.wait()}"
        ended = Ended(**json.loads(line))
        assert ended.error is None, f"{order}\n{ended.error}"
        return ended


class Zygotes:
    """Several of them, for several threads: each order goes to one that is free."""

    def __init__(self, zygotes: Iterable[Zygote]) -> None:
        self._free: queue.Queue[Zygote] = queue.Queue()
        for each in zygotes:
            self._free.put(each)

    def run(self, order: Order) -> Ended:
        """As `Zygote.run`."""
        zygote = self._free.get()
        try:
            return zygote.run(order)
        finally:
            self._free.put(zygote)


@contextmanager
def zygotes(number: int) -> Iterator[Zygotes]:
    """Start so many; leaving ends them."""
    with ExitStack() as stack:
        yield Zygotes([stack.enter_context(_zygote()) for _ in range(number)])


@contextmanager
def _zygote() -> Iterator[Zygote]:
    with obeying(__name__) as process:
        try:
            yield Zygote(process)
        finally:
            process.kill()


# --- the zygote ---


def _serve() -> None:
    for module in _NEEDED:
        importlib.import_module(module)
    for line in sys.stdin:
        print(json.dumps(asdict(_perform(Order(**json.loads(line))))), flush=True)


def _perform(order: Order) -> Ended:
    """Fork a session, kill it if it is time, and return how it ended."""
    begun = time.monotonic()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _search_and_exit(order, writing)
    os.close(writing)
    try:
        was_killed = _reap(pid, order.seconds)
        said = json.loads(os.read(reading, 1 << 20) or b"{}")
    finally:
        os.close(reading)
    return Ended(was_killed, time.monotonic() - begun, said.get("statements", 0), said.get("error"))


def _reap(pid: int, seconds: float | None) -> bool:
    """Wait for the end of a session; tell whether it was killed."""
    watched = os.pidfd_open(pid)
    try:
        longest = _LONGEST_SECONDS if seconds is None else seconds
        if not select.select([watched], [], [], longest)[0]:
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    finally:
        os.close(watched)
    return os.WIFSIGNALED(status)


# --- the session ---


def _search_and_exit(order: Order, told: int) -> None:
    said: dict[str, Any] = {}
    try:
        counter = _count_statements(order.statement)
        asyncio.run(_search(order))
        said["statements"] = counter[0]
    except BaseException:
        said["error"] = traceback.format_exc()
    os.write(told, json.dumps(said).encode()[: 1 << 16])
    os._exit(0)


async def _search(order: Order) -> None:
    directory = Path(order.directory)
    seen = os.open(directory / SEEN, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    shown = 0

    def show(fact: Event, history: History) -> None:
        nonlocal shown
        shown += 1
        os.write(seen, json.dumps(to_json(fact)).encode() + b"\n")
        if shown == order.fact:
            os.kill(os.getpid(), signal.SIGKILL)

    tuner = crashing_tuners.make(order.kind, directory, observers=[show], **order.changes)
    await tuner.search(verbose=0)


def _count_statements(last: int | None) -> list[int]:
    """Count what SQLite begins to do for a writer from now on; at `last`, kill this process in the middle."""
    begun = [0]

    def note(statement: str) -> None:
        begun[0] += 1
        if begun[0] == last:
            os.kill(os.getpid(), signal.SIGKILL)

    connect = sqlite3.connect

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.set_trace_callback(note)
        return connection

    sqlite3.connect = traced  # type: ignore[assignment]  # of this process, which is about to die
    return begun


if __name__ == "__main__":
    _serve()
