"""SimulatedAnnealingOracle: the contract of oracles that learn, and where its walk goes."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from aiotune.errors import FatalValueError
from aiotune.hyperparameters import HyperParameters
from aiotune.oracles.annealing import SimulatedAnnealingOracle
from aiotune.oracles.base import Oracle
from tests.contracts.model_based_contract import SCORE, ModelBasedContract
from tests.support.landscapes import bowl
from tests.support.simulated import Simulation


class TestSimulatedAnnealing(ModelBasedContract):
    budget = 100

    def make(self, max_trials: int | None, seed: int = 0, initial: int | None = None) -> Oracle:
        return SimulatedAnnealingOracle(SCORE, max_trials, seed=seed, num_initial_points=initial)


def walked(trials: int = 60, **options: float) -> list[float]:
    """Return the values of x, on a slope, from the first that was not drawn."""

    def slope(hp: HyperParameters) -> float:
        return float(hp.Float("x", 0, 1))

    oracle = SimulatedAnnealingOracle(SCORE, trials, num_initial_points=5, seed=0, **options)
    return [float(point["x"]) for point in Simulation(oracle, slope).run(trials).points[5:]]


def test_its_steps_shorten_as_it_cools() -> None:
    steps = [abs(one - other) for one, other in pairwise(walked(80))]
    assert sum(steps[-15:]) < 0.3 * sum(steps[:15])


def test_a_cold_walk_goes_down_only_and_a_hot_one_anywhere() -> None:
    cold, hot = walked(initial_temperature=1e-6), walked(initial_temperature=1e6, cooling=1.0)
    assert max(cold[-10:]) < 0.05
    assert max(hot[-30:]) > 0.6


def test_a_temperature_may_fall_to_nothing() -> None:
    assert max(walked(90, cooling=1e-5)[-10:]) < 0.3


def test_it_begins_at_the_best_of_the_first_points() -> None:
    oracle = SimulatedAnnealingOracle(SCORE, None, seed=3, num_initial_points=8, cooling=1e-4)
    search = Simulation(oracle, bowl).run(14)
    scores = [trial.score for trial in search.trials]
    best = search.points[min(range(9), key=lambda index: scores[index] or math.inf)]
    for point in search.points[9:]:
        assert abs(float(point["x"]) - float(best["x"])) < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initial_temperature": 0.0}, "initial_temperature=0.0: it must be above 0, and finite"),
        ({"cooling": 1.5}, r"cooling=1.5: it must be above 0, and at most 1"),
    ],
)
def test_bad_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(FatalValueError, match=message):
        SimulatedAnnealingOracle(SCORE, **options)  # type: ignore[arg-type]
