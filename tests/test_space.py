import copy
import json
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.space import (
    Boolean,
    Choice,
    Condition,
    Fixed,
    Float,
    HyperParameter,
    Int,
    Space,
    deserialize,
    point_key,
    serialize,
    unit_draw,
)

SAMPLINGS = ["linear", "log", "reverse_log"]


def relu(x):
    return x


def tanh(x):
    return x


# ---- strategies


@st.composite
def ints(draw):
    sampling = draw(st.sampled_from(SAMPLINGS))
    low = draw(st.integers(-1000 if sampling == "linear" else 1, 10_000))
    high = low + draw(st.integers(0, 10_000))
    step = draw(st.none() | st.integers(1 if sampling == "linear" else 2, 50))
    return Int("i", low, high, step, sampling)


@st.composite
def floats(draw):
    sampling = draw(st.sampled_from(SAMPLINGS))
    low = draw(st.floats(-1e6 if sampling == "linear" else 1e-6, 1e6))
    high = low + draw(st.floats(0, 1e6))
    smallest = 0.01 if sampling == "linear" else 1.01
    step = draw(st.none() | st.floats(max(smallest, (high - low) / 1e4), 1e3))
    return Float("f", low, high, step, sampling)


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
anything = scalars | st.tuples(st.integers()) | st.just(relu) | st.just(math.nan)
choices = st.lists(anything, min_size=1, max_size=8).map(lambda values: Choice("c", values))
kinds = ints() | floats() | choices | st.just(Boolean("b")) | anything.map(lambda v: Fixed("x", v))
units = st.floats(0, 1)


# ---- the unit interval


@settings(deadline=None)
@given(kinds, units)
def test_from_unit_stays_in_the_range_and_to_unit_leads_back(hp, u):
    value = hp.from_unit(u)
    assert hp.contains(value)
    unit = hp.to_unit(value)
    assert 0 <= unit <= 1
    again = hp.from_unit(unit)
    if hp.size is None:
        assert math.isclose(
            again, value, rel_tol=1e-9, abs_tol=1e-9 * (hp.max_value - hp.min_value)
        )
    else:
        assert (type(again), again) == (type(value), value)


@settings(deadline=None)
@given(kinds)
def test_a_finite_range_lists_each_value_once_and_reaches_it(hp):
    if hp.size is None:
        return
    values = hp.all_values()
    assert len(values) == hp.size == len({point_key({"v": value}) for value in values})
    assert all(
        hp.contains(value) and hp.from_unit(hp.to_unit(value)) == value for value in values[:200]
    )
    assert (hp.from_unit(0.0), hp.from_unit(1.0)) == (values[0], values[-1])


@settings(deadline=None)
@given(ints() | floats(), units, units)
def test_numbers_grow_with_the_unit(hp, u, v):
    assert hp.from_unit(min(u, v)) <= hp.from_unit(max(u, v))


@settings(deadline=None)
@given(kinds)
def test_a_config_survives_json(hp):
    again = deserialize(json.loads(json.dumps(serialize(hp), allow_nan=False)))
    assert again == hp
    assert hash(again) == hash(hp)
    assert type(again.default) is type(hp.default)
    assert [again.from_unit(u) for u in (0, 0.3, 1)] == [hp.from_unit(u) for u in (0, 0.3, 1)]


def test_units_outside_of_the_interval_count_as_its_ends():
    assert [Int("i", 1, 9).from_unit(u) for u in (-0.5, 1.5)] == [1, 9]
    assert [Float("f", 0, 1).from_unit(u) for u in (-0.5, 1.5)] == [0.0, 1.0]


# ---- numbers


def test_float_steps_are_clean_and_reach_the_end():
    assert Float("f", 0, 1, step=0.1).all_values() == (
        0.0,
        0.1,
        0.2,
        0.3,
        0.4,
        0.5,
        0.6,
        0.7,
        0.8,
        0.9,
        1.0,
    )
    assert Float("f", 0, 1, step=1 / 3).all_values()[-1] == 1.0
    assert Float("f", 0, 5, step=5 / 9).all_values()[-1] == 5.0
    assert Float("f", 1e-5, 1e-1, step=10, sampling="log").all_values() == (
        1e-5,
        1e-4,
        1e-3,
        1e-2,
        1e-1,
    )
    assert Float("f", 0, 1, step=0.4).all_values() == (0.0, 0.4, 0.8)
    assert Float("f", 0, 1, step=5).all_values() == (0.0,)


def test_a_large_offset_does_not_merge_steps():
    assert Float("f", 1e9, 1e9 + 2, step=1).all_values() == (1e9, 1e9 + 1, 1e9 + 2)


def test_a_float_value_off_by_rounding_is_taken_for_its_step():
    assert Float("f", 0, 1, step=0.1).label_of(0.1 + 0.2) == 0.3
    with pytest.raises(FatalValueError, match="not in"):
        Float("f", 0, 1, step=0.1).label_of(0.35)


def test_multiplied_steps_of_whole_numbers():
    assert Int("i", 16, 256, 2, "log").all_values() == (16, 32, 64, 128, 256)
    assert Int("i", 16, 255, 2, "LOG").all_values() == (16, 32, 64, 128)
    assert Int("i", 1, 100, 10, "reverse_log").all_values() == (1, 91, 100)


def test_log_without_a_step_has_every_whole_number_and_favours_small_ones():
    hp = Int("i", 1, 100, sampling="log")
    assert hp.all_values() == tuple(range(1, 101))
    assert hp.from_unit(1.0) == 100
    draws = [hp.from_unit((i + 0.5) / 1000) for i in range(1000)]
    assert 400 < sum(draw < 10 for draw in draws) < 600
    mirrored = Int("i", 1, 100, sampling="reverse_log")
    assert [mirrored.from_unit((i + 0.5) / 1000) for i in range(1000)] == [
        101 - d for d in reversed(draws)
    ]


def test_int_defaults_to_step_one_whatever_the_case_of_sampling():
    assert Int("i", 1, 5, sampling="LINEAR") == Int("i", 1, 5, step=1)
    assert Int("i", 5.0, np.int64(7)).all_values() == (5, 6, 7)


def test_a_default_may_lie_between_the_steps():
    hp = Int("i", 0, 100, step=10, default=25)
    assert hp.contains(25)
    assert not hp.contains(26)
    assert 25 not in hp.all_values()
    assert hp.from_unit(hp.to_unit(25)) in (20, 30)


@pytest.mark.parametrize(
    ("declare", "error", "message"),
    [
        (lambda: Int("x", 5, 1), FatalValueError, "min_value=5 is above max_value=1"),
        (lambda: Float("x", 0, math.nan), FatalValueError, "max_value must be finite"),
        (lambda: Float("x", -math.inf, 0), FatalValueError, "min_value must be finite"),
        (lambda: Int("x", 1, 10**400), FatalValueError, "max_value must be finite"),
        (lambda: Float("x", -1e308, 1e308), FatalValueError, "too wide"),
        (lambda: Int("x", 1, 5, step=0), FatalValueError, "step=0 must be above 0"),
        (lambda: Float("x", 0, 1, step=-0.1), FatalValueError, "step=-0.1 must be above 0"),
        (lambda: Float("x", 1, 9, step=1, sampling="log"), FatalValueError, "must be above 1"),
        (lambda: Float("x", 0, 9, sampling="log"), FatalValueError, "min_value above 0"),
        (lambda: Int("x", 1, 5, sampling="cubic"), FatalValueError, "use 'linear', 'log'"),
        (lambda: Int("x", 1, 5, default=6), FatalValueError, "default=6 is outside of 1 to 5"),
        (lambda: Int("x", 1, 5.5), FatalValueError, "whole number"),
        (lambda: Int("x", 1, "5"), FatalTypeError, "max_value must be a number"),
        (lambda: Int("x", False, 5), FatalTypeError, "min_value must be a number"),
        (lambda: Int(None, 1, 5), FatalTypeError, "needs a name"),
        (lambda: Int("", 1, 5), FatalTypeError, "needs a name"),
        (lambda: Choice("x", []), FatalValueError, "at least one value"),
        (lambda: Choice("x", "relu"), FatalTypeError, "must be a list, not the text"),
        (lambda: Choice("x", {1, 2}), FatalTypeError, "a set has no order"),
        (lambda: Choice("x", 5), FatalTypeError, "must be a list"),
        (lambda: Choice("x", [1, 2], default=3), FatalValueError, "3 is not in Choice"),
        (
            lambda: Choice("x", ["a", "b"], ordered=True),
            FatalValueError,
            "ordered=True needs numbers",
        ),
        (lambda: Boolean("x", default=2), FatalValueError, "2 is not in Boolean"),
        (lambda: Condition("x", ()), FatalValueError, "at least one value"),
        (lambda: Condition("x", (relu,)), FatalTypeError, "give its label, 'relu'"),
        (lambda: Int("x", 1, 2, conditions=[Condition("x", (1,))]), FatalValueError, "own parent"),
        (lambda: Float("x", 0, 1).all_values(), FatalValueError, "infinitely many"),
        (lambda: deserialize({"class_name": "Text", "config": {}}), FatalValueError, "no kind"),
    ],
)
def test_a_bad_declaration_says_what_to_do(declare, error, message):
    with pytest.raises(error, match=message):
        declare()


# ---- choices


def test_choice_keeps_types_apart_and_booleans_boolean():
    assert Choice("c", [1, True, 1.0, "1"]).options == (1, True, 1.0, "1")
    booleans = Choice("c", [True, False])
    assert [type(value) for value in booleans.all_values()] == [bool, bool]
    assert booleans.ordered is False
    assert booleans.label_of(1) is True


def test_choice_of_objects_keeps_labels_and_gives_objects():
    hp = Choice("c", [relu, tanh, None, (64, 32)])
    assert hp.options == ("relu", "tanh", None, "(64, 32)")
    assert hp.value_of("tanh") is tanh
    assert hp.value_of("(64, 32)") == (64, 32)
    assert hp.label_of(relu) == "relu"
    assert hp.default is None
    assert Choice("c", [relu, tanh], default=tanh).default == "tanh"


def test_labels_alone_come_back_from_json_until_objects_are_bound():
    declared = Choice("c", [relu, tanh])
    stored = deserialize(serialize(declared))
    assert stored.value_of("relu") == "relu"
    assert stored.label_of(relu) == "relu"
    bound = stored.bound_to(declared)
    assert bound.value_of("relu") is relu
    assert bound == stored
    assert stored.bound_to(Choice("c", ["relu", tanh])).value_of("relu") == "relu"
    assert (
        deserialize(serialize(Fixed("x", relu))).bound_to(Fixed("x", relu)).value_of("relu") is relu
    )


def test_ordered_by_default_for_numbers_only():
    assert Choice("c", [1, 2.5]).ordered is True
    assert Choice("c", [1, "a"]).ordered is False
    assert Choice("c", [1, math.inf]).ordered is False
    assert Choice("c", np.array([1, 2])).options == (1, 2)


def test_fixed_holds_anything():
    for value in (None, relu, (1, 2), 3, "a", np.float32(0.5)):
        hp = Fixed("x", value)
        assert hp.all_values() == (hp.default,)
        assert hp.value_of(hp.default) == value
        assert hp.to_unit(hp.default) == 0.5
    with pytest.raises(FatalValueError, match="not in"):
        Fixed("x", 1).label_of(2)


# ---- records


def test_equality_is_by_kind_and_config():
    assert Int("a", 1, 2) != Float("a", 1, 2)
    assert Int("a", 1, 2) != Int("a", 1, 2, default=2)
    assert Int("a", 1, 2).has_range_of(Int("a", 1, 2, default=2))
    assert Fixed("a", 1) != Fixed("a", True)
    assert Condition("a", (1,)) != Condition("a", (True,))
    assert Condition("a", (1, 2)) == Condition("a", (2, 1))


def test_records_are_immutable_and_copy_to_themselves():
    hp = Choice("c", [relu, lambda: 0])
    with pytest.raises(AttributeError):
        hp.name = "d"
    assert copy.deepcopy(hp) is hp
    for each in (Int("a", 1, 2), Choice("c", [relu, (1,)]), Fixed("x", None), Boolean("b")):
        assert pickle.loads(pickle.dumps(each)) == each


def test_the_config_is_laid_out_as_kerastuner_does():
    hp = Int("b", 1, 2, conditions=(Condition("a", ("p",)),))
    assert serialize(hp) == {
        "class_name": "Int",
        "config": {
            "name": "b",
            "default": 1,
            "conditions": [{"class_name": "Parent", "config": {"name": "a", "values": ["p"]}}],
            "min_value": 1,
            "max_value": 2,
            "step": 1,
            "sampling": "linear",
        },
    }
    assert serialize(Fixed("x", 3))["config"] == {"name": "x", "conditions": [], "value": 3}
    theirs = {
        "name": "b",
        "default": None,
        "min_value": 1,
        "max_value": 2,
        "step": 1,
        "sampling": "linear",
    }
    assert deserialize({"class_name": "Int", "config": theirs}) == Int("b", 1, 2)


# ---- conditions and spaces


def tree() -> Space:
    """kind: a -> depth; b -> width and, if wide, extra; x under both, with other ranges."""
    in_a, in_b = Condition("kind", ("a",)), Condition("kind", ("b",))
    return Space(
        [
            Choice("kind", ["a", "b", "c"]),
            Int("depth", 1, 4, conditions=(in_a,)),
            Boolean("wide", conditions=(in_b,)),
            Int("extra", 1, 5, conditions=(in_b, Condition("wide", (True,)))),
            Int("x", 1, 2, conditions=(in_a,)),
            Int("x", 10, 12, conditions=(in_b,)),
            Boolean("last"),
        ]
    )


def names(hyperparameters) -> list[str]:
    return [each.name for each in hyperparameters]


@pytest.mark.parametrize(
    ("values", "holds"),
    [({"a": True}, True), ({"a": 1}, False), ({"a": 1.0}, False), ({}, False), ({"a": "x"}, True)],
)
def test_conditions_compare_exact_types(values, holds):
    assert Condition("a", (True, "x")).holds(values) is holds


def test_active_follows_the_values():
    space = tree()
    assert names(space.active({})) == ["kind", "last"]
    assert names(space.active({"kind": "a"})) == ["kind", "depth", "x", "last"]
    assert names(space.active({"kind": "b"})) == ["kind", "wide", "x", "last"]
    assert names(space.active({"kind": "b", "wide": True})) == [
        "kind",
        "wide",
        "extra",
        "x",
        "last",
    ]
    assert names(space.active({"kind": "c", "wide": True})) == ["kind", "last"]


def test_one_name_in_two_branches_has_the_range_of_the_active_one():
    space = tree()
    assert space.find("x", {"kind": "a"}).max_value == 2
    assert space.find("x", {"kind": "b"}).max_value == 12
    assert space.find("x", {"kind": "c"}) is None
    assert space.find("y", {}) is None
    assert len(space.named("x")) == 2


def test_complete_fills_what_is_active_and_keeps_what_is_given():
    space = tree()
    point = space.complete(
        lambda hp: hp.from_unit(1.0), {"kind": "b", "depth": 3, "tuner/epochs": 2}
    )
    assert point == {
        "kind": "b",
        "wide": True,
        "extra": 5,
        "x": 12,
        "last": True,
        "tuner/epochs": 2,
    }


def test_a_child_declared_before_its_parent_comes_after_it():
    child = Int("child", 1, 3, conditions=(Condition("parent", (True,)),))
    space = Space([child, Boolean("other"), Boolean("parent")])
    assert list(space.complete(lambda hp: hp.from_unit(1.0))) == ["other", "parent", "child"]
    assert space.size == 2 * (1 + 3)
    assert len(list(space.points())) == 8


def test_the_first_of_two_active_declarations_owns_the_name():
    inner = Int("x", 5, 6, conditions=(Condition("on", (True,)),))
    space = Space([Boolean("on"), Int("x", 1, 2), inner])
    assert space.find("x", {"on": True}).max_value == 2
    assert space.size == 4


def test_grow_adds_what_is_new_only():
    space = Space([Int("a", 1, 2)])
    assert space.grow([Int("a", 1, 9)]) is space
    grown = space.grow([Boolean("b"), Int("a", 5, 6), Boolean("b")])
    assert names(grown) == ["a", "b"]
    assert grown.named("a")[0].max_value == 2
    assert (len(space), len(grown)) == (1, 2)
    assert Boolean("b", default=True) in grown
    assert Boolean("b") not in space


def test_size_counts_conditional_points():
    assert tree().size == 2 * (4 * 2 + (1 + 5) * 3 + 1)
    assert Space().size == 1
    assert Space([Int("a", 1, 10), Choice("b", ["x", "y", "z"]), Fixed("c", 1)]).size == 30
    assert Space([Float("a", 0, 1)]).size is None
    assert (
        Space([Boolean("a"), Float("f", 0, 1, conditions=(Condition("a", (True,)),))]).size is None
    )


def test_a_wide_parent_is_counted_by_the_values_that_matter():
    child = Int("child", 1, 10, conditions=(Condition("n", (3, 5, 10**9)),))
    assert Space([Int("n", 1, 10**6), child]).size == 10**6 - 2 + 2 * 10


def test_counting_gives_up_on_too_many_branches():
    parents = [Boolean(f"p{i}") for i in range(20)]
    children = [Boolean(f"c{i}", conditions=(Condition(f"p{i}", (True,)),)) for i in range(20)]
    assert Space(parents + children).size is None


@st.composite
def spaces(draw) -> Space:
    """Up to six hyperparameters, each perhaps under conditions on earlier ones, names perhaps shared."""
    params: list[HyperParameter] = []
    for _ in range(draw(st.integers(0, 6))):
        name = draw(st.sampled_from("abcde"))
        conditions = []
        for parent in draw(st.lists(st.sampled_from(params), max_size=2)) if params else []:
            if parent.name != name:
                some = draw(st.lists(st.sampled_from(parent.all_values()), min_size=1, max_size=2))
                conditions.append(Condition(parent.name, tuple(some)))
        size = draw(st.integers(1, 3))
        kind = draw(
            st.sampled_from(
                [Boolean(name), Int(name, 1, size), Choice(name, ["u", "v", None][:size])]
            )
        )
        params.append(
            deserialize(serialize(kind)).from_config(
                {
                    **kind.get_config(),
                    "conditions": [
                        {
                            "class_name": "Parent",
                            "config": {"name": c.name, "values": list(c.values)},
                        }
                        for c in conditions
                    ],
                }
            )
        )
    return Space(params)


@settings(deadline=None)
@given(spaces())
def test_points_are_distinct_complete_and_as_many_as_size_says(space):
    points = list(space.points())
    assert len({point_key(point) for point in points}) == len(points) == space.size
    for point in points:
        assert names(space.active(point)) == list(point)
        assert space.complete(lambda hp: pytest.fail("nothing is missing"), point) == point
        assert all(space.find(name, point).contains(value) for name, value in point.items())


def test_points_go_in_order_with_the_last_name_fastest():
    space = Space([Int("a", 1, 2), Boolean("b")])
    assert [tuple(point.values()) for point in space.points()] == [
        (1, False),
        (1, True),
        (2, False),
        (2, True),
    ]
    with pytest.raises(FatalValueError, match="infinitely many"):
        Space([Float("f", 0, 1)]).points()


def test_conflicts_name_what_differs():
    stored = Space(
        [Int("units", 32, 256, 32), Choice("act", ["relu"]), Boolean("b"), Int("n", 1, 2)]
    )
    declared = Space(
        [Int("units", 32, 512, 32), Choice("act", ["relu", "tanh"]), Boolean("b", True)]
    )
    assert stored.conflicts(declared) == [
        "units: stored Int(32 to 256, step 32), declared Int(32 to 512, step 32)",
        'act: stored Choice("relu"), declared Choice("relu", "tanh")',
    ]
    one = tree()
    other = Space([each for each in one if each.name != "x"]).grow(
        [Int("x", 10, 13, conditions=(Condition("kind", ("b",)),))]
    )
    assert one.conflicts(other) == [
        'x (where kind in "b"): stored Int(10 to 12), declared Int(10 to 13)'
    ]


@pytest.mark.parametrize(
    ("hp", "text"),
    [
        (Int("i", 1, 9, sampling="log"), "Int(1 to 9, log)"),
        (Float("f", 0, 2, step=1), "Float(0.0 to 2.0, step 1.0)"),
        (Boolean("b"), "Boolean()"),
        (Fixed("x", "é"), 'Fixed("é")'),
        (
            Choice("c", range(30)),
            "Choice(0, 1, 2, 3, 4, 5, ... 18 more ..., 24, 25, 26, 27, 28, 29)",
        ),
    ],
)
def test_a_range_in_words(hp, text):
    assert str(hp) == text


# ---- keys and draws


def test_point_key_tells_types_apart_but_not_orders():
    assert len({point_key({"a": value}) for value in (1, True, 1.0, "1", None, "null")}) == 6
    assert point_key({"a": 1, "b": 2}) == point_key({"b": 2, "a": 1})
    assert point_key({"a": "1b=2"}) != point_key({"a": 1, "b": 2})


def test_unit_draw_is_the_same_everywhere():
    assert unit_draw(0, 1, "units") == 0.977802072592291
    assert unit_draw(np.int64(0), 1, "units") == unit_draw(0, 1, "units")
    assert (
        len({unit_draw(0), unit_draw(1), unit_draw(0, 0), unit_draw(0, "0"), unit_draw(0, 0, 0)})
        == 5
    )
    with pytest.raises(FatalTypeError, match="numbers and texts"):
        unit_draw(0, object())


def test_unit_draw_is_uniform():
    draws = np.array([unit_draw(7, i, "x") for i in range(4000)])
    counts, _ = np.histogram(draws, bins=10, range=(0, 1))
    assert counts.sum() == 4000  # all in [0, 1]
    assert ((counts - 400) ** 2 / 400).sum() < 27.9  # chi-squared, 9 degrees of freedom, p = 0.001
