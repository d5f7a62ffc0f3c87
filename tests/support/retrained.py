"""Models for `retrain` and `evaluate`, and trainings that go wrong. Keras is imported in the children only."""

from __future__ import annotations

import os
import signal
import socket
from typing import Any

from aiotune import HyperModel, HyperParameters
from aiotune.errors import FatalValueError
from tests.support.keras_search import build

__all__ = ["Failing", "Quiet", "Untrained", "build_lazily", "point", "waiting"]


def point(**changes: Any) -> HyperParameters:
    """Return values of `keras_search.build`, as a user writes them down."""
    hp = HyperParameters()
    hp.values.update({"layers": 1, "units_0": 8, "dropout": True, "rate": 0.2} | changes)
    return hp


def build_lazily(hp: HyperParameters) -> Any:
    """Return a model of a class that Keras cannot describe, which its first batch builds."""
    import keras

    class Net(keras.Model):  # type: ignore[misc]
        def __init__(self, hp: HyperParameters) -> None:
            super().__init__()
            self.hidden = keras.layers.Dense(hp.Int("units", 4, 16), activation="relu")
            self.head = keras.layers.Dense(2, activation="softmax")

        def build(self, shape: Any) -> None:
            self.hidden.build(shape)
            self.head.build((*shape[:-1], self.hidden.units))

        def call(self, inputs: Any) -> Any:
            return self.head(self.hidden(inputs))

    model = Net(hp)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class Quiet(HyperModel):
    """Meets a name in `fit`, which takes no `verbose`."""

    def build(self, hp: HyperParameters) -> Any:
        return build(hp)

    def fit(self, hp: HyperParameters, model: Any, x: Any, y: Any, callbacks: Any) -> None:
        print("training here")
        batch_size = hp.Choice("batch_size", [16, 8])
        model.fit(x, y, batch_size=batch_size, callbacks=callbacks, verbose=0)


class Failing(HyperModel):
    """Its training goes wrong in the way that it is asked for."""

    def build(self, hp: HyperParameters) -> Any:
        return build(hp)

    def fit(self, hp: HyperParameters, model: Any, *args: Any, how: str, **kwargs: Any) -> None:
        print("before the fall")
        match how:
            case "error":
                raise LookupError("my own error")
            case "fatal":
                raise FatalValueError("these data are wrong")
            case "crash":
                os.kill(os.getpid(), signal.SIGKILL)


class Untrained(HyperModel):
    """Forgets to train a model that has no weights before its first batch."""

    def build(self, hp: HyperParameters) -> Any:
        return build_lazily(hp)

    def fit(self, hp: HyperParameters, model: Any, *args: Any, **kwargs: Any) -> None:
        pass


def waiting(port: int) -> Any:
    """Return what makes a callback that waits, at the first batch of any kind, for the test at `port`."""

    def make() -> Any:
        import keras

        class Waiting(keras.callbacks.Callback):  # type: ignore[misc]
            def wait(self, batch: int, logs: Any = None) -> None:
                with socket.create_connection(("127.0.0.1", port)) as connection:
                    connection.recv(1)

            on_train_batch_begin = wait
            on_test_batch_begin = wait

        return Waiting()

    return make
