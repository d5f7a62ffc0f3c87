"""Return from `fit` what is to be best: a number that becomes smaller, or a dict of metrics.

Here it is what a wrong answer costs: to miss a malignant tumour is five times as bad as a false alarm.
"""

import asyncio

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_breast_cancer

import aiotune


class Cost(aiotune.HyperModel):
    """Returns a number. It is to be small, so the tuner needs no objective."""

    def build(self, hp):
        model = keras.Sequential(
            [
                keras.Input((30,)),
                layers.Dense(hp.Int("units", 8, 64, step=8), activation="relu"),
                layers.Dense(1, activation="sigmoid"),
            ]
        )
        model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy")
        return model

    def fit(self, hp, model, x, y, validation_data, **kwargs):
        missed, alarms = self.train(hp, model, x, y, validation_data, **kwargs)
        return 5 * missed + alarms

    def train(self, hp, model, x, y, validation_data, **kwargs):
        """Train the model; return how many tumours of the validation data it missed, and its false alarms."""
        model.fit(x, y, batch_size=hp.Choice("batch_size", [16, 32]), **kwargs)
        x_val, y_val = validation_data
        is_alarm = model.predict(x_val, verbose=0)[:, 0] < hp.Float("threshold", 0.5, 0.95)
        missed = np.sum(~is_alarm & (y_val == 0))
        false_alarms = np.sum(is_alarm & (y_val == 1))
        return int(missed), int(false_alarms)


class Costs(Cost):
    """Returns a dict: all of it is kept with the trial, and the tuner's objective names what counts."""

    def fit(self, hp, model, x, y, validation_data, **kwargs):
        missed, alarms = self.train(hp, model, x, y, validation_data, **kwargs)
        return {"cost": 5 * missed + alarms, "missed": missed, "false_alarms": alarms}


def load_data():
    """Return (x, y) to train and to validate; y: 0 is malignant, 1 is benign."""
    x, y = load_breast_cancer(return_X_y=True)
    x = ((x - x.mean(axis=0)) / x.std(axis=0)).astype("float32")
    order = np.random.default_rng(0).permutation(len(x))
    return [(x[part], y[part]) for part in np.split(order, [300])]


async def main():
    (x, y), validation = load_data()
    options = {"max_trials": 3, "overwrite": True, "seed": 0, "directory": "results"}
    number = aiotune.RandomSearch(Cost(), project_name="float", **options)
    metrics = aiotune.RandomSearch(
        Costs(), objective=aiotune.Objective("cost", "min"), project_name="dict", **options
    )
    results = await asyncio.gather(
        number.search(x, y, epochs=4, validation_data=validation),
        metrics.search(x, y, epochs=4, validation_data=validation),
    )
    for result in results:
        print(result)
    best = results[1].best_trial
    print(f"{best.metrics['missed']:.0f} missed, {best.metrics['false_alarms']:.0f} false alarms")


if __name__ == "__main__":
    asyncio.run(main())
