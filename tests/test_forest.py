"""RandomForestOracle: the contract of oracles that learn, and what it needs."""

from __future__ import annotations

import sys

import pytest

from aiotune.errors import FatalValueError, MissingFramework
from aiotune.oracles.base import Oracle
from aiotune.oracles.forest import RandomForestOracle
from tests.contracts.model_based_contract import SCORE, ModelBasedContract


class TestRandomForest(ModelBasedContract):
    def make(self, max_trials: int | None, seed: int = 0, initial: int | None = None) -> Oracle:
        return RandomForestOracle(SCORE, max_trials, seed=seed, num_initial_points=initial)


def test_without_scikit_learn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingFramework, match=r'pip install "aiotune\[sklearn\]"'):
        RandomForestOracle(SCORE)


def test_it_needs_a_tree() -> None:
    with pytest.raises(FatalValueError, match="num_trees=0: it must be 1 or more"):
        RandomForestOracle(SCORE, num_trees=0)
