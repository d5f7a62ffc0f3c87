"""Ends what leaves a range."""

from __future__ import annotations

import math

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.history import History
from aiotune.objective import DefaultObjective, Objective
from aiotune.pruners.base import Pruner
from aiotune.pruners.options import number
from aiotune.pruners.reports import Rhythm, is_deciding, newest_first
from aiotune.trial import Observation, Run, Trial

__all__ = ["ThresholdPruner"]


class ThresholdPruner(Pruner):
    """Ends a trial that reports less than `lower` or more than `upper`.

    metric: which of the reported metrics, by its name; None: the objective. Both limits are in its own units.
    What is missing at a step, or not a number, is not judged there. n_warmup_steps: none is judged before
    this step; interval_steps: one is judged once in so many steps.
    """

    def __init__(
        self,
        lower: float | None = None,
        upper: float | None = None,
        n_warmup_steps: int = 0,
        interval_steps: int = 1,
        *,
        metric: str | None = None,
    ) -> None:
        if lower is None and upper is None:
            raise FatalValueError("ThresholdPruner() ends no trial: pass lower=, upper= or both")
        self.lower = -math.inf if lower is None else number("lower", lower)
        self.upper = math.inf if upper is None else number("upper", upper)
        if self.lower > self.upper:
            raise FatalValueError(
                f"lower={lower} is above upper={upper}: every trial would be ended"
            )
        if metric is not None and not isinstance(metric, str):
            raise FatalTypeError(f"metric={metric!r}: the name of a metric is needed")
        self.metric = metric
        self._rhythm = Rhythm(n_warmup_steps, interval_steps)

    def judge(self, history: History, trial: Trial, run: Run) -> str | None:
        if not is_deciding(run) or not run.observations:
            return None
        value = self._value(run.observations[-1], trial.objective)
        if value is None or self.lower <= value <= self.upper:
            return None
        step = run.observations[-1].step
        if not self._rhythm.is_due(step, self._former(trial, run)):
            return None
        name = self.metric or (trial.objective.name if trial.objective else "the objective")
        limit = f"below {self.lower:g}" if value < self.lower else f"above {self.upper:g}"
        return f"at step {step}, {name} = {value:g} is {limit}"

    def check(self, objective: Objective, repeats: int) -> None:
        if self.metric is not None:
            return
        super().check(objective, repeats)
        if objective.seeks_front:
            raise FatalValueError(
                f"there are several objectives: say which, ThresholdPruner(..., "
                f'metric="{objective.parts[0].name}")'
            )

    def _value(self, observation: Observation, objective: Objective | None) -> float | None:
        named = objective if self.metric is None else Objective(self.metric, "min")
        if named is None or isinstance(named, DefaultObjective):
            return None
        if not named.has_value(observation.metrics):
            return None
        value = named.get_value(observation.metrics)
        return None if math.isnan(value) else value

    def _former(self, trial: Trial, run: Run) -> int | None:
        """Return the last step before the newest one that has a value."""
        earlier = newest_first(trial, run)
        next(earlier)
        return next(
            (each.step for each in earlier if self._value(each, trial.objective) is not None), None
        )
