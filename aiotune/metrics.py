"""The metrics of a trial: the final ones as a mapping, and what its runs reported step by step.

The questions are those of KerasTuner's tracker, under its names.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from aiotune.errors import FatalValueError
from aiotune.objective import Direction, Objective, infer_direction
from aiotune.outcome import Observed

__all__ = ["MetricObservation", "TrialMetrics"]

_WRITERS = ("register", "register_metrics", "set_history", "update")


@dataclass(frozen=True, slots=True)
class MetricObservation:
    """One metric at one step: a value of each repeat of the trial that got there."""

    value: list[float]
    step: int

    @property
    def mean(self) -> float:
        return statistics.fmean(self.value)


class TrialMetrics(Mapping[str, float]):
    """The final metrics by name; asked by its methods, also what was reported before.

    final: means over the repeats. reports: what each run that counts reported, a sequence for each run.
    best_step: that of the trial, to which a metric belongs that was returned and never reported.
    FatalValueError, naming the metrics that there are, where a method is asked for another.
    """

    def __init__(
        self,
        final: Mapping[str, float],
        reports: Sequence[Sequence[Observed]] = (),
        best_step: int | None = None,
        objective: Objective | None = None,
    ) -> None:
        self._final = final
        self._reports = reports
        self._best_step = best_step
        self._objective = objective

    def __getitem__(self, name: str) -> float:
        return self._final[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._final)

    def __len__(self) -> int:
        return len(self._final)

    def __repr__(self) -> str:
        return repr(dict(self._final))

    def exists(self, name: str) -> bool:
        """Tell whether the metric was returned or reported."""
        return name in self._final or name in self._reported_names()

    def get_direction(self, name: str) -> Direction:
        """Return "min" or "max": the objective's own, else what the name says, else "min"."""
        self._require(name)
        declared = self._objective.direction_of(name) if self._objective else None
        return declared or infer_direction(name) or "min"

    def get_history(self, name: str) -> list[MetricObservation]:
        """Return the metric at each step, in order. One that was never reported has its final value only."""
        self._require(name)
        values: dict[int, list[float]] = {}
        for run in self._reports:
            for each in run:
                if name in each.metrics:
                    values.setdefault(each.step, []).append(each.metrics[name])
        if not values:
            return [MetricObservation([self._final[name]], self._best_step or 0)]
        return [MetricObservation(values[step], step) for step in sorted(values)]

    def get_best_value(self, name: str) -> float | None:
        """Return the best mean of a step, or None if there is no number among them."""
        best = self._best(name)
        return None if best is None else best.mean

    def get_best_step(self, name: str) -> int | None:
        """Return the first step that has the best value, or None if there is no number."""
        best = self._best(name)
        return None if best is None else best.step

    def get_last_value(self, name: str) -> float:
        """Return the mean at the last step."""
        return self.get_history(name)[-1].mean

    def get_statistics(self, name: str) -> dict[str, float]:
        """Return min, max, mean, median, var and std over the steps that have a number; {} without one."""
        means = [each.mean for each in self.get_history(name) if not math.isnan(each.mean)]
        rules: dict[str, Callable[[list[float]], float]] = {
            "min": min,
            "max": max,
            "mean": statistics.fmean,
            "median": statistics.median,
            "var": statistics.pvariance,
            "std": statistics.pstdev,
        }
        return {rule: compute(means) for rule, compute in rules.items()} if means else {}

    def get_config(self) -> dict[str, Any]:
        """Return every metric with its direction and steps in plain values, laid out as KerasTuner's."""
        return {
            "metrics": {
                name: {
                    "direction": self.get_direction(name),
                    "observations": [
                        {"value": each.value, "step": each.step} for each in self.get_history(name)
                    ],
                }
                for name in dict.fromkeys([*self._final, *self._reported_names()])
            }
        }

    def __getattr__(self, name: str) -> NoReturn:
        if name in _WRITERS:
            raise AttributeError(
                f"metrics.{name} is not there: metrics are facts that a run tells, with trial.report(step, "
                "loss=...) or by returning them"
            )
        raise AttributeError(name)

    def _best(self, name: str) -> MetricObservation | None:
        known = [each for each in self.get_history(name) if not math.isnan(each.mean)]
        if not known:
            return None
        return known[Objective(name, self.get_direction(name)).best([each.mean for each in known])]

    def _reported_names(self) -> dict[str, None]:
        """Return the names of what was reported; an ordered set."""
        return {name: None for run in self._reports for each in run for name in each.metrics}

    def _require(self, name: str) -> None:
        if not self.exists(name):
            known = ", ".join(dict.fromkeys([*self._final, *self._reported_names()]))
            raise FatalValueError(
                f"Unknown metric: {name}. The trial has {known or 'none yet'}; ask metrics.exists(name) first"
            )
