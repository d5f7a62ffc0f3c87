"""Several objectives at once: which trials no other one beats in all of them, and how much they cover.

Everything is minimised here: `goals` negates what is to be maximised. Plain Python, for fronts are small; the
oracles have their own arrays.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from aiotune.errors import FatalValueError
from aiotune.objective import MultiObjective, Objective
from aiotune.trial import Trial

__all__ = ["dominates", "goals", "hypervolume", "pareto_front", "reference_beyond"]

Point = Sequence[float]  # a value of each objective; less is better

_SLACK = 0.1


def goals(objective: Objective, trial: Trial) -> tuple[float, ...]:
    """Return the trial's value of each objective, such that less is better; NaN where it has none.

    Of a `MultiObjective` these are its parts, by the final metrics; of any other objective, the score.
    """
    if isinstance(objective, MultiObjective):
        metrics = trial.final_metrics
        return objective.minimised([metrics.get(each.name, math.nan) for each in objective.parts])
    return objective.minimised([math.nan if trial.score is None else trial.score])


def pareto_front(trials: Iterable[Trial], objective: Objective) -> list[Trial]:
    """Return the trials that no other one dominates, best in the first objective first.

    Of trials that are equal in all objectives, the oldest. As among the best trials, there is none without a
    score; nor is there one with an objective that is missing, NaN or infinite.
    """
    valued = [(goals(objective, each), each) for each in trials if each.has_score]
    known = [(values, each) for values, each in valued if all(map(math.isfinite, values))]
    front: list[tuple[Point, Trial]] = []
    # What dominates a trial stands before it in this order, and so does an older trial with equal values.
    for values, trial in sorted(known, key=lambda each: (each[0], each[1].number)):
        if not any(_is_no_worse(other, values) for other, _ in front):
            front.append((values, trial))
    return [trial for _, trial in front]


def dominates(one: Point, other: Point) -> bool:
    """Tell whether `one` is nowhere worse than `other` and somewhere better. NaN dominates nothing."""
    return _is_no_worse(one, other) and tuple(one) != tuple(other)


def _is_no_worse(one: Point, other: Point) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True))


def hypervolume(values: Iterable[Point], reference: Point) -> float:
    """Return the volume that `values` dominate, as far as the reference; exactly, for few objectives.

    Zitzler and Thiele 1998. A value that is not below the reference everywhere adds nothing. FatalValueError
    for a number that is not finite, and for a value of another length than the reference.
    """
    corner = tuple(map(float, reference))
    points = [tuple(map(float, each)) for each in values]
    for each in [corner, *points]:
        if len(each) != len(corner) or not all(map(math.isfinite, each)):
            raise FatalValueError(f"{each}: {len(corner)} numbers are needed, each of them finite")
    inside = [each for each in points if all(a < b for a, b in zip(each, corner, strict=True))]
    return _volume(_non_dominated(inside), corner)


def _volume(front: Sequence[Point], corner: Point) -> float:
    """Return the volume between a non-dominated set, sorted, and a corner beyond it.

    While, Bradstreet and Barone 2012 (WFG): each point adds its own box, less what those after it
    dominate of that. With two objectives these are the steps of a staircase.
    """
    if len(corner) <= 2:
        return _staircase(front, corner)
    total = 0.0
    for index, point in enumerate(front):
        limited = [tuple(map(max, point, other)) for other in front[index + 1 :]]
        box = math.prod(b - a for a, b in zip(point, corner, strict=True))
        total += box - _volume(_non_dominated(limited), corner)
    return total


def _staircase(front: Sequence[Point], corner: Point) -> float:
    if len(corner) == 1:
        return corner[0] - front[0][0] if front else 0.0
    total, height = 0.0, corner[1]
    for first, second in front:
        total += (corner[0] - first) * (height - second)
        height = second
    return total


def _non_dominated(points: Iterable[Point]) -> list[Point]:
    """Return the points that no other one dominates, each once, in order."""
    front: list[Point] = []
    for point in sorted(map(tuple, points)):
        if not any(_is_no_worse(other, point) for other in front):
            front.append(point)
    return front


def reference_beyond(points: Sequence[Point]) -> tuple[float, ...]:
    """Return a reference for some points, at least one: their worst values, and a tenth of their extent beyond.

    Where they have no extent: a tenth of the value's size, or 0.1 beyond 0.
    """
    return tuple(
        max(column) + _SLACK * ((max(column) - min(column)) or abs(column[0]) or 1.0)
        for column in zip(*points, strict=True)
    )
