"""What a contender found in one search, and the files that keep it: `quality/results/<contender>.json`."""

from __future__ import annotations

import json
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quality_tasks import Measured

__all__ = ["RESULTS", "Outcome", "Recorded", "Trace", "load", "save", "trace_of"]

RESULTS = Path(__file__).parent / "quality" / "results"
_DIGITS = 7  # significant ones
_LAST = 10


@dataclass(frozen=True, slots=True)
class Outcome:
    """One trial: what it gave, and the CPU seconds that it took to propose it."""

    measured: Measured
    ask_seconds: float


@dataclass(frozen=True, slots=True)
class Trace:
    """One search.

    steps: (trial, value) wherever the best observation changed, ascending; value: without noise, of the trial
    with the best observation. trials: how many. failures: which of them failed, ascending. ask_seconds: CPU
    time of a suggestion, median over the last ten.
    """

    steps: tuple[tuple[int, float], ...]
    trials: int
    failures: tuple[int, ...]
    ask_seconds: float

    def at(self, trials: int) -> float | None:
        """Return the value that the first so many trials led to; None if all of them failed."""
        count = bisect_right(self.steps, trials - 1, key=lambda step: step[0])
        return self.steps[count - 1][1] if count else None

    def failed(self, trials: int) -> int:
        """Return how many of the first so many trials failed."""
        return bisect_left(self.failures, trials)


def trace_of(outcomes: Sequence[Outcome]) -> Trace:
    """Return what a search found."""
    steps: list[tuple[int, float]] = []
    lowest = math.inf
    for trial, outcome in enumerate(outcomes):
        measured = outcome.measured
        if measured.value is None or measured.observed is None:
            continue
        if measured.observed < lowest:
            lowest = measured.observed
            steps.append((trial, float(f"{measured.value:.{_DIGITS}g}")))
    seconds = sorted(outcome.ask_seconds for outcome in outcomes[-_LAST:])
    failures = tuple(
        trial for trial, each in enumerate(outcomes) if each.measured.failure is not None
    )
    median = float(f"{seconds[len(seconds) // 2]:.3g}")
    return Trace(tuple(steps), len(outcomes), failures, median)


@dataclass(frozen=True, slots=True)
class Recorded:
    """The traces of one contender by task, in the order of seeds 0, 1, ..."""

    versions: Mapping[str, str]
    traces: Mapping[str, Sequence[Trace]]


def load(contender: str, folder: Path = RESULTS) -> Recorded:
    """Return what was recorded; nothing if there is no file."""
    path = folder / f"{contender}.json"
    if not path.exists():
        return Recorded({}, {})
    content = json.loads(path.read_text())
    traces = {task: [_trace(each) for each in rows] for task, rows in content["tasks"].items()}
    return Recorded(content["versions"], traces)


def save(contender: str, recorded: Recorded, folder: Path = RESULTS) -> None:
    """Write the file; a search takes one line."""
    tasks = ",\n".join(
        f'"{task}": [\n{_lines(traces)}\n]' for task, traces in sorted(recorded.traces.items())
    )
    head = f'"contender": "{contender}",\n"versions": {json.dumps(recorded.versions)}'
    path = folder / f"{contender}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{{\n{head},\n"tasks": {{\n{tasks}\n}}\n}}\n')


def _lines(traces: Iterable[Trace]) -> str:
    rows = (
        {
            "trials": each.trials,
            "failures": each.failures,
            "ask_seconds": each.ask_seconds,
            "steps": each.steps,
        }
        for each in traces
    )
    return ",\n".join(json.dumps(row) for row in rows)


def _trace(row: Mapping[str, Any]) -> Trace:
    steps = tuple((trial, value) for trial, value in row["steps"])
    return Trace(steps, row["trials"], tuple(row["failures"]), row["ask_seconds"])
