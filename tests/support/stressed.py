"""Searches on disks that fail: `python -m tests.support.stressed FAULT DIR SEED FIRST NUMBER`.

It prints a line of JSON for each fault: what was acknowledged, what came of it, and what was there in the end.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from aiotune import RandomSearch
from aiotune.errors import AiotuneError
from aiotune.events import Event
from aiotune.executors.context import RunContext
from aiotune.history import History
from aiotune.layout import Layout
from aiotune.store.reader import read_facts
from tests.support.tuned import make

TRIALS = 10
_STEPS = 4
_LARGEST_ROOM = 900_000  # bytes: a little less than the whole search takes


class Sums(RandomSearch):
    """Trials in the caller's loop."""

    async def run_trial(self, trial: RunContext) -> float:
        x: float = trial.hyperparameters.Float("x", -1.0, 1.0)
        for step in range(_STEPS):
            trial.report(step, loss=x * x + 1 / (1 + step))
            await asyncio.sleep(0)
        return x * x


def search(directory: Path, observer: Callable[[Event, History], None]) -> str:
    """Run the search, or go on with it, and return how it ended: a reason, or the error."""
    tuner = make(Sums, directory, max_trials=TRIALS, observers=[observer])
    try:
        return asyncio.run(tuner.search(verbose=0)).reason.value
    except AiotuneError as error:
        return f"{type(error).__name__}: {error}"


def stressed(directory: Path, fault: Callable[[], Any], known: int = 0) -> dict[str, Any]:
    """Search below the fault, a context manager, then without it, and tell what was lost.

    known: how many facts an earlier search had acknowledged.
    """
    store = Layout(directory, "project").store
    seen: list[Event] = []
    with fault():
        first = search(directory, lambda fact, history: seen.append(fact))
        acknowledged = list(seen)
        readable = _facts(store)
    then = search(directory, lambda fact, history: seen.append(fact))
    facts = read_facts(store)
    trials = History(facts).trials.values()
    with closing(sqlite3.connect(store)) as connection:
        integrity = connection.execute("PRAGMA integrity_check").fetchone()[0]
    return {
        "first": first,
        "acknowledged": known + len(acknowledged),
        "readable": None if readable is None else len(readable),
        "is_prefix": readable is None or facts[: len(readable)] == readable,
        "then": then,
        "lost": max(0, known + len(seen) - len(facts)) + sum(fact not in facts for fact in seen),
        "in_order": facts[known : known + len(acknowledged)] == acknowledged,
        "trials": [trial.status for trial in trials],
        "integrity": integrity,
    }


def _facts(store: Path) -> list[Event] | None:
    try:
        return read_facts(store)
    except AiotuneError:
        return None


# --- faults ---


@contextmanager
def full_disk(disk: Path, room: int) -> Iterator[None]:
    """Leave so many bytes on the file system of `disk`."""
    ballast = disk / "ballast"
    found = os.statvfs(disk)
    size = max(0, found.f_bavail * found.f_frsize - room)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, size))
    yield
    ballast.unlink()


@contextmanager
def quota(room: int) -> Iterator[None]:
    """Let no file of this process grow beyond so many bytes."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))


@contextmanager
def read_only(disk: Path) -> Iterator[None]:
    """Have nothing written to the file system of `disk`."""
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    yield
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)


def full_disks(disk: Path, chance: random.Random) -> dict[str, Any]:
    room = int(_LARGEST_ROOM * chance.random() ** 3)  # many small ones: nothing can be opened
    directory = disk / "searches"
    directory.mkdir()
    return {"room": room, **stressed(directory, lambda: full_disk(disk, room))}


def quotas(disk: Path, chance: random.Random) -> dict[str, Any]:
    room = chance.randrange(100, _LARGEST_ROOM)
    return {"room": room, **stressed(disk / "searches", lambda: quota(room))}


def read_only_disks(disk: Path, chance: random.Random) -> dict[str, Any]:
    directory = disk / "searches"
    left = chance.choice(["nothing", "closed", "log"])
    known = 0 if left == "nothing" else _left_over(directory, left, chance.randrange(5, 40))
    return {"left": left, **stressed(directory, lambda: read_only(disk), known)}


def _left_over(directory: Path, what: str, last: int) -> int:
    """Let a process search there, to its end or until it has seen so many facts; return how many it saw."""
    code = "import sys; from tests.support.stressed import leave; leave(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(directory), what, str(last)]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    return len(done.stdout.splitlines())


def leave(directory: str, what: str, last: str) -> None:
    """Search and print a line for each fact; end well, or die at fact `last`, so that a log is left over."""

    def see(fact: Event, history: History) -> None:
        print(history.length, flush=True)
        if what == "log" and history.length == int(last):
            os.kill(os.getpid(), signal.SIGKILL)

    tuner = make(Sums, Path(directory), max_trials=TRIALS // 2, observers=[see])
    asyncio.run(tuner.search(verbose=0))


_FAULTS = {"full": full_disks, "quota": quotas, "read-only": read_only_disks}


def main(fault: str, disk: str, seed: str, first: str, number: str) -> None:
    for index in range(int(first), int(first) + int(number)):
        outcome = _FAULTS[fault](Path(disk), random.Random(f"{seed} {index}"))
        print(json.dumps({"index": index, **outcome}), flush=True)
        shutil.rmtree(Path(disk) / "searches", ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
