"""CmaEsOracle: the contract of oracles that learn, what it finds with many trials, and what it needs."""

from __future__ import annotations

import sys

import pytest

import aiotune.learning
from aiotune.errors import FatalTypeError, FatalValueError, MissingFramework
from aiotune.hyperparameters import HyperParameters
from aiotune.oracles.base import Oracle
from aiotune.oracles.cmaes import CmaEsOracle
from tests.contracts.model_based_contract import SCORE, ModelBasedContract
from tests.support.simulated import Simulation


class TestCmaEs(ModelBasedContract):
    budget = 100

    def make(self, max_trials: int | None, seed: int = 0, initial: int | None = None) -> Oracle:
        return CmaEsOracle(SCORE, max_trials, seed=seed, num_initial_points=initial)


@pytest.mark.parametrize("slots", [1, 8])
def test_it_descends_a_narrow_valley(slots: int) -> None:
    def valley(hp: HyperParameters) -> float:
        x, y, z = (hp.Float(name, 0, 1) for name in "xyz")
        return 100 * (x - y) ** 2 + (x + y - 1.2) ** 2 + 10 * (z - 0.2) ** 2  # type: ignore[no-any-return]

    search = Simulation(CmaEsOracle(SCORE, 250, seed=1), valley, slots).run(250)
    assert search.best < 1e-3


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "aiotune.learning.evolution", raising=False)
    monkeypatch.delattr(aiotune.learning, "evolution", raising=False)
    monkeypatch.setitem(sys.modules, "cmaes", None)
    with pytest.raises(MissingFramework, match=r'pip install "aiotune\[cmaes\]"'):
        CmaEsOracle(SCORE)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sigma": 0.0}, FatalValueError, "sigma=0.0: it must be above 0, and at most 1"),
        ({"population_size": 1}, FatalValueError, "population_size=1: it must be 2 or more"),
        ({"population_size": 6.0}, FatalTypeError, "a whole number is needed"),
    ],
)
def test_bad_options_are_refused(
    options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        CmaEsOracle(SCORE, **options)  # type: ignore[arg-type]
