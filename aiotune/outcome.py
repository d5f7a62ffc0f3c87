"""What a run achieved: the metrics that count, from whatever user code returned or reported."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.objective import DefaultObjective, MultiObjective, Objective, absent

__all__ = ["Outcome", "outcome_of", "score_of"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Final metrics, the objective's among them, and the step that they belong to, if known."""

    metrics: dict[str, float]
    best_step: int | None = None


class Observed(Protocol):
    """Metrics at a step, such as a `trial.Observation`."""

    @property
    def step(self) -> int: ...

    @property
    def metrics(self) -> Mapping[str, float]: ...


def outcome_of(result: object, objective: Objective) -> Outcome:
    """Return the outcome of what `run_trial` or `fit` returned.

    A number is the objective's value; a dict holds metrics; a Keras History gives the metrics of its
    best epoch; a list of these gives the mean of each metric. FatalTypeError for anything else,
    FatalValueError if the objective is not among the metrics.
    """
    number = _number(result)
    if number is not None and type(result).__name__ not in ("bool", "bool_"):
        if isinstance(objective, MultiObjective) and objective.seeks_front:
            names = ", ".join(repr(each.name) for each in objective.objectives)
            raise FatalTypeError(
                f"the trial returned a single number, but there are several objectives: return a dict that "
                f"holds {names}"
            )
        return Outcome({objective.name: number})
    match result:
        case None:
            raise FatalTypeError(
                "the trial returned None. Did you forget to return the metrics? Return a number, a "
                "dict that holds the objective, or what model.fit() returns"
            )
        case Mapping():
            return Outcome(_scored(_metrics(result), objective))
        case list() | tuple():
            return _mean([outcome_of(each, objective) for each in result], objective)
        case _ if isinstance(getattr(result, "history", None), Mapping):
            return _best_epoch(result, objective)
        case _:
            raise FatalTypeError(
                f"the trial returned {type(result).__name__}: {result!r:.100}. Return a number, a "
                f"dict that holds {objective.name!r}, a keras History, or a list of these"
            )


def score_of(observations: Sequence[Observed], objective: Objective) -> tuple[float, int] | None:
    """Return the best value so far and its step; of equals, the first. None if there is none yet."""
    reports = [each for each in observations if objective.has_value(each.metrics)]
    if not reports:
        return None
    values = [objective.get_value(each.metrics) for each in reports]
    best = objective.best(values)
    return values[best], reports[best].step


def _number(value: object) -> float | None:
    """Return a number, NumPy scalar or array of one element as a float; None for anything else.

    A bool among metrics counts as 0 or 1; the caller refuses one as the whole result.
    """
    if isinstance(value, str | bytes) or value is None:
        return None
    item = getattr(value, "item", None)
    try:
        if callable(item):
            return float(item())
        return float(value) if hasattr(value, "__float__") else None
    except (TypeError, ValueError, RuntimeError):
        return None  # an array of several elements


def _metrics(result: Mapping[Any, Any]) -> dict[str, float]:
    metrics = {}
    for name, value in result.items():
        number = _number(value)
        if not isinstance(name, str) or number is None:
            raise FatalTypeError(
                f"the trial returned {name!r}: {value!r:.100}: metrics are numbers by name"
            )
        metrics[name] = number
    return metrics


def _scored(metrics: dict[str, float], objective: Objective) -> dict[str, float]:
    """Return the metrics with the objective's value under its name, or raise FatalValueError."""
    return {**metrics, objective.name: objective.get_value(metrics)}


def _mean(outcomes: Sequence[Outcome], objective: Objective) -> Outcome:
    """Return the mean of each metric, over those outcomes that have it."""
    if not outcomes:
        raise FatalValueError("the trial returned an empty list: return one result per execution")
    names = dict.fromkeys(name for each in outcomes for name in each.metrics)
    means = {}
    for name in names:
        values = [each.metrics[name] for each in outcomes if name in each.metrics]
        means[name] = math.fsum(values) / len(values)
    steps = [each.best_step for each in outcomes if each.best_step is not None]
    is_known = len(steps) == len(outcomes)
    return Outcome(means, sum(steps) // len(steps) if is_known else None)


def _best_epoch(result: Any, objective: Objective) -> Outcome:
    """Return the metrics of the best epoch of a Keras History, and its number."""
    if isinstance(objective, DefaultObjective):
        raise FatalTypeError(
            "the trial returned a keras History, but no objective is given: name one, such as "
            'objective="val_loss", or return a single number'
        )
    epochs, rows = _epochs(result)
    found = [
        (epoch, row) for epoch, row in zip(epochs, rows, strict=True) if objective.has_value(row)
    ]
    if not found:
        raise FatalValueError(_never_there(objective, result.history))
    best = objective.best([objective.get_value(row) for _, row in found])
    epoch, row = found[best]
    return Outcome(_scored(row, objective), epoch)


def _never_there(objective: Objective, history: Mapping[str, Any]) -> str:
    parts = objective.objectives if isinstance(objective, MultiObjective) else (objective,)
    for each in parts:
        if not each.has_value(history):
            return absent(each.name, history)
    return f"{objective}: no epoch has all of these metrics"


def _epochs(result: Any) -> tuple[list[int], list[dict[str, float]]]:
    """Return the numbers of the epochs and the metrics of each one."""
    history: Mapping[str, Sequence[Any]] = result.history
    longest = max((len(values) for values in history.values()), default=0)
    epochs = [int(epoch) for epoch in getattr(result, "epoch", ())]
    if len(epochs) < longest:
        epochs = list(range(longest))
    rows: list[dict[str, float]] = [{} for _ in epochs]
    for name, values in history.items():
        for index, value in zip(_places(epochs, len(values)), values, strict=True):
            number = _number(value)
            if number is not None:
                rows[index][str(name)] = number
    return epochs, rows


def _places(epochs: Sequence[int], count: int) -> list[int]:
    """Return the indices of the epochs that `count` values belong to.

    With `validation_freq=n` Keras logs after epochs n, 2n, ... only, and does not say what n was: it
    is taken to be the largest that fits. If none does (n was a list), they belong to the last epochs.
    """
    if count == len(epochs):
        return list(range(count))
    for period in range(max(epochs) + 1, 1, -1):
        places = [index for index, epoch in enumerate(epochs) if (epoch + 1) % period == 0]
        if len(places) == count:
            return places
    return list(range(len(epochs) - count, len(epochs)))
