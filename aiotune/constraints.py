"""What points must fulfil, and what must come of them: rules over hyperparameters, bounds on metrics."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiotune.errors import FatalError, FatalRuntimeError, FatalTypeError, FatalValueError
from aiotune.hyperparameters import HyperParameters
from aiotune.labels import plain
from aiotune.space import HyperParameter, Scalar

__all__ = [
    "AtLeast",
    "AtMost",
    "Bound",
    "Constraint",
    "Rule",
    "as_constraint",
    "breach_of",
    "missing_of",
]

Rule = Callable[[HyperParameters], bool]

_REQUIRED = object()

_NEEDED = (
    "a function of the hyperparameters that returns True or False, aiotune.AtMost(metric, limit), "
    "aiotune.AtLeast(metric, limit), or a list of these is needed"
)


@dataclass(frozen=True, slots=True)
class _Limit:
    """A metric by name, and the last value of it that is allowed."""

    name: str
    limit: float

    def __post_init__(self) -> None:
        kind = type(self).__name__
        if not isinstance(self.name, str) or not self.name:
            raise FatalTypeError(f"{kind} needs the name of a metric, a string, not {self.name!r}")
        limit = plain(self.limit)
        if isinstance(limit, bool) or not isinstance(limit, int | float):
            raise FatalTypeError(f"{kind}({self.name!r}, {self.limit!r}): a number is needed")
        if not math.isfinite(limit):
            raise FatalValueError(f"{kind}({self.name!r}, {limit}): the limit must be finite")
        object.__setattr__(self, "limit", float(limit))


@dataclass(frozen=True, slots=True)
class AtMost(_Limit):
    """A trial whose final metric `name` is above `limit` is infeasible: it is never among the best."""

    def allows(self, value: float) -> bool:
        """Tell whether a value of the metric is within the bound; NaN is not."""
        return value <= self.limit

    def __str__(self) -> str:
        return f"at most {_text(self.limit)}"


@dataclass(frozen=True, slots=True)
class AtLeast(_Limit):
    """A trial whose final metric `name` is below `limit` is infeasible: it is never among the best."""

    def allows(self, value: float) -> bool:
        """Tell whether a value of the metric is within the bound; NaN is not."""
        return value >= self.limit

    def __str__(self) -> str:
        return f"at least {_text(self.limit)}"


Bound = AtMost | AtLeast


def breach_of(bounds: Iterable[Bound], metrics: Mapping[str, float]) -> str | None:
    """Return which bound the metrics break, in words; None if they break none. Absent metrics break none."""
    for each in bounds:
        value = metrics.get(each.name)
        if value is not None and not each.allows(value):
            return f"{each.name} = {_text(value)}, but {each} is allowed"
    return None


def missing_of(bounds: Iterable[Bound], metrics: Mapping[str, float]) -> str | None:
    """Return a message for the first bound whose metric is not there; None if all are."""
    name = next((each.name for each in bounds if each.name not in metrics), None)
    if name is None:
        return None
    close = difflib.get_close_matches(name, metrics, n=1)
    hint = f". Did you mean {close[0]!r}?" if close else ": report or return it"
    return (
        f"constraint= bounds {name!r}, which is not among the metrics: "
        f"{', '.join(sorted(metrics))}{hint}"
    )


class Constraint:
    """The rules that a point must fulfil, all of them."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple(rules)

    def allows(self, space: Iterable[HyperParameter], values: Mapping[str, Scalar]) -> bool:
        """Tell whether a point that is to be proposed fulfils every rule.

        FatalRuntimeError for a rule that raises, or asks for a name that is not known or inactive;
        FatalTypeError for one that returns anything but True or False.
        """
        return all(self._holds(rule, _Point(space, dict(values))) for rule in self._rules)

    def allows_met(self, space: Iterable[HyperParameter], values: Mapping[str, Scalar]) -> bool:
        """Tell whether a point of which all is known fulfils every rule. `space` is what its program met.

        A rule that asks for a name which the program does not meet here refuses nothing: whoever proposed the
        point had a value for it.
        """
        for rule in self._rules:
            try:
                if not self._holds(rule, _Point(space, dict(values))):
                    return False
            except _Unanswerable:
                continue
        return True

    def _holds(self, rule: Rule, point: _Point) -> bool:
        try:
            answer = plain(rule(point))
        except _AbsentName as error:
            raise _Unanswerable(_absent(rule, error.name, point)) from error
        except FatalError:
            raise
        except Exception as error:
            kind = _Unanswerable if isinstance(error, KeyError) else FatalRuntimeError
            raise kind(
                f"{_name(rule)} failed at {point.values}: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(answer, bool):
            raise FatalTypeError(
                f"{_name(rule)} returned {answer!r:.100} at {point.values}: it must return True or False"
            )
        return answer


class _Unanswerable(FatalRuntimeError):
    """A rule asks for a name that the point does not have; `hp.values[name]` is such a question, too."""


class _AbsentName(KeyError):
    """The point does not have this name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class _Point(HyperParameters):
    """A point as rules see it: a name that is inactive is as absent as one that does not exist."""

    def get(self, name: str, default: Any = _REQUIRED) -> Any:
        if name in self:
            return super().get(name)
        if default is _REQUIRED:
            raise _AbsentName(name)
        return default


def as_constraint(given: object) -> tuple[Constraint | None, tuple[Bound, ...]]:
    """Return the rules and the bounds of what a user gives: one, a list of them, or None.

    FatalTypeError for anything else, FatalValueError for bounds that leave nothing.
    """
    listed = list(given) if isinstance(given, list | tuple) else [] if given is None else [given]
    bounds = tuple(each for each in listed if isinstance(each, AtMost | AtLeast))
    rules: list[Any] = [each for each in listed if not isinstance(each, AtMost | AtLeast)]
    for rule in rules:
        _check_rule(rule)
    _check_bounds(bounds)
    return (Constraint(rules) if rules else None), bounds


def _check_rule(rule: Any) -> None:
    if not callable(rule) or isinstance(rule, type):
        raise FatalTypeError(f"constraint={rule!r}: {_NEEDED}")
    if inspect.iscoroutinefunction(rule):
        raise FatalTypeError(
            f"{_name(rule)} is async, but it is called while the oracle thinks: write `def`"
        )
    try:
        inspect.signature(rule).bind(None)
    except TypeError as error:
        raise FatalTypeError(
            f"{_name(rule)} must take one argument, the hyperparameters: {error}"
        ) from error
    except ValueError:
        return  # a builtin without a signature


def _check_bounds(bounds: Sequence[Bound]) -> None:
    for low in bounds:
        for high in bounds:
            is_pair = isinstance(low, AtLeast) and isinstance(high, AtMost)
            if is_pair and low.name == high.name and low.limit > high.limit:
                raise FatalValueError(
                    f"{low.name} cannot be {low} and {high}: no trial would be left"
                )


def _absent(rule: Rule, name: str, point: _Point) -> str:
    known = [each.name for each in point.space]
    instead = f"write hp.get({name!r}, default), or ask `{name!r} in hp` first"
    if name in known:
        return f"{_name(rule)} asks for {name!r}, which is inactive at {point.values}: {instead}"
    return (
        f"{_name(rule)} asks for {name!r}, which is not known before a trial runs (known: "
        f"{', '.join(known) or 'nothing'}): declare the name in hyperparameters=..., or {instead}"
    )


def _name(rule: Any) -> str:
    name = getattr(rule, "__name__", type(rule).__name__)
    return "constraint=" if name == "<lambda>" else f"constraint={name}"


def _text(value: float) -> str:
    return f"{value:.0f}" if value == round(value, 0) and abs(value) < 1e15 else f"{value:.6g}"
