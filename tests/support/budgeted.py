"""Hyperband searches for children to import: KerasTuner's own ways to read the budget."""

from __future__ import annotations

from typing import Any

from aiotune import Hyperband, HyperParameters
from aiotune.executors.context import RunContext
from tests.support import keras_search

__all__ = ["Budgeted", "Fitting", "build"]


def build(hp: HyperParameters) -> Any:
    """Return a model that runs eagerly: so few batches do not repay the tracing of a graph."""
    model = keras_search.build(hp)
    model.run_eagerly = True
    return model


class Budgeted(Hyperband):
    """Reads the budget as programs for KerasTuner do, and meets its names here alone."""

    def run_trial(self, trial: RunContext, *args: Any, **kwargs: Any) -> dict[str, float]:
        hp = trial.hyperparameters
        if "tuner/epochs" in hp.values:
            kwargs["epochs"] = hp.values["tuner/epochs"]
            kwargs["initial_epoch"] = hp.values["tuner/initial_epoch"]
        x = hp.Float("x", 0.0, 1.0)
        for epoch in range(kwargs["initial_epoch"], kwargs["epochs"]):
            trial.report(epoch, loss=x / (1 + epoch))
        return {
            "loss": x / kwargs["epochs"],
            "bracket": hp.get("tuner/bracket"),
            "round": hp["tuner/round"],
        }


class Fitting(keras_search.Dense):
    """A `fit` of its own that compares what it is given with the hyperparameters."""

    def build(self, hp: HyperParameters) -> Any:
        return build(hp)

    def fit(self, hp: HyperParameters, model: Any, *args: Any, **kwargs: Any) -> Any:
        assert "tuner/epochs" in hp.values
        assert (kwargs["initial_epoch"], kwargs["epochs"]) == (
            hp.values["tuner/initial_epoch"],
            hp.values["tuner/epochs"],
        )
        return super().fit(hp, model, *args, **kwargs)
