"""Keras searches, small enough to train in a second. Keras is imported in the children only."""

from __future__ import annotations

import os
import signal
import socket
from typing import Any

import numpy as np

from aiotune import HyperModel, HyperParameters

__all__ = [
    "EPOCHS",
    "Dense",
    "DenseDict",
    "build",
    "build_nothing",
    "data",
    "killing_callbacks",
    "slow_callbacks",
]

EPOCHS = 2


def data() -> tuple[Any, Any, Any, Any]:
    """Return x, y for training and x, y for validation: (48, 6), (48,), (16, 6), (16,)."""
    chance = np.random.default_rng(0)
    x = chance.normal(size=(64, 6)).astype("float32")
    y = (x.sum(axis=1) > 0).astype("int32")
    return x[:48], y[:48], x[48:], y[48:]


def build(hp: HyperParameters) -> Any:
    import keras

    model = keras.Sequential([keras.layers.Input((6,))])
    for layer in range(hp.Int("layers", 1, 2)):
        model.add(keras.layers.Dense(hp.Int(f"units_{layer}", 4, 16, step=4), activation="relu"))
    if hp.Boolean("dropout"):
        model.add(keras.layers.Dropout(hp.Float("rate", 0.1, 0.5)))
    model.add(keras.layers.Dense(2, activation="softmax"))
    rate = hp.Float("learning_rate", 1e-3, 1e-1, sampling="log")
    model.compile(
        optimizer=keras.optimizers.Adam(rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def build_nothing(hp: HyperParameters) -> None:
    """Forget to return the model."""
    build(hp)


class Dense(HyperModel):
    """Trains in its own way and returns a number."""

    def build(self, hp: HyperParameters) -> Any:
        return build(hp)

    def fit(self, hp: HyperParameters, model: Any, *args: Any, **kwargs: Any) -> Any:
        history = model.fit(*args, batch_size=hp.Choice("batch_size", [8, 16]), **kwargs)
        return min(history.history["val_loss"])


class DenseDict(Dense):
    """The same, and returns a dict of metrics."""

    def fit(self, hp: HyperParameters, model: Any, *args: Any, **kwargs: Any) -> Any:
        best = super().fit(hp, model, *args, **kwargs)
        return {"best": best, "batch": hp.get("batch_size")}


def slow_callbacks(diary: str, port: int) -> Any:
    """Return what makes a run's callbacks: a diary, and a stop on the way in the 2nd epoch's 3rd batch."""

    def make() -> Any:
        import keras

        class Diary(keras.callbacks.Callback):  # type: ignore[misc]
            epoch = 0

            def note(self, *words: object) -> None:
                with open(diary, "a") as file:
                    print(*words, file=file)

            def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
                self.epoch = epoch

            def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
                self.note("train", self.epoch, batch)
                if (self.epoch, batch) == (1, 2):
                    with socket.create_connection(("127.0.0.1", port)) as connection:
                        connection.recv(1)

            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                self.note("trained", self.epoch, batch)

            def on_test_begin(self, logs: Any = None) -> None:
                self.note("validate", self.epoch)

            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                self.note("end", epoch)

        return [Diary()]

    return make


def killing_callbacks(marker: str) -> Any:
    """Return what makes a run's callbacks: the first run that comes to the 3rd epoch's 2nd batch is killed."""

    def make() -> Any:
        import keras

        class Kill(keras.callbacks.Callback):  # type: ignore[misc]
            epoch = 0

            def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
                self.epoch = epoch

            def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
                if (self.epoch, batch) == (2, 1) and not os.path.exists(marker):
                    with open(marker, "w"):
                        os.kill(os.getpid(), signal.SIGKILL)

        return [Kill(), keras.callbacks.EarlyStopping("val_loss", patience=9)]

    return make
