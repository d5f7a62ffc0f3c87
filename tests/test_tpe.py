"""TPEOracle: the contract of oracles that learn, and its options."""

from __future__ import annotations

import pytest

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.oracles.base import Oracle
from aiotune.oracles.tpe import TPEOracle
from tests.contracts.model_based_contract import SCORE, ModelBasedContract
from tests.support.landscapes import bowl
from tests.support.simulated import Simulation


class TestTPE(ModelBasedContract):
    def make(self, max_trials: int | None, seed: int = 0, initial: int | None = None) -> Oracle:
        return TPEOracle(SCORE, max_trials, seed=seed, num_initial_points=initial)


def test_more_weight_of_the_prior_explores_more() -> None:
    def spread(prior_weight: float) -> float:
        search = Simulation(TPEOracle(SCORE, 40, seed=0, prior_weight=prior_weight), bowl).run(40)
        values = [float(point["x"]) for point in search.points[-20:]]
        return max(values) - min(values)

    assert spread(20.0) > 1.5 * spread(0.1)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"gamma": 0.0}, FatalValueError, "gamma=0.0: it must be above 0, and at most 1"),
        ({"gamma": "1"}, FatalTypeError, "gamma='1': a number is needed"),
        ({"num_candidates": 0}, FatalValueError, "num_candidates=0: it must be 1 or more"),
        ({"prior_weight": -1}, FatalValueError, "prior_weight=-1: it must be above 0"),
        ({"num_initial_points": 0}, FatalValueError, "num_initial_points=0"),
    ],
)
def test_bad_options_are_refused(
    options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        TPEOracle(SCORE, **options)  # type: ignore[arg-type]


def test_earlier_searches_that_it_does_not_learn_from_leave_its_initial_points() -> None:
    earlier = Simulation(TPEOracle(SCORE, 10, seed=1), bowl).run(10)
    counts = []
    for taught in ((), (tuple(earlier.trials),)):
        oracle = TPEOracle(SCORE, max_trials=30, seed=0)
        oracle.earlier = taught
        counts.append(oracle.initial_points(earlier.history.space))
    assert counts[0] == counts[1] > 1
