"""Tune how a model is trained: a `HyperModel` with a `fit` of its own chooses batch size, order and weights.

`fit` gets what `search()` was given, and `callbacks`, which it passes on to `model.fit` with the rest.
"""

import asyncio

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_breast_cancer

import aiotune


class Tumours(aiotune.HyperModel):
    def build(self, hp):
        units = hp.Int("units", 8, 64, step=8)
        model = keras.Sequential(
            [
                keras.Input((30,)),
                layers.Dense(units, activation="relu"),
                layers.Dense(1, activation="sigmoid"),
            ]
        )
        model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
        return model

    def fit(self, hp, model, *args, **kwargs):
        return model.fit(
            *args,
            batch_size=hp.Choice("batch_size", [16, 32, 64]),
            shuffle=hp.Boolean("shuffle"),
            class_weight={0: hp.Float("weight_of_malignant", 1.0, 4.0), 1: 1.0},
            **kwargs,
        )


def load_data():
    """Return (x, y) to train and to validate; y: 0 is malignant, 1 is benign."""
    x, y = load_breast_cancer(return_X_y=True)
    x = ((x - x.mean(axis=0)) / x.std(axis=0)).astype("float32")
    order = np.random.default_rng(0).permutation(len(x))
    return [(x[part], y[part]) for part in np.split(order, [400])]


async def main():
    (x, y), validation = load_data()
    hypermodel = Tumours()
    tuner = aiotune.RandomSearch(
        hypermodel,
        objective="val_loss",
        max_trials=4,
        overwrite=True,
        seed=2,
        directory="results",
        project_name="training",
    )
    result = await tuner.search(x, y, epochs=5, validation_data=validation)
    print(result)

    # `hp` remembers the choices of `fit`, too, so the same training can be had again.
    hp = tuner.get_best_hyperparameters()[0]
    print(hp.values)
    model = hypermodel.build(hp)
    history = hypermodel.fit(hp, model, x, y, epochs=5, validation_data=validation, verbose=0)
    print(f"Trained once more: val_accuracy {history.history['val_accuracy'][-1]:.3f}")


if __name__ == "__main__":
    asyncio.run(main())
