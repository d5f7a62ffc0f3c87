"""Find a small convolutional network for handwritten digits, with a random search of 20 trials.

The 1,797 images (8 x 8) ship with scikit-learn, so nothing is downloaded. A seeded permutation splits them
into 1,397 to train, 200 to validate and 200 to test.

    python examples/quickstart.py           run it again: what is done is kept, and only the rest runs
    python examples/quickstart.py --fresh   begin anew
"""

import argparse
import asyncio

import keras
import numpy as np
from sklearn.datasets import load_digits

import aiotune

EPOCHS = 15


def load_split(seed=0):
    """Return (x, y) to train, to validate and to test; x: (n, 8, 8, 1) from 0 to 1, y: (n,) from 0 to 9."""
    digits = load_digits()
    x = (digits.images[..., np.newaxis] / 16).astype("float32")
    order = np.random.default_rng(seed).permutation(len(x))
    parts = np.split(order, [1397, 1597])
    return [(x[part], digits.target[part]) for part in parts]


def build_model(hp):
    """Return a network whose depth, width, dropout and optimizer come from `hp`."""
    model = keras.Sequential([keras.Input((8, 8, 1))])
    for block in range(hp.Int("blocks", 1, 2)):
        filters = hp.Int(f"filters_{block}", 16, 64, step=16)
        model.add(keras.layers.Conv2D(filters, 3, padding="same", activation="relu"))
        if hp.Boolean("batch_norm"):
            model.add(keras.layers.BatchNormalization())
        model.add(keras.layers.MaxPooling2D())
    model.add(keras.layers.Flatten())
    model.add(keras.layers.Dense(hp.Choice("units", [32, 64, 128]), activation="relu"))
    model.add(keras.layers.Dropout(hp.Float("dropout", 0.0, 0.5, step=0.1)))
    model.add(keras.layers.Dense(10, activation="softmax"))
    kind = {"adam": keras.optimizers.Adam, "rmsprop": keras.optimizers.RMSprop}
    optimizer = kind[hp.Choice("optimizer", ["adam", "rmsprop"])]
    rate = hp.Float("learning_rate", 3e-4, 1e-2, sampling="log")
    model.compile(optimizer(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


async def main(fresh):
    (x, y), validation, (x_test, y_test) = load_split()
    tuner = aiotune.RandomSearch(
        build_model,
        objective="val_accuracy",
        max_trials=20,
        seed=1,
        directory=".demo",
        project_name="digits",
        overwrite=fresh,
    )
    result = await tuner.search(x, y, epochs=EPOCHS, batch_size=64, validation_data=validation)

    print(f"\n{result}\n\nThe best three trials:")
    for trial in result.best_trials(3):
        print(f"  {trial.trial_id}  val_accuracy {trial.score:.4f}  {dict(trial.values)}")

    # The search is over, so its winner may be trained right here, on all that is not for the test.
    keras.utils.set_random_seed(1)
    best = result.best_trial
    model = build_model(best.hyperparameters)
    model.fit(
        np.concatenate([x, validation[0]]),
        np.concatenate([y, validation[1]]),
        epochs=EPOCHS,
        batch_size=64,
        verbose=0,
    )
    _, accuracy = model.evaluate(x_test, y_test, verbose=0)
    print(f"\nTrained again on 1,597 images: test accuracy {accuracy:.4f} on 200 others")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Tune a network for scikit-learn's digits.")
    parser.add_argument("--fresh", action="store_true", help="delete earlier results first")
    asyncio.run(main(parser.parse_args().fresh))
