"""Beliefs about hyperparameters: how they lead draws, what a model is told, what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import aiotune
from aiotune import HyperParameters, Near, Objective
from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.events import SpaceGrew
from aiotune.executors.context import RunContext
from aiotune.history import History
from aiotune.learning.encoding import Encoding
from aiotune.learning.prior_term import PriorTerm
from aiotune.learning.priors import Priors
from aiotune.oracles.base import Oracle, Suggest
from aiotune.oracles.grid_search import GridSearchOracle
from aiotune.oracles.hyperband import HyperbandOracle
from aiotune.oracles.random_search import RandomSearchOracle
from aiotune.space import (
    Boolean,
    Choice,
    Condition,
    Fixed,
    Float,
    HyperParameter,
    Int,
    Scalar,
    Space,
    unit_draw,
)

SCORE = Objective("score", "min")
RATE = Float("rate", 1e-5, 1.0, sampling="log")
UNITS = Int("units", 16, 256, step=16)
OPTIMIZER = Choice("optimizer", ["sgd", "adam", "rmsprop"])
BATCH = Choice("batch", [32, 64, 128, 256])
NAMES = (RATE, UNITS, OPTIMIZER, BATCH)


def draws(declared: HyperParameter, prior: object, count: int = 2000) -> list[Any]:
    priors = Priors({declared.name: prior})
    return [
        declared.from_unit(priors.warp(declared, unit_draw(1, number))) for number in range(count)
    ]


def share(values: list[Any], low: float, high: float) -> float:
    return sum(low <= each <= high for each in values) / len(values)


# --- draws ---


@pytest.mark.parametrize(
    ("declared", "prior", "low", "high"),
    [
        (RATE, Near(1e-3, factor=10), 1e-4, 1e-2),
        (Float("x", 0.0, 1.0), Near(0.5, within=0.1), 0.4, 0.6),
        (Float("x", 0.0, 1.0, step=0.01), Near(0.5, within=0.1), 0.395, 0.605),
        (Int("n", 0, 1000), Near(500, within=100), 400, 600),
        (Int("n", 0, 1000, step=10), Near(500, within=100), 395, 605),
        (Int("n", 1, 10**6, sampling="log"), Near(1000, factor=10), 100, 10_000),
        (Int("n", 1, 2**20, step=2, sampling="log"), Near(2**10, factor=8), 2**7, 2**12),
        (
            Float("x", 1.0, 101.0, sampling="reverse_log"),
            Near(90.0, within=2.0),
            88.0,
            92.0,
        ),
    ],
)
def test_two_of_three_draws_lie_as_near_as_is_said(
    declared: HyperParameter, prior: Near, low: float, high: float
) -> None:
    values = draws(declared, prior)
    assert share(values, low, high) == pytest.approx(0.683, abs=0.06)
    assert all(declared.contains(each) for each in values)


def test_a_prior_is_cut_off_at_the_ends_of_the_range() -> None:
    values = draws(Float("x", 0.0, 1.0), Near(0.0, within=0.1))
    assert share(values, 0.0, 0.1) == pytest.approx(0.683, abs=0.04)
    assert min(values) >= 0.0


def test_options_are_drawn_by_their_weights_and_others_weigh_one() -> None:
    values = draws(OPTIMIZER, {"adam": 8})
    assert values.count("adam") / len(values) == pytest.approx(0.8, abs=0.04)
    assert values.count("sgd") / len(values) == pytest.approx(0.1, abs=0.03)
    flags = draws(Boolean("flag"), {True: 3})
    assert flags.count(True) / len(flags) == pytest.approx(0.75, abs=0.04)


def test_numbers_to_choose_from_may_be_near_one_too() -> None:
    values = draws(BATCH, Near(64, factor=2))
    assert values.count(64) > values.count(128) > values.count(256)
    assert values.count(32) == pytest.approx(values.count(128), rel=0.3)


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from(
        [
            (RATE, Near(1e-3, factor=1.001)),
            (RATE, Near(1.0, factor=1e6)),
            (UNITS, Near(16, within=1e-9)),
            (UNITS, Near(250, within=1e9)),
            (OPTIMIZER, {"adam": 1e9, "sgd": 1e-9}),
            (BATCH, Near(256, within=1e-6)),
        ]
    ),
)
def test_the_warp_never_falls_and_stays_in_the_unit_interval(
    one: float, other: float, case: tuple[HyperParameter, Any]
) -> None:
    declared, prior = case
    priors = Priors({declared.name: prior})
    low, high = (priors.warp(declared, each) for each in sorted((one, other)))
    assert 0.0 <= low <= high <= 1.0
    assert declared.contains(declared.from_unit(low))


def test_without_a_prior_nothing_changes() -> None:
    priors = Priors({"other": Near(3, within=1)})
    assert priors.warp(UNITS, 0.3) == 0.3
    assert priors.warp(Fixed("other", 3), 0.3) == 0.3


@pytest.mark.parametrize("make", [RandomSearchOracle, HyperbandOracle])
def test_every_oracle_that_draws_follows_the_priors(make: Any) -> None:
    oracle: Oracle = make(SCORE, seed=3)
    oracle.priors = Priors({"rate": Near(1e-3, factor=1.01), "optimizer": {"adam": 1e9}})
    answer = oracle.next_answer(History([SpaceGrew(0.0, None, NAMES)]), 0)
    assert isinstance(answer, Suggest)
    assert answer.values["optimizer"] == "adam"
    assert float(str(answer.values["rate"])) == pytest.approx(1e-3, rel=0.1)


def test_names_without_a_prior_are_drawn_as_ever() -> None:
    history = History([SpaceGrew(0.0, None, NAMES)])
    plain, led = (RandomSearchOracle(SCORE, seed=3) for _ in range(2))
    led.priors = Priors({"rate": Near(1e-3, factor=2)})
    one, other = plain.next_answer(history, 0), led.next_answer(history, 0)
    assert isinstance(one, Suggest)
    assert isinstance(other, Suggest)
    assert {**one.values, "rate": other.values["rate"]} == dict(other.values)


# --- what is refused ---


@pytest.mark.parametrize(
    ("arguments", "kind", "match"),
    [
        ({"value": 1}, FatalValueError, "say how near"),
        ({"value": 1, "factor": 2, "within": 3}, FatalValueError, "say how near"),
        ({"value": 1, "factor": 1}, FatalValueError, "factor=1"),
        ({"value": 1, "within": 0}, FatalValueError, "within=0"),
        ({"value": 1, "within": math.nan}, FatalValueError, "within=nan"),
        ({"value": "1", "within": 1}, FatalTypeError, "a number is needed"),
        ({"value": 1, "within": True}, FatalTypeError, "a number is needed"),
    ],
)
def test_near_needs_a_value_and_one_distance(
    arguments: Any, kind: type[Exception], match: str
) -> None:
    with pytest.raises(kind, match=match):
        Near(**arguments)


@pytest.mark.parametrize(
    ("given", "kind", "match"),
    [
        (3, FatalTypeError, "a dict is needed"),
        ({3: Near(1, within=1)}, FatalTypeError, "3 is no name"),
        ({"rate": 3}, FatalTypeError, "aiotune.Near"),
        ({"rate": {}}, FatalTypeError, "aiotune.Near"),
        ({"optimizer": {"adam": 0}}, FatalValueError, "above 0"),
        ({"optimizer": {"adam": -1}}, FatalValueError, "above 0"),
        ({"optimizer": {"adam": math.inf}}, FatalValueError, "finite"),
        ({"optimizer": {"adam": "x"}}, FatalTypeError, "a number is needed"),
    ],
)
def test_priors_of_the_wrong_kind_are_refused_at_once(
    given: Any, kind: type[Exception], match: str
) -> None:
    with pytest.raises(kind, match=match):
        aiotune.RandomSearch(lambda hp: None, "val_loss", priors=given)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"ratte": Near(1e-3, factor=10)}, "'ratte', which is not among"),
        ({"rate": Near(2.0, factor=10)}, "2.0 is not in Float"),
        ({"rate": Near(1e-3, within=10)}, 'it has sampling="log"'),
        ({"units": Near(32, factor=10)}, "factor= is for names with sampling"),
        ({"units": Near(8, within=10)}, "8 is not in Int"),
        ({"units": {32: 1}}, "weights are for a Choice or a Boolean"),
        ({"optimizer": {"adamw": 1}}, "'adamw' is not in Choice"),
        ({"optimizer": Near(3, within=1)}, "give a weight for each option"),
        ({"batch": Near(512, within=1)}, "512 is not in Choice"),
    ],
)
def test_what_the_space_does_not_have_is_refused_before_the_first_trial(
    given: dict[str, object], match: str
) -> None:
    oracle = RandomSearchOracle(SCORE, seed=1)
    oracle.priors = Priors(given)
    with pytest.raises(FatalValueError, match=match):
        oracle.next_answer(History([SpaceGrew(0.0, None, NAMES)]), 0)


async def test_a_search_follows_its_priors(tmp_path: Path) -> None:
    class Drawn(aiotune.RandomSearch):
        def run_trial(self, trial: RunContext, *args: Any, **kwargs: Any) -> Any:
            return float(trial.hyperparameters["units"])

    tuner = Drawn(
        None, max_trials=8, seed=1, executor="inline", directory=tmp_path,
        hyperparameters=HyperParameters([UNITS]), priors={"units": Near(64, within=20)},
    )  # fmt: skip
    result = await tuner.search(verbose=0)
    values = [int(str(trial.values["units"])) for trial in result.trials]
    assert share(values, 16, 128) > 0.9


def test_a_grid_has_no_use_for_them_and_goes_on() -> None:
    oracle = GridSearchOracle(SCORE, seed=1)
    oracle.priors = Priors({"units": Near(64, within=20)})
    answer = oracle.next_answer(History([SpaceGrew(0.0, None, NAMES)]), 0)
    assert isinstance(answer, Suggest)


# --- for models ---

SPACE = Space(
    [
        Choice("kind", ["plain", "deep"]),
        Float("rate", 1e-4, 1.0, sampling="log", conditions=(Condition("kind", ("deep",)),)),
        UNITS,
        BATCH,
        OPTIMIZER,
        Int("odd", 1, 3, conditions=(Condition("kind", ("deep",)),)),
    ]
)
TERM = PriorTerm(
    Encoding(SPACE),
    Priors(
        {
            "rate": Near(1e-2, factor=10),
            "units": Near(64, within=32),
            "batch": {32: 5, 128: 2},
            "optimizer": {"adam": 3},
            "odd": Near(2, within=1),
        }
    ),
)


def columns_of(*points: dict[str, Scalar]) -> np.ndarray[Any, Any]:
    encoding = Encoding(SPACE)
    places = [encoding.places(each, SPACE.active(each)) for each in points]
    return encoding.columns(np.array(places))


DEEP: dict[str, Scalar] = {
    "kind": "deep", "rate": 1e-2, "units": 64, "batch": 32, "optimizer": "adam", "odd": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"rate": 1e-3}, -0.5),
        ({"rate": 1e-4}, -2.0),
        ({"units": 96}, -0.5),
        ({"batch": 128}, math.log(2 / 5)),
        ({"batch": 64}, math.log(1 / 5)),
        ({"optimizer": "sgd"}, math.log(1 / 3)),
        ({"odd": 3}, -0.5),
    ],
)
def test_the_log_density_falls_as_was_believed(
    changed: dict[str, Scalar], difference: float
) -> None:
    best, other = TERM.value(columns_of(DEEP, {**DEEP, **changed}))
    assert other - best == pytest.approx(difference, abs=1e-9)


def test_the_density_has_the_mean_one() -> None:
    places = (np.arange(20_000) + 0.5) / 20_000
    for declared, prior in (
        (Float("x", 0.0, 1.0), Near(0.1, within=0.3)),
        (RATE, Near(1e-5, factor=100)),
    ):
        term = PriorTerm(Encoding(Space([declared])), Priors({declared.name: prior}))
        assert np.exp(term.value(places[:, None])).mean() == pytest.approx(1.0, abs=1e-3)


def test_of_what_is_inactive_nothing_is_believed() -> None:
    plain = {**DEEP, "kind": "plain"}
    others = PriorTerm(
        Encoding(SPACE),
        Priors({"units": Near(64, within=32), "batch": {32: 5, 128: 2}, "optimizer": {"adam": 3}}),
    )
    assert TERM.value(columns_of(plain)) == pytest.approx(others.value(columns_of(plain)))
    _, slope = TERM.slope(columns_of(plain))
    encoding = Encoding(SPACE)
    inactive = [
        encoding.firsts[index] for index in (*encoding.named("rate"), *encoding.named("odd"))
    ]
    assert not slope[:, inactive].any()


def test_behind_a_plain_if_one_half_stands_for_inactive() -> None:
    declared = Float("x", 0.0, 1.0)
    encoding, priors = Encoding(Space([declared])), Priors({"x": Near(0.2, within=0.1)})
    at = np.array([[0.5]])
    assert PriorTerm(encoding, priors, np.array([True])).value(at) == 0.0
    assert PriorTerm(encoding, priors).value(at) < -3.0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**20))
def test_the_slope_is_that_of_the_value(seed: int) -> None:
    chance = np.random.default_rng(seed)
    point = columns_of({**DEEP, "optimizer": str(chance.choice(["sgd", "adam"]))})
    encoding, step = Encoding(SPACE), 1e-6
    for name in ("rate", "units", "batch", "odd"):
        (index,) = encoding.named(name)
        point[0, encoding.firsts[index]] = chance.uniform(0.2, 0.8)
    value, slope = TERM.slope(point)
    assert value == pytest.approx(TERM.value(point))
    for name in ("rate", "units", "batch", "odd"):
        (index,) = encoding.named(name)
        up, down = point.copy(), point.copy()
        up[0, encoding.firsts[index]] += step
        down[0, encoding.firsts[index]] -= step
        by_differences = (TERM.value(up) - TERM.value(down))[0] / (2 * step)
        assert slope[0, encoding.firsts[index]] == pytest.approx(by_differences, rel=1e-3, abs=1e-4)


def test_without_beliefs_the_term_is_empty() -> None:
    assert PriorTerm(Encoding(SPACE), Priors({})).is_empty
    assert not TERM.is_empty
