"""The tuners: an oracle each. Those of KerasTuner's are here, with its names and arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from aiotune.hypermodel import HyperModel
from aiotune.hyperparameters import HyperParameters
from aiotune.model_based_tuners import CMAES, TPE, QuasiRandom, RandomForest, SimulatedAnnealing
from aiotune.multifidelity_tuners import ASHA, Hyperband
from aiotune.objective import Objective
from aiotune.oracles.bayesian import BayesianOptimizationOracle
from aiotune.oracles.grid_search import GridSearchOracle
from aiotune.oracles.random_search import RandomSearchOracle
from aiotune.population_tuners import PopulationBasedTraining, Replay
from aiotune.sklearn_tuner import SklearnTuner
from aiotune.tuner import Tuner

__all__ = [
    "ASHA",
    "CMAES",
    "TPE",
    "BayesianOptimization",
    "GridSearch",
    "Hyperband",
    "PopulationBasedTraining",
    "QuasiRandom",
    "RandomForest",
    "RandomSearch",
    "Replay",
    "SimulatedAnnealing",
    "SklearnTuner",
    "Tuner",
]


class BayesianOptimization(Tuner):
    """Puts each trial where a model of the results so far, a Gaussian process, promises most.

    max_trials: in all, over every session of the project; None: until the space is exhausted.
    num_initial_points: so many trials are drawn at random before the model is asked, failed ones included;
    None: three for each hyperparameter, but at most 6 and one more for each option of the largest category,
    and at most 10 in all and a third of `max_trials`. alpha: the least noise of a score that is assumed, as a
    share of the variance of the scores; more is learnt from them. beta: None: a point is judged by how much it
    is expected to improve on the best; a number: by its expected score less so many standard deviations, as in
    KerasTuner. The other arguments are those of `RandomSearch`.

    Further keywords are those of `Tuner` and `aiotune.Settings`.
    """

    def __init__(
        self,
        hypermodel: HyperModel | Callable[[HyperParameters], Any] | None = None,
        objective: str | Objective | Sequence[str | Objective] | None = None,
        max_trials: int | None = 10,
        num_initial_points: int | None = None,
        alpha: float = 1e-6,
        beta: float | None = None,
        seed: int | None = None,
        hyperparameters: HyperParameters | None = None,
        tune_new_entries: bool = True,
        allow_new_entries: bool = True,
        max_retries_per_trial: int = 0,
        max_consecutive_failed_trials: int = 3,
        **kwargs: Any,
    ) -> None:
        oracle = BayesianOptimizationOracle(
            objective=objective,
            max_trials=max_trials,
            num_initial_points=num_initial_points,
            alpha=alpha,
            beta=beta,
            seed=seed,
            hyperparameters=hyperparameters,
            allow_new_entries=allow_new_entries,
            tune_new_entries=tune_new_entries,
            max_retries_per_trial=max_retries_per_trial,
            max_consecutive_failed_trials=max_consecutive_failed_trials,
        )
        super().__init__(oracle, hypermodel, **kwargs)


class GridSearch(Tuner):
    """Tries every point of a grid over the space once, defaults first, the last name fastest.

    A Float without a step, and an Int spread in factors without one, have ten values and their default.
    max_trials: in all, over every session of the project; None: every point. The other arguments are those of
    `RandomSearch`.

    Further keywords are those of `Tuner` and `aiotune.Settings`.
    """

    def __init__(
        self,
        hypermodel: HyperModel | Callable[[HyperParameters], Any] | None = None,
        objective: str | Objective | Sequence[str | Objective] | None = None,
        max_trials: int | None = None,
        seed: int | None = None,
        hyperparameters: HyperParameters | None = None,
        tune_new_entries: bool = True,
        allow_new_entries: bool = True,
        max_retries_per_trial: int = 0,
        max_consecutive_failed_trials: int = 3,
        **kwargs: Any,
    ) -> None:
        oracle = GridSearchOracle(
            objective=objective,
            max_trials=max_trials,
            seed=seed,
            hyperparameters=hyperparameters,
            allow_new_entries=allow_new_entries,
            tune_new_entries=tune_new_entries,
            max_retries_per_trial=max_retries_per_trial,
            max_consecutive_failed_trials=max_consecutive_failed_trials,
        )
        super().__init__(oracle, hypermodel, **kwargs)


class RandomSearch(Tuner):
    """Random search without repeats: a finite space is exhausted exactly.

    hypermodel: a function `build(hp) -> model` or a `HyperModel`; None if `run_trial` is overridden.
    objective: a metric's name ("val_accuracy"), an `Objective`, or None if a trial returns a single number
    to be minimised. max_trials: in all, over every session of the project; None: until the space is exhausted.
    seed: any int, 0 too; None: drawn once and kept with the project. hyperparameters: declarations that win
    over the program's. tune_new_entries, allow_new_entries: whether names beyond those are varied, or allowed.
    max_retries_per_trial: further runs of a run that broke. max_consecutive_failed_trials: so many crashes and
    errors in a row end the search.

    Further keywords are those of `Tuner` and `aiotune.Settings`.
    """

    def __init__(
        self,
        hypermodel: HyperModel | Callable[[HyperParameters], Any] | None = None,
        objective: str | Objective | Sequence[str | Objective] | None = None,
        max_trials: int | None = 10,
        seed: int | None = None,
        hyperparameters: HyperParameters | None = None,
        tune_new_entries: bool = True,
        allow_new_entries: bool = True,
        max_retries_per_trial: int = 0,
        max_consecutive_failed_trials: int = 3,
        **kwargs: Any,
    ) -> None:
        oracle = RandomSearchOracle(
            objective=objective,
            max_trials=max_trials,
            hyperparameters=hyperparameters,
            allow_new_entries=allow_new_entries,
            tune_new_entries=tune_new_entries,
            seed=seed,
            max_retries_per_trial=max_retries_per_trial,
            max_consecutive_failed_trials=max_consecutive_failed_trials,
        )
        super().__init__(oracle, hypermodel, **kwargs)
