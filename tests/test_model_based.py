"""ModelBasedOracle: the contract with a Gaussian process, and what all such oracles and their tuners take."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import aiotune
from aiotune.hyperparameters import HyperParameters
from aiotune.oracles import (
    BayesianOptimizationOracle,
    CmaEsOracle,
    QuasiRandomOracle,
    RandomForestOracle,
    SimulatedAnnealingOracle,
    TPEOracle,
)
from aiotune.oracles.base import Oracle
from aiotune.tuner import Tuner
from tests.contracts.model_based_contract import SCORE, ModelBasedContract

TUNERS: dict[type[Tuner], type[Oracle]] = {
    aiotune.CMAES: CmaEsOracle,
    aiotune.QuasiRandom: QuasiRandomOracle,
    aiotune.RandomForest: RandomForestOracle,
    aiotune.SimulatedAnnealing: SimulatedAnnealingOracle,
    aiotune.TPE: TPEOracle,
}


class TestBayesianOptimization(ModelBasedContract):
    def make(self, max_trials: int | None, seed: int = 0, initial: int | None = None) -> Oracle:
        return BayesianOptimizationOracle(SCORE, max_trials, initial, seed=seed)


def parameters(kind: type) -> dict[str, inspect.Parameter]:
    found = dict(inspect.signature(kind).parameters)
    return {name: each for name, each in found.items() if name not in ("options", "kwargs")}


@pytest.mark.parametrize(("tuner", "oracle"), TUNERS.items())
def test_a_tuner_takes_what_others_do_and_what_its_oracle_does(
    tuner: type[Tuner], oracle: type[Oracle]
) -> None:
    taken = parameters(tuner)
    common = parameters(aiotune.RandomSearch)
    assert [name for name in taken if name in common] == list(common)
    for name, each in {**common, **parameters(oracle)}.items():
        assert taken[name].default == each.default, name


@pytest.mark.parametrize("tuner", TUNERS)
async def test_its_tuner_searches_with_its_options(tuner: type[Tuner], tmp_path: Path) -> None:
    class Squares(tuner):  # type: ignore[misc, valid-type]
        async def run_trial(self, trial: object) -> float:
            hp: HyperParameters = trial.hyperparameters  # type: ignore[attr-defined]
            return (hp.Float("x", -2, 2) - 1.5) ** 2  # type: ignore[no-any-return]

    searching = Squares(max_trials=9, seed=0, directory=tmp_path, max_concurrent_trials=2)
    assert isinstance(searching.oracle, TUNERS[tuner])
    result = await searching.search(verbose=0)
    assert len(result.trials) == 9
    assert len({trial.values["x"] for trial in result.trials}) == 9
