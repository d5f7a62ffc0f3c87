"""What the store costs: one append, 50 appends at a time, and a long search that is loaded and resumed.

Beside it, in the same run, a bare `sqlite3` connection that commits one row at a time in the calling thread:
what SQLite itself takes.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import io
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, redirect_stdout
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from common import Figure, publish, quantile, scratch
from store_projects import EPOCHS, METRICS, OBJECTIVE, hyperband, hyperband_facts, random_facts

import aiotune
from aiotune.end_rules import EndRules
from aiotune.events import Event, Reported
from aiotune.history import History
from aiotune.oracles.base import Oracle
from aiotune.oracles.random_search import RandomSearchOracle
from aiotune.resources import Limits
from aiotune.store.reader import read_facts
from aiotune.store.sqlite import open_store

TRIALS = 10_000
AT_A_TIME = 50
APPENDS = 2000
FACTS_AT_A_TIME = 10_000
LOOKS = 20
RESUMPTIONS = 5


# --- appends ---


def reports() -> Iterator[Reported]:
    metrics = dict.fromkeys(METRICS, 0.97)
    step = 0
    while True:
        yield Reported(1.7e9, "0000", 0, step, metrics)
        step += 1


async def measure_appends(path: Path, repeats: int) -> list[Figure]:
    """Return the figures of one append at a time, and of 50 that are handed over together."""
    source = reports()
    alone, together = [], []
    async with open_store(path) as store:
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


# --- long searches ---


class Searched(aiotune.RandomSearch):
    """A tuner that is asked what was found."""

    def run_trial(self, trial: Any) -> float:
        raise NotImplementedError


async def write(path: Path, trials: Iterable[list[Event]]) -> float:
    """Write a search and return how many seconds it took."""
    facts = chain.from_iterable(trials)
    start = time.perf_counter()
    async with open_store(path) as store:
        while batch := list(islice(facts, FACTS_AT_A_TIME)):
            await store.append(*batch)
    return time.perf_counter() - start


@dataclass(frozen=True, slots=True)
class Resumed:
    """What it took until the oracle had answered for the first time, in seconds."""

    loaded: float
    folded: float
    ready: float
    facts: int

    @property
    def seconds(self) -> float:
        return self.loaded + self.folded + self.ready


def resume(path: Path, oracle: Oracle) -> tuple[History, Resumed]:
    gc.collect()
    start = time.perf_counter()
    facts = read_facts(path)
    loaded, count = time.perf_counter(), len(facts)
    history = History(facts)
    del facts  # as a search does
    folded = time.perf_counter()
    oracle.follow(lambda: history)
    oracle.next_answer(history, history.next_number)
    EndRules(history, OBJECTIVE, Limits(), 3)
    ready = time.perf_counter()
    return history, Resumed(loaded - start, folded - loaded, ready - folded, count)


def measure_resume(
    name: str, path: Path, make_oracle: Callable[[], Oracle], at_most: float | None
) -> list[Figure]:
    """Return the fastest of some resumptions: the others tell what else the machine did meanwhile."""
    gc.collect()
    before = resident_bytes()
    history, first = resume(path, make_oracle())
    gc.collect()
    taken = resident_bytes() - before
    count, copied = len(history.trials), milliseconds(history.snapshot)
    del history  # what it holds would be looked through for garbage while the next one is made
    again = [resume(path, make_oracle())[1] for _ in range(RESUMPTIONS - 1)]
    all_of_them = sorted([first, *again], key=lambda each: each.seconds)
    best = all_of_them[0]
    return [
        Figure(f"{name}: trials", count),
        Figure(f"{name}: facts", best.facts),
        Figure(f"{name}: file", path.stat().st_size / 1e6, "MB"),
        Figure(f"{name}: loaded", best.loaded, "s"),
        Figure(f"{name}: folded to a history", best.folded, "s"),
        Figure(f"{name}: oracle and limits ready", best.ready, "s"),
        Figure(f"{name}: resumed, best of {RESUMPTIONS}", best.seconds, "s", at_most),
        Figure(f"{name}: resumed, worst of them", all_of_them[-1].seconds, "s"),
        Figure(f"{name}: memory that it takes", taken / 1e6, "MB"),
        Figure(f"{name}: copied for an oracle's thread", copied, "ms"),
    ]


def measure_answers(root: Path) -> list[Figure]:
    """Return what the accessors of a tuner take that has loaded its project."""
    tuner = Searched(objective=OBJECTIVE, directory=root.parent, project_name=root.name, gpus=0)
    tuner.get_best_trials()  # loads it
    search = tuner.start()
    best = partial(tuner.get_best_hyperparameters, 1)
    return [
        Figure("get_best_hyperparameters()", milliseconds(best), "ms", 5.0),
        Figure("search.status()", milliseconds(search.status), "ms", 5.0),
        Figure("results_summary()", milliseconds(partial(printed, tuner)), "ms", 200.0),
    ]


def printed(tuner: Searched) -> str:
    with redirect_stdout(io.StringIO()) as output:
        tuner.results_summary()
    return output.getvalue()


def milliseconds(call: Callable[[], object]) -> float:
    """Return the median of some calls."""
    taken = []
    for _ in range(LOOKS):
        start = time.perf_counter()
        call()
        taken.append(1000 * (time.perf_counter() - start))
    return quantile(taken, 0.5)


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure_long_searches(directory: Path, trials: int) -> list[Figure]:
    at_most = 3.0 if trials <= TRIALS else None
    random_search = partial(RandomSearchOracle, OBJECTIVE, None, seed=1)
    plain, budgeted = directory / "random" / "study.db", directory / "hyperband" / "study.db"
    written = asyncio.run(write(plain, random_facts(trials)))
    asyncio.run(write(budgeted, hyperband_facts(trials)))
    return [
        Figure("random: written, 10,000 facts a call", written, "s"),
        *measure_resume("random", plain, random_search, at_most),
        *measure_resume("Hyperband", budgeted, partial(hyperband, trials), at_most),
        *measure_answers(plain.parent),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--repeats", type=int, default=APPENDS, help="default: %(default)s")
    parser.add_argument(
        "--trials", type=int, default=TRIALS, help="of the long searches; default: %(default)s"
    )
    given = parser.parse_args()
    with scratch() as directory:
        figures = asyncio.run(measure_appends(directory / "appends.db", given.repeats))
        figures += measure_bare_sqlite(directory / "bare.db", given.repeats)
        figures += measure_long_searches(directory, given.trials)
    notes = [
        f"long searches: {given.trials} trials x {EPOCHS} epochs of {len(METRICS)} metrics; Hyperband: as many "
        "trials, up to 81 epochs each"
    ]
    publish("The store", figures, given.json, notes)


if __name__ == "__main__":
    main()
