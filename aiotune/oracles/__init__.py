"""Oracles: what to try next. One algorithm a file."""

from aiotune.oracles.annealing import SimulatedAnnealingOracle
from aiotune.oracles.asha import AshaOracle
from aiotune.oracles.bayesian import BayesianOptimizationOracle
from aiotune.oracles.cmaes import CmaEsOracle
from aiotune.oracles.forest import RandomForestOracle
from aiotune.oracles.grid_search import GridSearchOracle
from aiotune.oracles.hyperband import HyperbandOracle
from aiotune.oracles.optuna import OptunaOracle
from aiotune.oracles.population import PopulationBasedTrainingOracle
from aiotune.oracles.quasi_random import QuasiRandomOracle
from aiotune.oracles.random_search import RandomSearchOracle
from aiotune.oracles.replay import ReplayOracle
from aiotune.oracles.stopping import AshaStoppingOracle
from aiotune.oracles.tpe import TPEOracle

__all__ = [
    "AshaOracle",
    "AshaStoppingOracle",
    "BayesianOptimizationOracle",
    "CmaEsOracle",
    "GridSearchOracle",
    "HyperbandOracle",
    "OptunaOracle",
    "PopulationBasedTrainingOracle",
    "QuasiRandomOracle",
    "RandomForestOracle",
    "RandomSearchOracle",
    "ReplayOracle",
    "SimulatedAnnealingOracle",
    "TPEOracle",
]
