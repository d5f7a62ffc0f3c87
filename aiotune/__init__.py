"""Tune Keras models, and any Python function, from async code.

    result = await aiotune.RandomSearch(build_model, "val_accuracy", max_trials=20).search(
        x, y, epochs=5, validation_data=(xv, yv)
    )

Names are resolved when they are first used, so that `import aiotune` is quick and loads no framework.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from aiotune.version import __version__

if TYPE_CHECKING:
    from aiotune import applications as applications
    from aiotune import errors as errors
    from aiotune import events as events
    from aiotune import oracles as oracles
    from aiotune import tuners as tuners
    from aiotune.constraints import AtLeast as AtLeast
    from aiotune.constraints import AtMost as AtMost
    from aiotune.events import EndReason as EndReason
    from aiotune.hypermodel import HyperModel as HyperModel
    from aiotune.hyperparameters import HyperParameters as HyperParameters
    from aiotune.lazy import Lazy as Lazy
    from aiotune.learning.priors import Near as Near
    from aiotune.objective import MultiObjective as MultiObjective
    from aiotune.objective import Objective as Objective
    from aiotune.oracles.base import Oracle as Oracle
    from aiotune.oracles.base import synchronized as synchronized
    from aiotune.pruners.base import Pruner as Pruner
    from aiotune.pruners.curve import CurvePruner as CurvePruner
    from aiotune.pruners.halving import SuccessiveHalvingPruner as SuccessiveHalvingPruner
    from aiotune.pruners.patient import PatientPruner as PatientPruner
    from aiotune.pruners.percentile import MedianPruner as MedianPruner
    from aiotune.pruners.percentile import PercentilePruner as PercentilePruner
    from aiotune.pruners.threshold import ThresholdPruner as ThresholdPruner
    from aiotune.pruners.wilcoxon import WilcoxonPruner as WilcoxonPruner
    from aiotune.resources import Limits as Limits
    from aiotune.resources import Resources as Resources
    from aiotune.results import SearchResult as SearchResult
    from aiotune.schedule import Schedule as Schedule
    from aiotune.search import Search as Search
    from aiotune.settings import Settings as Settings
    from aiotune.simulation.curve import Curve as Curve
    from aiotune.simulation.recorded import RecordedCurves as RecordedCurves
    from aiotune.simulation.result import SimulationResult as SimulationResult
    from aiotune.simulation.simulate import simulate as simulate
    from aiotune.trial import Trial as Trial
    from aiotune.tuner import Tuner as Tuner
    from aiotune.tuners import ASHA as ASHA
    from aiotune.tuners import CMAES as CMAES
    from aiotune.tuners import TPE as TPE
    from aiotune.tuners import BayesianOptimization as BayesianOptimization
    from aiotune.tuners import GridSearch as GridSearch
    from aiotune.tuners import Hyperband as Hyperband
    from aiotune.tuners import PopulationBasedTraining as PopulationBasedTraining
    from aiotune.tuners import QuasiRandom as QuasiRandom
    from aiotune.tuners import RandomForest as RandomForest
    from aiotune.tuners import RandomSearch as RandomSearch
    from aiotune.tuners import Replay as Replay
    from aiotune.tuners import SimulatedAnnealing as SimulatedAnnealing
    from aiotune.tuners import SklearnTuner as SklearnTuner

_HOMES = {
    "ASHA": "aiotune.tuners",
    "AtLeast": "aiotune.constraints",
    "AtMost": "aiotune.constraints",
    "BayesianOptimization": "aiotune.tuners",
    "CMAES": "aiotune.tuners",
    "Curve": "aiotune.simulation.curve",
    "CurvePruner": "aiotune.pruners.curve",
    "EndReason": "aiotune.events",
    "GridSearch": "aiotune.tuners",
    "Hyperband": "aiotune.tuners",
    "HyperModel": "aiotune.hypermodel",
    "HyperParameters": "aiotune.hyperparameters",
    "Lazy": "aiotune.lazy",
    "Limits": "aiotune.resources",
    "MedianPruner": "aiotune.pruners.percentile",
    "MultiObjective": "aiotune.objective",
    "Near": "aiotune.learning.priors",
    "Objective": "aiotune.objective",
    "Oracle": "aiotune.oracles.base",
    "PatientPruner": "aiotune.pruners.patient",
    "PercentilePruner": "aiotune.pruners.percentile",
    "PopulationBasedTraining": "aiotune.tuners",
    "Pruner": "aiotune.pruners.base",
    "QuasiRandom": "aiotune.tuners",
    "RandomForest": "aiotune.tuners",
    "RandomSearch": "aiotune.tuners",
    "RecordedCurves": "aiotune.simulation.recorded",
    "Replay": "aiotune.tuners",
    "Resources": "aiotune.resources",
    "Schedule": "aiotune.schedule",
    "Search": "aiotune.search",
    "SearchResult": "aiotune.results",
    "Settings": "aiotune.settings",
    "SimulatedAnnealing": "aiotune.tuners",
    "SimulationResult": "aiotune.simulation.result",
    "SklearnTuner": "aiotune.tuners",
    "SuccessiveHalvingPruner": "aiotune.pruners.halving",
    "TPE": "aiotune.tuners",
    "ThresholdPruner": "aiotune.pruners.threshold",
    "Trial": "aiotune.trial",
    "Tuner": "aiotune.tuner",
    "WilcoxonPruner": "aiotune.pruners.wilcoxon",
    "simulate": "aiotune.simulation.simulate",
    "synchronized": "aiotune.oracles.base",
}
_MODULES = ("applications", "errors", "events", "oracles", "tuners")

__all__ = [  # noqa: PLE0604
    "__version__",
    *_HOMES,
    *_MODULES,
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"aiotune.{name}")
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    from aiotune.absent import explanation

    raise AttributeError(explanation(name) or f"module 'aiotune' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
