"""Points as places and columns, and which axes are active where."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiotune.learning.encoding import Axis, Encoding
from aiotune.learning.gates import Gates
from aiotune.learning.gaussian_process import Array
from aiotune.space import (
    Boolean,
    Choice,
    Condition,
    Fixed,
    Float,
    HyperParameter,
    Int,
    Space,
    Values,
)

KINDS: list[HyperParameter] = [
    Int("i", 1, 9),
    Int("i", 8, 512, sampling="log"),
    Int("i", 1, 100_000),
    Float("f", -1, 1),
    Float("f", 1e-4, 1, sampling="reverse_log"),
    Float("f", 0, 1, step=0.1),
    Boolean("b"),
    Choice("c", ["x", "y", "z"]),
    Choice("c", [64, 16, 128]),
    Choice("c", [1, True, "1", None]),
]


@pytest.mark.parametrize("declared", KINDS, ids=str)
@given(place=st.floats(0, 1))
def test_every_place_has_a_value_and_every_value_its_place(
    declared: HyperParameter, place: float
) -> None:
    axis = Axis(declared)
    value = axis.value(place)
    assert declared.contains(value)
    own = axis.place(value)
    assert own is not None
    assert type(axis.value(own)) is type(value)
    assert axis.value(own) == (pytest.approx(value) if isinstance(value, float) else value)
    assert axis.snapped(np.array([own]))[0] == pytest.approx(own)


def test_an_ordered_choice_lies_by_size_and_a_default_off_the_steps_is_taken() -> None:
    axis = Axis(Choice("c", [64, 16, 128]))
    places = [axis.place(each) for each in (16, 64, 128)]
    assert places == pytest.approx([1 / 6, 3 / 6, 5 / 6])
    assert Axis(Int("i", 0, 10, step=5, default=7)).place(7) == pytest.approx(0.5)
    assert axis.place(17) is None


def columns(encoding: Encoding, *points: Values) -> Array:
    space = encoding.space
    return encoding.columns(np.array([encoding.places(p, space.active(p)) for p in points]))


def test_any_two_names_are_at_one_distance_and_an_inactive_one_is_alike_everywhere() -> None:
    encoding = Encoding(
        Space(
            [
                Choice("kind", ["a", "b", "c"]),
                Fixed("one", 1),
                Float("x", 0, 4, conditions=(Condition("kind", ("a",)),)),
            ]
        )
    )
    a, b, c = columns(encoding, {"kind": "a", "x": 1.0}, {"kind": "b"}, {"kind": "c"})
    assert encoding.groups.tolist() == [0, 0, 0, 1]
    assert a[:3] == pytest.approx([math.sqrt(0.5), 0, 0])
    assert np.linalg.norm(a[:3] - b[:3]) == pytest.approx(1.0)
    assert np.linalg.norm(b[:3] - c[:3]) == pytest.approx(1.0)
    assert [a[3], b[3], c[3]] == [0.25, 0.5, 0.5]
    assert encoding.values([1 / 6, 0.75]) == {"kind": "a", "one": 1, "x": 3.0}
    assert encoding.values([1 / 2, 0.75]) == {"kind": "b", "one": 1}


def active(space: Space, trials: list[Values], points: list[Values]) -> list[list[bool]]:
    """Return of each point which axes are active, the trials having met just what they have values for."""
    encoding = Encoding(space)

    def places(values: Values) -> Array:
        return encoding.places(values, [each for each in space if each.name in values])

    known = np.array([places(each) for each in trials]).reshape(len(trials), len(encoding.axes))
    asked = np.array([places(each) for each in points])
    masked = Gates(encoding, known).masked(np.where(np.isnan(asked), 0.5, asked))
    return (~np.isnan(masked)).tolist()  # type: ignore[no-any-return]


def test_declared_conditions_hold_without_a_trial_also_of_a_parents_parent() -> None:
    space = Space(
        [
            Int("leaf", 1, 2, conditions=(Condition("mid", (2,)),)),  # before its parent
            Int("mid", 1, 2, conditions=(Condition("top", (True,)),)),
            Boolean("top"),
        ]
    )
    points: list[Values] = [
        {"top": True, "mid": 2},
        {"top": True, "mid": 1},
        {"top": False, "mid": 2},
    ]
    assert active(space, [], points) == [
        [True, True, True],
        [False, True, True],
        [False, False, True],
    ]


def test_of_one_name_under_two_conditions_the_active_declaration_counts() -> None:
    space = Space(
        [
            Choice("kind", ["a", "b"]),
            Int("u", 1, 5, conditions=(Condition("kind", ("a",)),)),
            Int("u", 1, 9, conditions=(Condition("kind", ("b",)),)),
        ]
    )
    assert active(space, [], [{"kind": "a"}, {"kind": "b"}]) == [
        [True, True, False],
        [True, False, True],
    ]


def test_a_loop_is_learnt_from_what_the_trials_met() -> None:
    space = Space([Float("x", 0, 1), Int("layers", 1, 4), Int("u0", 1, 9), Int("u1", 1, 9)])
    trials: list[Values] = [
        {"x": 0.1, "layers": 1, "u0": 3},
        {"x": 0.2, "layers": 3, "u0": 4, "u1": 2},
        {"x": 0.3, "layers": 1, "u0": 9},
    ]
    points: list[Values] = [{"layers": 1}, {"layers": 3}, {"layers": 4}]
    assert [each[3] for each in active(space, trials, points)] == [False, True, True]
    assert [each[3] for each in active(space, [], points)] == [True, True, True]


def test_a_branch_on_a_name_is_learnt_and_an_unseen_name_is_open() -> None:
    space = Space([Choice("kind", ["a", "b", "c"]), Float("rate", 0, 1)])
    trials: list[Values] = [{"kind": "a", "rate": 0.1}, {"kind": "b"}]
    points: list[Values] = [{"kind": "a"}, {"kind": "b"}, {"kind": "c"}]
    assert [each[1] for each in active(space, trials, points)] == [True, False, True]
    contradicted: list[Values] = [*trials, {"kind": "b", "rate": 0.2}]
    assert [each[1] for each in active(space, contradicted, points)] == [True, True, True]
