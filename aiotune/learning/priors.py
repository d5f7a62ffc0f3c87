"""What the user believes of single hyperparameters beforehand: where good values lie, and how surely.

A belief is a density over the unit interval onto which a hyperparameter is mapped: a normal one about a value,
cut off at the ends of the range, or a weight for each option. A density of 1 everywhere is no belief at all.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from statistics import NormalDist
from typing import Protocol

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.kinds.numeric import Float, Int
from aiotune.labels import plain
from aiotune.space import Boolean, Choice, HyperParameter, Space

__all__ = ["Belief", "Near", "Normal", "Priors", "Weights"]

_STANDARD = NormalDist()
# The normal distribution has no value at probabilities 0 and 1.
_SMALLEST, _LARGEST = 2.0**-60, 1.0 - 2.0**-53


@dataclass(frozen=True, slots=True)
class Near:
    """Good values are believed to lie near `value`: two of three within `within` of it, or within a `factor`.

    That is one standard deviation. `factor` is for names with sampling="log", `within` for all others.
    """

    value: float
    factor: float | None = None
    within: float | None = None

    def __post_init__(self) -> None:
        for name in ("value", "factor", "within"):
            number = plain(getattr(self, name))
            is_number = isinstance(number, int | float) and not isinstance(number, bool)
            if not is_number and not (number is None and name != "value"):
                raise FatalTypeError(f"Near({name}={number!r}): a number is needed")
            object.__setattr__(self, name, number)
        if (self.factor is None) == (self.within is None):
            raise FatalValueError(
                f"Near({self.value}): say how near, with factor=10, say, or with within=64"
            )
        if self.factor is not None and not 1 < self.factor < math.inf:
            raise FatalValueError(f"Near(factor={self.factor}): it must be above 1, and finite")
        if self.within is not None and not 0 < self.within < math.inf:
            raise FatalValueError(f"Near(within={self.within}): it must be above 0, and finite")


class Belief(Protocol):
    """A density over the unit interval."""

    def quantile(self, u: float) -> float:
        """Return the place below which a share `u` of the density lies; both in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Normal:
    """A normal density about `centre`, cut off at 0 and 1. `width` is its standard deviation."""

    centre: float
    width: float

    def quantile(self, u: float) -> float:
        low, high = self._ends()
        share = min(max(low + u * (high - low), _SMALLEST), _LARGEST)
        place = self.centre + self.width * _STANDARD.inv_cdf(share)
        return min(max(place, 0.0), 1.0)

    @property
    def log_mass(self) -> float:
        """The logarithm of the share of the whole normal density that lies between 0 and 1."""
        low, high = self._ends()
        return math.log(high - low)

    def _ends(self) -> tuple[float, float]:
        return tuple(_STANDARD.cdf((end - self.centre) / self.width) for end in (0.0, 1.0))  # type: ignore[return-value]


class Weights:
    """A share for each of the options of a hyperparameter, in their order."""

    def __init__(self, weights: list[float]) -> None:
        total = math.fsum(weights)
        self.shares = [weight / total for weight in weights]
        self._upper = list(accumulate(self.shares))

    def quantile(self, u: float) -> float:
        count = len(self.shares)
        index = min(bisect_right(self._upper, u), count - 1)
        within = (u - (self._upper[index] - self.shares[index])) / self.shares[index]
        return (index + min(max(within, 0.0), _ALMOST_ONE)) / count


_ALMOST_ONE = 1.0 - 2.0**-40  # stays in its cell when it is divided by the number of cells


class Priors:
    """Beliefs about hyperparameters, by name."""

    def __init__(self, given: Mapping[str, object]) -> None:
        if not isinstance(given, Mapping):
            raise FatalTypeError(f"priors={given!r}: {_NEEDED}")
        self._given = {name: _checked(name, each) for name, each in given.items()}
        self._beliefs: dict[HyperParameter, Belief | None] = {}

    def check(self, space: Space) -> None:
        """Raise FatalValueError for a name that the space does not have, and for a value out of its range."""
        for name in self._given:
            if not space.named(name):
                known = ", ".join(dict.fromkeys(each.name for each in space))
                raise FatalValueError(
                    f"priors has {name!r}, which is not among the names that are known before a trial runs "
                    f"({known}): mend the name, or declare it in hyperparameters=..."
                )
            for declared in space.named(name):
                self.belief(declared)

    def belief(self, hyperparameter: HyperParameter) -> Belief | None:
        """Return what is believed of it, None if nothing is. FatalValueError for a value out of its range."""
        if hyperparameter not in self._beliefs:
            given = self._given.get(hyperparameter.name)
            self._beliefs[hyperparameter] = (
                None if given is None else _belief(hyperparameter, given)
            )
        return self._beliefs[hyperparameter]

    def warp(self, hyperparameter: HyperParameter, u: float) -> float:
        """Return where a uniform draw `u` leads: the inverse of the belief's distribution function."""
        belief = self.belief(hyperparameter)
        return u if belief is None else belief.quantile(u)


_NEEDED = (
    "a dict is needed, of aiotune.Near(value, factor=...) or (value, within=...) for numbers, or "
    'of a weight for each option: {"learning_rate": aiotune.Near(1e-3, factor=10), "optimizer": {"adam": 3}}'
)


def _checked(name: object, given: object) -> Near | Mapping[object, float]:
    """Return one prior, its weights checked."""
    if not isinstance(name, str):
        raise FatalTypeError(f"priors: {name!r} is no name; {_NEEDED}")
    if isinstance(given, Near):
        return given
    if not isinstance(given, Mapping) or not given:
        raise FatalTypeError(f"priors[{name!r}]={given!r}: {_NEEDED}")
    for option, weight in given.items():
        number = plain(weight)
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise FatalTypeError(f"priors[{name!r}][{option!r}]={weight!r}: a number is needed")
        if not 0 < number < math.inf:
            raise FatalValueError(
                f"priors[{name!r}][{option!r}]={weight}: a weight must be above 0, and finite; to leave an "
                "option out, declare the name without it, or use constraint="
            )
    return given


def _belief(declared: HyperParameter, given: Near | Mapping[object, float]) -> Belief | None:
    if declared.size == 1:
        return None
    if not isinstance(given, Near):
        return _weights(declared, given)
    if isinstance(declared, Int | Float):
        return _normal(declared, given)
    if isinstance(declared, Choice) and declared.ordered:
        return _near_options(declared, given)
    raise FatalValueError(
        f"priors[{declared.name!r}]: Near() is for numbers, but it is a {declared}: give a weight for each "
        f"option, {{{declared.value_at(0)!r}: 3, {declared.value_at(1)!r}: 1}}, say"
    )


def _weights(declared: HyperParameter, given: Mapping[object, float]) -> Weights:
    """Return the weights of all options; those that are not named have 1."""
    if not isinstance(declared, Choice | Boolean):
        raise FatalValueError(
            f"priors[{declared.name!r}]: weights are for a Choice or a Boolean, but it is a {declared}: use "
            "aiotune.Near(value, ...)"
        )
    weights = [1.0] * declared.finite_size()
    for option, weight in given.items():
        try:
            index = declared.index_of(declared.label_of(option))
        except FatalValueError as error:
            raise FatalValueError(f"priors[{declared.name!r}]: {error}") from error
        weights[index] = float(weight)
    return Weights(weights)


def _normal(declared: Int | Float, near: Near) -> Normal:
    _check_scale(declared, near, is_log=declared.sampling == "log")
    low, high = declared.min_value, declared.max_value
    if not low <= near.value <= high:
        raise FatalValueError(
            f"priors[{declared.name!r}]: {near.value} is not in {declared}: the middle of a prior must be"
        )
    if near.factor is not None:
        return Normal(_place(declared, near.value), math.log(near.factor) / _log_span(declared))
    assert near.within is not None
    return Normal(_place(declared, near.value), near.within * _density(declared, near.value))


def _check_scale(declared: HyperParameter, near: Near, *, is_log: bool) -> None:
    if is_log and near.factor is None:
        raise FatalValueError(
            f'priors[{declared.name!r}]: it has sampling="log": write Near({near.value}, factor=...), say 3'
        )
    if not is_log and near.within is None:
        raise FatalValueError(
            f'priors[{declared.name!r}]: factor= is for names with sampling="log", and it is a {declared}: '
            f"write Near({near.value}, within=...)"
        )


def _place(declared: Int | Float, value: float) -> float:
    """Return the place of a number in [0, 1], also of one between the steps: the nearest step's."""
    nearest = round(value) if isinstance(declared, Int) else float(value)
    return declared.to_unit(nearest)


def _log_span(declared: Int | Float) -> float:
    """Return the logarithm of the factor from one end of the unit interval to the other."""
    if declared.step is not None:
        return math.log(declared.step) * declared.finite_size()
    return math.log((declared.max_value + isinstance(declared, Int)) / declared.min_value)


def _density(declared: Int | Float, value: float) -> float:
    """Return how much of the unit interval there is for a step of 1 at a value, for what is not logarithmic."""
    low, high = declared.min_value, declared.max_value
    if declared.sampling == "linear":
        cells = None if declared.step is None else declared.finite_size() * declared.step
        return 1.0 / (cells or high - low)
    return 1.0 / (_log_span(declared) * (low + high - value))  # the slope of the mirrored logarithm


def _near_options(declared: Choice, near: Near) -> Weights:
    """Return the normal density at each option, by its size."""
    numbers = [float(option) for option in declared.options]  # type: ignore[arg-type]
    if near.factor is not None and (min(numbers) <= 0 or near.value <= 0):
        raise FatalValueError(
            f"priors[{declared.name!r}]: factor= is for numbers above 0: use within="
        )
    if not min(numbers) <= near.value <= max(numbers):
        raise FatalValueError(
            f"priors[{declared.name!r}]: {near.value} is not in {declared}: the middle of a prior must be"
        )
    return Weights([max(math.exp(-0.5 * _distance(near, each) ** 2), 1e-9) for each in numbers])


def _distance(near: Near, number: float) -> float:
    """Return how far a number is from the middle, in standard deviations."""
    if near.factor is not None:
        return math.log(number / near.value) / math.log(near.factor)
    assert near.within is not None
    return (number - near.value) / near.within
