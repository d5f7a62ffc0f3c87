"""Where to look this time: the box about the best, and what a search does that gains nothing."""

from __future__ import annotations

import math

import pytest

from aiotune.learning.focus import Anywhere, Boldly, Category, Focus, NearBest, foci, side_length
from aiotune.learning.lessons import Lessons
from aiotune.space import Choice, Condition, Float, HyperParameter, Space, Values
from tests.support.taught import lessons_of

NAN = math.nan
NUMBERS = Space([Float("x", 0, 1)])
NAMES = Space([Choice("kind", ["a", "b", "c"]), Float("x", 0, 1)])
A, B, C = 1 / 6, 3 / 6, 5 / 6


@pytest.mark.parametrize(
    ("scores", "axes", "length"),
    [
        ([], 1, 0.8),
        ([3, 2], 1, 0.8),
        ([3, 2, 1], 1, 1.6),
        ([3, 2, 2, 1, 0], 1, 0.8),  # never three in a row
        ([6, 5, 4, 3, 2, 1], 1, 1.6),  # the longest
        ([1, 1, 1, 1], 1, 0.8),
        ([1, 1, 1, 1, 1], 1, 0.4),
        ([1, NAN, NAN, 2, NAN], 1, 0.4),
        ([NAN] * 4, 1, 0.4),
        ([1] + [1] * 4, 6, 0.8),
        ([1] + [1] * 6, 6, 0.4),
        ([1, 1, 1, 1, 0.5, 1, 1, 1], 1, 0.8),  # a success begins the count anew
        ([1.0, 0.9999, 0.9998, 0.9997, 0.9996], 1, 0.4),  # gains that are none
        ([-1.0, -1.0001, -1.0002, -1.0003, -1.0004], 1, 0.4),
        ([1] + [1] * 8 + [0.5, 0.25, 0.125], 1, 0.4),
        ([1] + [1] * 24, 1, 0.8 / 2**6),
        ([1] + [1] * 28, 1, 0.8),  # the next half would be too short
        ([math.inf, 1, 0.5, 0.25], 1, 1.6),
    ],
)
def test_the_box_grows_with_successes_and_shrinks_with_failures(
    scores: list[float], axes: int, length: float
) -> None:
    assert side_length(scores, axes) == pytest.approx(length)


def numbers(scores: list[float]) -> Lessons:
    return lessons_of(NUMBERS, [({"x": index / 50}, each) for index, each in enumerate(scores)])


def names(kinds: str, scores: list[float]) -> Lessons:
    rows: list[tuple[Values, float]] = [
        ({"kind": kind, "x": 0.5}, score) for kind, score in zip(kinds, scores, strict=True)
    ]
    return lessons_of(NAMES, rows)


def looked(lessons: Lessons, turn: int) -> list[Focus]:
    return list(foci(lessons, turn))


def is_stale(scores: list[float]) -> bool:
    return looked(numbers(scores), 0) == [Boldly()]


def test_of_numbers_alone_it_looks_near_the_best() -> None:
    lessons = numbers([3, 2, 1])
    assert [looked(lessons, turn) for turn in range(4)] == [[NearBest(1.6)]] * 4


@pytest.mark.parametrize(
    "space",
    [
        NAMES,
        Space(
            [
                Choice("n", [1, 2, 3], ordered=True),
                Float("x", 0, 1, conditions=(Condition("n", (2, 3)),)),
            ]
        ),
    ],
)
def test_with_names_or_conditions_every_second_look_is_anywhere(space: Space) -> None:
    kind = space.named("kind")
    values: Values = {"kind": "a", "x": 0.5} if kind else {"n": 2, "x": 0.5}
    lessons = lessons_of(space, [(values, 1.0)])
    found = [looked(lessons, turn) for turn in range(4)]
    assert found == [[NearBest(0.8)], [Anywhere()]] * 2


def test_it_is_stale_after_enough_trials_without_a_gain() -> None:
    begin = [2.0, 1.0, 0.0, 3.0, 4.0, 2.0, 1.0, 3.0, 4.0, 2.0]
    assert not is_stale(begin + [1.0] * 5)  # too early to tell
    assert is_stale(begin + [1.0] * 6)
    assert is_stale(begin + [1.0] * 5 + [-0.005])  # a gain, but of no size
    assert not is_stale(begin + [1.0] * 5 + [-0.5])
    assert not is_stale(begin + [-0.5] + [1.0] * 4 + [-1.0])
    assert is_stale(begin + [NAN] * 6)
    assert not is_stale([NAN] * 16)
    assert not is_stale([NAN] * 11 + [1.0] * 5)


def test_more_axes_must_be_patient_for_longer() -> None:
    wide = Space([Float(f"x{index}", 0, 1) for index in range(8)])
    point: Values = {f"x{index}": 0.5 for index in range(8)}

    def look(count: int) -> list[Focus]:
        return looked(lessons_of(wide, [(point, min(each, 1.0)) for each in range(count)]), 0)

    assert isinstance(look(18)[0], NearBest)
    assert look(19) == [Boldly()]


def test_stale_among_numbers_it_looks_boldly_on_every_second_turn() -> None:
    lessons = numbers([0.0] + [1.0] * 19)
    near = NearBest(side_length(lessons.scores, 1))
    assert [looked(lessons, turn) for turn in range(4)] == [[Boldly()], [near]] * 2


def test_stale_among_names_it_tours_the_neglected_ones_first() -> None:
    lessons = names("a" * 18 + "b" * 2, [0.0] + [1.0] * 17 + [2.0, 3.0])
    last: list[Focus] = [NearBest(side_length(lessons.scores, 2)), Anywhere()]
    tour: list[Focus] = [Category(0, C), Category(0, B), Category(0, A)]
    assert looked(lessons, 4) == last[:1]
    assert looked(lessons, 5) == [*tour, last[1]]
    assert looked(lessons, 6) == [*tour, last[0]]
    assert looked(lessons, 7) == [*tour, last[1]]


def test_a_good_option_is_looked_at_more_than_a_bad_one() -> None:
    best_a = names("a" * 8 + "b" * 6 + "c" * 6, [0.0] + [1.0] * 7 + [2.0] * 6 + [3.0] * 6)
    assert looked(best_a, 1)[:3] == [Category(0, A), Category(0, B), Category(0, C)]


def test_several_names_are_toured_in_turn() -> None:
    space = Space([Choice("kind", ["a", "b"]), Float("x", 0, 1), Choice("other", ["c", "d"])])
    rows: list[tuple[Values, float]] = [
        ({"kind": "a", "x": 0.5, "other": "c"}, float(index > 0)) for index in range(20)
    ]
    lessons = lessons_of(space, rows)
    first = [next(foci(lessons, turn)) for turn in (1, 2, 3)]
    assert [each.axis for each in first if isinstance(each, Category)] == [2, 0, 2]


@pytest.mark.parametrize(("options", "is_toured"), [(12, True), (13, False)])
def test_a_name_of_many_options_is_not_toured(options: int, is_toured: bool) -> None:
    declared: list[HyperParameter] = [
        Choice("kind", [f"option {each}" for each in range(options)]),
        Float("x", 0, 1),
    ]
    point: Values = {"kind": "option 3", "x": 0.5}
    lessons = lessons_of(Space(declared), [(point, float(index > 0)) for index in range(20)])
    found = [looked(lessons, turn) for turn in (2, 3)]
    assert any(isinstance(each, Category) for each in found[0]) is is_toured
    assert not isinstance(found[0][-1], Category)
    if not is_toured:
        assert found == [[Boldly()], [Anywhere()]]
