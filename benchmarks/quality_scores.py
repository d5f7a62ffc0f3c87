"""From traces to figures: regret, geometric means, ratios and ranks with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from quality_tasks import Task
from quality_traces import Trace

__all__ = [
    "FLOOR",
    "Interval",
    "Regrets",
    "Scale",
    "Traces",
    "geometric_mean",
    "mean_ranks",
    "ratio",
    "regrets",
    "scale_of",
]

Array = NDArray[np.float64]
Traces = Mapping[str, Sequence[Trace]]  # by task; in the order of the seeds
Regrets = Mapping[str, Array]  # by task; (seeds,)

FLOOR = 1e-3
_RESAMPLES = 2000
_TAILS = (2.5, 97.5)  # per cent


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and the bounds that 95 % of its bootstrap resamples lie between."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"


@dataclass(frozen=True, slots=True)
class Scale:
    """What regret is measured by: 0 is the optimum, 1 what random search reaches.

    worst: the regret of a search without any success: the worst first value of a random search.
    """

    optimum: float
    unit: float
    worst: float

    def regret(self, value: float | None) -> float:
        """Return the regret of a value, at least FLOOR."""
        if value is None:
            return self.worst
        return max((value - self.optimum) / self.unit, FLOOR)


def scale_of(task: Task, drawn: Sequence[Trace], trials: int = 50) -> Scale:
    """Return the task's scale: the unit is the median, over searches at random, of best minus optimum."""
    best = [value for each in drawn if (value := each.at(trials)) is not None]
    unit = float(np.median(best)) - task.optimum
    worst = max(each.steps[0][1] for each in drawn if each.steps)
    return Scale(task.optimum, unit, (worst - task.optimum) / unit)


def regrets(traces: Traces, scales: Mapping[str, Scale], trials: int, seeds: int) -> Regrets:
    """Return the regrets after so many trials, of the first so many seeds."""
    return {
        task: np.array([scales[task].regret(each.at(trials)) for each in found[:seeds]])
        for task, found in traces.items()
        if task in scales
    }


def geometric_mean(regrets: Regrets) -> float:
    """Return the geometric mean over seeds, then over tasks."""
    return float(np.exp(np.mean([np.log(each).mean() for each in regrets.values()])))


def ratio(ours: Regrets, theirs: Regrets) -> Interval:
    """Return the ratio of the geometric means over the tasks that both have; below 1: ours is better.

    Seeds are resampled within each task, of each contender by itself; the tasks are what they are.
    """
    tasks = [task for task in ours if task in theirs]
    mine = np.mean([_resampled_means(np.log(ours[task]), 2 * i) for i, task in enumerate(tasks)], 0)
    other = np.mean(
        [_resampled_means(np.log(theirs[task]), 2 * i + 1) for i, task in enumerate(tasks)], 0
    )
    both = [{task: each[task] for task in tasks} for each in (ours, theirs)]
    value = geometric_mean(both[0]) / geometric_mean(both[1])
    return _interval(value, np.exp(mine - other))


def mean_ranks(contenders: Mapping[str, Regrets]) -> dict[str, Interval]:
    """Return the mean rank of each contender, over the tasks and seeds that all have; 1 is best, ties share.

    Seeds are resampled within each task, the same for all contenders.
    """
    tasks = [
        task
        for task in next(iter(contenders.values()))
        if all(task in each for each in contenders.values())
    ]
    by_task = []
    for task in tasks:
        seeds = min(len(each[task]) for each in contenders.values())
        by_task.append(_ranks(np.array([each[task][:seeds] for each in contenders.values()])))
    means = np.mean([ranks.mean(axis=1) for ranks in by_task], axis=0)
    result = {}
    for row, name in enumerate(contenders):
        resampled = np.mean([_resampled_means(each[row], i) for i, each in enumerate(by_task)], 0)
        result[name] = _interval(float(means[row]), resampled)
    return result


def _ranks(values: Array) -> Array:
    """Return the rank within each column, from 1, ties averaged: (contenders, seeds) -> the same."""
    below = (values[None] < values[:, None]).sum(axis=1)
    equal = (values[None] == values[:, None]).sum(axis=1)
    ranks: Array = below + (equal + 1) / 2
    return ranks


def _resampled_means(values: Array, stream: int) -> Array:
    """Return the means of bootstrap resamples: (n,) -> (resamples,)."""
    chosen = np.random.default_rng([0, stream]).integers(
        len(values), size=(_RESAMPLES, len(values))
    )
    means: Array = values[chosen].mean(axis=1)
    return means


def _interval(value: float, resampled: Array) -> Interval:
    low, high = np.percentile(resampled, _TAILS)
    return Interval(float(value), float(low), float(high))
