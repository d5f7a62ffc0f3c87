"""A folder of images: search on a part of the data by Hyperband, then train the best few on all of them.

Hyperband trains many networks for few epochs, and only the best of them for more.

    python hyperband.py --max-epochs 27    more networks, and the best trained for longer
"""

import argparse
import asyncio
import tempfile
from pathlib import Path

from folder import read_test, read_training, write_image_folder
from model import build_model

import aiotune


async def main(images, max_epochs):
    train, validation = read_training(images)
    part = train.take(20)  # batches: half of the images, enough to tell good from bad
    tuner = aiotune.Hyperband(
        build_model,
        objective="val_accuracy",
        max_epochs=max_epochs,
        factor=3,
        overwrite=True,
        seed=0,
        directory="results",
        project_name="hyperband",
    )
    async with tuner:
        result = await tuner.search(part, validation_data=validation)
        print(result)
        for trial in result.best_trials(3):
            print(f"Trial {trial.trial_id}: {trial.score:.3f} after {trial.best_step + 1} epochs")

        paths = await asyncio.gather(  # both at once
            *(
                tuner.retrain(trial, train, epochs=max_epochs, validation_data=validation)
                for trial in result.best_trials(2)
            )
        )
        for path in paths:
            metrics = await tuner.evaluate(path, read_test(images))
            print(f"{path.parent.name}: accuracy {metrics['accuracy']:.3f} on the test images")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Tune a network for a folder of images.")
    parser.add_argument("--max-epochs", type=int, default=9)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        write_image_folder(Path(directory))
        asyncio.run(main(Path(directory), given.max_epochs))
