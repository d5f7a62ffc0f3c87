"""The tuners: an oracle each, with KerasTuner's names and defaults."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from aiotune.hypermodel import HyperModel
from aiotune.hyperparameters import HyperParameters
from aiotune.objective import Objective
from aiotune.oracles.random_search import RandomSearchOracle
from aiotune.tuner import Tuner

__all__ = ["RandomSearch", "Tuner"]


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
