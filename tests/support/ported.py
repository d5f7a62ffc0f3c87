"""Tuners written as KerasTuner's users write them. Children import this module, so it imports little."""

from __future__ import annotations

from typing import Any

from aiotune import HyperModel, HyperParameters, RandomSearch
from aiotune.executors.context import RunContext

__all__ = [
    "Batches",
    "BrokenEarly",
    "Distributed",
    "Looped",
    "NanAtFirst",
    "OwnLoop",
    "Returning",
    "Twins",
    "Updating",
    "Writing",
    "dense",
    "make_strategy",
    "two_scopes",
]


def dense(hp: HyperParameters) -> Any:
    """Return a model of one layer."""
    import keras

    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(hp.Int("units", 2, 8))])
    model.add(keras.layers.Dense(2, activation="softmax"))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class Batches(RandomSearch):
    """Adds a hyperparameter of its own to the training."""

    def run_trial(self, trial: RunContext, *args: Any, **kwargs: Any) -> Any:
        size = trial.hyperparameters.Choice("batch_size", [8, 16])
        return super().run_trial(trial, *args, batch_size=size, **kwargs)


class OwnLoop(RandomSearch):
    """Builds with its hypermodel, trains in a loop, saves the model, writes a file."""

    def run_trial(self, trial: RunContext, x: Any, y: Any, epochs: int) -> Any:
        hp = trial.hyperparameters
        assert self.hypermodel is not None
        model = self.hypermodel.build(hp)
        losses = []
        for epoch in range(epochs):
            model.fit(x, y, batch_size=hp.Int("batch", 8, 16, step=8), verbose=0)
            losses.append(float(model.evaluate(x, y, verbose=0)[0]))
            self.on_epoch_end(trial, model, epoch, logs={"loss": losses[-1]})
        self.save_model(trial.trial_id, model)
        with open(f"{self.get_trial_dir(trial.trial_id)}/own.txt", "w") as file:
            file.write(trial.trial_id)
        return {"loss": losses[-1]}


class Looped(HyperModel):
    """Builds no Keras model; what `twice` it asks for fails."""

    def declare_hyperparameters(self, hp: HyperParameters) -> None:
        hp.Fixed("seed", 3)

    def build(self, hp: HyperParameters) -> Any:
        kind = hp.Choice("kind", ["once", "twice"])
        with hp.conditional_scope("kind", ["twice"]):
            times = hp.Int("times", 2, 5)
        if kind == "twice":
            raise RuntimeError("no weights to download")
        return times, hp.Float("rate", 0.0, 1.0)


class BrokenEarly(RandomSearch):
    """Uses a hypermodel that builds anything, and breaks in part of its space."""

    def run_trial(self, trial: RunContext) -> float:
        assert self.hypermodel is not None
        _, rate = self.hypermodel.build(trial.hyperparameters)
        return float(rate)


class Returning(RandomSearch):
    """Returns what it is told to."""

    def run_trial(self, trial: RunContext, what: str) -> Any:
        x = float(trial.hyperparameters.Float("x", 0.0, 1.0))
        return {
            "float": x,
            "dict": {"score": x, "other": 2.0},
            "list": [{"score": x - 1.0, "other": 1.0}, {"score": x + 1.0, "other": 3.0}],
            "floats": [x - 1.0, x + 1.0],
        }[what]


class Reading(RandomSearch):
    """Reads its values from the dict."""

    def run_trial(self, trial: RunContext) -> float:
        values = trial.hyperparameters.values
        return float(values["x"] + values["y"])


class Writing(RandomSearch):
    """Writes to its hyperparameters, in every way that there is."""

    def run_trial(self, trial: RunContext) -> float:
        hp = trial.hyperparameters
        hp.Fixed("batch", 32)
        hp.Int("units", 1, 9)
        hp.values["units"] = 4
        return float(hp.get("units"))


class Updating(RandomSearch):
    """Tells its metrics as KerasTuner's oldest programs do, and returns nothing."""

    def run_trial(self, trial: RunContext) -> None:
        x = trial.hyperparameters.Float("x", 0.0, 1.0)
        oracle: Any = self.oracle
        oracle.update_trial(trial.trial_id, {"score": x + 1.0, "other": 1.0})
        oracle.update_trial(trial.trial_id, {"score": x, "other": 2.0}, step=1)


class NanAtFirst(RandomSearch):
    """The first attempt at each trial has no score."""

    def run_trial(self, trial: RunContext) -> dict[str, float]:
        x: float = trial.hyperparameters.Float("x", 0.0, 1.0)
        if trial.assignment.attempt == 0:
            trial.report(0, score=-5.0)
            return {"score": float("nan")}
        return {"score": x}


def two_scopes(hp: HyperParameters) -> dict[str, Any]:
    """Declare one name in two scopes, with another range in each."""
    found = {"kind": hp.Choice("kind", ["sgd", "adam"])}
    with hp.conditional_scope("kind", ["sgd"]):
        found["sgd"] = hp.Int("rate", 1, 3)
    with hp.conditional_scope("kind", ["adam"]):
        found["adam"] = hp.Int("rate", 10, 30, step=10)
    return found


class Twins(RandomSearch):
    """Has two hyperparameters of one name, in two scopes."""

    def run_trial(self, trial: RunContext) -> float:
        found = two_scopes(trial.hyperparameters)
        return float(found["sgd"] if found["kind"] == "sgd" else found["adam"])


def make_strategy() -> Any:
    """Return a strategy for the processor."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(["CPU:0"])


class Distributed(HyperModel):
    """Tells whether it was built, and trained, in a strategy's scope."""

    was_distributed = False

    def build(self, hp: HyperParameters) -> Any:
        import tensorflow as tf

        self.was_distributed = tf.distribute.has_strategy()
        return dense(hp)

    def fit(self, hp: HyperParameters, model: Any, *args: Any, **kwargs: Any) -> Any:
        import tensorflow as tf

        history = model.fit(*args, **kwargs).history
        return {
            "val_accuracy": max(history["val_accuracy"]),
            "built": float(self.was_distributed),
            "trained": float(tf.distribute.has_strategy()),
        }
