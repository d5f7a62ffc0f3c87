"""Say what is to be best: a metric that Keras has, and one of your own.

aiotune knows of Keras's metrics whether they should be small or large; of your own you say it with `Objective`.
"""

import asyncio

import keras
import numpy as np
from keras import layers, ops
from sklearn.datasets import load_diabetes

import aiotune


class Near(keras.metrics.Metric):
    """The share of predictions that are no farther than `distance` from the truth."""

    def __init__(self, distance, name="near", **kwargs):
        super().__init__(name=name, **kwargs)
        self.distance = distance
        self.near = self.add_weight(name="near", initializer="zeros")
        self.total = self.add_weight(name="total", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        error = ops.abs(ops.reshape(y_true, (-1,)) - ops.reshape(y_pred, (-1,)))
        self.near.assign_add(ops.sum(ops.cast(error <= self.distance, self.dtype)))
        self.total.assign_add(ops.cast(ops.size(error), self.dtype))

    def result(self):
        return self.near / self.total

    def get_config(self):
        return {**super().get_config(), "distance": self.distance}


def build_model(hp):
    model = keras.Sequential([keras.Input((10,))])
    for layer in range(hp.Int("layers", 1, 2)):
        model.add(layers.Dense(hp.Int(f"units_{layer}", 8, 64, step=8), activation="relu"))
    model.add(layers.Dense(1, bias_initializer=keras.initializers.Constant(1.5)))
    model.compile(
        optimizer=keras.optimizers.Adam(hp.Float("learning_rate", 1e-3, 1e-1, sampling="log")),
        loss="mean_squared_error",
        metrics=["mean_absolute_error", Near(0.5)],
    )
    return model


def load_data():
    """Return (x, y) to train and to validate; y: how far diabetes went in a year, from 0.25 to 3.5."""
    x, y = load_diabetes(return_X_y=True)
    x, y = (x / x.std(axis=0)).astype("float32"), (y / 100).astype("float32")
    order = np.random.default_rng(0).permutation(len(x))
    return [(x[part], y[part]) for part in np.split(order, [342])]


async def search(objective, project_name):
    (x, y), validation = load_data()
    tuner = aiotune.RandomSearch(
        build_model,
        objective=objective,
        max_trials=3,
        overwrite=True,
        seed=0,
        directory="results",
        project_name=project_name,
    )
    return await tuner.search(x, y, epochs=8, validation_data=validation)


async def main():
    smallest, nearest = await asyncio.gather(  # both at once, sharing the machine
        search("val_mean_absolute_error", "built_in"),
        search(aiotune.Objective("val_near", direction="max"), "custom"),
    )
    print(smallest)
    print(nearest)


if __name__ == "__main__":
    asyncio.run(main())
