"""What one suggestion costs: 10 hyperparameters, one core, after 50, 200 and 5,000 observations."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from statistics import median

from common import Figure
from quality_driver import SCORE, OracleFactory, Search
from quality_peers import PEERS
from quality_tasks import Hyper, Kind, Task

from aiotune.oracles.random_search import RandomSearchOracle

__all__ = ["cost_figures"]

_TARGETS: Mapping[int, float] = {50: 30.0, 200: 60.0, 5000: 100.0}  # milliseconds
_REPEATS = 10  # in a row, so that a fit that is made every so often is among them


def ten_names(hp: Hyper) -> float:
    """A bowl in 8 numbers and a whole one, deeper for one of 4 categories."""
    floats = sum((hp.Float(f"x{index}", 0.0, 1.0) - 0.3) ** 2 for index in range(8))
    whole = (hp.Int("count", 1, 20) - 7) ** 2 / 400
    floor = {"a": 0.0, "b": 0.1, "c": 0.2, "d": 0.3}[hp.Choice("kind", ["a", "b", "c", "d"])]
    return math.sqrt(floor + whole + floats)


_TASK = Task("ten_names", Kind.ORDINARY, ten_names, 0.0, {})


def cost_figures(ours: str, factory: OracleFactory) -> list[Figure]:
    """Return the median CPU time of a suggestion, in milliseconds, and of the first one; the peer's beside."""
    found = []
    with _one_core():
        for observations, target in _TARGETS.items():
            times = _times(factory, observations)
            label = f"{ours}: one suggestion after {observations} trials"
            found.append(Figure(label, median(times), "ms", at_most=target))
            found.append(Figure(f"{label}, the first of a session", times[0], "ms"))
        peer = PEERS["optuna-gp"].run(_TASK, 0, 50 + _REPEATS)[50:]
        cost = median(1000 * each.ask_seconds for each in peer)
        found.append(Figure("optuna-gp: one suggestion after 50 trials", cost, "ms"))
    return found


def _times(factory: OracleFactory, observations: int) -> list[float]:
    """Return the milliseconds of each of some suggestions in a row."""
    search = Search(RandomSearchOracle(SCORE, None, seed=0), _TASK, seed=0)
    _go_on(search, observations)
    search.oracle = factory(0, 2 * observations)
    _go_on(search, _REPEATS)
    return [1000 * each.ask_seconds for each in search.outcomes[observations:]]


def _go_on(search: Search, trials: int) -> None:
    for _ in range(trials):
        search.ask()
        search.end(next(iter(search.in_flight)))


@contextmanager
def _one_core() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
