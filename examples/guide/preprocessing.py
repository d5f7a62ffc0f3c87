"""Tune how the data are prepared, together with the model that has to fit them.

`build` chooses how many components the model takes in; `fit` reads that with `hp.get` and projects the data.
"""

import asyncio

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_wine

import aiotune


class Wines(aiotune.HyperModel):
    def build(self, hp):
        components = hp.Int("components", 2, 13)
        model = keras.Sequential(
            [
                keras.Input((components,)),
                layers.Dense(16, activation="relu"),
                layers.Dense(3, activation="softmax"),
            ]
        )
        model.compile(
            keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy", metrics=["accuracy"]
        )
        return model

    def fit(self, hp, model, x, y, validation_data, **kwargs):
        x_val, y_val = validation_data
        prepare = preparation(x, hp.Boolean("standardize"), hp.get("components"))
        return model.fit(prepare(x), y, validation_data=(prepare(x_val), y_val), **kwargs)


def preparation(x, standardize, components):
    """Return a function that maps samples to their first principal components, as found in `x`."""
    mean = x.mean(axis=0)
    scale = x.std(axis=0) if standardize else 1.0
    _, _, axes = np.linalg.svd((x - mean) / scale, full_matrices=False)
    return lambda samples: ((samples - mean) / scale) @ axes[:components].T


async def main():
    x, y = load_wine(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    train, validate = np.split(order, [120])
    tuner = aiotune.RandomSearch(
        Wines(),
        objective="val_accuracy",
        max_trials=6,
        overwrite=True,
        seed=0,
        directory="results",
        project_name="preprocessing",
    )
    result = await tuner.search(
        x[train], y[train], epochs=20, validation_data=(x[validate], y[validate])
    )
    print(result)
    for trial in result.best_trials(6):
        print(f"val_accuracy {trial.score:.3f}  {dict(trial.values)}")


if __name__ == "__main__":
    asyncio.run(main())
