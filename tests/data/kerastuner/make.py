"""Write the projects of this folder anew, with KerasTuner itself: python tests/data/kerastuner/make.py

Needs keras-tuner 1.4.8 and tensorboard beside Keras, in an environment of its own; the suite does not. What
KerasTuner answers about each project is kept in expected.json.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import keras
import keras_tuner as kt
import numpy as np

HERE = Path(__file__).parent


class Broken(kt.RandomSearch):
    """Every kind of name; trial 2 fails, trial 4 is not a number, trial 7 is interrupted."""

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        hp, number = trial.hyperparameters, int(trial.trial_id)
        x = hp.Float("x", 0.0, 1.0)
        rate = hp.Float("rate", 1e-4, 1e-1, sampling="log")
        drop = hp.Float("drop", 0.1, 0.7, step=0.1)
        units = hp.Int("units", 8, 64, step=8)
        hp.Int("batch", 4, 64, step=2, sampling="log")
        hp.Fixed("epochs", 3)
        norm = hp.Boolean("norm")
        hp.Choice("kind", ["dense", "conv"])
        with hp.conditional_scope("kind", ["conv"]):
            filters = hp.Int("filters", 1, 3)
        with hp.name_scope("head"):
            hp.Choice("width", [1, 2, 4], default=2)
        if number == 2:
            raise kt.errors.FailedTrialError("out of luck")
        if number == 7:
            raise KeyboardInterrupt
        score = (x - 0.3) ** 2 + drop + rate + units / 64 + (filters or 0) * norm
        return {"val_loss": float("nan") if number == 4 else score, "accuracy": 1 - x}


class Grid(kt.GridSearch):
    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> float:
        hp = trial.hyperparameters
        kind = hp.Choice("kind", ["a", "b"])
        if kind == "b":
            return 2.0 + hp.Choice("extra", [1, 2])
        return hp.Float("x", 0.0, 0.7)


class Bayesian(kt.BayesianOptimization):
    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> float:
        hp = trial.hyperparameters
        return (hp.Float("x", 0.0, 1.0) - 0.4) ** 2 + hp.Int("n", 0, 5) / 10


class Hyperband(kt.Hyperband):
    """Interrupted in trial `last`, if there is one."""

    last: int | None = None

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        hp = trial.hyperparameters
        x = hp.get("x")
        if self.last is not None and int(trial.trial_id) == self.last:
            raise KeyboardInterrupt
        return {"val_accuracy": x * hp.values["tuner/epochs"]}


class Retried(kt.RandomSearch):
    """The second trial fails and waits for another attempt."""

    def pre_create_trial(self) -> None:
        if self.oracle._retry_queue:
            raise KeyboardInterrupt

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> float:
        x = trial.hyperparameters.Int("x", 0, 9)
        if trial.trial_id == "1":
            raise ValueError("no luck yet")
        return float(x)


class Steps(kt.RandomSearch):
    """Metrics of several steps, and several values at one of them."""

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> None:
        x = trial.hyperparameters.Float("x", 0.0, 1.0)
        for step in range(3):
            for execution in range(2):
                score = x + abs(step - 1) + execution / 10
                metrics = {"val_loss": score, "val_accuracy": 1 - score}
                self.oracle.update_trial(trial.trial_id, metrics, step=step)


def build(hp: kt.HyperParameters) -> keras.Model:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(hp.Int("units", 1, 4))])
    model.add(keras.layers.Dense(1))
    model.compile(keras.optimizers.SGD(hp.Float("rate", 0.01, 0.1)), "mse")
    return model


def data() -> tuple[Any, Any]:
    x = np.arange(16, dtype="float32").reshape(8, 2) / 16
    return x, x.sum(axis=1)


def search(tuner: kt.Tuner, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Run it and return what KerasTuner answers about it."""
    try:
        tuner.search(*args, **{"verbose": 1, **kwargs})
    except KeyboardInterrupt:
        tuner.save()
    best = [t for t in tuner.oracle.get_best_trials(100) if t.status == "COMPLETED"]
    return {
        "best": [t.trial_id for t in best],
        "scores": [t.score for t in best],
        "values": [t.hyperparameters.values for t in best],
        "trials": len(tuner.oracle.trials),
    }


def make(kind: type[kt.Tuner], name: str, **arguments: Any) -> kt.Tuner:
    return kind(directory=HERE, project_name=name, overwrite=True, **arguments)


def make_hyperband(name: str) -> kt.Tuner:
    hp = kt.HyperParameters()  # without a name beforehand KerasTuner's Hyperband makes no trial
    hp.Float("x", 0.0, 1.0)
    objective = kt.Objective("val_accuracy", "max")
    return make(
        Hyperband, name, objective=objective, hyperparameters=hp, max_epochs=4, factor=2, seed=5
    )


def main() -> None:
    x, y = data()
    patient = {"max_consecutive_failed_trials": 99}
    half, whole = (make_hyperband(name) for name in ("hyperband", "hyperband_done"))
    half.last = 9
    model = make(
        kt.RandomSearch, "model", hypermodel=build, objective="val_loss", max_trials=3, seed=6
    )
    expected = {
        "random": search(
            make(Broken, "random", objective="val_loss", max_trials=20, seed=1, **patient)
        ),
        "grid": search(make(Grid, "grid", max_trials=6, seed=2)),
        "bayesian": search(make(Bayesian, "bayesian", max_trials=8, seed=3)),
        "hyperband": search(half),
        "hyperband_done": search(whole),
        "retried": search(make(Retried, "retried", max_trials=5, seed=4, max_retries_per_trial=2)),
        "steps": search(make(Steps, "steps", objective="val_loss", max_trials=2, seed=4)),
        "model": search(model, x, y, epochs=3, validation_data=(x, y), callbacks=[]),
    }
    best = model.get_best_models(1)[0]
    expected["model"]["loss"] = float(best.evaluate(x, y, verbose=0))
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    for path in HERE.glob("*/trial_*/trial.json"):  # no paths of the machine that wrote them
        path.write_text(re.sub(r'File \\"[^"]*/([^/"]+)\\"', r'File \\"\1\\"', path.read_text()))


if __name__ == "__main__":
    for each in HERE.glob("*/oracle.json"):
        shutil.rmtree(each.parent)
    main()
