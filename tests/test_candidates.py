"""Candidates: always points that the axes can have, near or far as asked."""

from __future__ import annotations

import numpy as np
import pytest

from aiotune.learning.candidates import Candidates
from aiotune.learning.encoding import Encoding
from aiotune.learning.gaussian_process import Array
from aiotune.space import Boolean, Choice, Float, Int, Space

MIXED = Space(
    [
        Float("x", -1, 1),
        Int("k", 0, 9),
        Choice("c", ["a", "b", "c"]),
        Float("stepped", 0, 1, step=0.25),
        Choice("size", [16, 32, 64], ordered=True),
        Boolean("flag"),
    ]
)
X, K, C, STEPPED, SIZE, FLAG = range(6)


def candidates(space: Space = MIXED, seed: int = 0) -> Candidates:
    return Candidates(Encoding(space), np.random.default_rng(seed))


def floats(count: int) -> Space:
    return Space([Float(f"x{index}", 0, 1) for index in range(count)])


CENTRE = Encoding(MIXED).snapped(np.full((1, 6), 0.4))[0]


@pytest.mark.parametrize("kind", ["anywhere", "near", "within", "clipped", "neighbours"])
def test_every_place_is_one_of_a_value(kind: str) -> None:
    made = candidates()
    box = made.box(CENTRE, 0.8, np.ones(6))
    points = {
        "anywhere": lambda: made.anywhere(100),
        "near": lambda: made.near(np.array([CENTRE, CENTRE / 2]), 100),
        "within": lambda: made.within(100, CENTRE, box),
        "clipped": lambda: made.clipped(made.anywhere(100), box),
        "neighbours": lambda: made.neighbours(CENTRE),
    }[kind]()
    encoding = Encoding(MIXED)
    again = [encoding.places(encoding.values(each), MIXED) for each in points.tolist()]
    assert np.array(again) == pytest.approx(points)
    assert points.shape[0] == (100 if kind != "neighbours" else len(points))


@pytest.mark.parametrize("axes", [1, 2, 64, 65, 200])
def test_anywhere_is_everywhere(axes: int) -> None:
    points = candidates(floats(axes)).anywhere(300)
    assert points.shape == (300, axes)
    for axis in (0, axes - 1):
        counts, _ = np.histogram(points[:, axis], bins=10, range=(0.0, 1.0))
        assert counts.min() > 10


def test_points_near_the_best_differ_from_it_in_few_axes_and_mostly_by_little() -> None:
    centre = np.full(30, 0.5)
    points = candidates(floats(30)).near(centre[None], 200)
    differs = points != centre
    assert differs.any(axis=1).all()
    assert np.median(differs.sum(axis=1)) < 15
    assert np.median(np.abs(points - centre)[differs]) < 0.1


def test_most_points_are_near_the_very_best() -> None:
    best = np.array([[0.1] * 20, [0.9] * 20])
    points = candidates(floats(20)).near(best, 400)
    is_of_first = (points < 0.5).mean(axis=1) > 0.5
    assert 220 < is_of_first.sum() < 280  # 0.4 of 0.65


def test_where_the_best_is_inactive_points_are_anywhere() -> None:
    points = candidates(floats(2)).near(np.array([[0.5, np.nan]]), 200)
    assert not np.isnan(points).any()
    assert np.ptp(points[:, 1]) > 0.9
    assert np.median(np.abs(points[:, 0] - 0.5)) < 0.1


def test_a_box_has_the_proportions_of_the_lengthscales_and_all_of_names() -> None:
    space = Space([Float("x", 0, 1), Float("y", 0, 1), Choice("c", ["a", "b", "c", "d"])])
    made = candidates(space)
    box = made.box(np.array([0.5, 0.9, 0.125]), 0.4, np.array([1.0, 4.0, 2.0]))
    assert box == pytest.approx(np.array([[0.4, 0.6], [0.5, 1.0], [0.0, 1.0]]))
    unknown = made.box(np.array([0.5, np.nan, 0.125]), 0.4, np.ones(3))
    assert unknown[1].tolist() == [0.0, 1.0]


def test_points_of_a_box_are_in_it_and_most_keep_the_name() -> None:
    made = candidates()
    box = made.box(CENTRE, 0.4, np.ones(6))
    points = made.within(500, CENTRE, box)
    half_a_step = np.array([0.0, 0.5 / 9, 1.0, 0.125, 1 / 6, 1.0])
    assert (points >= box[:, 0] - half_a_step).all()
    assert (points <= box[:, 1] + half_a_step).all()
    assert np.ptp(points[:, X]) > 0.35
    assert 0.7 < (points[:, C] == CENTRE[C]).mean() < 0.9
    assert len(np.unique(points[:, C])) == 3
    clipped = made.clipped(np.array([[0.0] * 6, [1.0] * 6]), box)
    assert clipped[:, X].tolist() == box[X].tolist()


def away(points: Array, axis: int) -> set[int]:
    """Return by how many levels the points that differ on an axis do so."""
    levels = Encoding(MIXED).axes[axis].indices(points[:, axis])
    return {int(each - levels[0]) for each in levels[1:] if each != levels[0]}


def test_neighbours_are_one_or_two_levels_away_or_of_any_name() -> None:
    neighbours = candidates().neighbours(CENTRE)
    assert np.array_equal(neighbours[0], CENTRE)
    assert ((neighbours[1:] != CENTRE).sum(axis=1) == 1).all()
    assert (neighbours[:, X] == CENTRE[X]).all()
    assert away(neighbours, K) == {-2, -1, 1, 2}
    assert away(neighbours, C) == {-1, 1}
    assert away(neighbours, FLAG) == {1}
    edge = candidates().neighbours(Encoding(MIXED).snapped(np.zeros((1, 6)))[0])
    assert away(edge, K) == {1, 2}
    assert away(edge, C) == {1, 2}


def test_what_is_held_stays() -> None:
    made = candidates()
    held = made.holding(C).neighbours(CENTRE)
    assert away(held, C) == set()
    assert away(held, K) == {-2, -1, 1, 2}
    assert away(made.neighbours(CENTRE), C)  # of the other one nothing has changed


def test_the_same_chance_makes_the_same_points() -> None:
    one, other, third = (candidates(seed=seed).anywhere(50) for seed in (0, 0, 1))
    assert np.array_equal(one, other)
    assert not np.array_equal(one, third)
