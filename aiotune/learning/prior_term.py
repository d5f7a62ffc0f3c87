"""The user's beliefs as a reason for a point: Hvarfner et al. 2022 (piBO), eq. 6, as a logarithm.

There the acquisition function is multiplied with the prior's density to a power that falls as trials come in.
Here its logarithm is a sum, and the power, which is the caller's, a factor of this term.

Shapes: m points, c columns (those of `encoding`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from aiotune.learning.encoding import Encoding, Flags
from aiotune.learning.gaussian_process import Array
from aiotune.learning.priors import Normal, Priors, Weights
from aiotune.space import Condition

__all__ = ["PriorTerm"]


class _Gate(NamedTuple):
    """What one condition of an axis asks for: one of these axes at one of its levels, or nothing."""

    is_open: bool
    parents: list[tuple[int, list[int]]]


class PriorTerm:
    """The logarithm of the density that was believed beforehand, relative to a uniform one; a `Term`.

    Of a name that is inactive nothing is believed. Where the space has conditions, they tell. is_hidden: (p,),
    the axes that something else may make inactive (a plain `if`; see `Gates`): there 1/2, which stands for
    inactive in a column, is taken for that.
    """

    def __init__(self, encoding: Encoding, priors: Priors, is_hidden: Flags | None = None) -> None:
        self._encoding = encoding
        if is_hidden is None:
            is_hidden = np.zeros(len(encoding.axes), dtype=bool)
        self._is_hidden = is_hidden
        self._normals: list[tuple[int, Normal]] = []  # each with its axis
        self._ranked: list[tuple[int, Array]] = []  # ordered options: log density at each level
        self._nominal: list[tuple[slice, Array]] = []  # the columns, and log density at each level
        self._gates: dict[int, list[_Gate]] = {}
        for index, axis in enumerate(encoding.axes):
            match priors.belief(axis.declared):
                case Normal() as normal:
                    self._normals.append((index, normal))
                case Weights() as weights:
                    self._add_weights(index, weights)
                case _:
                    pass

    @property
    def is_empty(self) -> bool:
        """Whether nothing is believed of any axis."""
        return not (self._normals or self._ranked or self._nominal)

    def value(self, columns: Array) -> Array:
        """Return the log density at each point: (m, c) -> (m,)."""
        return self.slope(columns)[0]

    def slope(self, columns: Array) -> tuple[Array, Array]:
        """Return the log density, and its gradient: (m, c) -> (m,), (m, c)."""
        value, slope = np.zeros(len(columns)), np.zeros_like(columns)
        for index, normal in self._normals:
            first, is_active = self._column(index, columns)
            z = (columns[:, first] - normal.centre) / normal.width
            density = (
                -0.5 * z * z - math.log(normal.width * math.sqrt(2.0 * math.pi)) - normal.log_mass
            )
            value += np.where(is_active, density, 0.0)
            slope[:, first] = np.where(is_active, -z / normal.width, 0.0)
        for index, densities in self._ranked:
            first, is_active = self._column(index, columns)
            density, steepness = _between(columns[:, first], densities)
            value += np.where(is_active, density, 0.0)
            slope[:, first] = np.where(is_active, steepness, 0.0)
        for (
            where,
            densities,
        ) in self._nominal:  # the columns are 1/√2 or 0, and all 0 where inactive
            value += columns[:, where] @ (math.sqrt(2.0) * densities)
            slope[:, where] = math.sqrt(2.0) * densities
        return value, slope

    def _add_weights(self, index: int, weights: Weights) -> None:
        axis, first = self._encoding.axes[index], int(self._encoding.firsts[index])
        assert axis.levels is not None
        declared = axis.declared
        order = [declared.index_of(axis.value(float(level))) for level in axis.levels]
        densities = np.log([weights.shares[each] * len(order) for each in order])
        if axis.is_nominal:
            self._nominal.append((slice(first, first + axis.width), densities))
        else:
            self._ranked.append((index, densities))

    def _column(self, index: int, columns: Array) -> tuple[int, Flags]:
        """Return the column of an ordered axis, and where that is active."""
        return int(self._encoding.firsts[index]), self._is_active(index, columns)

    def _is_active(self, index: int, columns: Array) -> Flags:
        """Tell where an axis is active: (m, c) -> (m,)."""
        is_active = np.ones(len(columns), dtype=bool)
        if self._is_hidden[index]:
            is_active = columns[:, self._encoding.firsts[index]] != 0.5
        for gate in self._gates_of(index):
            holds = np.full(len(columns), gate.is_open)
            for parent, levels in gate.parents:
                holds |= self._is_active(parent, columns) & self._is_at(parent, levels, columns)
            is_active &= holds
        return is_active

    def _gates_of(self, index: int) -> list[_Gate]:
        if index not in self._gates:
            conditions = self._encoding.axes[index].declared.conditions
            self._gates[index] = [self._gate(each) for each in conditions]
        return self._gates[index]

    def _gate(self, condition: Condition) -> _Gate:
        name, encoding = condition.name, self._encoding
        is_open = any(
            each.size == 1 and condition.holds({name: each.value_at(0)})
            for each in encoding.space.named(name)
        )
        parents = []
        for parent in encoding.named(name):
            axis = encoding.axes[parent]
            if axis.levels is None:
                is_open = True  # no column tells the values of a continuous parent apart
                continue
            values = [axis.value(float(level)) for level in axis.levels]
            levels = [rank for rank, each in enumerate(values) if condition.holds({name: each})]
            parents.append((parent, levels))
        return _Gate(is_open, parents)

    def _is_at(self, index: int, levels: list[int], columns: Array) -> Flags:
        """Tell where an axis is at one of the levels."""
        axis, first = self._encoding.axes[index], int(self._encoding.firsts[index])
        if axis.is_nominal:
            at: Flags = np.any(columns[:, first : first + axis.width][:, levels] > 0.0, axis=1)
            return at
        return np.isin(axis.indices(columns[:, first]), levels)


def _between(places: Array, densities: Array) -> tuple[Array, Array]:
    """Return the log density between the levels, linear from one to the next, and its slope: (m,) -> 2 x (m,).

    The k levels lie in the middles of k equal parts of [0, 1]; beyond the outer ones nothing changes.
    """
    count = len(densities)
    at = np.clip(places * count - 0.5, 0.0, count - 1.0)
    lower = np.minimum(at.astype(int), count - 2)
    steepness = densities[lower + 1] - densities[lower]
    is_outside = (places * count < 0.5) | (places * count > count - 0.5)
    return densities[lower] + (at - lower) * steepness, np.where(is_outside, 0.0, steepness * count)
