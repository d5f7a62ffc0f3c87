"""Hyperparameters as Optuna's parameters, and back: the same values, spread in the same way.

Where Optuna has no such range, the parameter stands for the value: its number (steps in factors, ordered
choices), its mirror image (reverse_log), or its text (choices that Python takes for equal, as 1 and True).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum, auto
from typing import Any, assert_never

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import Trial

from aiotune.space import (
    Boolean,
    Choice,
    Float,
    HyperParameter,
    Identity,
    Int,
    Scalar,
    Space,
    Values,
)

__all__ = ["Axes", "Axis", "axis_of", "has_exact_step", "parameter_names", "texts_or_options"]


class Code(Enum):
    """How a parameter stands for a value."""

    VALUE = auto()
    NUMBER = auto()  # which of the values it is
    MIRROR = auto()  # as far from one end of the range as the value is from the other
    TEXT = auto()  # JSON text of the option


@dataclass(frozen=True, slots=True)
class Axis:
    """One hyperparameter of two or more values, as a parameter of Optuna."""

    declared: HyperParameter
    distribution: BaseDistribution
    code: Code

    def encode(self, value: Scalar) -> Any:
        """Return the parameter for a value of the range; of a default between the steps, the nearest step's."""
        match self.code:
            case Code.VALUE:
                return self._snapped(value)
            case Code.NUMBER:
                return self.declared.index_of(value)
            case Code.MIRROR:
                return self._mirrored(value)
            case Code.TEXT:
                return json.dumps(value)
            case _:
                assert_never(self.code)

    def decode(self, parameter: Any) -> Scalar:
        """Return the value that a parameter stands for, whatever the sampler did to its last digits."""
        match self.code:
            case Code.VALUE:
                return self._snapped(parameter)
            case Code.NUMBER:
                return self.declared.value_at(int(parameter))
            case Code.MIRROR:
                return self._snapped(self._mirrored(parameter))
            case Code.TEXT:
                return json.loads(parameter)  # type: ignore[no-any-return]
            case _:
                assert_never(self.code)

    def suggest(self, trial: Trial, name: str) -> Scalar:
        """Let the sampler of the trial's study choose, and return the value."""
        match self.distribution:
            case FloatDistribution(low=low, high=high, step=step, log=log):
                return self.decode(trial.suggest_float(name, low, high, step=step, log=log))
            case IntDistribution(low=low, high=high, step=step, log=log):
                return self.decode(trial.suggest_int(name, low, high, step=step, log=log))
            case CategoricalDistribution(choices=choices):
                return self.decode(trial.suggest_categorical(name, choices))
            case _:
                raise AssertionError(f"no axis has {self.distribution}")

    def _snapped(self, value: Any) -> Scalar:
        """Return the value of the range that is nearest."""
        declared = self.declared
        if declared.size is not None:
            return declared.value_at(declared.index_of(value))
        assert isinstance(declared, Float)
        return min(max(float(value), declared.min_value), declared.max_value)

    def _mirrored(self, value: Any) -> Any:
        assert isinstance(self.declared, Int | Float)
        low, high = self.declared.min_value, self.declared.max_value
        return min(max(low + high - value, low), high)


def axis_of(declared: HyperParameter) -> Axis | None:
    """Return the hyperparameter as a parameter for samplers; None if it has one value only."""
    if declared.size == 1:
        return None
    match declared:
        case Int(sampling="linear", min_value=low, size=size, step=step):
            last = declared.value_at(size - 1)  # Optuna wants the range to end on a step
            return Axis(declared, IntDistribution(low, last, step=step or 1), Code.VALUE)
        case Int(step=None, min_value=low, max_value=high):
            return Axis(declared, IntDistribution(low, high, log=True), _code_in_factors(declared))
        case Float():
            return _float_axis(declared)
        case Choice(ordered=False) | Boolean():
            choices = texts_or_options(declared)
            code = Code.VALUE if choices == declared.all_values() else Code.TEXT
            return Axis(declared, CategoricalDistribution(choices), code)
        case _:
            return _numbered(declared)


def _float_axis(declared: Float) -> Axis:
    low, high, step = declared.min_value, declared.max_value, declared.step
    if step is None and declared.sampling == "linear":
        return Axis(declared, FloatDistribution(low, high), Code.VALUE)
    if step is None:
        return Axis(declared, FloatDistribution(low, high, log=True), _code_in_factors(declared))
    if has_exact_step(declared):
        last = declared.value_at(declared.finite_size() - 1)
        return Axis(declared, FloatDistribution(low, last, step=step), Code.VALUE)
    return _numbered(declared)


def _numbered(declared: HyperParameter) -> Axis:
    return Axis(declared, IntDistribution(0, declared.finite_size() - 1), Code.NUMBER)


def _code_in_factors(declared: Int | Float) -> Code:
    return Code.VALUE if declared.sampling == "log" else Code.MIRROR


def has_exact_step(declared: Float) -> bool:
    """Tell whether decimal arithmetic, which is Optuna's, takes whole steps from the first value to the last.

    1/3 + 20 * 0.1 as a float is no whole number of steps from 1/3 as a float: Optuna would drop the last one.
    """
    if declared.step is None or declared.sampling != "linear":
        return False
    count = declared.finite_size() - 1
    span = Decimal(repr(declared.value_at(count))) - Decimal(repr(declared.min_value))
    return span == Decimal(repr(declared.step)) * count


def texts_or_options(declared: HyperParameter) -> tuple[Any, ...]:
    """Return the values; their JSON texts if Python, and so Optuna, takes two of them for equal: 1, True."""
    options = declared.all_values()
    if len(set(options)) == len(options):
        return options
    return tuple(map(json.dumps, options))


def parameter_names(
    space: Space, distribution_of: Callable[[HyperParameter], BaseDistribution | None]
) -> Mapping[Identity, str]:
    """Return the name of each hyperparameter's parameter: its own, wherever that is possible.

    A name that is declared under several conditions is one parameter as long as the distributions are equal, as
    it would be in a program of Optuna. A further distribution needs a further name, for one parameter cannot
    have two sets of choices. What was named keeps its name when the space grows.
    """
    names: dict[Identity, str] = {}
    known: dict[str, list[tuple[BaseDistribution | None, str]]] = {}
    for each in space:
        alike = known.setdefault(each.name, [])
        distribution = distribution_of(each)
        name = next((name for other, name in alike if other == distribution), None)
        if name is None:
            where = " and ".join(map(str, each.conditions)) or "otherwise"
            name = f"{each.name} (where {where})" if alike else each.name
            alike.append((distribution, name))
        names[each.identity] = name
    return names


class Axes:
    """The parameters of a space."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self._axes = {each.identity: axis_of(each) for each in space}
        self._names = parameter_names(
            space, lambda each: axis.distribution if (axis := self._axes[each.identity]) else None
        )

    def sample(self, trial: Trial, among: Container[str] | None = None) -> Values:
        """Return a whole point, each value chosen by the sampler of the trial's study, parents first.

        among: the names that the space had at an earlier time; None: all.
        """

        def choose(each: HyperParameter) -> Scalar:
            axis = self._axes[each.identity]
            if axis is None:
                return each.value_at(0) if each.size else each.default
            return axis.suggest(trial, self._names[each.identity])

        if among is None:
            return self.space.complete(choose)
        return Space(each for each in self.space if each.name in among).complete(choose)

    def encoded(
        self, values: Mapping[str, Scalar]
    ) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
        """Return the parameters of a point, with their distributions. Names beyond the space are left out."""
        parameters: dict[str, Any] = {}
        distributions: dict[str, BaseDistribution] = {}
        for each in self.space.active(values):
            axis, name = self._axes[each.identity], self._names[each.identity]
            if axis is not None and each.name in values and each.contains(values[each.name]):
                parameters[name] = axis.encode(values[each.name])
                distributions[name] = axis.distribution
        return parameters, distributions
