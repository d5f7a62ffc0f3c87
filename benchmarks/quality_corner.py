"""The out-of-memory corner: how many of 40 trials are wasted in it, and what is found beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, median

from common import Figure
from quality_contest import Rows
from quality_functions import CORNER
from quality_traces import Trace

__all__ = ["CORNER_TRIALS", "corner_figures", "corner_rows"]

CORNER_TRIALS = 40
_KERAS_TUNER_TRIALS = 30


def corner_rows(contenders: Mapping[str, Sequence[Trace]]) -> Rows:
    """Return for each contender: failed trials, mean and worst seed, and the median of the best value."""
    rows = [["contender", "trials", "failed", "worst", "after the tenth", "median best"]]
    for name, traces in contenders.items():
        trials = _trials(traces)
        failed = [each.failed(trials) for each in traces]
        later = [each.failed(trials) - each.failed(10) for each in traces]
        numbers = [str(trials), f"{fmean(failed):.1f}", str(max(failed)), f"{fmean(later):.1f}"]
        rows.append([name, *numbers, f"{_median_best(traces):.6g}"])
    return rows


def corner_figures(ours: str, contenders: Mapping[str, Sequence[Trace]]) -> list[Figure]:
    """Return the targets: 8 wasted trials, and a best value that no peer's is below."""
    failed = [each.failed(CORNER_TRIALS) for each in contenders[ours]]
    peers = [_median_best(traces) for name, traces in contenders.items() if name != ours]
    gap = _median_best(contenders[ours]) - min(peers)
    return [
        Figure(f"{ours}: failed of 40 in the corner, mean", fmean(failed), at_most=8.0),
        Figure(f"{ours}: failed of 40 in the corner, worst seed", max(failed)),
        Figure(
            f"{ours}: best value ({CORNER.optimum:g} at most), less the best peer's",
            gap,
            at_most=0.0,
        ),
    ]


def _trials(traces: Sequence[Trace]) -> int:
    return min(CORNER_TRIALS, *(each.trials for each in traces))


def _median_best(traces: Sequence[Trace]) -> float:
    values = [value for each in traces if (value := each.at(_trials(traces))) is not None]
    return median(values)
