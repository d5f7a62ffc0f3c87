import enum
import functools
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from aiotune.labels import distinct, is_scalar, label_of, plain, same


class Colour(enum.StrEnum):
    RED = "red"


class Plain:
    pass


class Broken:
    def __repr__(self):
        raise RuntimeError("no text")


class Unequal:
    def __eq__(self, other):
        raise RuntimeError("no answer")

    __hash__ = None


def relu(x):
    return x


@pytest.mark.parametrize("value", [None, True, 0, -(2**70), 0.5, "", "é"])
def test_what_strict_json_holds_is_a_scalar(value):
    assert is_scalar(value)
    assert json.loads(json.dumps(value, allow_nan=False)) == value


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, (1,), [1], {}, relu, Colour.RED, b"x", 1j, np.float64(1)]
)
def test_anything_else_is_not(value):
    assert not is_scalar(value)


def test_numpy_scalars_become_python_values():
    given = [np.int64(3), np.float32(0.5), np.bool_(True), np.str_("a"), np.array(2)]
    assert [(type(plain(each)), plain(each)) for each in given] == [
        (int, 3),
        (float, 0.5),
        (bool, True),
        (str, "a"),
        (int, 2),
    ]
    array = np.zeros(2)
    assert plain(array) is array


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (relu, "relu"),
        (Plain, "Plain"),
        (Plain(), "Plain"),
        (Broken(), "Broken"),
        (Colour.RED, "Colour.RED"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        ((1,), "(1,)"),
        ((1, "a"), "(1, 'a')"),
        ([relu, None], "[relu, None]"),
        ({"b": 1, 2: (3,)}, "{'b': 1, 2: (3,)}"),
        ({"c", "a", "b"}, "set('a', 'b', 'c')"),
        ((np.int64(1), np.float64(0.5)), "(1, 0.5)"),
        (functools.partial(relu, 1), "functools.partial(<function relu>, 1)"),
    ],
)
def test_a_label_says_what_the_value_is(value, label):
    assert label_of(value) == label


def test_a_long_label_is_cut():
    assert len(label_of(tuple(range(1000)))) == 200


def test_labels_are_the_same_in_another_process():
    program = (
        "from aiotune.labels import label_of\n"
        "class Thing: pass\n"
        "print(label_of((frozenset('abcdefgh'), Thing(), lambda: 0)))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_distinct_keeps_values_apart_by_type():
    assert [scalar for scalar, _ in distinct([1, True, 1.0, "1", 1, True, 1.0, "1"])] == [
        1,
        True,
        1.0,
        "1",
    ]


def test_distinct_drops_what_is_the_same():
    thing = Plain()
    values = [(1, 2), (1, 2), thing, thing, math.nan, float("nan"), [1], [1], relu, relu]
    assert [scalar for scalar, _ in distinct(values)] == ["(1, 2)", "Plain", "nan", "[1]", "relu"]


def test_distinct_makes_labels_unique_and_never_takes_a_text_of_the_user():
    one, other = (lambda: 1), (lambda: 2)
    assert distinct([one, other]) == (("<lambda>", one), ("<lambda>#2", other))
    assert [scalar for scalar, _ in distinct([relu, "relu#2", "relu"])] == [
        "relu#3",
        "relu#2",
        "relu",
    ]


def test_equal_values_that_differ_within_stay_apart():
    assert not same((1,), (True,))
    assert [scalar for scalar, _ in distinct([(1,), (True,), (1.0,)])] == [
        "(1,)",
        "(True,)",
        "(1.0,)",
    ]


def test_values_that_refuse_to_be_compared_are_different():
    assert [scalar for scalar, _ in distinct([Unequal(), Unequal()])] == ["Unequal", "Unequal#2"]
    assert len(distinct([np.zeros(3), np.zeros(3)])) == 2
