"""QuasiRandomOracle: the contract of oracles that learn, but for learning, and where its points are."""

from __future__ import annotations

import numpy as np
from scipy.stats import qmc

from aiotune.hyperparameters import HyperParameters
from aiotune.oracles.base import Oracle
from aiotune.oracles.quasi_random import QuasiRandomOracle
from aiotune.oracles.random_search import RandomSearchOracle
from aiotune.space import Values, point_key
from tests.contracts.model_based_contract import SCORE, ModelBasedContract
from tests.support.landscapes import mixed
from tests.support.simulated import Program, Simulation


class TestQuasiRandom(ModelBasedContract):
    learns = False

    def make(self, max_trials: int | None, seed: int = 0, initial: int | None = None) -> Oracle:
        return QuasiRandomOracle(SCORE, max_trials, seed=seed)


def cube(axes: int) -> Program:
    def program(hp: HyperParameters) -> float:
        return float(sum(hp.Float(f"x{index}", 0, 1) for index in range(axes)))

    return program


def points(oracle: Oracle, program: Program, count: int, slots: int = 1) -> list[Values]:
    return Simulation(oracle, program, slots, pick=lambda ids: len(ids) // 2).run(count).points


def quasi(program: Program, count: int, seed: int = 0, slots: int = 1) -> list[Values]:
    return points(QuasiRandomOracle(SCORE, count, seed=seed), program, count, slots)


def test_they_are_spread_more_evenly_than_drawn_ones() -> None:
    for seed in range(3):
        drawn = points(RandomSearchOracle(SCORE, 64, seed=seed), cube(3), 64)
        spread = quasi(cube(3), 64, seed)
        uneven = [
            qmc.discrepancy(np.array([[*p.values()] for p in each])) for each in (spread, drawn)
        ]
        assert uneven[0] < 0.3 * uneven[1]


def test_each_half_of_each_axis_has_half_of_them() -> None:
    found = quasi(mixed, 32)
    assert sum(point["x"] < 0.5 for point in found) == 16  # type: ignore[operator]
    assert sum(point["k"] <= 5 for point in found) == 16  # type: ignore[operator]
    assert [sum(point["kind"] == kind for point in found) for kind in "abcd"] == [8] * 4


def test_slots_and_the_order_of_ends_change_nothing() -> None:
    alone, many = quasi(mixed, 24), quasi(mixed, 24, slots=6)
    assert sorted(map(point_key, many)) == sorted(map(point_key, alone))


def test_a_name_more_leaves_the_others_as_they_were() -> None:
    fewer, more = quasi(cube(2), 12), quasi(cube(3), 12)
    assert [{name: point[name] for name in ("x0", "x1")} for point in more] == fewer


def test_beyond_64_names_they_are_drawn() -> None:
    found = np.array([[*point.values()] for point in quasi(cube(70), 32)])
    assert (np.sum(found[:, :64] < 0.5, axis=0) == 16).all()
    assert not (np.sum(found[:, 64:] < 0.5, axis=0) == 16).all()
    assert len(np.unique(found)) == found.size


def test_while_no_name_is_known_points_are_drawn() -> None:
    oracle = QuasiRandomOracle(SCORE, 9, seed=0)
    search = Simulation(oracle, cube(2), slots=3, has_discovery=False).run(9)
    assert len({point_key(point) for point in search.points}) == 9
