"""The front and its volume: against definitions, by counting cells of a grid, and in known cases."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import aiotune
from aiotune.errors import FatalValueError, StoreMismatch
from aiotune.executors.context import RunContext
from aiotune.objective import By, MultiObjective, Objective
from aiotune.pareto import dominates, goals, hypervolume, pareto_front, reference_beyond
from aiotune.trial import Trial, TrialState
from tests.support.records import trial

ERROR, SPEED = Objective("error", "min"), Objective("speed", "max")
BOTH = MultiObjective([ERROR, SPEED])
SIDE = 4  # of the grid on which volumes are counted


def measured(number: int, error: float, speed: float, state: TrialState | None = None) -> Trial:
    """Return a trial with a score and both metrics."""
    metrics = {"error": error, "speed": speed}
    ended = trial(number=number, state=state or TrialState.COMPLETED, score=error - speed)
    return replace(ended, final_metrics=metrics)


def numbers(front: list[Trial]) -> list[int]:
    return [each.number for each in front]


def points(size: int, most: int = 7) -> st.SearchStrategy[list[tuple[int, ...]]]:
    return st.lists(st.tuples(*[st.integers(0, SIDE)] * size), max_size=most)


# --- goals and dominance ---


def test_goals_are_minimised() -> None:
    assert goals(BOTH, measured(0, 0.25, 8.0)) == (0.25, -8.0)
    assert goals(SPEED, trial(score=8.0)) == (-8.0,)
    assert goals(ERROR, trial(score=8.0)) == (8.0,)


def test_a_goal_that_is_missing_is_nan() -> None:
    error, speed = goals(BOTH, replace(trial(score=1.0), final_metrics={"error": 1.0}))
    assert error == 1.0
    assert math.isnan(speed)
    assert math.isnan(goals(ERROR, trial())[0])


def test_the_metrics_of_a_trial_have_the_directions_of_the_objectives() -> None:
    metrics = replace(measured(0, 0.25, 8.0), objective=BOTH).metrics
    assert [metrics.get_direction(name) for name in ("error", "speed")] == ["min", "max"]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((1, 2), (1, 3), True),
        ((1, 2), (1, 2), False),
        ((1, 2), (2, 1), False),
        ((2, 2), (1, 2), False),
        ((math.nan, 1), (2, 2), False),
        ((1, 1), (math.nan, 2), False),
    ],
)
def test_dominance(one: tuple[float, ...], other: tuple[float, ...], expected: bool) -> None:
    assert dominates(one, other) is expected


# --- the front ---


@given(points(3, most=12))
def test_the_front_is_what_nothing_dominates_each_value_once(
    values: list[tuple[int, ...]],
) -> None:
    names = ("a", "b", "c")
    objective = MultiObjective([Objective(name, "min") for name in names])
    trials = [
        replace(
            trial(number=number, state=TrialState.COMPLETED, score=float(sum(value))),
            final_metrics=dict(zip(names, map(float, value), strict=True)),
        )
        for number, value in enumerate(values)
    ]
    front = {goals(objective, each) for each in pareto_front(trials, objective)}
    assert front == {
        value for value in values if not any(dominates(other, value) for other in values)
    }
    assert len(front) == len(pareto_front(trials, objective))


def test_the_front_is_sorted_by_the_first_objective_whose_best_comes_first() -> None:
    trials = [measured(0, 0.3, 9.0), measured(1, 0.1, 1.0), measured(2, 0.2, 5.0)]
    assert numbers(pareto_front(trials, BOTH)) == [1, 2, 0]
    assert numbers(pareto_front(trials, MultiObjective([SPEED, ERROR]))) == [0, 2, 1]


def test_of_equal_trials_the_oldest_is_on_the_front() -> None:
    trials = [measured(2, 0.1, 1.0), measured(1, 0.1, 1.0), measured(3, 0.2, 1.0)]
    assert numbers(pareto_front(trials, BOTH)) == [1]


def test_failed_unfinished_and_unmeasured_trials_are_never_on_the_front() -> None:
    without_speed = replace(
        trial(number=3, state=TrialState.COMPLETED, score=0.0), final_metrics={"error": 0.0}
    )
    trials = [
        replace(measured(0, 0.0, 99.0, TrialState.FAILED), score=None),
        replace(measured(1, 0.0, 99.0, TrialState.INFEASIBLE), score=None),
        trial(number=2, state=TrialState.RUNNING),
        without_speed,
        measured(4, math.nan, 99.0),
        measured(5, 0.0, math.inf),
        measured(6, 0.5, 1.0),
    ]
    assert numbers(pareto_front(trials, BOTH)) == [6]
    assert pareto_front(trials[:6], BOTH) == []


def test_with_a_single_objective_the_front_is_the_best_trial() -> None:
    trials = [
        trial(number=number, state=TrialState.COMPLETED, score=score)
        for number, score in enumerate([0.5, 0.9, 0.9, math.nan])
    ]
    assert numbers(pareto_front(trials, Objective("accuracy", "max"))) == [1]


def test_a_sum_has_a_front_too() -> None:
    trials = [measured(0, 0.3, 9.0), measured(1, 0.1, 1.0)]
    assert numbers(pareto_front(trials, MultiObjective([ERROR, SPEED], by="sum"))) == [1, 0]


# --- in a search ---


class Drawn(aiotune.RandomSearch):
    """Trials whose error falls as their size rises, but for some that waste."""

    async def run_trial(self, trial: RunContext) -> dict[str, float]:
        size = trial.hyperparameters.Int("size", 1, 20)
        waste = trial.hyperparameters.Float("waste", 0, 1)
        return {"error": 1 / size + waste, "size": size}


def drawn(directory: Path, by: By = "hypervolume") -> Drawn:
    objective = MultiObjective([ERROR, Objective("size", "min")], by=by)
    return Drawn(objective=objective, max_trials=15, seed=0, directory=directory)


async def test_a_search_and_its_project_know_the_front(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuner = drawn(tmp_path)
    result = await tuner.search(verbose=0)
    front = result.pareto_front
    points = [(each.metrics["error"], each.metrics["size"]) for each in front]
    others = [(each.metrics["error"], each.metrics["size"]) for each in result.trials]
    assert 1 < len(front) < 15
    assert not any(dominates(other, point) for other in others for point in points)
    assert tuner.get_pareto_front() == front
    again = drawn(tmp_path)
    assert numbers(again.get_pareto_front()) == numbers(front)
    again.results_summary()
    assert f"Pareto front: {len(front)} trials\n" in capsys.readouterr().out


async def test_a_project_is_not_continued_by_another_rule(tmp_path: Path) -> None:
    await drawn(tmp_path).search(verbose=0)
    with pytest.raises(StoreMismatch, match="searched for another objective"):
        await drawn(tmp_path, by="sum").search(verbose=0)


# --- volumes ---


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_the_volume_is_that_of_the_cells_that_are_dominated(size: int) -> None:
    corner = (SIDE,) * size
    cells = list(itertools.product(range(SIDE), repeat=size))

    @settings(max_examples=50)
    @given(points(size))
    def check(values: list[tuple[int, ...]]) -> None:
        covered = sum(
            any(all(a <= b for a, b in zip(value, cell, strict=True)) for value in values)
            for cell in cells
        )
        assert hypervolume(values, corner) == covered

    check()


def test_a_volume_of_known_size() -> None:
    assert hypervolume([(1, 3), (2, 2), (3, 1)], (4, 4)) == 6.0
    assert hypervolume([(0.25, 0.25, 0.5, 0.0)], (1, 1, 1, 2)) == pytest.approx(0.75**2)
    assert hypervolume([], (1, 1)) == 0.0
    assert hypervolume([(2, 0), (1, 0)], (1, 1)) == 0.0


@pytest.mark.parametrize(
    ("values", "reference"),
    [([(1, math.nan)], (2, 2)), ([(1, -math.inf)], (2, 2)), ([(1,)], (2, 2)), ([], (math.inf, 1))],
)
def test_a_volume_needs_finite_numbers(
    values: list[tuple[float, ...]], reference: tuple[float, ...]
) -> None:
    with pytest.raises(FatalValueError, match="2 numbers are needed, each of them finite"):
        hypervolume(values, reference)


@pytest.mark.parametrize(
    ("points", "reference"),
    [
        ([(0.0, 10.0), (1.0, 0.0)], (1.1, 11.0)),
        ([(5.0, -3.0)], (5.5, -2.7)),
        ([(0.0, 0.0, 2.0), (0.0, 1.0, 1.0)], (0.1, 1.1, 2.1)),
    ],
)
def test_the_reference_lies_beyond_the_worst(
    points: list[tuple[float, ...]], reference: tuple[float, ...]
) -> None:
    assert reference_beyond(points) == pytest.approx(reference)
