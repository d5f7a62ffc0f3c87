"""BayesianOptimizationOracle: what it finds, that it repeats nothing, that all follows from the facts."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
import pytest

import aiotune
from aiotune.constraints import Constraint
from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.events import EndReason, TrialCreated
from aiotune.history import History
from aiotune.hyperparameters import HyperParameters
from aiotune.learning.priors import Near, Priors
from aiotune.objective import Objective
from aiotune.oracles.base import Oracle, Suggest
from aiotune.oracles.bayesian import BayesianOptimizationOracle
from aiotune.oracles.random_search import RandomSearchOracle
from aiotune.space import point_key
from aiotune.trial import TrialState
from tests.support.fake_executor import FakeExecutor, declaring
from tests.support.searches import SearchOfFakes
from tests.support.simulated import Program, Simulation

SCORE = Objective("score", "min")


def oracle(max_trials: int | None = 40, seed: int = 0, **options: object) -> Oracle:
    return BayesianOptimizationOracle(SCORE, max_trials, seed=seed, **options)  # type: ignore[arg-type]


def bowl(hp: HyperParameters) -> float:
    rate = hp.Float("rate", 1e-4, 1.0, sampling="log")
    return (hp.Float("x", -1, 1) - 0.3) ** 2 + (math.log10(rate) + 2.3) ** 2 / 4  # type: ignore[no-any-return]


def branin(hp: HyperParameters) -> float:
    """Three minima of 0.3979."""
    x, y = hp.Float("x", -5, 10), hp.Float("y", 0, 15)
    bent = y - 5.1 / (4 * math.pi**2) * x * x + 5 / math.pi * x - 6
    return bent**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10  # type: ignore[no-any-return]


def mixed(hp: HyperParameters) -> float:
    """Least, 0, with kind "c"; the best of the others is 0.1."""
    kind = hp.Choice("kind", ["a", "b", "c", "d"])
    floor = {"a": 0.3, "b": 0.1, "c": 0.0, "d": 0.5}[kind]
    middle = {"a": 0.2, "b": 0.5, "c": 0.8, "d": 0.4}[kind]
    near = (hp.Float("x", 0, 1) - middle) ** 2 + (hp.Float("y", 0, 1) - 0.35) ** 2
    return floor + near + 0.01 * (hp.Int("k", 1, 10) - 7) ** 2  # type: ignore[no-any-return]


def conditional(hp: HyperParameters) -> float:
    """Branches by `if` and a loop; least, 0, in the deepest one."""
    kind = hp.Choice("kind", ["flat", "loop"])
    if kind == "flat":
        return 0.1 + (hp.Float("height", 0, 1) - 0.5) ** 2  # type: ignore[no-any-return]
    layers = hp.Int("layers", 1, 3)
    widths = [hp.Float(f"width_{index}", 0, 1) for index in range(layers)]
    return 0.05 * (3 - layers) + sum((width - 0.4) ** 2 for width in widths)  # type: ignore[no-any-return]


def four(hp: HyperParameters) -> float:
    return float(hp.Choice("a", [1, 2, 3, 4]))


def small(hp: HyperParameters) -> float:
    """2 + 3 + 9 points, few names known beforehand."""
    if hp.Choice("kind", ["plain", "deep"]) == "plain":
        return float(hp.Boolean("bias"))
    return float(sum(hp.Int(f"units_{layer}", 1, 3) for layer in range(hp.Int("layers", 1, 2))))


def declare_x(hp: HyperParameters) -> float:
    return float(hp.Float("x", 0, 1))


def distinct(search: Simulation) -> int:
    return len({point_key(point) for point in search.points})


# --- what it finds ---


@pytest.mark.parametrize(
    ("program", "optimum", "share", "beta"),
    [
        (bowl, 0.0, 0.05, 2.6),
        (branin, 0.397887, 0.1, 2.6),
        (mixed, 0.0, 0.25, 2.6),
        (conditional, 0.0, 0.25, 2.6),
        (branin, 0.397887, 0.1, None),
        (mixed, 0.0, 0.25, None),
    ],
)
def test_it_finds_more_than_random_search(
    program: Program, optimum: float, share: float, beta: float | None
) -> None:
    drawn = median(
        Simulation(RandomSearchOracle(SCORE, 40, seed=seed), program).run(40).best
        for seed in range(9)
    )
    learnt = [Simulation(oracle(40, seed, beta=beta), program).run(40) for seed in range(3)]
    assert median(each.best for each in learnt) - optimum < share * (drawn - optimum)
    assert all(distinct(each) == 40 for each in learnt)


def test_a_maximum_is_found_as_well() -> None:
    higher = BayesianOptimizationOracle(Objective("score", "max"), 25, seed=1)
    search = Simulation(higher, lambda hp: -bowl(hp)).run(25)
    assert max(trial.score for trial in search.trials if trial.score is not None) > -1e-3


@pytest.mark.parametrize("slots", [1, 3])
def test_every_value_of_a_choice_is_tried_once_then_it_ends(slots: int) -> None:
    search = Simulation(oracle(50, num_initial_points=2), four, slots=slots).run(50)
    assert sorted(point["a"] for point in search.points) == [1, 2, 3, 4]  # type: ignore[type-var]
    assert search.is_exhausted


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("has_discovery", [True, False])
def test_a_finite_space_is_exhausted_exactly(slots: int, has_discovery: bool) -> None:
    search = Simulation(oracle(None), small, slots=slots, has_discovery=has_discovery).run(99)
    assert distinct(search) == len(search.points) == 2 + 3 + 9
    assert search.is_exhausted


def test_of_a_large_finite_space_no_point_comes_twice() -> None:
    def grid(hp: HyperParameters) -> float:
        return float(sum((hp.Int(name, 0, 7) - 3) ** 2 for name in ("a", "b", "c")))

    search = Simulation(oracle(60, num_initial_points=5), grid).run(60)
    assert distinct(search) == len(search.points) == 60
    assert search.best == 0.0


# --- trials side by side ---


def test_eight_at_a_time_are_distinct_and_spread_and_find_the_minimum() -> None:
    search = Simulation(oracle(48), bowl, slots=8, pick=lambda ids: len(ids) * 5 % 7 % len(ids))
    search.run(48)
    assert distinct(search) == 48
    assert search.best < 1e-2

    asking = Simulation(oracle(None, seed=3, num_initial_points=12), bowl, slots=12).run(12)
    asking.slots = 8
    asking.ask(20)
    places = np.array(
        [
            [each.to_unit(trial.values[each.name]) for each in asking.history.space]
            for trial in asking.history.trials_in_flight()
        ]
    )
    assert len(places) == 8
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)[np.triu_indices(8, 1)]
    assert apart.min() > 0.01


# --- failures ---


def test_failed_trials_teach_it_to_keep_away() -> None:
    def hollow(hp: HyperParameters) -> float:
        x, y = hp.Float("x", 0, 1), hp.Float("y", 0, 1)
        if x > 0.6:
            raise MemoryError
        return math.nan if y > 0.9 else (x - 0.4) ** 2 + (y - 0.4) ** 2

    search = Simulation(oracle(40), hollow).run(40)
    failed = [trial.number for trial in search.trials if trial.state is TrialState.FAILED]
    assert failed
    assert sum(number >= 10 for number in failed) <= 4  # of 30; at random it would be 14
    assert search.best < 1e-2


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_trials_that_fail_by_chance_do_not_keep_it_from_looking(seed: int) -> None:
    def flaky(hp: HyperParameters) -> float:
        value = branin(hp)
        calls.append(value)
        return math.nan if len(calls) % 5 == 3 else value

    calls: list[float] = []
    search = Simulation(oracle(50, seed), flaky).run(50)
    failed = [trial for trial in search.trials if trial.state is TrialState.FAILED]
    assert len(failed) == 10
    assert search.best < 0.397887 + 0.1  # random search: above 1


def test_failing_trials_do_not_hold_the_initial_phase() -> None:
    def failing_at_first(hp: HyperParameters) -> float:
        x = hp.Float("x", 0, 1)
        calls.append(x)
        if len(calls) <= 6:
            raise MemoryError
        return float(x)

    calls: list[float] = []
    search = Simulation(oracle(12, num_initial_points=5), failing_at_first, has_discovery=False)
    search.run(12)
    drawn = Simulation(RandomSearchOracle(SCORE, 12, seed=0), declare_x, has_discovery=False)
    # The seventh is drawn, for no score is known. Then the model is asked, which six failures have taught to
    # stay near the one success: it goes down from there, by little.
    assert search.points[:7] == drawn.run(7).points
    first, *later = (trial.score for trial in search.trials[6:])
    assert first is not None
    assert all(score is not None and abs(score - first) < 0.1 for score in later)
    assert search.best < first
    assert len(search.points) == 12


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, 3.0, 1.7e308])
def test_scores_that_say_nothing_do_not_end_it(score: float) -> None:
    def mute(hp: HyperParameters) -> float:
        hp.Choice("c", ["a", "b"])
        hp.Float("x", 0, 1)
        return score

    search = Simulation(oracle(16, num_initial_points=3), mute, slots=2).run(16)
    assert distinct(search) == 16


def test_nothing_ever_succeeds() -> None:
    def broken(hp: HyperParameters) -> float:
        hp.Float("x", 0, 1)
        raise MemoryError

    assert distinct(Simulation(oracle(15), broken).run(15)) == 15


# --- what the user knows beforehand ---


def square(hp: HyperParameters) -> float:
    """Least, 0, at (0.6, 0.4)."""
    return (hp.Float("x", 0, 1) - 0.6) ** 2 + (hp.Float("y", 0, 1) - 0.4) ** 2  # type: ignore[no-any-return]


@pytest.mark.parametrize("slots", [1, 3])
def test_a_constraint_is_never_broken_and_the_best_at_its_border_is_found(slots: int) -> None:
    def rule(hp: HyperParameters) -> bool:
        return bool(hp.get("x") + hp.get("y") <= 0.6)

    limited = oracle(24)
    limited.constraint = Constraint([rule])
    search = Simulation(limited, square, slots=slots).run(24)
    assert distinct(search) == 24
    assert all(point["x"] + point["y"] <= 0.6 for point in search.points)  # type: ignore[operator]
    assert search.best < 0.081  # 0.08 at (0.4, 0.2)


def test_early_trials_are_where_good_values_are_believed_to_lie() -> None:
    def indifferent(hp: HyperParameters) -> float:
        hp.Float("x", 0, 1)
        return 1.0

    def off(priors: Priors | None) -> float:
        believing = oracle(12, num_initial_points=3)
        believing.priors = priors
        found = Simulation(believing, indifferent).run(12).points
        return float(np.mean([abs(point["x"] - 0.8) for point in found]))  # type: ignore[operator]

    assert off(Priors({"x": Near(0.8, within=0.05)})) < 0.5 * off(None)


def test_a_wrong_belief_is_overcome() -> None:
    believing = oracle(30)
    believing.priors = Priors({"x": Near(0.1, within=0.1)})
    assert Simulation(believing, square).run(30).best < 1e-3


def test_earlier_searches_make_the_first_trials_good() -> None:
    def elsewhere(hp: HyperParameters) -> float:
        """Another size of scores, and a minimum that is near."""
        x, y = hp.Float("x", 0, 1), hp.Float("y", 0, 1)
        return 500.0 + 80.0 * ((x - 0.65) ** 2 + (y - 0.35) ** 2)  # type: ignore[no-any-return]

    def best(seed: int, *, is_taught: bool) -> float:
        learning = oracle(6, seed)
        if is_taught:
            earlier = Simulation(RandomSearchOracle(SCORE, 30, seed=seed + 10), elsewhere).run(30)
            learning.earlier = (tuple(earlier.trials),)
        return Simulation(learning, square).run(6).best

    taught = median(best(seed, is_taught=True) for seed in range(3))
    assert taught < 0.3 * median(best(seed, is_taught=False) for seed in range(3))


async def test_trials_of_several_runs_are_learnt_from(tmp_path: Path) -> None:
    """Scores are noisy; what their runs tell of the noise is used."""

    class Noisy(aiotune.BayesianOptimization):
        async def run_trial(self, trial: object) -> float:
            hp = trial.hyperparameters  # type: ignore[attr-defined]
            x = hp.Float("x", -2, 2)
            calls.append(x)
            return (x - 1.5) ** 2 + 0.1 * math.sin(1000.0 * x + 17.0 * len(calls))  # type: ignore[no-any-return]

    calls: list[float] = []
    tuner = Noisy(
        max_trials=14, seed=0, directory=tmp_path, executions_per_trial=3, executor="inline"
    )
    result = await tuner.search(verbose=0)
    assert len(calls) == 14 * 3
    assert all(trial.standard_error is not None for trial in result.trials)
    xs = [trial.values["x"] for trial in result.trials]
    assert len(set(xs)) == 14
    assert np.median([abs(x - 1.5) for x in xs[7:]]) < 0.4  # type: ignore[operator]


# --- the space ---


def test_names_that_are_met_in_mid_search_are_taken_up() -> None:
    def late(hp: HyperParameters) -> float:
        x = hp.Float("x", 0, 1)
        calls.append(x)
        y = hp.Float("y", 0, 1) if len(calls) > 12 else 0.0
        z = hp.Choice("z", ["a", "b"]) if len(calls) > 14 else "a"
        return (x - 0.5) ** 2 + (y - 0.5) ** 2 + (z == "a")  # type: ignore[no-any-return]

    calls: list[float] = []
    search = Simulation(oracle(40, num_initial_points=6), late, slots=3).run(40)
    assert {"x", "y", "z"} == set(search.points[-1])
    assert sum(point["z"] == "b" for point in search.points[-10:]) > 5
    assert min(trial.score for trial in search.trials[13:] if trial.score is not None) < 0.01


def test_only_given_names_are_tuned_when_new_entries_are_not() -> None:
    given = HyperParameters()
    given.Float("x", 0, 1)

    def program(hp: HyperParameters) -> float:
        x = hp.Float("x", 0, 1)
        return (x - 0.5) ** 2 + hp.Float("y", 0, 1, default=0.25)  # type: ignore[no-any-return]

    search = Simulation(
        oracle(15, hyperparameters=given, tune_new_entries=False), program, slots=2
    ).run(15)
    assert {point["y"] for point in search.points} == {0.25}
    assert search.best < 0.26


def test_a_space_of_one_point_and_one_of_two_hundred_names() -> None:
    assert len(Simulation(oracle(9), lambda hp: float(hp.Fixed("a", 1))).run(9).points) == 1

    def wide(hp: HyperParameters) -> float:
        floats = [hp.Float(f"x{index}", 0, 1) for index in range(100)]
        kinds = [hp.Choice(f"k{index}", ["a", "b", "c"]) for index in range(50)]
        counts = [hp.Int(f"i{index}", 0, 9) for index in range(50)]
        return float(sum(floats) + kinds.count("a") + sum(counts))

    search = Simulation(oracle(13, num_initial_points=10), wide).run(13)
    assert distinct(search) == 13


# --- the same facts, the same answers ---


def test_the_initial_points_are_those_of_random_search() -> None:
    drawn = Simulation(RandomSearchOracle(SCORE, 10, seed=5), bowl).run(10).points
    learnt = Simulation(oracle(None, 5, num_initial_points=7), bowl).run(10).points
    assert learnt[:7] == drawn[:7]
    assert learnt[7] != drawn[7]


@pytest.mark.parametrize(
    ("max_trials", "names", "initial"),
    [(10, 6, 3), (20, 6, 6), (None, 6, 6), (100, 2, 6), (None, 1, 3)],
)
def test_how_many_initial_points_there_are(
    max_trials: int | None, names: int, initial: int
) -> None:
    def program(hp: HyperParameters) -> float:
        hp.Fixed("fixed", 1)
        return float(sum(hp.Float(f"x{index}", 0, 1) for index in range(names)))

    drawn = Simulation(RandomSearchOracle(SCORE, None, seed=0), program).run(initial + 1).points
    learnt = Simulation(oracle(max_trials), program).run(initial + 1).points
    shared = [one == other for one, other in zip(drawn, learnt, strict=True)]
    assert shared == [True] * initial + [False]


@pytest.mark.parametrize(("program", "slots", "trials"), [(conditional, 3, 25), (mixed, 1, 64)])
def test_what_it_proposes_follows_from_the_facts_alone(
    program: Program, slots: int, trials: int
) -> None:
    """Asked at any time, an oracle that is new answers as the one that was there from the start."""
    search = Simulation(oracle(None, num_initial_points=5), program, slots=slots).run(trials)
    created = [
        (index, fact)
        for index, fact in enumerate(search.facts)
        if isinstance(fact, TrialCreated) and fact.number % 4 == 3
    ]
    for index, fact in created:
        answer = oracle(None, num_initial_points=5).ask(History(search.facts[:index]), fact.number)
        assert answer == Suggest(fact.values, stream=fact.stream)


async def test_a_search_that_is_cut_anywhere_goes_on_as_it_would_have(tmp_path: Path) -> None:
    def declare(hp: HyperParameters) -> None:
        hp.Choice("kind", ["a", "b"])
        hp.Float("x", 0, 1)

    def score(values: dict[str, object]) -> float:
        assert isinstance(values["x"], float)
        return (values["x"] - 0.7) ** 2 + (values["kind"] == "a")

    def fresh() -> Oracle:
        return oracle(9, seed=2, num_initial_points=4)

    whole = SearchOfFakes(fresh(), FakeExecutor(declaring(declare, score)), tmp_path)
    assert (await whole.run()).reason is EndReason.MAX_TRIALS
    points = [dict(trial.values) for trial in whole.history.trials.values()]
    async for cut, history in whole.resumed_at_every_cut(fresh):
        found = [dict(trial.values) for trial in history.trials.values()]
        assert found == points, f"cut after {cut} facts"


def test_another_seed_is_another_search() -> None:
    one, other = (Simulation(oracle(8, seed), bowl).run(8).points for seed in (0, 1))
    assert all(a != b for a, b in zip(one, other, strict=True))


def test_beta_is_how_much_the_unknown_attracts() -> None:
    def spread(beta: float) -> float:
        search = Simulation(oracle(24, beta=beta, num_initial_points=6), bowl).run(24)
        return float(np.std([point["x"] for point in search.points[6:]]))  # type: ignore[arg-type]

    assert spread(0.0) < spread(2.6) < spread(100.0)


def test_more_than_two_hundred_trials_are_learnt_from_by_a_choice_of_them() -> None:
    many = Simulation(RandomSearchOracle(SCORE, None, seed=0), branin).run(260)
    lowest = many.best
    resumed = Simulation(oracle(None, num_initial_points=5), branin, facts=many.facts).run(266)
    assert resumed.best < min(lowest, 0.41)


# --- arguments ---


def test_arguments_are_those_of_keras_tuner() -> None:
    def names(function: Callable[..., object]) -> list[str]:
        return [name for name in inspect.signature(function).parameters if name != "self"]

    shared = ["max_trials", "num_initial_points", "alpha", "beta", "seed", "hyperparameters"]
    entries = ["tune_new_entries", "allow_new_entries"]
    limits = ["max_retries_per_trial", "max_consecutive_failed_trials"]
    tuner, engine = aiotune.BayesianOptimization, aiotune.oracles.BayesianOptimizationOracle
    assert names(tuner) == ["hypermodel", "objective", *shared, *entries, *limits, "kwargs"]
    assert names(engine) == ["objective", *shared, *reversed(entries), *limits]
    for each in (tuner, engine):
        defaults = inspect.signature(each).parameters
        assert [defaults[name].default for name in shared[:4]] == [10, None, 1e-6, None]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_initial_points": 0}, FatalValueError, "num_initial_points=0: it must be 1 or more"),
        ({"num_initial_points": 2.5}, FatalTypeError, "a whole number is needed"),
        ({"alpha": -1.0}, FatalValueError, "alpha=-1.0: it must be 0 or more"),
        ({"alpha": None}, FatalTypeError, "alpha=None: a number is needed"),
        ({"beta": "2"}, FatalTypeError, "beta='2': a number is needed"),
        ({"beta": math.nan}, FatalValueError, "beta=nan"),
        ({"beta": math.inf}, FatalValueError, "finite"),
    ],
)
def test_bad_arguments_are_refused(
    options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        oracle(**options)  # type: ignore[arg-type]


async def test_the_tuner_searches(tmp_path: Path) -> None:
    class Squares(aiotune.BayesianOptimization):
        async def run_trial(self, trial: object) -> float:
            hp = trial.hyperparameters  # type: ignore[attr-defined]
            return (hp.Float("x", -2, 2) - 1.5) ** 2  # type: ignore[no-any-return]

    tuner = Squares(max_trials=14, seed=0, directory=tmp_path, max_concurrent_trials=2)
    result = await tuner.search(verbose=0)
    assert len(result.trials) == 14
    assert result.best_score is not None
    assert result.best_score < 1e-3
    scores = [trial.score for trial in result.trials]
    assert all(one != other for one, other in pairwise(scores))
