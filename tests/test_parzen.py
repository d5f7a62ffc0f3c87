"""Parzen: a density that sums up to 1, is high at its centres, and is what is drawn from."""

from __future__ import annotations

import numpy as np
import pytest

from aiotune.learning.encoding import Encoding
from aiotune.learning.parzen import Parzen
from aiotune.space import Boolean, Choice, Condition, Float, Int, Space

NAN = np.nan


def parzen(space: Space, places: list[list[float]], prior_weight: float = 1.0) -> Parzen:
    return Parzen(Encoding(space), np.array(places), np.ones(len(places)), prior_weight)


def test_on_a_continuous_axis_it_integrates_to_1() -> None:
    density = parzen(Space([Float("x", 0, 1)]), [[0.02], [0.1], [0.97]])
    grid = (np.arange(2000)[:, None] + 0.5) / 2000
    assert np.exp(density.log_density(grid)).mean() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(
    "axis",
    [Int("k", 1, 7), Int("k", 1, 1000, sampling="log"), Choice("k", [1, 5, 9]), Boolean("k")],
)
def test_the_chances_of_all_values_sum_up_to_1(axis: Int | Choice | Boolean) -> None:
    levels = Encoding(Space([axis])).axes[0].levels
    assert levels is not None
    density = parzen(Space([axis]), [[levels[0]], [levels[0]], [levels[-1]]])
    chances = np.exp(density.log_density(levels[:, None]))
    assert chances.sum() == pytest.approx(1.0)
    assert chances[0] > chances[-1]


def test_it_is_of_whole_points() -> None:
    """Two centres at opposite corners say nothing for the other two corners."""
    density = parzen(Space([Float("x", 0, 1), Float("y", 0, 1)]), [[0.1, 0.1], [0.9, 0.9]], 0.1)
    at_centre, elsewhere = density.log_density(np.array([[0.1, 0.1], [0.1, 0.9]]))
    assert at_centre > elsewhere + 1.0


def test_a_centre_that_did_not_meet_a_name_says_nothing_about_it() -> None:
    child = Float("x", 0, 1, conditions=(Condition("kind", ("b",)),))
    density = parzen(Space([Choice("kind", ["a", "b"]), child]), [[0.25, NAN], [0.25, NAN]])
    inactive, low, high = density.log_density(np.array([[0.25, NAN], [0.75, 0.1], [0.75, 0.9]]))
    assert low == pytest.approx(high)
    assert inactive > low


def test_points_are_drawn_as_dense_as_it_says() -> None:
    space = Space([Float("x", 0, 1), Choice("kind", ["a", "b", "c"])])
    density = parzen(space, [[0.9, 0.5], [0.95, 0.5], [0.85, 0.5]], 0.5)
    drawn = density.draw(4000, np.random.default_rng(0))
    grid = (np.arange(400) + 0.5) / 400
    points = np.array([[x, name] for x in grid for name in (1 / 6, 0.5, 5 / 6)])
    chances = np.exp(density.log_density(points)) / len(grid)
    is_high = (points[:, 0] > 0.8) & (points[:, 1] == 0.5)
    found = np.mean((drawn[:, 0] > 0.8) & (drawn[:, 1] == 0.5))
    assert found == pytest.approx(chances[is_high].sum(), abs=0.03)


def test_without_centres_it_is_uniform() -> None:
    density = Parzen(Encoding(Space([Float("x", 0, 1)])), np.empty((0, 1)), np.empty(0), 1.0)
    assert density.log_density(np.array([[0.1], [0.9]])) == pytest.approx([0.0, 0.0])
