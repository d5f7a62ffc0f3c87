"""Contenders side by side: their tables, and the figures that have targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any

import numpy as np
from common import Figure
from quality_scores import (
    Interval,
    Regrets,
    Scale,
    Traces,
    geometric_mean,
    mean_ranks,
    ratio,
    regrets,
    scale_of,
)
from quality_tasks import Kind, Task
from quality_traces import Trace

__all__ = [
    "PEER_TO_BEAT",
    "Contest",
    "Rows",
    "figures",
    "first",
    "parallel_figure",
    "parallel_rows",
    "print_table",
]

PEER_TO_BEAT = "optuna-gp"
_EARLY, _SLOW, _LATE = 20, 30, 50  # trials; the slow peer has so many, for fewer seeds

Rows = Sequence[Sequence[str]]  # the first one is the head


@dataclass(frozen=True)
class Contest:
    """The traces of all contenders, ours first. drawn: those of random search, which regret is measured by."""

    tasks: Sequence[Task]
    contenders: Mapping[str, Traces]
    drawn: Traces
    seeds: int
    trials: int

    @cached_property
    def scales(self) -> Mapping[str, Scale]:
        return {task.name: scale_of(task, self.drawn[task.name]) for task in self.tasks}

    def regrets(self, name: str, trials: int, seeds: int | None = None) -> Regrets:
        """Return a contender's regrets by task; a task without so many trials is left out."""
        long_enough = {
            task: found
            for task, found in self.contenders[name].items()
            if found and found[0].trials >= trials
        }
        return regrets(long_enough, self.scales, trials, seeds or self.seeds)

    def ranks(self, trials: int) -> Mapping[str, Interval]:
        """Return the mean ranks of those contenders that have results of so many trials for every seed."""
        all_regrets = {name: self.regrets(name, trials) for name in self.contenders}
        taking_part = {
            name: found
            for name, found in all_regrets.items()
            if found and all(len(each) >= self.seeds for each in found.values())
        }
        return mean_ranks(taking_part) if taking_part else {}

    def medians(self, name: str, task: str) -> float | None:
        """Return the median, over seeds, of the value that all trials led to."""
        found = self.contenders[name].get(task, ())[: self.seeds]
        values = [value for each in found if (value := each.at(self.trials)) is not None]
        return median(values) if values else None

    # --- tables ---

    def task_rows(self) -> Rows:
        """Median best value, and regret, of each contender on each task."""
        names = list(self.contenders)
        head = ["task", "f*", *names, *(f"regret {name}" for name in names)]
        last = {name: self.regrets(name, self.trials) for name in names}
        rows = [head]
        for task in self.tasks:
            best = [_shown(self.medians(name, task.name)) for name in names]
            means = [
                _shown(geometric_mean({"": last[name][task.name]}))
                if task.name in last[name]
                else ""
                for name in names
            ]
            rows.append([task.name, _shown(task.optimum), *best, *means])
        return rows

    def summary_rows(self) -> Rows:
        """Geometric mean of regret, mean rank, and time of a suggestion, of each contender."""
        counts = [count for count in (_EARLY, _LATE) if count <= self.trials]
        slow_seeds = min(3, self.seeds)
        head = ["contender", "tasks", *(f"regret at {count}" for count in counts)]
        rows = [[*head, f"rank at {self.trials}", f"regret at {_SLOW}, 3 seeds", "CPU ms"]]
        ranks = self.ranks(self.trials)
        for name, traces in self.contenders.items():
            regrets = [_mean(self.regrets(name, count)) for count in counts]
            slow = _mean(self.regrets(name, _SLOW, slow_seeds))
            rank = str(ranks[name]) if name in ranks else ""
            seconds = [each.ask_seconds for found in traces.values() for each in found]
            shown_seconds = _shown(1000 * median(seconds)) if seconds else ""
            rows.append([name, str(len(traces)), *regrets, rank, slow, shown_seconds])
        return rows

    def to_json(self) -> dict[str, Any]:
        """Return everything in plain values; regrets by task in the order of the seeds."""
        counts = [count for count in (_EARLY, self.trials) if count <= self.trials]
        return {
            name: {
                "median_best": {task.name: self.medians(name, task.name) for task in self.tasks},
                **{
                    f"regret_at_{count}": {
                        task: [float(f"{each:.4g}") for each in found]
                        for task, found in self.regrets(name, count).items()
                    }
                    for count in counts
                },
            }
            for name in self.contenders
        }

    def curve(self, name: str) -> list[float]:
        """Return the geometric mean of regret after 1, 2, ... trials, for the tasks that it has."""
        longest = max(each.trials for found in self.contenders[name].values() for each in found)
        return [
            geometric_mean(self.regrets(name, count))
            for count in range(1, min(self.trials, longest) + 1)
        ]


def figures(contest: Contest, ours: str) -> tuple[list[Figure], list[str]]:
    """Return what has a target: rank, and ratios to the peer to beat; with their intervals as notes."""
    found: list[Figure] = []
    notes: list[str] = []
    has_targets = ours.startswith("bayesian")
    ordinary = {task.name for task in contest.tasks if task.kind is Kind.ORDINARY}
    everything = {task.name for task in contest.tasks}
    compared: list[tuple[int, set[str], str, float | None]] = [
        (_EARLY, everything, "all", 0.3),
        (_LATE, everything, "all", 0.35),
    ]
    compared += [(_EARLY, ordinary, "ordinary", None), (_LATE, ordinary, "ordinary", 0.8)]
    for count, names, what, target in compared:
        pair = [_only(contest.regrets(each, count), names) for each in (ours, PEER_TO_BEAT)]
        tasks = sum(task in pair[1] for task in pair[0])
        if not tasks:
            continue
        interval = ratio(*pair)
        label = f"{ours}: regret of {PEER_TO_BEAT}'s at {count}, {what} tasks ({tasks})"
        found.append(Figure(label, interval.value, at_most=target if has_targets else None))
        notes.append(f"{label}: {interval}")
    ranks = contest.ranks(contest.trials)
    others = [rank.value for name, rank in ranks.items() if name != ours]
    if ours in ranks and others:
        lead = ranks[ours].value - min(others)
        at_most = 0.0 if has_targets else None
        found.append(
            Figure(f"{ours}: mean rank, less that of the best other", lead, at_most=at_most)
        )
    return found, notes


def parallel_rows(contest: Contest, ours: str, beside: Traces, parallel: int) -> Rows:
    """Return the regret on each task, one trial at a time and several."""
    sequential, together = _both(contest, ours, beside)
    return [
        ["task", "one at a time", f"{parallel} at a time"],
        *(
            [task, *(_shown(geometric_mean({task: each[task]})) for each in (sequential, together))]
            for task in sequential
        ),
    ]


def parallel_figure(contest: Contest, ours: str, beside: Traces, parallel: int) -> Figure:
    """Return the ratio of regret, several trials at a time against one, at an equal number of trials."""
    sequential, together = _both(contest, ours, beside)
    interval = ratio(together, sequential)
    name = f"{ours}: regret {parallel} at a time of that one at a time ({interval})"
    return Figure(name, interval.value, at_most=1.25)


def _both(contest: Contest, ours: str, beside: Traces) -> tuple[Regrets, Regrets]:
    together = regrets(beside, contest.scales, contest.trials, contest.seeds)
    return contest.regrets(ours, contest.trials), together


def print_table(rows: Rows) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    print()


def _only(regrets: Regrets, tasks: set[str]) -> Regrets:
    return {task: found for task, found in regrets.items() if task in tasks}


def _mean(regrets: Regrets) -> str:
    return _shown(geometric_mean(regrets)) if regrets else ""


def _shown(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if np.isfinite(value) else str(value)


def first(traces: Traces, tasks: Sequence[Task], seeds: int) -> dict[str, Sequence[Trace]]:
    """Return the traces of these tasks and of the first so many seeds."""
    return {task.name: traces[task.name][:seeds] for task in tasks if task.name in traces}
