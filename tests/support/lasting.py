"""What a process holds, counted from inside: memory, descriptors, threads, tasks, objects, helpers."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import psutil

from aiotune.events import Event, TrialEnded
from aiotune.history import History

__all__ = [
    "Gate",
    "Helper",
    "Snapshot",
    "Watch",
    "gate_of",
    "gated",
    "snapshot_from",
    "take_snapshot",
]

_WORKER = "AnyIO worker thread"  # anyio keeps idle ones for a while, and never more than 40


@dataclass(frozen=True, slots=True)
class Helper:
    """The guardian or the fork server."""

    rss_bytes: int
    descriptors: int
    threads: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is there after so many trials, or searches."""

    done: int
    rss_bytes: int
    descriptors: dict[str, int]  # how many lead to what
    threads: list[str]  # those of the thread pool left out
    workers: int  # those of the thread pool
    tasks: int
    runs: int  # processes that are no helpers
    helpers: dict[str, Helper]
    objects: dict[str, int]  # how many of each type the collector knows


def snapshot_from(text: str) -> Snapshot:
    """Return what `take_snapshot` has written."""
    data = json.loads(text)
    helpers = {name: Helper(**each) for name, each in data.pop("helpers").items()}
    return Snapshot(helpers=helpers, **data)


def take_snapshot(done: int) -> str:
    """Count what this process holds, in its event loop. It comes as text, which is no object that counts."""
    gc.collect()
    objects = dict(Counter(map(_type_name, gc.get_objects())))
    names = [each.name for each in threading.enumerate()]
    helpers, runs = _look_at_children()
    taken = Snapshot(
        done=done,
        objects=objects,
        rss_bytes=psutil.Process().memory_info().rss,
        descriptors=_descriptors(),
        threads=sorted(each for each in names if _WORKER not in each),
        workers=sum(_WORKER in each for each in names),
        tasks=len(asyncio.all_tasks()),
        runs=runs,
        helpers=helpers,
    )
    return json.dumps(asdict(taken))


def _type_name(thing: object) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def _descriptors() -> dict[str, int]:
    found: Counter[str] = Counter()
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # that of the listing itself
            continue
        found[re.sub(r"\d+", "#", target)] += 1
    return dict(found)


def _look_at_children() -> tuple[dict[str, Helper], int]:
    """Return the guardian and the fork server, and how many processes there are beside them."""
    helpers: dict[str, Helper] = {}
    runs = 0
    for guardian in psutil.Process().children():
        helpers["guardian"] = _helper(guardian)
        for server in guardian.children():
            helpers["fork server"] = _helper(server)
            runs += len(server.children(recursive=True))
    return helpers, runs


def _helper(process: psutil.Process) -> Helper:
    return Helper(process.memory_info().rss, process.num_fds(), process.num_threads())


class Watch:
    """An observer of a search that takes snapshots after so many trials."""

    def __init__(self, points: Iterable[int]) -> None:
        self._points = frozenset(points)
        self._done = 0
        self.snapshots: list[str] = []

    def __call__(self, event: Event, history: History) -> None:
        if isinstance(event, TrialEnded):
            self._done += 1
            if self._done in self._points:
                self.snapshots.append(take_snapshot(self._done))


class Gate:
    """Lets the trials of a search begin, so many at a time.

    `passed` is to be awaited before each trial, and `ended` to be called after it.
    """

    def __init__(self) -> None:
        self._left = 0  # trials that may begin
        self._running = 0  # that may begin, or have begun
        self._changed = asyncio.Event()
        self._has_come = asyncio.Event()

    def ended(self) -> None:
        self._running -= 1
        self._changed.set()

    async def passed(self) -> None:
        """Wait until a further trial may begin."""
        self._has_come.set()
        while self._left == 0:
            await self._turned()
        self._left -= 1

    async def wait_closed(self) -> None:
        """Wait until the search has come to its first trial."""
        await self._has_come.wait()

    async def let_through(self, count: int) -> float:
        """Let so many trials run to their ends and return the seconds that they took."""
        begun = time.perf_counter()
        self._left = self._running = count
        self._changed.set()
        while self._running > 0:
            await self._turned()
        return time.perf_counter() - begun

    async def _turned(self) -> None:
        self._changed.clear()  # whoever waits already is woken all the same
        await self._changed.wait()


_gates: dict[str, Gate] = {}  # by project; what a tuner has itself would travel to its children


def gate_of(project: str) -> Gate | None:
    return _gates.get(project)


@contextmanager
def gated(project: str, gate: Gate) -> Iterator[None]:
    """Let `gate_of` find the gate of a project."""
    _gates[project] = gate
    try:
        yield
    finally:
        del _gates[project]
