"""LocalSearch: climbs on numbers, steps and names."""

from __future__ import annotations

import numpy as np

from aiotune.learning.candidates import Candidates
from aiotune.learning.encoding import Encoding
from aiotune.learning.gaussian_process import Array
from aiotune.learning.local_search import LocalSearch
from aiotune.space import Choice, Float, Int, Space

SPACE = Space([Float("x", 0, 1), Int("k", 1, 10), Choice("kind", ["a", "b", "c"])])
TOP = np.array([0.3, 0.65, 5 / 6])


def height(points: Array) -> Array:
    off = points - TOP
    return -(off[:, 0] ** 2 + off[:, 1] ** 2 + (np.abs(off[:, 2]) > 0.1))


def search(seed: int) -> LocalSearch:
    encoding, chance = Encoding(SPACE), np.random.default_rng(seed)
    return LocalSearch(encoding, Candidates(encoding, chance), height, chance)


def test_it_finds_the_top_from_afar() -> None:
    points = Encoding(SPACE).snapped(np.array([[0.9, 0.1, 0.1], [0.8, 0.9, 0.5]]))
    found = search(0).best_first(points, 2)
    assert height(found[:1])[0] > -0.15 > height(points).max() + 0.5


def test_points_come_best_first_and_none_is_lost() -> None:
    encoding = Encoding(SPACE)
    points = encoding.snapped(np.random.default_rng(1).random((12, 3)))
    found = search(1).best_first(points, 3)
    assert (np.diff(height(found)) <= 0).all()
    assert {tuple(each) for each in points} <= {tuple(each) for each in found}
    assert np.array_equal(encoding.snapped(found), found)


def test_on_a_plain_the_points_stay_where_they_are() -> None:
    encoding, chance = Encoding(SPACE), np.random.default_rng(0)
    points = encoding.snapped(chance.random((5, 3)))
    flat = LocalSearch(encoding, Candidates(encoding, chance), lambda x: np.zeros(len(x)), chance)
    assert np.array_equal(flat.best_first(points, 2)[:5], points)
