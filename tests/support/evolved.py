"""Population based training for children to import: a model that tells what it goes on from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from aiotune import HyperModel, HyperParameters, PopulationBasedTraining
from aiotune.executors.context import RunContext

__all__ = ["Diary", "Walk", "Widening"]


class Walk(PopulationBasedTraining):
    """Keeps where it is in a file, and goes on from there by steps of the size that is tuned."""

    async def run_trial(self, trial: RunContext) -> dict[str, float]:
        step = trial.hyperparameters.Float("step", 0.1, 1.0)
        budget, file = trial.budget, trial.checkpoint_dir / "place"
        assert budget is not None
        place = float(file.read_text()) if trial.is_continued else 0.0
        for epoch in range(budget.initial_epoch, budget.epochs):
            place += step
            trial.report(epoch, distance=abs(place - 3.0))
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_text(repr(place))
        return {"distance": abs(place - 3.0)}


class Diary(HyperModel):
    """Writes a line before and after each training: the sum of the weights, learning rate, and steps."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def build(self, hp: HyperParameters) -> Any:
        import keras

        model = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(3, "relu")])
        model.add(keras.layers.Dropout(hp.Float("dropout", 0.0, 0.5)))
        model.add(keras.layers.Dense(2, activation="softmax"))
        rate = hp.Float("rate", 1e-3, 1e-1, sampling="log")
        model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
        model.run_eagerly = True
        return model

    def fit(self, hp: HyperParameters, model: Any, *args: Any, **kwargs: Any) -> Any:
        begun = _state(model)
        history = model.fit(*args, **kwargs)
        record = {"values": hp.values, "begun": begun, "ended": _state(model)}
        with self.path.open("a") as file:
            print(json.dumps(record), file=file)
        return history


class Widening(Diary):
    """Has a hyperparameter that changes the shape of the model."""

    def build(self, hp: HyperParameters) -> Any:
        import keras

        model = keras.Sequential([keras.layers.Input((6,))])
        model.add(keras.layers.Dense(hp.Int("units", 8, 512, step=8)))
        model.add(keras.layers.Dense(2, activation="softmax"))
        model.compile("adam", "sparse_categorical_crossentropy")
        model.run_eagerly = True
        return model


def _state(model: Any) -> dict[str, float]:
    weights = [np.asarray(each, "float64").sum() for each in model.get_weights()]
    optimizer = model.optimizer
    return {
        "weights": float(sum(weights)),
        "rate": float(np.asarray(optimizer.learning_rate)),
        "iterations": int(np.asarray(optimizer.iterations)),
    }
