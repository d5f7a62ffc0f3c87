"""Landscape: the top of a term, within what the axes, the bounds and the constraint allow."""

from __future__ import annotations

import math

import numpy as np
import pytest

from aiotune.learning.candidates import Candidates
from aiotune.learning.criterion import Term
from aiotune.learning.encoding import Encoding, Flags
from aiotune.learning.gates import Gates
from aiotune.learning.gaussian_process import Array
from aiotune.learning.landscape import Allows, Landscape
from aiotune.space import Choice, Condition, Float, Int, Space

SPACE = Space([Float("x", 0, 1), Float("y", 0, 1), Int("k", 0, 10), Choice("c", ["a", "b", "c"])])
B = 0.5
TOP = np.array([0.3371, 0.8, 0.5, B])


class Hill:
    """Falls with the square of the distance from a top, in columns."""

    def __init__(self, top: Array) -> None:
        self._top = top

    def value(self, columns: Array) -> Array:
        value: Array = -np.sum((columns - self._top) ** 2, axis=1)
        return value

    def slope(self, columns: Array) -> tuple[Array, Array]:
        return self.value(columns), -2.0 * (columns - self._top)


class Stairs:
    """Rises with steps of one column towards a place, and so has no slope."""

    def __init__(self, column: int, top: float) -> None:
        self._column = column
        self._top = top

    def value(self, columns: Array) -> Array:
        value: Array = -np.abs(columns[:, self._column] - self._top)
        return value

    def slope(self, columns: Array) -> tuple[Array, Array]:
        return self.value(columns), np.zeros_like(columns)


def landscape(term: Term, space: Space = SPACE, allows: Allows | None = None) -> Landscape:
    encoding = Encoding(space)
    gates = Gates(encoding, np.empty((0, len(encoding.axes))))
    return Landscape(encoding, gates, term, np.ones(len(encoding.groups)), allows)


def hill(space: Space = SPACE, top: Array = TOP) -> Hill:
    return Hill(Encoding(space).columns(top[None])[0])


def candidates(space: Space = SPACE) -> Candidates:
    return Candidates(Encoding(space), np.random.default_rng(0))


def test_the_top_is_found_from_few_points() -> None:
    made = candidates()
    starts = made.anywhere(8)
    found = landscape(hill()).best_first(starts, made)
    k = Encoding(SPACE).axes[2].place(5)
    assert found[0] == pytest.approx([TOP[0], TOP[1], k, B], abs=1e-4)
    promise = landscape(hill()).promise(found)
    assert (np.diff(promise) <= 0.0).all()
    assert {tuple(each) for each in starts.tolist()} <= {tuple(each) for each in found.tolist()}


def test_a_climb_stays_within_bounds() -> None:
    made = candidates()
    bounds = np.array([[0.5, 0.9], [0.1, 0.6], [0.0, 1.0], [0.0, 1.0]])
    starts = made.clipped(made.anywhere(8), bounds)
    found = landscape(hill()).best_first(starts, made, bounds)
    assert found[0, :2] == pytest.approx([0.5, 0.6], abs=1e-6)
    assert found[:, 0].min() >= 0.5
    assert found[:, 1].max() <= 0.6


def test_integers_are_tried_step_by_step_where_there_is_no_slope() -> None:
    axis = Encoding(SPACE).axes[2]
    top, start = axis.place(7), axis.place(3)
    assert top is not None
    assert start is not None
    starts = np.array([[0.5, 0.5, start, B]])
    found = landscape(Stairs(2, top)).best_first(starts, candidates())
    assert found[0, 2] == top


def right(points: Array) -> Flags:
    is_right: Flags = points[:, 0] >= 0.5
    return is_right


def test_nothing_is_moved_to_where_the_constraint_refuses() -> None:
    made = candidates()
    starts = made.anywhere(16)
    found = landscape(hill(), allows=right).best_first(starts, made)
    given = {tuple(each) for each in starts.tolist()}
    refused = [tuple(each) for each in found[~right(found)].tolist()]
    assert refused
    assert set(refused) <= given
    allowed = found[right(found)]
    promise = landscape(hill()).promise
    assert promise(allowed[:1])[0] > promise(starts[right(starts)]).max()


def test_where_the_constraint_refuses_all_points_come_as_they_are_in_order() -> None:
    made = candidates()
    starts = made.anywhere(8)
    bare = landscape(hill(), allows=lambda points: np.zeros(len(points), dtype=bool))
    found = bare.best_first(starts, made)
    order = np.argsort(-bare.promise(starts), kind="stable")
    assert np.array_equal(found, starts[order])


def test_an_inactive_axis_stays_where_it_is() -> None:
    space = Space(
        [
            Choice("kind", ["a", "b"]),
            Float("x", 0, 1, conditions=(Condition("kind", ("a",)),)),
            Float("y", 0, 1),
        ]
    )
    term = hill(space, np.array([0.75, 0.9, 0.3]))
    made = candidates(space).holding(0)
    idle = landscape(term, space).best_first(np.array([[0.75, 0.2, 0.6]]), made)
    assert idle[:, 1].tolist() == [0.2] * len(idle)
    assert idle[0, 2] == pytest.approx(0.3, abs=1e-5)
    active = landscape(term, space).best_first(np.array([[0.25, 0.2, 0.6]]), made)
    assert active[0] == pytest.approx([0.25, 0.9, 0.3], abs=1e-5)


def test_names_are_all_tried_and_held_ones_are_not() -> None:
    start = np.array([[*TOP[:3], 1 / 6]])
    assert landscape(hill()).best_first(start, candidates())[0, 3] == B
    held = landscape(hill()).best_first(start, candidates().holding(3))
    assert held[:, 3].tolist() == pytest.approx([1 / 6] * len(held))


def test_a_space_of_names_only_has_nothing_to_climb() -> None:
    space = Space([Choice(f"c{index}", ["a", "b", "c"]) for index in range(3)])
    top = np.array([1 / 6, 3 / 6, 5 / 6])
    found = landscape(hill(space, top), space).best_first(np.full((1, 3), 0.5), candidates(space))
    assert found[0] == pytest.approx(top)
    assert not math.isnan(found.sum())
