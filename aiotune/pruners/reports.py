"""What a run reported, as losses: numbers of which less is better, one for each objective."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from aiotune.objective import Objective
from aiotune.oracles.options import whole_number
from aiotune.trial import Observation, Run, Trial

__all__ = ["Loss", "Rhythm", "is_deciding", "loss_of", "newest_first", "total"]

Loss = tuple[float, ...]  # of each objective where a front is sought, else of the score


def loss_of(metrics: Mapping[str, float], objective: Objective) -> Loss | None:
    """Return what the metrics are worth; None where the objective is missing, or not a number."""
    if not objective.has_value(metrics):
        return None
    parts = objective.parts if objective.seeks_front else (objective,)
    values = (each.get_value(metrics) for each in parts)
    loss = tuple(v if p.direction == "min" else -v for p, v in zip(parts, values, strict=True))
    return None if any(map(math.isnan, loss)) else loss


def total(loss: Loss, objective: Objective) -> float:
    """Return the number by which a trial's best step is chosen: with several objectives their weighted sum."""
    weights = getattr(objective, "weights", (1.0,)) if objective.seeks_front else (1.0,)
    return float(sum(w * value for w, value in zip(weights, loss, strict=True)))


def is_deciding(run: Run) -> bool:
    """Tell whether a run's curve is judged: those of the first repeat are, which is measured on the first fold.

    All trials have one, and on the same data. Were each repeat judged, bad luck in one would end a good trial.
    """
    return run.repeat == 0


def newest_first(trial: Trial, run: Run) -> Iterator[Observation]:
    """Yield what `trial.curve(run)` has, the newest report first, without a list of all."""
    below = math.inf
    while True:
        yield from (each for each in reversed(run.observations) if each.step < below)
        if run.observations:
            below = min(below, run.observations[0].step)
        if run.continues is None:
            return
        run = trial.runs[run.continues]


@dataclass(frozen=True, slots=True)
class Rhythm:
    """At which steps a rule looks at a run: once in each interval, the first of which begins after the warm-up.

    Where the objective is reported at some steps only, the look is taken at the first of them in an interval.
    """

    n_warmup_steps: int = 0
    interval_steps: int = 1

    def __post_init__(self) -> None:
        whole_number("n_warmup_steps", self.n_warmup_steps, at_least=0)
        whole_number("interval_steps", self.interval_steps)

    def is_due(self, step: int, former: int | None) -> bool:
        """Tell whether to look at `step`, the last report before it being that of step `former`."""
        if step < self.n_warmup_steps:
            return False
        since = step - self.n_warmup_steps
        begin = self.n_warmup_steps + since // self.interval_steps * self.interval_steps
        return former is None or former < begin
