"""Population based training, and a training along the schedule that it has found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from aiotune.epochs_tuner import EpochsTuner
from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.hypermodel import HyperModel
from aiotune.hyperparameters import HyperParameters
from aiotune.objective import Objective
from aiotune.oracles.population import PopulationBasedTrainingOracle
from aiotune.oracles.replay import ReplayOracle
from aiotune.schedule import Schedule, schedule_of
from aiotune.trial import Trial

__all__ = ["PopulationBasedTraining", "Replay"]


class PopulationBasedTraining(EpochsTuner):
    """Trains a population side by side and lets values change meanwhile: Jaderberg et al. 2017.

    population_size: how many members. max_epochs: how far they train. interval: after so many epochs the worst
    members are replaced by descendants of the best ones, which go on from their weights and optimizer with
    values nearby; None: a tenth of `max_epochs`. quantile: the share that is replaced, or has descendants.
    resample_probability: the chance that a value of a descendant is drawn anew, each by itself; else it is
    multiplied by one of `factors`. explore: the names whose values may change; None: all. Values that change
    the shape of the model cannot: leave them out. The other arguments are those of `RandomSearch`.

    Further keywords are those of `Tuner` and `aiotune.Settings`.
    """

    def __init__(
        self,
        hypermodel: HyperModel | Callable[[HyperParameters], Any] | None = None,
        objective: str | Objective | Sequence[str | Objective] | None = None,
        population_size: int = 10,
        max_epochs: int = 100,
        interval: int | None = None,
        quantile: float = 0.25,
        resample_probability: float = 0.25,
        factors: Sequence[float] = (0.8, 1.2),
        explore: Sequence[str] | None = None,
        seed: int | None = None,
        hyperparameters: HyperParameters | None = None,
        tune_new_entries: bool = True,
        allow_new_entries: bool = True,
        max_retries_per_trial: int = 0,
        max_consecutive_failed_trials: int = 3,
        **kwargs: Any,
    ) -> None:
        if "max_trials" in kwargs:
            raise FatalTypeError(
                "PopulationBasedTraining takes no max_trials: population_size, max_epochs and interval say how "
                "many trials there are; to end earlier, pass limits=aiotune.Limits(max_time=...)"
            )
        oracle = PopulationBasedTrainingOracle(
            objective=objective,
            population_size=population_size,
            max_epochs=max_epochs,
            interval=interval,
            quantile=quantile,
            resample_probability=resample_probability,
            factors=factors,
            explore=explore,
            seed=seed,
            hyperparameters=hyperparameters,
            allow_new_entries=allow_new_entries,
            tune_new_entries=tune_new_entries,
            max_retries_per_trial=max_retries_per_trial,
            max_consecutive_failed_trials=max_consecutive_failed_trials,
        )
        super().__init__(oracle, hypermodel, max_epochs=oracle.max_epochs, **kwargs)

    def best_schedule(self, trial: Trial | None = None) -> Schedule:
        """Return the values that the best trial and its ancestors were trained with, from which epoch on.

        trial: another one. FatalValueError if no trial has a score.
        """
        if trial is None:
            best = self.get_best_trials(1)
            if not best:
                raise FatalValueError("no trial has a score yet: there is no schedule")
            trial = best[0]
        return schedule_of(self.trials, trial, self.oracle.chance)


class Replay(EpochsTuner):
    """Trains one model along a schedule, with the values that held at each epoch.

        schedule = tuner.best_schedule()
        result = await aiotune.Replay(build, schedule, "val_loss", project_name="final").search(x, y, ...)

    Each stage is a trial that goes on from the one before; the last one has the model. seed: None: that of the
    search that has found the schedule, so that the same data give the same model, as far as the framework
    allows.

    Further keywords are those of `Tuner` and `aiotune.Settings`.
    """

    def __init__(
        self,
        hypermodel: HyperModel | Callable[[HyperParameters], Any] | None = None,
        schedule: Schedule | None = None,
        objective: str | Objective | Sequence[str | Objective] | None = None,
        seed: int | None = None,
        hyperparameters: HyperParameters | None = None,
        max_retries_per_trial: int = 0,
        **kwargs: Any,
    ) -> None:
        if schedule is None:
            raise FatalValueError(
                "schedule is missing: pass tuner.best_schedule(), or aiotune.Schedule.load(path)"
            )
        oracle = ReplayOracle(
            schedule,
            objective=objective,
            seed=seed,
            hyperparameters=hyperparameters,
            max_retries_per_trial=max_retries_per_trial,
        )
        super().__init__(
            oracle, hypermodel, max_epochs=schedule.epochs, epochs_from="schedule", **kwargs
        )
