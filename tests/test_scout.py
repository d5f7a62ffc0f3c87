"""Scout: points of the space, the most promising first."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from aiotune.learning.encoding import Flags
from aiotune.learning.focus import Category, foci
from aiotune.learning.gaussian_process import Array
from aiotune.learning.landscape import Allows
from aiotune.learning.lessons import Lessons
from aiotune.learning.scout import Scout
from aiotune.learning.surrogate import Surrogate, SurrogateOptions
from aiotune.space import Boolean, Choice, Condition, Float, Int, Space, Values
from tests.support.taught import lessons_of

PLAIN = SurrogateOptions(alpha=1e-6, beta=None)
SQUARE = Space([Float("x", 0, 1), Float("y", 0, 1)])


def best_first(
    lessons: Lessons,
    pending: Array | None = None,
    turn: int = 0,
    *,
    seed: int = 0,
    allows: Allows | None = None,
) -> Array:
    none = np.empty((0, len(lessons.encoding.axes)))
    scout = Scout(lessons, Surrogate(lessons, PLAIN))
    chance = np.random.default_rng(seed)
    return scout.best_first(none if pending is None else pending, turn, chance, allows)


def square(count: int) -> Lessons:
    chance = np.random.default_rng(1)
    rows: list[tuple[Values, float]] = [
        ({"x": x, "y": y}, (x - 0.6) ** 2 + (y - 0.3) ** 2)
        for x, y in chance.random((count, 2)).tolist()
    ]
    return lessons_of(SQUARE, rows)


def distances(lessons: Lessons, points: Array, others: Array) -> Array:
    """Return how far points are from others in lengthscales: (m, p), (n, p) -> (m, n)."""
    known = Surrogate(lessons, PLAIN).processes(lessons.gates(lessons.count), np.empty((0, 2)))
    scales = known[0].parameters.lengthscales
    away: Array = np.linalg.norm((points[:, None] - others[None]) / scales, axis=2)
    return away


def test_a_small_space_is_listed_as_a_whole() -> None:
    space = Space(
        [
            Choice("kind", ["a", "b"]),
            Int("k", 1, 20, conditions=(Condition("kind", ("a",)),)),
            Boolean("flag"),
        ]
    )
    rows: list[tuple[Values, float]] = [
        ({"kind": "a", "k": k, "flag": k % 4 == 0}, float((k - 9) ** 2)) for k in (2, 4, 13, 18)
    ]
    lessons = lessons_of(space, [*rows, ({"kind": "b", "flag": True}, 200.0)])
    points = best_first(lessons, turn=1)
    assert len(points) == 20 * 2 + 2
    listed = {tuple(lessons.encoding.values(each).items()) for each in _filled(points)}
    assert listed == {tuple(each.items()) for each in space.points()}
    first = lessons.encoding.values(_filled(points)[0])
    assert first["kind"] == "a"
    assert 6 <= int(first["k"]) <= 12  # type: ignore[arg-type]


def _filled(points: Array) -> list[list[float]]:
    filled: list[list[float]] = np.where(np.isnan(points), 0.5, points).tolist()
    return filled


def test_the_first_is_the_most_promising_near_the_minimum() -> None:
    points = best_first(square(12))
    assert points[0] == pytest.approx([0.6, 0.3], abs=0.05)
    assert ((points >= 0.0) & (points <= 1.0)).all()


@pytest.mark.parametrize("turn", [0, 1])
def test_the_first_is_not_near_one_in_flight(turn: int) -> None:
    lessons = square(8)
    alone = best_first(lessons, turn=turn)
    pending = alone[:1]
    beside = best_first(lessons, pending, turn)
    away = distances(lessons, beside, pending)[:, 0]
    # The rule holds at the lengthscales of the fit, which those in flight do not change.
    assert away[0] >= 0.1
    is_near = away < 0.1
    assert is_near.any()
    assert is_near[int(np.argmax(is_near)) :].all()  # the near ones come last, none is lost


def test_the_first_is_none_that_was_tried() -> None:
    lessons = square(30)
    first = best_first(lessons)[:1]
    assert distances(lessons, first, lessons.places).min() >= 1e-3


def test_nothing_is_sought_where_the_constraint_refuses() -> None:
    def low(points: Array) -> Flags:
        is_low: Flags = points.sum(axis=1) <= 0.7
        return is_low

    points = best_first(square(14), allows=low)
    first = points[low(points)][0]
    assert first.sum() == pytest.approx(0.7, abs=0.03)  # up to its border
    assert first == pytest.approx([0.5, 0.2], abs=0.1)


def kinds(b: Callable[[float], float]) -> Lessons:
    """Return lessons of a stale search: kind "a" is at its best, what "b" is worth is known as well."""
    space = Space([Choice("kind", ["a", "b"]), Float("x", 0, 1)])
    xs = np.linspace(0.02, 0.98, 9).tolist()
    rows: list[tuple[Values, float]] = [({"kind": "a", "x": 0.4}, 0.0)]
    rows += [({"kind": "b", "x": x}, b(x)) for x in xs]
    rows += [({"kind": "a", "x": x}, 1.0 + (x - 0.4) ** 2) for x in xs * 2]
    return lessons_of(space, rows)


def hopeless(x: float) -> float:
    return 1.4 + 0.01 * x


def hopeful(x: float) -> float:
    return 0.1 + 2.0 * abs(math.sin(9.0 * x))


@pytest.mark.parametrize(("scores", "place"), [(hopeful, 0.75), (hopeless, 0.25)])
def test_a_neglected_category_is_looked_at_unless_there_is_no_hope(
    scores: Callable[[float], float], place: float
) -> None:
    lessons = kinds(scores)
    assert next(foci(lessons, 1)) == Category(0, 0.75)
    points = best_first(lessons, turn=1)
    assert points[:, 0].tolist() == [place] * len(points)


def test_the_same_chance_finds_the_same_points() -> None:
    lessons = square(9)
    one, other, third = (best_first(lessons, turn=1, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(one, other)
    assert not np.array_equal(one, third)
