"""Random search without repeats, whatever runs beside it.

The search's points are the first `max_trials` distinct ones of the sequence that `sampling` draws. Hence the
number of slots and the order in which trials end change nothing. Two things may: trials that fail before
they have met all their names, and a name that the program declares with one range here and another there, of
which the first one met holds.
"""

from __future__ import annotations

from collections.abc import Sequence

from aiotune.history import History
from aiotune.hyperparameters import HyperParameters
from aiotune.objective import Objective
from aiotune.oracles.base import Answer
from aiotune.oracles.sampling import SamplingOracle

__all__ = ["RandomSearchOracle"]


class RandomSearchOracle(SamplingOracle):
    """Draws every trial at random. A finite space is exhausted exactly, without a repeat."""

    def __init__(
        self,
        objective: Objective | str | Sequence[Objective | str] | None = None,
        max_trials: int | None = 10,
        seed: int | None = None,
        hyperparameters: HyperParameters | None = None,
        allow_new_entries: bool = True,
        tune_new_entries: bool = True,
        max_retries_per_trial: int = 0,
        max_consecutive_failed_trials: int = 3,
    ) -> None:
        super().__init__(
            objective=objective,
            max_trials=max_trials,
            hyperparameters=hyperparameters,
            allow_new_entries=allow_new_entries,
            tune_new_entries=tune_new_entries,
            seed=seed,
            max_retries_per_trial=max_retries_per_trial,
            max_consecutive_failed_trials=max_consecutive_failed_trials,
        )

    def ask(self, history: History, number: int) -> Answer:
        return self.draw(history)
