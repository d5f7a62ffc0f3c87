import copy
import json
import pickle
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.hyperparameters import HyperParameters
from aiotune.space import Boolean, Choice, Condition, Fixed, Float, Int, Space, unit_draw


def relu(x):
    return x


def tanh(x):
    return x


def names(hyperparameters) -> list[str]:
    return [each.name for each in hyperparameters]


def branches(hp: HyperParameters) -> dict:
    """A program with name scopes, conditional scopes and one name in two of them."""
    found = {"kind": hp.Choice("kind", ["dense", "conv"])}
    with hp.conditional_scope("kind", ["dense"]):
        found["dense units"] = hp.Int("units", 1, 5)
    with hp.conditional_scope("kind", ["conv"]):
        found["conv units"] = hp.Int("units", 10, 50, step=10)
        with hp.name_scope("conv"):
            found["pool"] = hp.Boolean("pool", parent_name="kind", parent_values="conv")
            with hp.conditional_scope("pool", True):
                found["size"] = hp.Int("size", 2, 3)
    found["rate"] = hp.Float("rate", 1e-4, 1e-1, sampling="log")
    return found


# ---- values


def test_a_name_gets_its_default_when_it_is_met():
    hp = HyperParameters()
    found = [
        hp.Int("a", 1, 5),
        hp.Float("b", 0, 1, default=0.5),
        hp.Choice("c", ["x", "y"]),
        hp.Boolean("d"),
        hp.Fixed("e", 3),
    ]
    assert found == [1, 0.5, "x", False, 3]
    assert hp.values == {"a": 1, "b": 0.5, "c": "x", "d": False, "e": 3}
    assert names(hp.space) == list("abcde")


def test_a_name_without_a_value_is_filled():
    hp = HyperParameters(fill=lambda each: each.from_unit(1.0))
    assert (hp.Int("a", 1, 5), hp.Boolean("b")) == (5, True)
    assert hp.Int("a", 1, 5) == 5


def test_given_values_are_used_as_they_are():
    hp = HyperParameters(values={"a": 3, "rate": 1, "act": "tanh"})
    assert hp.Int("a", 1, 5) == 3
    rate = hp.Float("rate", 0, 2)
    assert (type(rate), rate) == (float, 1.0)
    assert hp.Choice("act", [relu, tanh]) is tanh


def test_a_value_outside_of_the_range_means_that_the_space_changed():
    hp = HyperParameters(values={"a": 9})
    with pytest.raises(
        FatalValueError, match=r"a has the value 9, which is not in Int\(1 to 5\).*has changed"
    ):
        hp.Int("a", 1, 5)


def test_values_may_be_set_by_hand():
    hp = HyperParameters()
    hp.Int("a", 1, 5)
    hp.values["a"] = 4
    hp.values["tuner/epochs"] = 7
    assert (hp.get("a"), hp["tuner/epochs"], "tuner/epochs" in hp) == (4, 7, True)
    assert hp.Int("a", 1, 5) == 4
    hp.values["act"] = tanh
    assert hp.Choice("act", [relu, tanh]) is tanh
    assert hp.values["act"] == "tanh"
    hp.values.update(act=relu, a=99)
    assert hp.met_values() == {"a": 99, "act": "relu"}


def test_a_choice_gives_real_objects_and_stores_labels():
    hp = HyperParameters()
    assert hp.Choice("act", [relu, tanh]) is relu
    assert hp.get("act") is relu
    assert hp.Fixed("layers", (64, 32)) == (64, 32)
    assert hp.values == {"act": "relu", "layers": "(64, 32)"}
    json.dumps(hp.get_config(), allow_nan=False)


def test_labels_of_a_known_space_become_the_objects_of_the_program():
    stored = HyperParameters.from_config({"space": [], "values": {"act": "tanh"}})
    for each in (Choice("act", [relu, tanh]), Fixed("f", relu)):
        stored.merge(
            HyperParameters.from_config({"space": [_config(each)], "values": {}}), overwrite=False
        )
    hp = HyperParameters(stored.space, {"act": "tanh"})
    assert hp.get("act") == "tanh"
    assert hp.Choice("act", [relu, tanh]) is tanh
    assert hp.Fixed("f", relu) is relu
    assert hp.get("act") is tanh
    assert hp.redeclared == ()


def _config(each):
    return HyperParameters([each]).get_config()["space"][0]


def test_new_objects_behind_the_same_labels_are_no_conflict():
    hp = HyperParameters()
    first, second = (lambda: 1), (lambda: 2)
    assert hp.Choice("f", [first]) is first
    assert hp.Choice("f", [second]) is second
    assert hp.redeclared == ()


# ---- reading


def test_reading_a_name_that_is_unknown_or_inactive():
    hp = HyperParameters()
    branches(hp)
    with pytest.raises(KeyError, match=r"unit does not exist\. Did you mean 'units'"):
        hp.get("unit")
    with pytest.raises(ValueError, match="conv/pool is currently inactive"):
        hp["conv/pool"]
    assert ("units" in hp, "conv/pool" in hp, "unit" in hp, 3 in hp) == (True, False, False, False)
    assert (hp.is_active("units"), hp.is_active("conv/pool"), hp.is_active("unit")) == (
        True,
        False,
        False,
    )


def test_reading_follows_the_name_scope():
    hp = HyperParameters()
    hp.Int("a", 1, 5)
    with hp.name_scope("x"), hp.name_scope("y"):
        hp.Int("a", 7, 9)
        assert hp.get("a") == 7
    assert (hp.get("a"), hp.get("x/y/a")) == (1, 7)


def test_a_known_name_without_a_value_gets_one_when_it_is_read():
    hp = HyperParameters([Int("a", 3, 5)])
    assert hp.values == {}
    assert hp.get("a") == 3
    assert hp.values == {"a": 3}


# ---- scopes


def test_inactive_branches_give_none_and_take_no_value():
    hp = HyperParameters()
    assert branches(hp) == {
        "kind": "dense",
        "dense units": 1,
        "conv units": None,
        "pool": None,
        "size": None,
        "rate": 1e-4,
    }
    assert hp.values == {"kind": "dense", "units": 1, "rate": 1e-4}
    assert len(hp.space) == 6
    assert [[c.name for c in scope] for scope in hp.active_scopes] == [["kind"]]
    assert [[c.name for c in scope] for scope in hp.inactive_scopes] == [
        ["kind"],
        ["kind", "conv/pool"],
    ]


def test_one_name_in_two_branches_belongs_to_the_active_one():
    hp = HyperParameters(values={"kind": "conv", "units": 30, "conv/pool": True})
    found = branches(hp)
    assert (found["dense units"], found["conv units"], found["size"]) == (None, 30, 2)
    hp.values["kind"] = "dense"
    found = branches(hp)
    assert (found["dense units"], found["conv units"], found["pool"]) == (1, None, None)
    hp.values["kind"] = "conv"
    hp.ensure_active_values()
    assert hp.values == {
        "kind": "conv",
        "units": 10,
        "rate": 1e-4,
        "conv/pool": True,
        "conv/size": 2,
    }


def test_scopes_end_when_the_program_raises():
    hp = HyperParameters()
    hp.Boolean("on")
    with pytest.raises(ZeroDivisionError), hp.name_scope("a"), hp.conditional_scope("on", [True]):
        raise ZeroDivisionError
    assert hp.Int("x", 1, 2) == 1
    assert hp.space[-1].identity == ("x", ())


def test_a_parent_may_be_outside_of_the_scope():
    hp = HyperParameters()
    hp.Boolean("outer", default=True)
    hp.Choice("kind", ["a", "b"])
    with hp.conditional_scope("kind", ["a"]):
        assert hp.Int("x", 1, 2, parent_name="outer", parent_values=[True]) == 1
        with hp.name_scope("deep"), hp.conditional_scope("outer", True):
            assert hp.Int("y", 3, 4) == 3
    assert hp.space[-1].conditions == (Condition("kind", ("a",)), Condition("outer", (True,)))


def test_the_nearest_declared_parent_is_meant():
    hp = HyperParameters()
    hp.Boolean("on", default=True)
    with hp.name_scope("a"):
        hp.Boolean("on")
        assert hp.Int("x", 1, 2, parent_name="on", parent_values=True) is None
    assert hp.space[-1].conditions == (Condition("a/on", (True,)),)


def test_an_inactive_parent_makes_its_children_inactive():
    hp = HyperParameters(values={"kind": "conv", "units": 30, "conv/pool": True, "conv/size": 3})
    branches(hp)
    hp.values["kind"] = "dense"
    assert not hp.is_active("conv/size")
    assert branches(hp)["size"] is None


def test_parent_values_are_taken_as_the_parent_keeps_them():
    hp = HyperParameters()
    hp.Choice("act", [relu, tanh])
    hp.Boolean("on", default=True)
    hp.Float("rate", 1, 2)
    assert hp.Int("a", 1, 2, parent_name="act", parent_values=[relu]) == 1
    assert hp.Int("b", 1, 2, parent_name="on", parent_values=[1]) == 1
    assert hp.Int("c", 1, 2, parent_name="rate", parent_values=1) == 1
    assert hp.Int("d", 1, 2, parent_name="act", parent_values=["gelu"]) is None


@pytest.mark.parametrize(
    ("declare", "error", "message"),
    [
        (lambda hp: hp.Int("x", min=1, max=5), FatalTypeError, "use min_value/max_value"),
        (lambda hp: hp.Float("x", min_value=0, max=5), FatalTypeError, "use min_value/max_value"),
        (lambda hp: hp.Choice("x", [1], defualt=1), FatalTypeError, "did you mean 'default'"),
        (
            lambda hp: hp.Boolean("x", step=1),
            FatalTypeError,
            "no argument 'step': it takes name, default",
        ),
        (lambda hp: hp.Int("x", 1), TypeError, "max_value"),
        (lambda hp: hp.Int("x", 5, 1), FatalValueError, "x: min_value=5 is above max_value=1"),
        (lambda hp: hp.Int(7, 1, 5), FatalTypeError, "needs a name"),
        (lambda hp: hp.Choice("x", "relu"), FatalTypeError, "must be a list"),
        (lambda hp: hp.Int("x", 1, 2, parent_name="on"), FatalValueError, "give both or neither"),
        (lambda hp: hp.Int("x", 1, 2, parent_values=1), FatalValueError, "give both or neither"),
        (
            lambda hp: hp.Int("x", 1, 2, parent_name="onn", parent_values=1),
            FatalValueError,
            "mean 'on'",
        ),
        (
            lambda hp: hp.Int("on", 1, 2, parent_name="on", parent_values=True),
            FatalValueError,
            "own parent",
        ),
        (
            lambda hp: hp.conditional_scope("nope", 1).__enter__(),
            FatalValueError,
            "nope does not exist",
        ),
        (lambda hp: hp.name_scope("").__enter__(), FatalTypeError, "needs a name"),
    ],
)
def test_a_bad_call_says_what_to_do(declare, error, message):
    hp = HyperParameters()
    hp.Boolean("on")
    with pytest.raises(error, match=message):
        declare(hp)
    assert names(hp.space) == ["on"]


# ---- declared again


def test_the_first_declaration_holds_and_one_warning_is_given():
    hp = HyperParameters()
    hp.Int("x", 1, 5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert hp.Choice("x", ["p", "q"]) == 1
        assert hp.Choice("x", ["p", "q", "r"]) == 1
        assert hp.Int("x", 1, 5) == 1
    assert [(each.category, each.filename) for each in caught] == [(UserWarning, __file__)]
    assert str(caught[0].message).startswith("x is declared as Int(1 to 5) and again as Choice")
    assert [(str(known), str(new)) for known, new in hp.redeclared] == [
        ("Int(1 to 5)", 'Choice("p", "q")')
    ]


def test_a_space_given_beforehand_overrules_without_a_warning():
    hp = HyperParameters([Fixed("rate", 0.1)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert hp.Float("rate", 0.0, 1.0) == 0.1
    assert [(str(known), str(new)) for known, new in hp.redeclared] == [
        ("Fixed(0.1)", "Float(0.0 to 1.0)")
    ]
    assert hp.met == (Fixed("rate", 0.1),)


def test_another_default_is_no_conflict():
    hp = HyperParameters()
    hp.Int("x", 1, 5, default=2)
    assert hp.Int("x", 1, 5, default=3) == 2
    assert hp.redeclared == ()


def test_the_same_name_in_a_scope_that_is_active_too_is_overruled():
    hp = HyperParameters()
    hp.Boolean("on", default=True)
    hp.Int("x", 1, 2)
    with pytest.warns(UserWarning, match="x is declared as"), hp.conditional_scope("on", [True]):
        assert hp.Int("x", 5, 6) == 1
    assert len(hp.redeclared) == 1


# ---- what was met


def test_met_are_the_active_ones_that_the_program_asked_for():
    known = [Boolean("unused"), Int("a", 1, 5)]
    hp = HyperParameters(known, {"unused": True, "a": 2, "kind": "dense", "units": 4})
    branches(hp)
    assert names(hp.met) == ["kind", "units", "rate"]
    assert names(hp.declared) == ["kind", "units", "units", "conv/pool", "conv/size", "rate"]
    hp.get("a")
    assert hp.met_values() == {"kind": "dense", "units": 4, "rate": 1e-4, "a": 2}


def test_parents_of_what_was_met_are_met():
    known = [Boolean("on", default=True), Int("x", 1, 5, conditions=(Condition("on", (True,)),))]
    hp = HyperParameters(known, {"on": True, "x": 2})
    assert hp.get("x") == 2
    assert names(hp.met) == ["on", "x"]
    other = HyperParameters(known)
    with other.conditional_scope("on", [True]):
        other.Int("x", 1, 5)
    assert other.met_values() == {"on": True, "x": 1}


def test_what_was_met_is_a_whole_point():
    hp = HyperParameters(values={"kind": "conv", "units": 30, "conv/pool": True})
    found = branches(hp)
    again = HyperParameters(hp.met, hp.met_values())
    assert branches(again) == found
    assert again.redeclared == ()


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_a_program_gets_the_point_that_its_space_completes_to(seed):
    def draw(each):
        return each.from_unit(unit_draw(seed, each.name))

    explored = HyperParameters()
    branches(explored)
    point = Space(explored.space).complete(draw)
    told, filling = HyperParameters(explored.space, dict(point)), HyperParameters(fill=draw)
    assert branches(told) == branches(filling)
    assert told.met_values() == filling.met_values() == point


# ---- whole


def test_copy_has_space_and_values_but_nothing_declared():
    hp = HyperParameters()
    branches(hp)
    twin = hp.copy()
    twin.values["kind"] = "conv"
    assert hp.values["kind"] == "dense"
    assert (twin.space, twin.met, twin.declared) == (hp.space, (), ())


def test_config_survives_json():
    hp = HyperParameters(values={"kind": "conv"})
    branches(hp)
    config = json.loads(json.dumps(hp.get_config()))
    again = HyperParameters.from_config(config)
    assert (again.get_config(), again.space) == (config, hp.space)


def test_pickle_and_deepcopy_keep_everything_but_share_nothing():
    hp = HyperParameters(fill=lambda each: each.from_unit(1.0))
    hp.Choice("act", [relu, tanh])
    for twin in (pickle.loads(pickle.dumps(hp)), copy.deepcopy(hp)):
        assert (twin.get("act"), twin.met, twin.values) == (tanh, hp.met, hp.values)
        twin.Int("new", 1, 5)
        assert "new" not in hp.values
        assert len(hp.space) == 1
    assert copy.deepcopy(hp).Int("new", 1, 5) == 5


def test_merge_replaces_ranges_and_values_or_leaves_them():
    hp = HyperParameters()
    hp.Int("a", 0, 100)
    hp.Fixed("b", 2)
    other = HyperParameters()
    other.Fixed("a", 3)
    other.Int("c", 10, 100, default=30)
    hp.merge(other)
    assert (hp.get("a"), hp.get("b"), hp.get("c")) == (3, 2, 30)
    assert names(hp.space) == ["a", "b", "c"]
    third = HyperParameters()
    third.Fixed("a", 5)
    hp.merge(third, overwrite=False)
    assert hp.get("a") == 3
    hp.merge([Float("a", 0.5, 1)])
    assert hp.get("a") == 0.5
    assert hp.declared == (Float("a", 0.5, 1), Fixed("b", 2))


def test_ensure_active_values_fills_and_drops():
    hp = HyperParameters([Boolean("on"), Int("x", 1, 5, conditions=(Condition("on", (True,)),))])
    hp.values["by hand"] = 1
    hp.ensure_active_values()
    assert hp.values == {"by hand": 1, "on": False}
    hp.values["on"] = True
    hp.ensure_active_values()
    assert hp.values == {"by hand": 1, "on": True, "x": 1}
    hp.values["on"] = False
    hp.ensure_active_values()
    assert "x" not in hp.values
