"""What the store costs: one append, 50 appends at a time, and the load of a long search.

Beside it, in the same run, a bare `sqlite3` connection that commits one row at a time in the calling thread:
what SQLite itself takes.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import anyio
from common import Figure, options, publish, quantile, scratch

from aiotune.events import (
    Event,
    Reported,
    RunEnded,
    RunStarted,
    SearchOpened,
    TrialCreated,
    TrialEnded,
)
from aiotune.history import History
from aiotune.objective import Objective
from aiotune.space import Scalar
from aiotune.store.sqlite import open_store
from aiotune.trial import RunState, TrialState

TRIALS = 10_000
EPOCHS = 20
AT_A_TIME = 50
APPENDS = 2000
AT = 1.7e9  # any wall clock
METRICS = {"accuracy": 0.98, "loss": 0.05, "val_accuracy": 0.97, "val_loss": 0.1}


def opening() -> list[Event]:
    """Return the facts that must stand before any report."""
    objective = Objective("val_accuracy", "max")
    return [
        SearchOpened(AT, objective.get_config(), 1, "RandomSearch", "0"),
        *beginning(0),
    ]


def beginning(number: int) -> list[Event]:
    trial_id = f"{number:04d}"
    values: dict[str, Scalar] = {"units": 32 + number % 7, "rate": 1e-3, "activation": "relu"}
    return [
        TrialCreated(AT, trial_id, number, number, values, asked_after=0),
        RunStarted(AT, trial_id, 0, 0, 0, ("cpu 0",), f"trial_{trial_id}/run-0.log"),
    ]


def trial(number: int) -> list[Event]:
    """Return the facts of a whole trial of 20 epochs."""
    trial_id = f"{number:04d}"
    return [
        *beginning(number),
        *(Reported(AT, trial_id, 0, epoch, METRICS) for epoch in range(EPOCHS)),
        RunEnded(AT, trial_id, 0, RunState.FINISHED, METRICS, best_step=EPOCHS - 1),
        TrialEnded(AT, trial_id, TrialState.COMPLETED, 0.97, EPOCHS - 1, METRICS),
    ]


def reports() -> Iterator[Reported]:
    step = 0
    while True:
        yield Reported(AT, "0000", 0, step, METRICS)
        step += 1


# --- appends ---


async def measure_appends(path: Path, repeats: int) -> list[Figure]:
    """Return the figures of one append at a time, and of 50 that are handed over together."""
    source = reports()
    alone, together = [], []
    async with open_store(path) as store:
        await store.append(*opening())
        for _ in range(repeats):
            start = time.perf_counter()
            await store.append(next(source))
            alone.append(1000 * (time.perf_counter() - start))
        for _ in range(repeats // AT_A_TIME):
            start = time.perf_counter()
            await asyncio.gather(*(store.append(next(source)) for _ in range(AT_A_TIME)))
            together.append(1000 * (time.perf_counter() - start) / AT_A_TIME)
    return [
        Figure("one append, median", quantile(alone, 0.5), "ms"),
        Figure("one append, p99", quantile(alone, 0.99), "ms"),
        Figure(f"{AT_A_TIME} appends together, a fact, median", quantile(together, 0.5), "ms"),
        Figure(f"{AT_A_TIME} appends together, a fact, p99", quantile(together, 0.99), "ms"),
    ]


def measure_bare_sqlite(path: Path, repeats: int) -> list[Figure]:
    """Return the same of one row and one commit in the calling thread."""
    taken = []
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("CREATE TABLE facts (number INTEGER PRIMARY KEY, data TEXT)")
        text = "x" * 150
        for _ in range(repeats):
            start = time.perf_counter()
            connection.execute("INSERT INTO facts (data) VALUES (?)", (text,))
            taken.append(1000 * (time.perf_counter() - start))
    return [Figure("bare sqlite3, one row, median", quantile(taken, 0.5), "ms")]


# --- load ---


async def measure_load(path: Path) -> list[Figure]:
    async with open_store(path) as store:
        await store.append(*opening()[:1])
        start = time.perf_counter()
        for first in range(0, TRIALS, 500):
            await store.append(
                *(fact for number in range(first, first + 500) for fact in trial(number))
            )
        written = time.perf_counter() - start
        start = time.perf_counter()
        facts = await store.load()
        loaded = time.perf_counter() - start
    start = time.perf_counter()
    history = History(facts)
    folded = time.perf_counter() - start
    if len(history.trials) != TRIALS:
        raise RuntimeError(f"{len(history.trials)} trials came back")
    return [
        Figure("facts", len(facts)),
        Figure("their file", (await anyio.Path(path).stat()).st_size / 1e6, "MB"),
        Figure("written, 500 trials a call", written, "s"),
        Figure("loaded", loaded, "s"),
        Figure("folded to a history", folded, "s"),
    ]


def main() -> None:
    given = options(__doc__, repeats=APPENDS)
    with scratch() as directory:
        figures = asyncio.run(measure_appends(directory / "appends.db", given.repeats))
        figures += measure_bare_sqlite(directory / "bare.db", given.repeats)
        figures += asyncio.run(measure_load(directory / "load.db"))
    notes = [f"load: {TRIALS} trials x {EPOCHS} epochs of {len(METRICS)} metrics"]
    publish("The store", figures, given.json, notes)


if __name__ == "__main__":
    main()
