"""Tuners that train many points a little and the best of them more: Hyperband and ASHA."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from aiotune.epochs_tuner import EpochsTuner
from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.hypermodel import HyperModel
from aiotune.hyperparameters import HyperParameters
from aiotune.objective import Objective
from aiotune.oracles.asha import AshaOracle
from aiotune.oracles.base import Oracle
from aiotune.oracles.brackets import BracketPlan, Resource
from aiotune.oracles.budgeted import BudgetedOracle
from aiotune.oracles.hyperband import HyperbandOracle
from aiotune.oracles.stopping import AshaStoppingOracle
from aiotune.pruners.base import Pruner

__all__ = ["ASHA", "BudgetedTuner", "Hyperband"]

Mode = Literal["promote", "stop"]


class BudgetedTuner(EpochsTuner):
    """What tuners share whose oracle trains many points a little, and some of them more.

    max_epochs: the most that it grants. Of data, it is parts: then `epochs` of `search` is that of each run.
    """

    def __init__(
        self,
        oracle: BudgetedOracle,
        hypermodel: HyperModel | Callable[[HyperParameters], Any] | None,
        max_epochs: int,
        **kwargs: Any,
    ) -> None:
        self._check_settings(oracle, kwargs.get("keep_checkpoints"), kwargs.get("pruner"))
        granted = max_epochs if oracle.resource == "epochs" else None
        super().__init__(oracle, hypermodel, max_epochs=granted, **kwargs)

    def _check_settings(
        self, oracle: BudgetedOracle, keep_checkpoints: object, pruner: object
    ) -> None:
        """Raise FatalValueError for settings that contradict the oracle."""
        if keep_checkpoints == "none" and oracle.needs_checkpoints:
            raise FatalValueError(
                f'keep_checkpoints="none" cannot be had with {type(self).__name__}: a promoted trial goes on '
                "from its checkpoint. Drop it, or pass a small number"
            )
        if oracle.resource == "data" and isinstance(pruner, Pruner) and pruner.judges_reports:
            raise FatalValueError(
                'pruner= compares trials step by step, which resource="data" does not allow: at one step they '
                "have been trained on different shares of the data. Drop one of the two"
            )

    def plan(self) -> BracketPlan:
        """Return what the search does if it goes to its end: `print(tuner.plan())` shows rungs and epochs."""
        oracle = self.oracle
        assert isinstance(oracle, BudgetedOracle)
        return oracle.plan()


class ASHA(BudgetedTuner):
    """Trains many points for few epochs and the best of them for more; no device ever waits: Li et al. 2020.

    max_epochs: how far the best are trained. factor: from each rung about one of so many goes on, to so many
    times the epochs. min_epochs: what every trial gets. max_trials: how many points are tried. brackets: how
    many of Hyperband's brackets trials are drawn into: with more than one, some begin with more epochs. mode:
    "promote": a trial pauses at each rung, and goes on when it is among the best there; "stop": it trains on,
    and is stopped at a rung where it is not. sampler, resource: see `Hyperband`. What is promoted or stopped
    depends on the order in which trials get there. The other arguments are those of `RandomSearch`.

    Further keywords are those of `Tuner` and `aiotune.Settings`.
    """

    def __init__(
        self,
        hypermodel: HyperModel | Callable[[HyperParameters], Any] | None = None,
        objective: str | Objective | Sequence[str | Objective] | None = None,
        max_epochs: int = 100,
        factor: int = 3,
        min_epochs: int = 1,
        max_trials: int | None = 100,
        brackets: int = 1,
        mode: Mode = "promote",
        sampler: str | Oracle = "random",
        resource: Resource = "epochs",
        seed: int | None = None,
        hyperparameters: HyperParameters | None = None,
        tune_new_entries: bool = True,
        allow_new_entries: bool = True,
        max_retries_per_trial: int = 0,
        max_consecutive_failed_trials: int = 3,
        **kwargs: Any,
    ) -> None:
        oracle = _asha_oracle(
            mode,
            resource,
            objective=objective,
            max_epochs=max_epochs,
            factor=factor,
            min_epochs=min_epochs,
            max_trials=max_trials,
            brackets=brackets,
            sampler=sampler,
            seed=seed,
            hyperparameters=hyperparameters,
            allow_new_entries=allow_new_entries,
            tune_new_entries=tune_new_entries,
            max_retries_per_trial=max_retries_per_trial,
            max_consecutive_failed_trials=max_consecutive_failed_trials,
        )
        super().__init__(oracle, hypermodel, max_epochs, **kwargs)


class Hyperband(BudgetedTuner):
    """Trains many points for few epochs and the best of them for more: Li et al. 2018, Algorithm 1.

    max_epochs: how far the best are trained. factor: each time about one of so many goes on, to so many times
    the epochs. hyperband_iterations: how often all brackets are run. The search sets `epochs` and
    `initial_epoch` of each `fit`; an overridden `run_trial` finds them in `trial.hyperparameters` as
    "tuner/epochs" and "tuner/initial_epoch". The other arguments are those of `RandomSearch`, and:

    min_epochs: what every trial gets. sampler: what says at which points: "random", "quasi_random", "tpe"
    (BOHB), "bayesian" (MOBSTER), "random_forest", "cmaes", or an oracle. resource: "data": instead of more
    epochs, a promoted trial gets more of the data, of which `max_epochs` parts are all, and trains anew;
    `epochs` of `search` is then that of each run. `print(tuner.plan())` shows rungs and epochs beforehand.

    Further keywords are those of `Tuner` and `aiotune.Settings`.
    """

    def __init__(
        self,
        hypermodel: HyperModel | Callable[[HyperParameters], Any] | None = None,
        objective: str | Objective | Sequence[str | Objective] | None = None,
        max_epochs: int = 100,
        factor: int = 3,
        hyperband_iterations: int = 1,
        seed: int | None = None,
        hyperparameters: HyperParameters | None = None,
        tune_new_entries: bool = True,
        allow_new_entries: bool = True,
        max_retries_per_trial: int = 0,
        max_consecutive_failed_trials: int = 3,
        *,
        min_epochs: int = 1,
        sampler: str | Oracle = "random",
        resource: Resource = "epochs",
        **kwargs: Any,
    ) -> None:
        if "max_trials" in kwargs:
            raise FatalTypeError(
                "Hyperband takes no max_trials: max_epochs, factor and hyperband_iterations say how many "
                "trials there are; to end earlier, pass limits=aiotune.Limits(max_time=..., max_epochs=...)"
            )
        oracle = HyperbandOracle(
            objective=objective,
            max_epochs=max_epochs,
            factor=factor,
            hyperband_iterations=hyperband_iterations,
            seed=seed,
            hyperparameters=hyperparameters,
            allow_new_entries=allow_new_entries,
            tune_new_entries=tune_new_entries,
            max_retries_per_trial=max_retries_per_trial,
            max_consecutive_failed_trials=max_consecutive_failed_trials,
            min_epochs=min_epochs,
            sampler=sampler,
            resource=resource,
        )
        super().__init__(oracle, hypermodel, max_epochs, **kwargs)


def _asha_oracle(mode: Mode, resource: Resource, **options: Any) -> AshaOracle:
    """Return the oracle of a mode. FatalValueError for one that there is not, or not with this resource."""
    match mode:
        case "promote":
            return AshaOracle(resource=resource, **options)
        case "stop" if resource == "epochs":
            return AshaStoppingOracle(**options)
        case "stop":
            raise FatalValueError(
                f'mode="stop" cannot be had with resource="{resource}": a run cannot get more data while it '
                'trains. Drop mode="stop"'
            )
        case _:
            raise FatalValueError(f'mode={mode!r}: "promote" or "stop" is needed')
