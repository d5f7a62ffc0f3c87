"""The contenders that are ours: oracles by name, and many searches in several processes."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from quality_driver import SCORE, OracleFactory, run
from quality_functions import CORNER
from quality_tasks import Task, tasks
from quality_traces import Trace, trace_of

from aiotune.oracles.base import Oracle

__all__ = ["ORACLES", "Job", "factory", "search_all"]

ORACLES: Mapping[str, tuple[str, str]] = {  # module of aiotune.oracles, class
    "random": ("random_search", "RandomSearchOracle"),
    "bayesian": ("bayesian", "BayesianOptimizationOracle"),
    "tpe": ("tpe", "TPEOracle"),
    "forest": ("forest", "RandomForestOracle"),
    "annealing": ("annealing", "SimulatedAnnealingOracle"),
    "sobol": ("quasi_random", "QuasiRandomOracle"),
    "cmaes": ("cmaes", "CmaEsOracle"),
}


def factory(spec: str) -> OracleFactory:
    """Return what makes the oracle of a name, with options if need be: "bayesian", "bayesian:beta=None"."""
    name, _, listed = spec.partition(":")
    if name not in ORACLES:
        raise ValueError(f"there is no oracle {name!r}; there are: {', '.join(ORACLES)}")
    module, kind = ORACLES[name]
    options = _options(listed)

    def make(seed: int, trials: int) -> Oracle:
        oracle: Oracle = getattr(import_module(f"aiotune.oracles.{module}"), kind)(
            SCORE, max_trials=trials, seed=seed, **options
        )
        return oracle

    return make


def _options(listed: str) -> dict[str, Any]:
    pairs = (each.partition("=") for each in listed.split(",") if each)
    return {name: ast.literal_eval(value) for name, _, value in pairs}


@dataclass(frozen=True, slots=True)
class Job:
    """One search."""

    oracle: str
    task: str
    seed: int
    trials: int
    parallel: int = 1


def search_all(jobs: Sequence[Job], processes: int) -> list[Trace]:
    """Return the trace of each job."""
    if processes == 1:
        return [_search(job) for job in jobs]
    for job in {job.oracle: job for job in jobs}.values():
        factory(job.oracle)(
            0, job.trials
        )  # imports, and refuses bad options, once and before the forks
    with ProcessPoolExecutor(processes) as pool:
        return list(pool.map(_search, jobs))


def _search(job: Job) -> Trace:
    task = _tasks()[job.task]
    return trace_of(run(factory(job.oracle), task, job.seed, job.trials, job.parallel))


@cache
def _tasks() -> dict[str, Task]:
    return {task.name: task for task in (*tasks(), CORNER)}
