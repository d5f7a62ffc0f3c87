"""Cross-validate a Keras model: with little data one split into training and validation says little.

178 wines of three growers, which ship with scikit-learn. `folds=3` trains each point three times, on as many
slots as there are; the score is the mean, and its standard error tells which differences mean something.
"""

import asyncio
import tempfile

from sklearn.datasets import load_wine
from sklearn.preprocessing import scale

import aiotune


def build(hp):
    import keras  # in the child processes only

    model = keras.Sequential([keras.layers.Input((13,))])
    model.add(keras.layers.Dense(hp.Int("units", 4, 32, step=4), activation="relu"))
    model.add(keras.layers.Dropout(hp.Float("dropout", 0.0, 0.5)))
    model.add(keras.layers.Dense(3, activation="softmax"))
    rate = hp.Float("learning_rate", 1e-3, 1e-1, sampling="log")
    model.compile(
        keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model


async def main():
    x, y = load_wine(return_X_y=True)
    x = scale(x).astype("float32")
    with tempfile.TemporaryDirectory() as directory:
        tuner = aiotune.RandomSearch(
            build, "val_loss", max_trials=2, seed=0, folds=3, directory=directory
        )
        result = await tuner.search(x, y, epochs=6)
        print(f"\n{result}")
        for trial in result.best_trials(2):
            accuracy = trial.metrics["val_accuracy"]
            print(
                f"  {trial.trial_id}  loss {trial.score:.3f} ± {trial.standard_error:.3f}"
                f"  accuracy {accuracy:.3f}  {dict(trial.values)}"
            )


if __name__ == "__main__":
    asyncio.run(main())
