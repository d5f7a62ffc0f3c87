"""Points of a space as rows of numbers that a model can compare.

An **axis** is a hyperparameter with more than one value. A point has a place in [0, 1] on each axis: numbers as
`to_unit` says, the values of an ordered Choice by rank, those of a nominal one (an unordered Choice, a
Boolean) anywhere in a cell of their own. A model sees **columns**: an ordered axis has one, its place; a
nominal axis has one for each value, 1/√2 at the one it has, so that any two values are at distance 1. Where an
axis is inactive, all points look alike: its column is 1/2, those of a nominal axis 0. No further column says
that it is inactive, for the columns of what decides about it do.

Shapes: m points, p axes, c columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from aiotune.errors import FatalValueError
from aiotune.labels import exact
from aiotune.learning.gaussian_process import Array, Indices
from aiotune.space import Choice, HyperParameter, Identity, Scalar, Space, Values

__all__ = ["Axis", "Encoding", "Flags"]

Flags = NDArray[np.bool_]

_INACTIVE = 0.5
_MOST_LEVELS = 1000  # an axis with more values is as good as continuous


class Axis:
    """One hyperparameter, of more than one value, as the interval [0, 1]."""

    def __init__(self, declared: HyperParameter) -> None:
        self.declared = declared
        self._options = _in_order(declared)
        self._ranks = {exact(option): rank for rank, option in enumerate(self._options or ())}
        self.is_nominal = declared.is_nominal
        is_listed = declared.size is not None and declared.size <= _MOST_LEVELS
        self.levels = self._levels() if is_listed or self.is_nominal else None  # ascending

    @property
    def width(self) -> int:
        """How many columns it has."""
        return self.declared.finite_size() if self.is_nominal else 1

    def place(self, value: Scalar) -> float | None:
        """Return the place of a value; None for one out of range, as a name declared twice may have."""
        try:
            if self._options is None:
                return self.declared.to_unit(value)
            option = self.declared.value_at(self.declared.index_of(value))
        except FatalValueError:
            return None
        return (self._ranks[exact(option)] + 0.5) / len(self._options)

    def value(self, place: float) -> Scalar:
        """Return the value at a place."""
        if self._options is None:
            return self.declared.from_unit(place)
        return self._options[min(int(place * len(self._options)), len(self._options) - 1)]

    def snapped(self, places: Array) -> Array:
        """Return the places of the values nearest to `places`, of any shape."""
        if self.levels is None:
            clipped: Array = np.clip(places, 0.0, 1.0)
            return clipped
        return self.levels[self.indices(places)]

    def indices(self, places: Array) -> Indices:
        """Return which of the levels is nearest to each place; -1 for NaN. For an axis with levels."""
        assert self.levels is not None
        middles = 0.5 * (self.levels[1:] + self.levels[:-1])
        return np.where(np.isnan(places), -1, np.searchsorted(middles, places, side="right"))

    def _levels(self) -> Array:
        if self._options is not None:
            return (np.arange(len(self._options)) + 0.5) / len(self._options)
        return np.array([self.declared.to_unit(each) for each in self.declared.all_values()])


class Encoding:
    """The axes of a space, and its points as places on them and as columns.

    groups: which axis each column is of, (c,). firsts: the first column of each axis, (p,).
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.axes = [Axis(each) for each in space if each.size != 1]
        self._index: Mapping[Identity, int] = {
            axis.declared.identity: index for index, axis in enumerate(self.axes)
        }
        widths = [axis.width for axis in self.axes]
        self.groups: Indices = np.repeat(np.arange(len(self.axes)), widths)
        self.firsts: Indices = np.cumsum([0, *widths], dtype=np.intp)[:-1]

    def places(self, values: Mapping[str, Scalar], met: Iterable[HyperParameter]) -> Array:
        """Return the places of a point on all axes, NaN where it met no value: (p,)."""
        places = np.full(len(self.axes), np.nan)
        for each in met:
            index = self._index.get(each.identity)
            if index is not None and each.name in values:
                place = self.axes[index].place(values[each.name])
                places[index] = np.nan if place is None else place
        return places

    def columns(self, places: Array) -> Array:
        """Return what a model sees of points; a place of NaN is inactive: (m, p) -> (m, c)."""
        columns = np.empty((len(places), len(self.groups)))
        for index, axis in enumerate(self.axes):
            first, place = self.firsts[index], places[:, index]
            if axis.is_nominal:
                columns[:, first : first + axis.width] = _one_hot(axis, place)
            else:
                columns[:, first] = np.where(np.isnan(place), _INACTIVE, place)
        return columns

    def snapped(self, places: Array) -> Array:
        """Return the places of the nearest values that the axes can have: (m, p) -> (m, p)."""
        if not self.axes:
            return places
        columns = [axis.snapped(places[:, index]) for index, axis in enumerate(self.axes)]
        return np.stack(columns, axis=1)

    def values(self, places: Sequence[float]) -> Values:
        """Return the whole point of the space at these places, one for each axis."""

        def fill(each: HyperParameter) -> Scalar:
            index = self._index.get(each.identity)
            return each.value_at(0) if index is None else self.axes[index].value(places[index])

        return self.space.complete(fill)

    def named(self, name: str) -> list[int]:
        """Return the axes of that name, under whatever conditions."""
        return [index for index, axis in enumerate(self.axes) if axis.declared.name == name]


def _one_hot(axis: Axis, places: Array) -> Array:
    """Return 1/√2 at the level that each place has, else 0; only zeros for NaN: (m,) -> (m, levels)."""
    has_level = axis.indices(places)[:, None] == np.arange(axis.width)
    return np.where(has_level, math.sqrt(0.5), 0.0)


def _in_order(declared: HyperParameter) -> list[Scalar] | None:
    """Return the options of a Choice, those of an ordered one by size; None for other kinds."""
    if not isinstance(declared, Choice):
        return None
    if not declared.ordered:
        return list(declared.options)
    return sorted(declared.options, key=lambda option: float(option))  # type: ignore[arg-type]
