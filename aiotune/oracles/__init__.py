"""Oracles: what to try next. One algorithm a file."""

from aiotune.oracles.bayesian import BayesianOptimizationOracle
from aiotune.oracles.grid_search import GridSearchOracle
from aiotune.oracles.hyperband import HyperbandOracle
from aiotune.oracles.random_search import RandomSearchOracle

__all__ = [
    "BayesianOptimizationOracle",
    "GridSearchOracle",
    "HyperbandOracle",
    "RandomSearchOracle",
]
