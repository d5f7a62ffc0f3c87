"""Where in a space an axis is active: by its declared conditions, and by what the trials have shown.

A program that declares a name behind a plain `if`, or in a loop, tells nobody on what it depends. If one axis
that was declared before separates the trials that met the name from those that did not, it is taken to decide.
So a model does not see a difference between points that differ only in values that no program would read.

Shapes: m points, n trials, p axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aiotune.learning.encoding import Encoding, Flags
from aiotune.learning.gaussian_process import Array, Indices
from aiotune.space import Condition

__all__ = ["Gates"]


@dataclass(frozen=True, eq=False)
class _Switch:
    """Is on where the axis has an allowed level: (levels + 1,), the last of them for where it is inactive."""

    axis: int
    allowed: Flags


# Holds where each tuple has a switch that is on. (A parent's name may be declared several times: several axes.)
_Gate = list[tuple[_Switch, ...]]


class Gates:
    """Knows which axes are active at a point. `places` (n, p): what the trials met, NaN where nothing."""

    def __init__(self, encoding: Encoding, places: Array) -> None:
        self._encoding = encoding
        self._gates = [
            [switches for each in axis.declared.conditions if (switches := self._declared(each))]
            for axis in encoding.axes
        ]
        # The first of several declarations of one name that is active owns it.
        self._rivals = [
            [other for other in encoding.named(axis.declared.name) if other < index]
            for index, axis in enumerate(encoding.axes)
        ]
        is_hidden = []
        for index, gate in enumerate(self._gates):
            learnt = self._learnt(index, places)
            gate.extend(learnt)
            is_hidden.append(bool(learnt or self._rivals[index]))
        # (p,): whether something else than its declared conditions may make an axis inactive.
        self.is_hidden: Flags = np.array(is_hidden, dtype=bool)

    def masked(self, places: Array) -> Array:
        """Return the points with NaN at each inactive axis: (m, p) -> (m, p)."""
        masked = places
        for _ in self._gates:  # a child may be declared before its parent
            before = np.isnan(masked)
            for index in range(len(self._gates)):
                is_active = self._is_active(index, masked)
                if not is_active.all():
                    masked = masked.copy() if masked is places else masked
                    masked[:, index] = np.where(is_active, places[:, index], np.nan)
            if np.array_equal(before, np.isnan(masked)):
                break
        return masked

    def _is_active(self, index: int, masked: Array) -> Flags:
        is_active = np.ones(len(masked), dtype=bool)
        for switches in self._gates[index]:
            is_on = [each.allowed[self._levels(each.axis, masked)] for each in switches]
            is_active &= np.logical_or.reduce(is_on)
        for rival in self._rivals[index]:
            is_active &= np.isnan(masked[:, rival])
        return is_active

    def _levels(self, index: int, places: Array) -> Indices:
        """Return the level of each point on one axis, -1 where that is inactive."""
        return self._encoding.axes[index].indices(places[:, index])

    def _declared(self, condition: Condition) -> tuple[_Switch, ...]:
        """Return the switches of a condition; none for one on a name without levels, which counts as met."""
        parents = self._encoding.named(condition.name)
        if any(self._encoding.axes[index].levels is None for index in parents):
            return ()
        return tuple(_Switch(index, self._allowed(index, condition)) for index in parents)

    def _allowed(self, index: int, condition: Condition) -> Flags:
        axis = self._encoding.axes[index]
        assert axis.levels is not None
        holds = [condition.holds({condition.name: axis.value(each)}) for each in axis.levels]
        return np.array([*holds, False])

    def _learnt(self, index: int, places: Array) -> Sequence[tuple[_Switch, ...]]:
        """Return what, beside its conditions, decides about the axis, if the trials show it."""
        due = places[self._is_active(index, places)]
        is_met = ~np.isnan(due[:, index])
        if is_met.all() or not is_met.any():
            return ()
        found = [
            (len(levels), other)
            for other in range(index)
            if (levels := self._encoding.axes[other].levels) is not None
            and not np.intersect1d(
                self._levels(other, due[is_met]), self._levels(other, due[~is_met])
            ).size
        ]
        if not found:
            return ()
        _, decider = min(found)  # with many levels it may separate them by chance
        return ((_Switch(decider, self._seen(decider, due, is_met)),),)

    def _seen(self, decider: int, due: Array, is_met: Flags) -> Flags:
        """Return at which levels of the decider the axis is met: as seen, or as at the nearest seen one.

        At an unseen name, which is near no other, it is.
        """
        axis = self._encoding.axes[decider]
        assert axis.levels is not None
        levels = self._levels(decider, due)
        allowed = np.ones(len(axis.levels) + 1, dtype=bool)
        if not axis.is_nominal and (levels >= 0).any():
            seen = levels[levels >= 0]
            distances = np.abs(np.arange(len(axis.levels))[:, None] - seen)
            allowed[:-1] = is_met[levels >= 0][distances.argmin(axis=1)]
        allowed[levels] = is_met
        return allowed
