"""What points must fulfil and what must come of them: the rules, in oracles, and in whole searches."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import aiotune
from aiotune import AtLeast, AtMost, EndReason, HyperParameters, Objective
from aiotune.constraints import Constraint, as_constraint, breach_of, missing_of
from aiotune.errors import FatalError, FatalRuntimeError, FatalTypeError, FatalValueError
from aiotune.executors.context import RunContext
from aiotune.history import History
from aiotune.oracles.base import Exhausted, Oracle, Suggest
from aiotune.oracles.grid_search import GridSearchOracle
from aiotune.oracles.hyperband import HyperbandOracle
from aiotune.oracles.random_search import RandomSearchOracle
from aiotune.space import Choice, Condition, Float, HyperParameter, Int, Space, Values
from aiotune.trial import FailureKind, TrialState
from tests.support import simulation
from tests.support.simulated import Simulation

SCORE = Objective("score", "min")
UNITS, LAYERS = Int("units", 1, 8), Int("layers", 1, 8)
KIND = Choice("kind", ["plain", "deep"])
DEPTH = Int("depth", 1, 4, conditions=(Condition("kind", ("deep",)),))


def allows(rule: Callable[..., Any], values: Values, *space: HyperParameter) -> bool:
    return Constraint([rule]).allows(Space(space or (UNITS, LAYERS, KIND, DEPTH)), values)


# --- rules ---


def test_a_rule_sees_the_point_as_hyperparameters() -> None:
    def rule(hp: HyperParameters) -> bool:
        return hp["units"] * hp.get("layers") <= 6

    assert allows(rule, {"units": 2, "layers": 3})
    assert not allows(rule, {"units": 3, "layers": 3})


def test_every_rule_must_hold() -> None:
    both = Constraint([lambda hp: hp["units"] > 2, lambda hp: hp["units"] < 5])
    assert [both.allows([UNITS], {"units": each}) for each in (2, 3, 5)] == [False, True, False]


def test_a_name_without_a_value_has_its_default() -> None:
    assert allows(lambda hp: hp["layers"] == 1, {"units": 2})


def test_numpy_booleans_are_answers() -> None:
    assert allows(lambda hp: as_numpy(hp["units"] > 1), {"units": 2})


def as_numpy(value: bool) -> Any:
    import numpy as np

    return np.bool_(value)


def test_a_rule_can_ask_whether_a_name_is_there() -> None:
    plain: Values = {"kind": "plain"}
    assert allows(lambda hp: "depth" not in hp and "nothing" not in hp, plain)
    assert allows(lambda hp: hp.get("depth", 0) == 0 and hp.get("nothing", 7) == 7, plain)
    assert allows(lambda hp: hp.get("depth", 0) == 3, {"kind": "deep", "depth": 3})


@pytest.mark.parametrize(
    ("rule", "kind", "match"),
    [
        (lambda hp: hp["unitz"] > 1, FatalRuntimeError, "'unitz'.*declare the name in hyperparam"),
        (lambda hp: hp.get("unitz") > 1, FatalRuntimeError, r"hp.get\('unitz', default\)"),
        (lambda hp: hp["depth"] > 1, FatalRuntimeError, "'depth', which is inactive at .*plain"),
        (lambda hp: 1 / 0, FatalRuntimeError, "constraint= failed at .*ZeroDivisionError"),
        (lambda hp: {}["key"], FatalRuntimeError, "KeyError: 'key'"),
        (lambda hp: None, FatalTypeError, "returned None at .* must return True or False"),
        (lambda hp: 1, FatalTypeError, "returned 1 at"),
    ],
)
def test_a_rule_that_gives_no_answer_is_an_error(
    rule: Callable[..., Any], kind: type[Exception], match: str
) -> None:
    with pytest.raises(kind, match=match):
        allows(rule, {"units": 2, "kind": "plain"})


def test_errors_name_the_rule() -> None:
    def small(hp: HyperParameters) -> bool:
        raise ValueError("no")

    with pytest.raises(FatalRuntimeError, match="constraint=small failed"):
        allows(small, {"units": 2})


def test_of_a_point_that_is_known_an_absent_name_refuses_nothing() -> None:
    rules = [
        lambda hp: hp["depth"] > 2,
        lambda hp: hp.values["depth"] > 2,
        lambda hp: hp["units"] > 1,
    ]
    assert Constraint(rules).allows_met([UNITS], {"units": 2})
    assert not Constraint(rules).allows_met([UNITS], {"units": 1})


# --- what a user gives ---


def test_rules_and_bounds_are_told_apart() -> None:
    constraint, bounds = as_constraint([lambda hp: True, AtMost("size", 3), AtLeast("recall", 0.9)])
    assert constraint is not None
    assert bounds == (AtMost("size", 3), AtLeast("recall", 0.9))
    assert as_constraint(None) == (None, ())
    assert as_constraint(AtMost("size", 3)) == (None, (AtMost("size", 3),))


async def asynchronous(hp: HyperParameters) -> bool:
    return True


@pytest.mark.parametrize(
    ("given", "kind", "match"),
    [
        ("units < 3", FatalTypeError, "a function of the hyperparameters"),
        ([3], FatalTypeError, "a function of the hyperparameters"),
        (AtMost, FatalTypeError, "a function of the hyperparameters"),
        (lambda: True, FatalTypeError, "must take one argument"),
        (lambda a, b: True, FatalTypeError, "must take one argument"),
        (asynchronous, FatalTypeError, "constraint=asynchronous is async"),
        ([AtMost("x", 1), AtLeast("x", 2)], FatalValueError, "at least 2 and at most 1"),
    ],
)
def test_anything_else_is_refused(given: object, kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        as_constraint(given)
    with pytest.raises(kind, match=match):
        aiotune.RandomSearch(lambda hp: None, "val_loss", constraint=given)


@pytest.mark.parametrize("kind", [AtMost, AtLeast])
@pytest.mark.parametrize(
    ("name", "limit", "error"),
    [
        ("", 1, FatalTypeError),
        ("x", "1", FatalTypeError),
        ("x", True, FatalTypeError),
        ("x", math.nan, ValueError),
    ],
)
def test_a_bound_needs_a_name_and_a_number(
    kind: type[Any], name: str, limit: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        kind(name, limit)


@pytest.mark.parametrize(
    ("bound", "value", "breach"),
    [
        (AtMost("latency", 0.02), 0.031, "latency = 0.031, but at most 0.02 is allowed"),
        (AtMost("latency", 0.02), 0.02, None),
        (AtMost("size", 1_000_000), 1_234_567, "size = 1234567, but at most 1000000 is allowed"),
        (AtMost("size", 3), math.nan, "size = nan, but at most 3 is allowed"),
        (AtMost("size", 3), math.inf, "size = inf, but at most 3 is allowed"),
        (AtLeast("recall", 0.9), 0.5, "recall = 0.5, but at least 0.9 is allowed"),
        (AtLeast("recall", 0.9), 0.9, None),
    ],
)
def test_a_breach_is_told_in_words(bound: Any, value: float, breach: str | None) -> None:
    assert breach_of([bound], {"other": 1.0, bound.name: value}) == breach
    assert breach_of([bound], {"other": 1.0}) is None


def test_a_metric_that_is_not_there_is_told_with_a_hint() -> None:
    assert missing_of([AtMost("size", 3)], {"size": 1.0}) is None
    message = missing_of([AtMost("val_recal", 3)], {"val_recall": 1.0, "loss": 2.0})
    assert message is not None
    assert "'val_recal'" in message
    assert "Did you mean 'val_recall'?" in message


# --- oracles ---


def program(hp: HyperParameters) -> float:
    """Names that depend on values, declared or behind a plain `if`."""
    total = hp.Int("units", 1, 4) * hp.Int("layers", 1, 4)
    with hp.conditional_scope("units", [2, 3]):
        total += hp.Int("extra", 1, 3) or 0
    if hp.Boolean("wide"):
        total += hp.Int("width", 1, 3)
    return float(total)


RULES: dict[str, Callable[[HyperParameters], bool]] = {
    "product": lambda hp: hp["units"] * hp["layers"] <= 5,
    "sparse": lambda hp: hp["units"] == hp["layers"],
    "conditional": lambda hp: hp.get("extra", 0) != 2 and hp["units"] < 3,
    "plain if": lambda hp: hp.get("width", 2) == 2,
}


@cache
def every_point() -> list[Values]:
    """Return the points that the program can reach."""
    points: dict[str, Values] = {}
    grid = Simulation(GridSearchOracle(SCORE, seed=0), program).run(10_000)
    for point in grid.points:
        points[str(point)] = point
    return list(points.values())


def random_oracle() -> Oracle:
    return RandomSearchOracle(SCORE, max_trials=None, seed=3)


@pytest.mark.parametrize("make", [random_oracle, lambda: GridSearchOracle(SCORE, seed=3)])
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("slots", [1, 3])
def test_every_allowed_point_is_tried_and_no_other(
    make: Callable[[], Oracle], name: str, slots: int
) -> None:
    """Names behind a plain `if` show in the run only: some points may be refused as late as that."""
    oracle, rule = make(), RULES[name]
    oracle.constraint = Constraint([rule])
    chance = Random(7)
    search = Simulation(
        oracle, program, slots=slots, pick=lambda flying: chance.randrange(len(flying))
    ).run(10_000)
    assert search.is_exhausted
    expected = [
        point for point in every_point() if rule(HyperParameters(_met_by(point), dict(point)))
    ]
    assert {*map(_key, expected)} <= {*map(_key, search.points)}
    if name != "plain if":
        assert sorted(map(_key, search.points)) == sorted(map(_key, expected))


def _met_by(point: Values) -> list[HyperParameter]:
    hp = HyperParameters(values=dict(point))
    program(hp)
    return list(hp.met)


def _key(point: Values) -> str:
    return str(sorted(point.items()))


def late_program(hp: HyperParameters) -> None:
    """Two names known beforehand, one that is met in the run."""
    if hp.Int("units", 1, 4) > 2:
        hp.Int("late", 1, 2)
    hp.Int("layers", 1, 4)


@hypothesis_settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**20), st.integers(1, 4), st.integers(2, 16), st.booleans())
def test_no_refused_point_is_proposed(seed: int, slots: int, most: int, is_grid: bool) -> None:
    def rule(hp: HyperParameters) -> bool:
        return hp["units"] * hp["layers"] < most

    hp = HyperParameters()
    hp.Int("units", 1, 4)
    hp.Int("layers", 1, 4)
    oracle: Oracle = (
        GridSearchOracle(SCORE, seed=seed, hyperparameters=hp)
        if is_grid
        else RandomSearchOracle(SCORE, max_trials=None, seed=seed, hyperparameters=hp)
    )
    oracle.constraint = Constraint([rule])
    search = simulation.Simulation(oracle, late_program, Random(seed), slots)
    trials = list(search.run().trials.values())
    assert all(
        rule(HyperParameters(trial.space, dict(trial.values)))
        for trial in trials
        if trial.state is not TrialState.DUPLICATE
    )
    known = {
        (trial.values["units"], trial.values["layers"])
        for trial in trials
        if trial.state is not TrialState.DUPLICATE
    }
    assert known == {(u, n) for u in range(1, 5) for n in range(1, 5) if u * n < most}


def test_hyperband_draws_allowed_points_only() -> None:
    hp = HyperParameters()
    hp.Int("units", 1, 100)
    oracle = HyperbandOracle(SCORE, max_epochs=9, seed=1, hyperparameters=hp)
    oracle.constraint = Constraint([lambda hp: hp["units"] % 7 == 0])
    answer = oracle.ask(searched(Int("units", 1, 100)), 0)
    assert isinstance(answer, Suggest)
    assert answer.budget is not None
    assert int(str(answer.values["units"])) % 7 == 0


def flat(hp: HyperParameters) -> float:
    return hp.Float("x", 0.0, 1.0) + hp.Float("y", 0.0, 1.0)


def test_a_resumed_search_goes_on_as_the_uninterrupted_one_would() -> None:
    def made(facts: list[Any]) -> Simulation:
        oracle = RandomSearchOracle(SCORE, max_trials=None, seed=5)
        oracle.constraint = Constraint([lambda hp: hp["x"] + hp["y"] < 0.3])
        return Simulation(oracle, flat, facts=facts)

    whole = made([]).run(12)
    for cut in range(2, len(whole.facts), 7):
        assert made(whole.facts[:cut]).run(12).points == whole.points


@pytest.mark.parametrize(
    "oracle",
    [RandomSearchOracle(SCORE, max_trials=None, seed=5), GridSearchOracle(SCORE, seed=5)],
    ids=["random", "grid"],
)
def test_a_constraint_that_refuses_all_points_ends_the_search_and_says_so(oracle: Oracle) -> None:
    space = [Float("x", 0, 1)]
    oracle.hyperparameters = HyperParameters(space)
    oracle.constraint = Constraint([lambda hp: False])
    answer = oracle.ask(searched(*space), 0)
    assert isinstance(answer, Exhausted)
    assert "constraint=" in (answer.message or "")


def test_a_small_space_that_is_used_up_says_how_much_was_allowed() -> None:
    oracle = RandomSearchOracle(SCORE, max_trials=None, seed=5)
    oracle.constraint = Constraint([lambda hp: hp["units"] > 6])
    oracle.hyperparameters = HyperParameters([UNITS])
    search = Simulation(oracle, lambda hp: hp.Int("units", 1, 8)).run(100)
    assert sorted(point["units"] for point in search.points) == [7, 8]
    answer = oracle.ask(search.history, 2)
    assert answer == Exhausted("constraint= allows 2 of 8 points, and all of them were tried")


def searched(*space: HyperParameter) -> History:
    from aiotune.events import SpaceGrew

    return History([SpaceGrew(0.0, None, space)])


# --- whole searches ---


class Product(aiotune.RandomSearch):
    """Returns the product of two names that are known beforehand, and of one that is not."""

    def run_trial(self, trial: RunContext, *args: Any, **kwargs: Any) -> Any:
        hp = trial.hyperparameters
        product = hp.Int("units", 1, 8) * hp.Int("layers", 1, 8) * hp.Int("late", 1, 2)
        if product % 5 == 4:
            trial.report(0, loss=-product, size=product)
            return None
        return {"loss": -product, "size": product}


def product(tmp_path: Path, **options: Any) -> Product:
    hp = HyperParameters([UNITS, LAYERS])
    defaults = {"max_trials": 12, "seed": 2, "hyperparameters": hp, "executor": "inline"}
    return Product(None, "loss", **{**defaults, **options}, directory=tmp_path)


async def test_a_search_tries_allowed_points_only(tmp_path: Path) -> None:
    result = await product(tmp_path, constraint=lambda hp: hp["units"] * hp["layers"] <= 12).search(
        verbose=0
    )
    assert len(result.trials) == 12
    assert all(each.values["units"] * each.values["layers"] <= 12 for each in result.trials)
    assert {each.state for each in result.trials} == {TrialState.COMPLETED}


async def test_a_name_that_a_run_meets_first_may_make_its_point_infeasible(tmp_path: Path) -> None:
    result = await product(tmp_path, constraint=lambda hp: hp.get("late", 1) == 1).search(verbose=0)
    first = {trial.values["late"]: trial for trial in reversed(result.trials)}
    for late, trial in first.items():
        refused = late == 2
        assert (trial.state is TrialState.INFEASIBLE) == refused
        assert (trial.failure is FailureKind.INFEASIBLE) == refused
        assert (trial.score is None) == refused
    later = result.trials[1:]  # the name is known from the second on
    assert all(trial.values["late"] == 1 for trial in later)


async def test_what_an_oracle_of_ones_own_proposes_is_checked_when_its_names_are_known(
    tmp_path: Path,
) -> None:
    class Ladder(Oracle):
        def populate_space(self, trial_id: str) -> dict[str, Any]:
            return {"status": "RUNNING", "values": {"units": int(trial_id) + 1, "layers": 1}}

    class Tuned(aiotune.Tuner):
        run_trial = Product.run_trial

    tuner = Tuned(
        Ladder("loss", max_trials=5, seed=1),
        executor="inline",
        constraint=lambda hp: hp["units"] != 3,
        directory=tmp_path,
    )
    result = await tuner.search(verbose=0)
    states = [trial.state for trial in result.trials]
    assert states == [
        TrialState.INFEASIBLE if units == 3 else TrialState.COMPLETED for units in range(1, 6)
    ]
    assert result.trials[2].message == "the constraint refuses its values"
    assert not result.trials[2].final_metrics


async def test_a_trial_beyond_a_bound_keeps_its_metrics_and_has_no_score(tmp_path: Path) -> None:
    tuner = product(tmp_path, constraint=AtMost("size", 20))
    result = await tuner.search(verbose=0)
    over = [each for each in result.trials if each.final_metrics["size"] > 20]
    assert over
    for each in result.trials:
        assert (each.state is TrialState.INFEASIBLE) == (each in over)
    worst = over[0]
    size = worst.final_metrics["size"]
    assert worst.score is None
    assert worst.failure is FailureKind.INFEASIBLE
    assert worst.message == f"size = {size:.0f}, but at most 20 is allowed"
    assert not any(each in over for each in result.best_trials(12))
    assert result.best_trial is not None


async def test_a_bound_looks_at_the_mean_of_the_repeats(tmp_path: Path) -> None:
    class Noisy(aiotune.RandomSearch):
        def run_trial(self, trial: RunContext, *args: Any, **kwargs: Any) -> Any:
            x = trial.hyperparameters.Int("x", 1, 2)
            return {"loss": 0.0, "size": 2.0 * x * (trial.assignment.repeat + 1)}

    tuner = Noisy(
        None, "loss", executor="inline", executions_per_trial=2, seed=1, directory=tmp_path,
        constraint=AtMost("size", 3.5),
    )  # fmt: skip
    result = await tuner.search(verbose=0)
    found = {each.values["x"]: (each.state, each.final_metrics["size"]) for each in result.trials}
    assert found == {1: (TrialState.COMPLETED, 3.0), 2: (TrialState.INFEASIBLE, 6.0)}


async def test_a_bound_on_a_metric_that_is_not_there_ends_the_search(tmp_path: Path) -> None:
    tuner = product(tmp_path, constraint=AtMost("sice", 20))
    with pytest.raises(FatalValueError, match=r"bounds 'sice'.*Did you mean 'size'\?"):
        await tuner.search(verbose=0)
    again = await product(tmp_path, constraint=AtMost("size", 20)).search(verbose=0)
    assert len(again.trials) == 12  # the run is made again


async def test_a_target_counts_within_the_bounds_only(tmp_path: Path) -> None:
    result = await product(
        tmp_path,
        max_trials=64,
        constraint=AtMost("size", 20),
        limits=aiotune.Limits(target=-16),
    ).search(verbose=0)
    assert result.reason is EndReason.TARGET
    assert result.best_score is not None
    assert -20 <= result.best_score <= -16


async def test_a_constraint_that_cannot_be_answered_ends_the_search_before_the_first_trial(
    tmp_path: Path,
) -> None:
    with pytest.raises(FatalError, match=r"'late'.*declare the name"):
        await product(tmp_path, constraint=lambda hp: hp["late"] == 1).search(verbose=0)


async def test_hyperband_ends_trials_beyond_a_bound_as_infeasible(tmp_path: Path) -> None:
    class Budgeted(aiotune.Hyperband):
        def run_trial(self, trial: RunContext, *args: Any, **kwargs: Any) -> Any:
            x = trial.hyperparameters.Int("x", 1, 100)
            assert trial.budget is not None
            return {"loss": 1.0 / (x * trial.budget.epochs), "size": x}

    tuner = Budgeted(
        None, "loss", max_epochs=9, seed=4, directory=tmp_path, executor="inline",
        constraint=[AtMost("size", 60), lambda hp: hp.get("x", 2) % 2 == 0],
    )  # fmt: skip
    result = await tuner.search(verbose=0)
    beyond = [each for each in result.trials if int(str(each.values["x"])) > 60]
    assert beyond
    assert all(each.state is TrialState.INFEASIBLE and each.score is None for each in beyond)
    assert result.best_trial is not None
    assert result.best_trial not in beyond
    assert all(int(str(each.values["x"])) % 2 == 0 for each in result.trials[1:])
