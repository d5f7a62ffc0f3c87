"""The expected gain of a front: against counting, chance, finite differences; and what a search finds by it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiotune.hyperparameters import HyperParameters
from aiotune.learning.gaussian_process import Array, GaussianProcess
from aiotune.learning.hypervolume import (
    HypervolumeImprovement,
    expected_front,
    non_dominated,
    open_boxes,
    reference_point,
)
from aiotune.learning.kernel import KernelParameters
from aiotune.objective import MultiObjective, Objective
from aiotune.oracles.base import Oracle
from aiotune.oracles.bayesian import BayesianOptimizationOracle
from aiotune.oracles.random_search import RandomSearchOracle
from aiotune.pareto import dominates, goals, hypervolume, pareto_front
from aiotune.space import point_key
from tests.support.simulated import Program, Simulation

FLOOR = -2.0  # below every point: where boxes without a lower end are cut off
COLUMNS = 3


def processes(objectives: int, noise: float = 1e-4, points: int = 12) -> list[GaussianProcess]:
    """Return processes that disagree on what is best."""
    x = np.random.default_rng(7).random((points, COLUMNS))
    centres = np.eye(COLUMNS)[:objectives]
    parameters = KernelParameters(np.full(COLUMNS, 0.6), noise)
    groups = np.arange(COLUMNS)
    values = [((x - centre) ** 2).sum(axis=1) for centre in centres]
    return [
        GaussianProcess(x, (each - each.mean()) / each.std(), parameters, groups=groups)
        for each in values
    ]


def gain(front: Array, reference: Sequence[float], values: Array) -> float:
    """Return by how much one point more enlarges the volume."""
    before = hypervolume(front.tolist(), reference)
    return hypervolume([*front.tolist(), values.tolist()], reference) - before


# --- the boxes ---


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_the_boxes_are_disjoint_and_are_all_that_the_front_leaves_open(objectives: int) -> None:
    """Also where points share coordinates, repeat, are dominated, or lie beyond the reference."""
    corner = (4.0,) * objectives
    points = st.lists(st.tuples(*[st.integers(0, 5)] * objectives), max_size=8)
    probes = np.random.default_rng(0).uniform(FLOOR, 4.0, (100, objectives))

    @settings(max_examples=50)
    @given(points)
    def check(values: list[tuple[int, ...]]) -> None:
        front = np.array(values, dtype=float).reshape(-1, objectives)
        lower, upper = open_boxes(front, np.array(corner))
        volume = np.prod(upper - np.maximum(lower, FLOOR), axis=1).sum()
        whole = (4.0 - FLOOR) ** objectives
        assert volume == pytest.approx(whole - hypervolume(values, corner))
        holds = ((probes[:, None] > lower) & (probes[:, None] <= upper)).all(axis=2).sum(axis=1)
        is_dominated = np.any((front[None] <= probes[:, None]).all(axis=2), axis=1)
        assert np.array_equal(holds, ~is_dominated)

    check()


@pytest.mark.parametrize(("objectives", "most"), [(2, 41), (3, 81), (4, 500), (5, 500)])
def test_there_are_few_boxes(objectives: int, most: int) -> None:
    """As many as points, or twice as many, with two and three objectives; of large fronts, a part counts."""
    directions = np.abs(np.random.default_rng(1).standard_normal((40, objectives)))
    front = 1.0 - directions / np.linalg.norm(directions, axis=1, keepdims=True)
    lower, upper = open_boxes(front, np.ones(objectives))
    assert objectives < len(lower) <= most
    assert (lower < upper).all()


def test_a_front_with_too_many_points_is_thinned_evenly() -> None:
    first = np.concatenate([np.linspace(0.0, 0.1, 200), [1.0]])
    front = np.stack([first, 1.0 - first, np.zeros(201)], axis=1)
    _, upper = open_boxes(front, np.full(3, 2.0))
    assert 1.0 in upper  # the end that stands alone is kept
    assert len(upper) < 70


# --- the expectation ---


@pytest.mark.parametrize("objectives", [2, 3])
def test_it_is_the_mean_gain_of_what_the_processes_say(objectives: int) -> None:
    models = processes(objectives, points=3)  # so few that much is unknown, and gains are frequent
    front = expected_front(models)
    reference = front.max(axis=0) + 0.5
    columns = np.full((1, COLUMNS), 0.5)
    predicted = [model.predict(columns) for model in models]
    mean, std = np.concatenate(predicted, axis=1)
    drawn = mean + std * np.random.default_rng(4).standard_normal((1500, objectives))
    gains = [gain(front, reference.tolist(), each) for each in drawn]
    error = float(np.std(gains)) / np.sqrt(len(gains))
    found = HypervolumeImprovement(models, front, reference).value(columns)
    assert np.exp(found[0]) == pytest.approx(np.mean(gains), abs=3.0 * error)
    assert np.mean(gains) > 10.0 * error  # the comparison can tell


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_where_all_is_known_it_is_the_gain(objectives: int) -> None:
    """At the processes' own points they know the value; half of these are taken for the front."""
    models = processes(min(objectives, 3), noise=0.0)
    models += models[:1] if objectives == 4 else []
    values = np.column_stack([model.y for model in models])
    front, reference = non_dominated(values[:6]), values.max(axis=0) + 0.5
    term = HypervolumeImprovement(models, front, reference)
    expected = [gain(front, reference.tolist(), each) for each in values[6:]]
    assert max(expected) > 0.1
    found = np.exp(term.value(models[0].x[6:]))
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_with_one_objective_it_is_the_expected_improvement() -> None:
    from aiotune.learning.acquisition import log_expected_improvement

    model = processes(1)[0]
    columns = np.random.default_rng(5).random((6, COLUMNS))
    best = np.array([[-0.4], [0.3]])
    term = HypervolumeImprovement([model], best, np.array([1.0]))
    expected = log_expected_improvement(-0.4)(*model.predict(columns))[0]
    assert term.value(columns) == pytest.approx(expected)


def test_without_a_point_below_the_reference_all_that_is_below_it_is_a_gain() -> None:
    models = processes(2)
    columns = np.random.default_rng(5).random((6, COLUMNS))
    reference = np.array([-3.0, -3.0])
    term = HypervolumeImprovement(models, expected_front(models), reference)
    alone = HypervolumeImprovement(models, np.empty((0, 2)), reference)
    assert np.isfinite(term.value(columns)).all()
    assert np.array_equal(term.value(columns), alone.value(columns))


# --- slopes and scales ---


@pytest.mark.parametrize("objectives", [1, 2, 3])
@pytest.mark.parametrize("far", [0.0, 30.0, 1e5])
def test_the_slope_is_that_of_the_value(objectives: int, far: float) -> None:
    """Near the front, and where its improvement is too small for a float."""
    models = processes(objectives)
    front = expected_front(models) - far
    term = HypervolumeImprovement(models, front, front.max(axis=0) + 0.3)
    columns = np.random.default_rng(6).random((5, COLUMNS))
    value, slope = term.slope(columns)
    assert value == pytest.approx(term.value(columns), rel=1e-9)
    steps = 1e-5 * np.eye(COLUMNS)
    across = [
        [float((term.value(each + step) - term.value(each - step))[0]) / 2e-5 for step in steps]
        for each in columns[:, None]
    ]
    assert slope == pytest.approx(np.array(across), rel=1e-3, abs=1e-3)
    assert np.abs(slope).max() > 0.1


def test_values_are_finite_however_near_or_far_the_points_of_the_front_are() -> None:
    models = processes(2)
    near = np.array([[0.0, 0.0], [1e-13, -1e-13], [1e-9, -1e-9], [1e9, -1e9], [-1e9, 1e9]])
    for front in (near, near * 1e6, near - 1e7, near + 1e7):
        term = HypervolumeImprovement(models, front, front.max(axis=0) + 1.0)
        value, slope = term.slope(np.vstack([models[0].x, np.full((1, COLUMNS), 0.5)]))
        assert np.isfinite(value).all()
        assert np.isfinite(slope).all()


def test_the_largest_promise_is_between_the_points_of_the_front() -> None:
    """Between two points that trade one objective for the other, both known, the middle is unknown."""
    x = np.array([[0.0], [1.0]])
    parameters = KernelParameters(np.array([0.5]), 1e-6)
    models = [
        GaussianProcess(x, values, parameters, groups=np.array([0]))
        for values in (np.array([-1.0, 1.0]), np.array([1.0, -1.0]))
    ]
    term = HypervolumeImprovement(models, expected_front(models), np.array([1.5, 1.5]))
    places = np.linspace(0.0, 1.0, 21)[:, None]
    assert int(term.value(places).argmax()) == 10


# --- fronts and references ---


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), max_size=12))
def test_what_nothing_dominates(values: list[tuple[int, ...]]) -> None:
    found = non_dominated(np.array(values, dtype=float).reshape(-1, 3))
    expected = {each for each in values if not any(dominates(other, each) for other in values)}
    assert found.tolist() == sorted(map(list, expected))


def test_the_front_that_is_expected_leaves_noise_out() -> None:
    x = np.repeat([[0.1], [0.9]], 10, axis=0)
    noisy = np.tile([-0.2, 0.2], 10)
    parameters = KernelParameters(np.array([0.3]), 1.0)
    means = np.repeat([-1.0, 1.0], 10)
    models = [
        GaussianProcess(x, sign * means + noisy, parameters, groups=np.array([0]))
        for sign in (1.0, -1.0)
    ]
    front = expected_front(models)
    assert front.shape[1] == 2
    assert np.abs(np.abs(front) - 0.9).max() < 0.1


def test_a_reference_is_translated_into_the_units_of_the_targets() -> None:
    values = np.array([[0.0, 10.0], [2.0, 30.0], [1.0, 20.0]])
    targets = np.array([[-1.0, -1.0], [1.0, 3.0], [0.5, 0.0]])
    given = reference_point(values, targets, (0.5, 40.0))
    assert given == pytest.approx([-0.25, 3.0 + 10.0 * 0.2])
    assert reference_point(values, targets, (-1.0, 10.0)) == pytest.approx([-2.0, -1.0])
    assert reference_point(values, targets, None) == pytest.approx([1.2, 3.4])
    flat = np.zeros((2, 2))
    assert reference_point(flat, flat, (1.0, -1.0)) == pytest.approx([1.0, -1.0])


# --- what a search finds by it ---


def two_bowls(hp: HyperParameters) -> dict[str, float]:
    """The front lies between their centres, (0, 0, 0) and (1, 1, 1); all of it covers 9.39 below (3.3, 3.3)."""
    x = [hp.Float(name, -1, 2) for name in ("x", "y", "z")]
    return {"left": sum(each**2 for each in x), "right": sum((each - 1) ** 2 for each in x)}


def zdt1(hp: HyperParameters) -> dict[str, float]:
    """Zitzler, Deb and Thiele 2000, T1, with 4 variables; the front covers 0.8767 below (1.1, 1.1)."""
    first, *others = [hp.Float(f"x{index}", 0, 1) for index in range(4)]
    g = 1 + 9 * sum(others) / 3
    return {"left": first, "right": g * (1 - math.sqrt(first / g))}


def volume(oracle: Oracle, program: Program, trials: int, reference: tuple[float, ...]) -> float:
    search = Simulation(oracle, program).run(trials)
    front = pareto_front(search.trials, oracle.objective)
    return hypervolume([goals(oracle.objective, each) for each in front], reference)


@pytest.mark.parametrize(
    ("program", "corner", "given", "least"),
    [
        (two_bowls, (3.3, 3.3), None, 8.5),
        (zdt1, (1.1, 1.1), (1.1, 1.1), 0.8),
    ],
)
def test_a_search_covers_more_than_random_search_with_twenty_times_the_trials(
    program: Program,
    corner: tuple[float, float],
    given: tuple[float, float] | None,
    least: float,
) -> None:
    objective = MultiObjective(
        [Objective("left", "min"), Objective("right", "min")], reference=given
    )
    learnt = BayesianOptimizationOracle(objective, 20, seed=1)
    drawn = RandomSearchOracle(objective, None, seed=1)
    found = volume(learnt, program, 20, corner)
    assert found > max(least, volume(drawn, program, 400, corner))


def test_a_front_of_three_objectives_one_of_them_maximised() -> None:
    def program(hp: HyperParameters) -> dict[str, float]:
        x = [hp.Float(name, -1, 1) for name in ("x", "y")]
        centres = ((0.5, 0.0), (-0.5, 0.5), (-0.5, -0.5))
        off = [sum((a - b) ** 2 for a, b in zip(x, centre, strict=True)) for centre in centres]
        return {"a": off[0], "b": off[1], "c": -off[2]}

    objective = MultiObjective(
        [Objective("a", "min"), Objective("b", "min"), Objective("c", "max")], reference=(2, 2, -2)
    )
    corner = (2.0, 2.0, 2.0)
    learnt = volume(BayesianOptimizationOracle(objective, 20, seed=1), program, 20, corner)
    drawn = volume(RandomSearchOracle(objective, None, seed=1), program, 40, corner)
    assert learnt > drawn


def test_trials_of_a_front_side_by_side_are_distinct_and_as_good() -> None:
    objective = MultiObjective([Objective("left", "min"), Objective("right", "min")])
    search = Simulation(BayesianOptimizationOracle(objective, 20, seed=1), two_bowls, slots=4).run(
        20
    )
    assert len({point_key(point) for point in search.points}) == 20
    front = [goals(objective, each) for each in pareto_front(search.trials, objective)]
    assert hypervolume(front, (3.3, 3.3)) > 8.0
