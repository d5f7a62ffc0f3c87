"""The task of the sweeps: a small convolutional network on scikit-learn's digits, and stamps of what was when.

Both sides of a sweep import this file, each in its own environment: it knows no tuner, and imports what is
heavy where it is used.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "FACTOR",
    "GOAL",
    "OBJECTIVE",
    "TRAINED_ON",
    "Arrays",
    "StampedBuild",
    "build",
    "split",
    "stamp",
    "stamping_callbacks",
]

Arrays = tuple["np.ndarray", "np.ndarray"]

OBJECTIVE = "val_accuracy"
GOAL = 0.99  # 394 of the 397 images that are held out
TRAINED_ON = 1400
FACTOR = 3


def split(seed: int) -> tuple[Arrays, Arrays]:
    """Return 1,400 images (n, 8, 8, 1) in [0, 1] with their digits to train on, and 397 to validate on."""
    import numpy as np
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32").reshape(-1, 8, 8, 1)
    order = np.random.default_rng(seed).permutation(len(x))
    kept, held_out = order[:TRAINED_ON], order[TRAINED_ON:]
    return (x[kept], y[kept]), (x[held_out], y[held_out])


def build(hp: Any, slowest: float = 1e-3) -> Any:
    """Return the model of these hyperparameters. Most points of the space reach the goal within 9 epochs.

    slowest: the least learning rate.
    """
    import keras
    from keras import layers

    filters = hp.Int("filters", 16, 32, step=8)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(filters, 3, padding="same", activation="relu"),
            layers.Conv2D(2 * filters, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(hp.Int("units", 64, 128, step=32), activation="relu"),
            layers.Dropout(hp.Float("dropout", 0.0, 0.4)),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(hp.Float("learning_rate", slowest, 1e-2, sampling="log")),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


# --- stamps: lines of JSON in a file that any number of processes append to ---


def stamp(path: str | Path, what: str, **facts: object) -> None:
    """Write down that this is now. The clock is the machine's, one for all its processes (CLOCK_MONOTONIC)."""
    line = json.dumps({"what": what, "at": time.monotonic(), "pid": os.getpid(), **facts}) + "\n"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        os.write(fd, line.encode())  # at once: lines of several processes do not mix
    finally:
        os.close(fd)


class StampedBuild:
    """`build`, with a stamp before and behind it."""

    def __init__(self, path: Path, build: Callable[[Any], Any] = build) -> None:
        self.path = path
        self.build = build

    def __call__(self, hp: Any) -> Any:
        stamp(self.path, "build", cores=sorted(os.sched_getaffinity(0)))
        model = self.build(hp)
        stamp(self.path, "built")
        return model


def stamping_callbacks(path: Path) -> list[Any]:
    """Return a list of the callback that stamps a training. Called where Keras may be imported."""
    import keras

    # No attribute of the callback: a run that continues another one would get its value back.
    epochs = 0

    class Stamping(keras.callbacks.Callback):  # type: ignore[misc]
        """The first batches of each kind hold the tracing: a second one begins when the first is done."""

        def on_train_begin(self, logs: Any = None) -> None:
            nonlocal epochs
            epochs = 0
            stamp(path, "fit")

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            stamp(path, "epoch begins")

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            if batch == 1 and epochs == 0:
                stamp(path, "second batch")

        def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
            if batch < 2 and epochs == 0:
                stamp(path, ("validation", "second validation batch")[batch])

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            nonlocal epochs
            epochs += 1
            stamp(path, "epoch", epoch=epoch, score=float((logs or {})[OBJECTIVE]))

        def on_train_end(self, logs: Any = None) -> None:
            stamp(path, "end")

    return [Stamping()]
