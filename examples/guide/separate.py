"""Leave Keras code that exists as it is: `train` knows nothing of tuning, and `run_trial` calls it.

`train` saves its model itself, in the trial's directory, from where the best one is loaded in the end.
"""

import asyncio
from pathlib import Path

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

import aiotune


def load_data():
    """Return (x, y) to train and to validate."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    order = np.random.default_rng(0).permutation(len(x))
    return [(x[part], y[part]) for part in np.split(order, [1400])]


def train(data, units, dropout, learning_rate, path, epochs=3):
    """Train a network, save it at `path`, and return its accuracy."""
    (x, y), (x_val, y_val) = data
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(units, activation="relu"),
            layers.Dropout(dropout),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(
        keras.optimizers.Adam(learning_rate),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    model.fit(x, y, epochs=epochs, verbose=0)
    model.save(path)
    _, accuracy = model.evaluate(x_val, y_val, verbose=0)
    return accuracy


class Digits(aiotune.RandomSearch):
    def run_trial(self, trial, data):
        hp = trial.hyperparameters
        accuracy = train(
            data,
            units=hp.Int("units", 16, 128, step=16),
            dropout=hp.Float("dropout", 0.0, 0.5, step=0.1),
            learning_rate=hp.Float("learning_rate", 1e-4, 1e-2, sampling="log"),
            path=Path(self.get_trial_dir(trial.trial_id)) / "model.keras",
        )
        return {"accuracy": accuracy}


async def main():
    data = load_data()
    tuner = Digits(
        objective=aiotune.Objective("accuracy", "max"),
        max_trials=3,
        overwrite=True,
        seed=0,
        directory="results",
        project_name="separate",
    )
    result = await tuner.search(data)
    print(result)

    path = Path(tuner.get_trial_dir(result.best_trial.trial_id)) / "model.keras"
    _, (x_val, y_val) = data
    _, accuracy = keras.models.load_model(path).evaluate(x_val, y_val, verbose=0)
    print(f"Its model, loaded from {path}: accuracy {accuracy:.4f}")

    # The hyperparameters have the names of the function's own parameters.
    values = result.best_hyperparameters.values
    accuracy = train(data, **values, path="results/longer.keras", epochs=8)
    print(f"Trained for longer: accuracy {accuracy:.4f}")


if __name__ == "__main__":
    asyncio.run(main())
