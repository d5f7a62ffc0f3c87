"""Tune a network that is there already: `HyperResNet` brings its own search space, which you may narrow.

python applications_resnet.py --trials 10 --epochs 10    as much as you like; it is a large network
"""

import argparse
import asyncio

import keras
import numpy as np
from sklearn.datasets import load_digits

import aiotune
from aiotune.applications import HyperResNet


class ShortTrained(HyperResNet):
    """The same network, made to be trained for some dozens of batches only."""

    def compile(self, model, hp):
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = 0.8  # its averages must follow within a few batches
        model.compile(
            keras.optimizers.Adam(hp.Choice("learning_rate", [1e-3, 3e-4])),
            loss="categorical_crossentropy",
            metrics=["accuracy"],
            jit_compile=False,  # on a processor, XLA takes longer than the training
        )


def load_data():
    """Return (x, y) to train and to validate; x: (n, 8, 8, 1), y: (n, 10), one-hot."""
    digits = load_digits()
    x = (digits.images[..., np.newaxis] / 16).astype("float32")
    y = keras.utils.to_categorical(digits.target)
    order = np.random.default_rng(0).permutation(len(x))
    train, validate, _ = np.split(order, [400, 500])
    return (x[train], y[train]), (x[validate], y[validate])


async def main(trials, epochs):
    (x, y), validation = load_data()

    # What is declared here wins over the network's own ranges.
    hp = aiotune.HyperParameters()
    hp.Fixed("version", "v2")
    hp.Fixed("conv3_depth", 1)
    hp.Fixed("conv4_depth", 1)

    tuner = aiotune.RandomSearch(
        ShortTrained(input_shape=(8, 8, 1), classes=10),
        objective="val_accuracy",
        max_trials=trials,
        hyperparameters=hp,
        overwrite=True,
        seed=0,
        directory="results",
        project_name="resnet",
    )
    result = await tuner.search(x, y, epochs=epochs, validation_data=validation)
    print(result)
    print(result.best_hyperparameters.values)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Tune a residual network for handwritten digits.")
    parser.add_argument("--trials", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=4)
    given = parser.parse_args()
    asyncio.run(main(given.trials, given.epochs))
