"""Hyperparameters as Optuna's parameters: the same values, and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from aiotune.oracles.optuna_axes import Axes, axis_of, parameter_names
from aiotune.space import (
    Boolean,
    Choice,
    Condition,
    Fixed,
    Float,
    HyperParameter,
    Int,
    Space,
)

KINDS: tuple[HyperParameter, ...] = (
    Int("a", 1, 10),
    Int("a", -5, 100, step=7),
    Int("a", 3, 1000, sampling="log"),
    Int("a", 3, 1000, sampling="reverse_log"),
    Int("a", 16, 600, step=2, sampling="log"),
    Int("a", 16, 600, step=2, sampling="reverse_log"),
    Float("a", -1.0, 2.5),
    Float("a", 1e-5, 1e-1, sampling="log"),
    Float("a", 1e-5, 1e-1, sampling="reverse_log"),
    Float("a", 0.0, 1.05, step=0.1),
    Float("a", 1 / 3, 3.0, step=0.1),
    Float("a", 1e-4, 1.0, step=10, sampling="log"),
    Float("a", 1e-4, 1.0, step=10, sampling="reverse_log"),
    Choice("a", ["relu", None, 3, 0.5, True]),
    Choice("a", [1, True, 1.0, "1", "true"]),
    Choice("a", [64, 16, 32]),
    Choice("a", [64, 16, 32], ordered=False),
    Boolean("a"),
)


@given(each=st.sampled_from(KINDS), u=st.floats(0.0, 1.0))
def test_a_value_comes_back_as_it_was(each: HyperParameter, u: float) -> None:
    axis = axis_of(each)
    assert axis is not None
    value = each.from_unit(u)
    parameter = axis.encode(value)
    assert axis.distribution._contains(axis.distribution.to_internal_repr(parameter))
    again = axis.decode(parameter)
    assert type(again) is type(value)
    assert again == (value if each.size else pytest.approx(value, rel=1e-12))


@given(each=st.sampled_from(KINDS), u=st.floats(0.0, 1.0))
def test_every_parameter_is_a_value_of_the_range(each: HyperParameter, u: float) -> None:
    axis = axis_of(each)
    assert axis is not None
    parameter: object
    match axis.distribution:
        case CategoricalDistribution(choices=choices):
            parameter = choices[min(int(u * len(choices)), len(choices) - 1)]
        case IntDistribution(low=low, high=high, step=step):
            parameter = low + round(u * (high - low) / step) * step
        case FloatDistribution(low=low, high=high, step=step):
            parameter = low + u * (high - low)
            if step is not None:
                parameter = low + round(u * (high - low) / step) * step  # 3 * 0.1: not quite 0.3
    assert each.contains(axis.decode(parameter))


def test_both_ends_can_be_had() -> None:
    for each in KINDS:
        axis = axis_of(each)
        assert axis is not None
        if not isinstance(axis.distribution, CategoricalDistribution):
            ends = {axis.decode(axis.distribution.low), axis.decode(axis.distribution.high)}
            assert ends == {each.from_unit(0.0), each.from_unit(1.0)}


@pytest.mark.parametrize(
    ("each", "distribution"),
    [
        (Int("a", 1, 10, step=4), IntDistribution(1, 9, step=4)),
        (Float("a", 1e-4, 1.0, sampling="log"), FloatDistribution(1e-4, 1.0, log=True)),
        (Int("a", 16, 512, step=2, sampling="log"), IntDistribution(0, 5)),
        (Choice("a", [64, 16, 32]), IntDistribution(0, 2)),
        (Choice("a", ["x", "y"]), CategoricalDistribution(("x", "y"))),
        (Choice("a", [1, True]), CategoricalDistribution(("1", "true"))),
        (Float("a", 1 / 3, 3.0, step=0.1), IntDistribution(0, 26)),
    ],
)
def test_what_a_sampler_is_given(each: HyperParameter, distribution: object) -> None:
    axis = axis_of(each)
    assert axis is not None
    assert axis.distribution == distribution


def test_what_has_one_value_is_no_parameter() -> None:
    assert axis_of(Fixed("a", 3)) is None
    assert axis_of(Int("a", 5, 5)) is None
    assert axis_of(Choice("a", ["x"])) is None


def test_a_default_between_the_steps_is_told_as_the_nearest_step() -> None:
    axes = Axes(Space([Int("a", 0, 100, step=10, default=42), Fixed("b", 1)]))
    assert axes.encoded({"a": 42, "b": 1, "other": 5})[0] == {"a": 40}


def test_names_that_are_declared_twice() -> None:
    one, other = (Condition("kind", (kind,)) for kind in ("x", "y"))
    third = Condition("kind", ("z",))
    space = Space(
        [
            Int("units", 1, 9, conditions=(one,)),
            Int("units", 1, 9, conditions=(other,)),  # the same range: one parameter
            Int("units", 10, 90, conditions=(third,)),
        ]
    )
    names = parameter_names(space, lambda each: IntDistribution(each.value_at(0), 99))  # type: ignore[arg-type]
    assert list(names.values()) == ["units", "units", 'units (where kind in "z")']
