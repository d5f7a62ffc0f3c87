"""The data: scikit-learn's handwritten digits as a folder of images, with a subfolder for each class."""

import keras
import numpy as np
from sklearn.datasets import load_digits

IMAGE_SIZE = (8, 8)
TEST_IMAGES = 297


def write_image_folder(directory):
    """Write `train/<class>/<number>.png` and `test/<class>/<number>.png`; 1,500 and 297 images."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.images))
    for place, number in enumerate(order):
        part = "test" if place < TEST_IMAGES else "train"
        folder = directory / part / str(digits.target[number])
        folder.mkdir(parents=True, exist_ok=True)
        image = digits.images[number][..., np.newaxis] * 255 / 16
        keras.utils.save_img(folder / f"{number:04}.png", image, scale=False)


def read_training(directory, batch_size=30):
    """Return the data sets to train (1,200 images) and to validate (300)."""
    return keras.utils.image_dataset_from_directory(
        directory / "train",
        color_mode="grayscale",
        image_size=IMAGE_SIZE,
        batch_size=batch_size,
        validation_split=0.2,
        subset="both",
        seed=0,
        verbose=False,
    )


def read_test(directory, batch_size=30):
    """Return the data set of the images that no search may see."""
    return keras.utils.image_dataset_from_directory(
        directory / "test",
        color_mode="grayscale",
        image_size=IMAGE_SIZE,
        batch_size=batch_size,
        shuffle=False,
        verbose=False,
    )
