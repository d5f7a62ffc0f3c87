"""Points that the user wants tried first, in their order.

Nothing is ever taken off the queue by being proposed: a point is passed over once a trial has it. So nothing is
lost with a suggestion that is not used, and a program that queues the same points at each start can be resumed.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.history import History
from aiotune.hyperparameters import HyperParameters
from aiotune.labels import exact, is_scalar, label_of, plain
from aiotune.space import Scalar, Space, Values
from aiotune.trial import Trial

__all__ = ["Found", "PointQueue", "Queued"]

Allows = Callable[[Values], bool]


@dataclass(frozen=True, slots=True, eq=False)
class Queued:
    """A point, or a part of one. `is_wish`: what does not fit the space is left out, and is no error."""

    values: Mapping[str, object]
    is_wish: bool


@dataclass(frozen=True, slots=True)
class Found:
    """A point of the queue in the values of the space."""

    values: Values
    queued: Queued


class PointQueue:
    """Points to be tried, oldest first; they need not have a value for every name."""

    def __init__(self) -> None:
        self._points: list[Queued] = []
        self._checked: Space | None = None  # all points fit this space

    def __bool__(self) -> bool:
        return bool(self._points)

    def add(self, points: Iterable[object], *, is_wish: bool = False) -> Sequence[Queued]:
        """Take in dicts of values by name, or HyperParameters. FatalTypeError, FatalValueError for others."""
        queued = [Queued(_values_of(each), is_wish) for each in points]
        self._points.extend(queued)
        self._checked = None
        return queued

    def remove(self, queued: Iterable[Queued]) -> None:
        """Take points off again."""
        for each in queued:
            self._points.remove(each)

    def check(self, space: Space, allows: Allows, *, is_known: bool = True) -> None:
        """Raise FatalValueError for the first point that the space does not have, or that is not allowed.

        is_known: whether the space has every name that a program may declare.
        """
        if self._checked is space:
            return
        is_known = is_known and len(space) > 0
        for each in tuple(self._points):
            if each.is_wish:
                continue
            values = _fitted(each, space, is_known=is_known)
            if is_known and _is_whole(values, space) and not allows(values):
                raise FatalValueError(f"enqueue({values}): constraint= refuses this point")
        if is_known:
            self._checked = space

    def first_new(self, history: History, space: Space, allows: Allows) -> Found | None:
        """Return the first point that no trial has, or None."""
        for each in tuple(self._points):
            values = _fitted(each, space, is_known=len(space) > 0)
            is_refused = each.is_wish and _is_whole(values, space) and not allows(values)
            trials = history.trials.values()
            if values and not is_refused and not any(_has(it, values, space) for it in trials):
                return Found(values, each)
            self._points.remove(each)  # for good, one by one: another thread may add meanwhile
        return None

    def give_up(self, found: Found) -> None:
        """Pass over a point that is refused however it is completed. FatalValueError unless it is a wish."""
        if not found.queued.is_wish:
            raise FatalValueError(
                f"enqueue({found.values}): constraint= refuses this point, whatever the other names are"
            )
        self._points.remove(found.queued)


def _values_of(point: object) -> Mapping[str, object]:
    values = point.values if isinstance(point, HyperParameters) else point
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise FatalTypeError(
            f"enqueue({point!r:.100}): a dict of values by name is needed, or HyperParameters"
        )
    # What a budget adds to a trial's hyperparameters is no part of its point.
    values = {name: each for name, each in values.items() if not name.startswith("tuner/")}
    if not values:
        raise FatalValueError("enqueue(): a point has no values")
    return values


def _fitted(queued: Queued, space: Space, *, is_known: bool) -> Values:
    """Return the values as the space keeps them, with those of parents that they need and do not have."""
    values: Values = {}
    for name, value in queued.values.items():
        fitting = _scalar(name, value, space)
        if fitting is not None:
            (values[name],) = fitting
        elif queued.is_wish:
            continue
        elif not space.named(name) and not is_known:
            values[name] = _kept(value)
        else:
            raise FatalValueError(f"enqueue({dict(queued.values)}): {_misfit(name, value, space)}")
    for name in tuple(values):
        _add_parents(values, name, space)
    return values


def _add_parents(values: Values, name: str, space: Space) -> None:
    """Let the conditions hold under which a name has its value, where nothing is said against it."""
    for declared in space.named(name):
        given = [each for each in declared.conditions if each.name in values]
        if declared.contains(values[name]) and all(each.holds(values) for each in given):
            for condition in declared.conditions:
                if condition.name not in values:
                    values[condition.name] = condition.values[0]
                    _add_parents(values, condition.name, space)
            return


def _scalar(name: str, value: object, space: Space) -> tuple[Scalar] | None:
    """Return the scalar by which the space keeps the value, in a tuple (it may be None); else None."""
    for declared in space.named(name):
        try:
            return (declared.label_of(value),)
        except FatalValueError:
            continue
    return None


def _kept(value: object) -> Scalar:
    scalar: Any = plain(value)
    return scalar if is_scalar(scalar) else label_of(scalar)


def _misfit(name: str, value: object, space: Space) -> str:
    declared = space.named(name)
    if declared:
        return f"{name} = {value!r} is not in {' or '.join(map(str, declared))}"
    known = list(dict.fromkeys(each.name for each in space))
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "declare it in hyperparameters=..."
    return f"{name!r} is not among the names of the space, {', '.join(known) or 'none'}; {hint}"


def _is_whole(values: Values, space: Space) -> bool:
    """Tell whether every name that is active at these values has one."""
    return all(each.name in values for each in space.active(values))


def _has(trial: Trial, values: Values, space: Space) -> bool:
    """Tell whether a trial has the point, or was begun with it.

    What was begun with it and turned out to be a duplicate counts, for then another trial has the point.
    """
    return _agrees(trial.values, values, space) or _agrees(trial.proposed, values, space)


def _agrees(known: Mapping[str, Scalar], values: Values, space: Space) -> bool:
    """Tell whether `known` has all of `values`, but for names that are inactive there."""
    return not known.keys().isdisjoint(values) and all(
        exact(known[name]) == exact(value) if name in known else space.find(name, known) is None
        for name, value in values.items()
    )
