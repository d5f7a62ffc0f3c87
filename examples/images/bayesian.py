"""A folder of images: find a network by Bayesian optimization, and train the best one on all the data.

python bayesian.py --trials 20    the more trials, the better it guesses
"""

import argparse
import asyncio
import tempfile
from pathlib import Path

import keras
from folder import read_test, read_training, write_image_folder
from model import build_model

import aiotune


async def main(images, trials):
    train, validation = read_training(images)
    tuner = aiotune.BayesianOptimization(
        build_model,
        objective="val_accuracy",
        max_trials=trials,
        num_initial_points=3,
        overwrite=True,
        seed=0,
        directory="results",
        project_name="bayesian",
    )
    async with tuner:  # one import of the framework for the search and what follows
        result = await tuner.search(
            train,
            epochs=6,
            validation_data=validation,
            callbacks=[keras.callbacks.EarlyStopping("val_loss", patience=2)],
        )
        print(result)
        tuner.results_summary(num_trials=3)

        # On what was held out, too, and for as many epochs as were best.
        best = result.best_trial
        everything = train.concatenate(validation)
        path = await tuner.retrain(best, everything, epochs=best.best_step + 1)
        metrics = await tuner.evaluate(path, read_test(images))
    print(f"The best, trained on 1,500 images: {path}")
    print(f"On the 297 others: accuracy {metrics['accuracy']:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Tune a network for a folder of images.")
    parser.add_argument("--trials", type=int, default=8)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        write_image_folder(Path(directory))
        asyncio.run(main(Path(directory), given.trials))
