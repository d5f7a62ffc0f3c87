"""Tuners that KerasTuner does not have: an oracle each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from aiotune.hypermodel import HyperModel
from aiotune.hyperparameters import HyperParameters
from aiotune.objective import Objective
from aiotune.oracles.annealing import SimulatedAnnealingOracle
from aiotune.oracles.cmaes import CmaEsOracle
from aiotune.oracles.forest import RandomForestOracle
from aiotune.oracles.quasi_random import QuasiRandomOracle
from aiotune.oracles.tpe import TPEOracle
from aiotune.tuner import Tuner

__all__ = ["CMAES", "TPE", "QuasiRandom", "RandomForest", "SimulatedAnnealing"]


class CMAES(Tuner):
    """Draws each trial from a normal distribution that moves towards the best ones and takes their shape.

    For numbers, and searches of some hundred trials; it needs the package `cmaes` (`aiotune[cmaes]`). sigma:
    the distribution's standard deviation at first, as a share of each range. population_size: so many trials
    move it together; None: 4 + 3 ln(d) for d numbers. The other arguments are those of `BayesianOptimization`.

    Further keywords are those of `Tuner` and `aiotune.Settings`.
    """

    def __init__(
        self,
        hypermodel: HyperModel | Callable[[HyperParameters], Any] | None = None,
        objective: str | Objective | Sequence[str | Objective] | None = None,
        max_trials: int | None = 10,
        num_initial_points: int | None = None,
        sigma: float = 0.15,
        population_size: int | None = None,
        seed: int | None = None,
        hyperparameters: HyperParameters | None = None,
        tune_new_entries: bool = True,
        allow_new_entries: bool = True,
        max_retries_per_trial: int = 0,
        max_consecutive_failed_trials: int = 3,
        **kwargs: Any,
    ) -> None:
        oracle = CmaEsOracle(
            objective=objective,
            max_trials=max_trials,
            num_initial_points=num_initial_points,
            sigma=sigma,
            population_size=population_size,
            seed=seed,
            hyperparameters=hyperparameters,
            allow_new_entries=allow_new_entries,
            tune_new_entries=tune_new_entries,
            max_retries_per_trial=max_retries_per_trial,
            max_consecutive_failed_trials=max_consecutive_failed_trials,
        )
        super().__init__(oracle, hypermodel, **kwargs)


class QuasiRandom(Tuner):
    """Spreads trials evenly over the space, by a scrambled Sobol sequence, whatever they score.

    Often a little better than `RandomSearch`, and as easy to run on any number of devices. The arguments are
    those of `RandomSearch`.

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
        oracle = QuasiRandomOracle(
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


class RandomForest(Tuner):
    """Puts each trial where a forest of regression trees promises most.

    For many hyperparameters, categories and conditions; it needs scikit-learn (`aiotune[sklearn]`). num_trees:
    more are smoother, and cost more time. The other arguments are those of `BayesianOptimization`.

    Further keywords are those of `Tuner` and `aiotune.Settings`.
    """

    def __init__(
        self,
        hypermodel: HyperModel | Callable[[HyperParameters], Any] | None = None,
        objective: str | Objective | Sequence[str | Objective] | None = None,
        max_trials: int | None = 10,
        num_initial_points: int | None = None,
        num_trees: int = 30,
        seed: int | None = None,
        hyperparameters: HyperParameters | None = None,
        tune_new_entries: bool = True,
        allow_new_entries: bool = True,
        max_retries_per_trial: int = 0,
        max_consecutive_failed_trials: int = 3,
        **kwargs: Any,
    ) -> None:
        oracle = RandomForestOracle(
            objective=objective,
            max_trials=max_trials,
            num_initial_points=num_initial_points,
            num_trees=num_trees,
            seed=seed,
            hyperparameters=hyperparameters,
            allow_new_entries=allow_new_entries,
            tune_new_entries=tune_new_entries,
            max_retries_per_trial=max_retries_per_trial,
            max_consecutive_failed_trials=max_consecutive_failed_trials,
        )
        super().__init__(oracle, hypermodel, **kwargs)


class SimulatedAnnealing(Tuner):
    """Walks from point to neighbour, and takes a worse one with a chance that falls as the walk cools.

    initial_temperature: in units of the spread of the first scores: a point that is worse by so much is
    accepted with a chance of 1/e. cooling: what the temperature is multiplied by after each trial; None: such
    that it is down to a thousandth after `max_trials`, or 0.95 without that limit. The other arguments are
    those of `BayesianOptimization`.

    Further keywords are those of `Tuner` and `aiotune.Settings`.
    """

    def __init__(
        self,
        hypermodel: HyperModel | Callable[[HyperParameters], Any] | None = None,
        objective: str | Objective | Sequence[str | Objective] | None = None,
        max_trials: int | None = 10,
        num_initial_points: int | None = None,
        initial_temperature: float = 0.3,
        cooling: float | None = None,
        seed: int | None = None,
        hyperparameters: HyperParameters | None = None,
        tune_new_entries: bool = True,
        allow_new_entries: bool = True,
        max_retries_per_trial: int = 0,
        max_consecutive_failed_trials: int = 3,
        **kwargs: Any,
    ) -> None:
        oracle = SimulatedAnnealingOracle(
            objective=objective,
            max_trials=max_trials,
            num_initial_points=num_initial_points,
            initial_temperature=initial_temperature,
            cooling=cooling,
            seed=seed,
            hyperparameters=hyperparameters,
            allow_new_entries=allow_new_entries,
            tune_new_entries=tune_new_entries,
            max_retries_per_trial=max_retries_per_trial,
            max_consecutive_failed_trials=max_consecutive_failed_trials,
        )
        super().__init__(oracle, hypermodel, **kwargs)


class TPE(Tuner):
    """Puts each trial where good trials lie denser than others: a tree-structured Parzen estimator.

    Quick with any number of trials, and at home with categories and conditions. gamma: the share of the trials
    that count as good, 25 of them at most. num_candidates: so many points are drawn where good trials are, and
    the most promising one is taken: fewer explore more. prior_weight: what a uniform density counts beside the
    trials, each of which counts 1: more explores more. The other arguments are those of `BayesianOptimization`.

    Further keywords are those of `Tuner` and `aiotune.Settings`.
    """

    def __init__(
        self,
        hypermodel: HyperModel | Callable[[HyperParameters], Any] | None = None,
        objective: str | Objective | Sequence[str | Objective] | None = None,
        max_trials: int | None = 10,
        num_initial_points: int | None = None,
        gamma: float = 0.1,
        num_candidates: int = 24,
        prior_weight: float = 1.0,
        seed: int | None = None,
        hyperparameters: HyperParameters | None = None,
        tune_new_entries: bool = True,
        allow_new_entries: bool = True,
        max_retries_per_trial: int = 0,
        max_consecutive_failed_trials: int = 3,
        **kwargs: Any,
    ) -> None:
        oracle = TPEOracle(
            objective=objective,
            max_trials=max_trials,
            num_initial_points=num_initial_points,
            gamma=gamma,
            num_candidates=num_candidates,
            prior_weight=prior_weight,
            seed=seed,
            hyperparameters=hyperparameters,
            allow_new_entries=allow_new_entries,
            tune_new_entries=tune_new_entries,
            max_retries_per_trial=max_retries_per_trial,
            max_consecutive_failed_trials=max_consecutive_failed_trials,
        )
        super().__init__(oracle, hypermodel, **kwargs)
