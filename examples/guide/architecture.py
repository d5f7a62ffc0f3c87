"""Tune a model's architecture: how many layers, the width of each, the activation, dropout, the learning rate.

After the search: its best trials, its best models, and one more training of the best on all data.
"""

import asyncio

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

import aiotune


def build_model(hp):
    model = keras.Sequential([keras.Input((64,))])
    activation = hp.Choice("activation", ["relu", "tanh"])
    for layer in range(hp.Int("layers", 1, 3)):
        model.add(layers.Dense(hp.Int(f"units_{layer}", 32, 256, step=32), activation=activation))
    if hp.Boolean("dropout"):
        model.add(layers.Dropout(0.25))
    model.add(layers.Dense(10, activation="softmax"))
    learning_rate = hp.Float("learning_rate", 1e-3, 1e-2, sampling="log")
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


# Built once right here, with the defaults: a mistake in it shows before anything is searched.
build_model(aiotune.HyperParameters()).summary()

x, y = load_digits(return_X_y=True)
x = (x / 16).astype("float32")
order = np.random.default_rng(0).permutation(len(x))
train, validate, test = np.split(order, [1397, 1597])


async def main():
    tuner = aiotune.RandomSearch(
        hypermodel=build_model,
        objective="val_accuracy",
        max_trials=3,
        executions_per_trial=2,  # each trial is trained twice, and its score is the mean
        overwrite=True,
        seed=0,
        directory="results",
        project_name="architecture",
    )
    async with tuner:  # the framework is imported once for the whole block
        tuner.search_space_summary()
        result = await tuner.search(
            x[train], y[train], epochs=3, validation_data=(x[validate], y[validate])
        )
    print(result)
    tuner.results_summary(num_trials=2)

    for model in tuner.get_best_models(num_models=2):
        _, accuracy = model.evaluate(x[test], y[test], verbose=0)
        print(f"A model of the search: {accuracy:.3f} of the test images are right")

    known = np.concatenate([train, validate])
    model = build_model(tuner.get_best_hyperparameters()[0])
    model.fit(x[known], y[known], epochs=6, verbose=0)
    _, accuracy = model.evaluate(x[test], y[test], verbose=0)
    print(f"The best, trained on all the others: {accuracy:.3f} of the test images are right")


if __name__ == "__main__":
    asyncio.run(main())
