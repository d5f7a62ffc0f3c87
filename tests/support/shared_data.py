"""Searches that let the data grow. Children import this module, so it imports little."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from aiotune import Hyperband, HyperModel, HyperParameters
from aiotune.errors import FatalError
from aiotune.executors.context import RunContext
from aiotune.frameworks.shares import with_share
from tests.support import keras_search

__all__ = [
    "BATCH",
    "Cutting",
    "Dense",
    "batches",
    "build",
    "counting",
    "generate",
    "in_batches",
    "told",
]

BATCH = 4


def build(hp: HyperParameters) -> Any:
    """Return the model of `keras_search`: so few batches do not repay the tracing of a graph."""
    model = keras_search.build(hp)
    model.run_eagerly = True
    return model


def in_batches() -> Any:
    """Return the training data of `keras_search` as a tf.data.Dataset of 12 batches."""
    import tensorflow as tf

    x, y, _, _ = keras_search.data()
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH)


def batches() -> Any:
    """Return the same as a PyDataset, which counts the epochs that it was told of."""
    import keras

    class Batches(keras.utils.PyDataset):  # type: ignore[misc]
        ended = 0

        @property
        def num_batches(self) -> int:
            return 12

        def __getitem__(self, index: int) -> Any:
            x, y, _, _ = keras_search.data()
            rows = slice(index * BATCH, index * BATCH + BATCH)
            return x[rows], y[rows]

        def on_epoch_end(self) -> None:
            self.ended += 1

    return Batches()


def generate() -> Iterator[Any]:
    yield from ()


def counting() -> Any:
    """Return a callback that makes the number of batches of an epoch a metric."""
    import keras

    class Counting(keras.callbacks.Callback):  # type: ignore[misc]
        batches = 0

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.batches = 0

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            self.batches += 1

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            assert logs is not None
            logs["batches"] = self.batches

    return [Counting()]


class Dense(HyperModel):
    """Trains in its own way, and tells of the data that it was given."""

    def build(self, hp: HyperParameters) -> Any:
        return build(hp)

    def fit(self, hp: HyperParameters, model: Any, x: Any, y: Any, **kwargs: Any) -> Any:
        history = model.fit(x, y, **kwargs)
        held_out, _ = kwargs["validation_data"]
        return {
            "val_loss": min(history.history["val_loss"]),
            "rows": len(x),
            "positive": float(np.mean(y)),
            "validation": len(held_out),
            "share": hp["tuner/share"],
        }


class Cutting(Hyperband):
    """Cuts datasets of all kinds and tells what came of it; nothing is trained."""

    def run_trial(self, trial: RunContext) -> dict[str, float]:
        trial.hyperparameters.Float("x", 0.0, 1.0)
        if trial.share == 1:
            return {"val_loss": 0.0, "share": 1.0}
        return {"val_loss": 0.0, "share": trial.share, **told(trial)}


def told(trial: RunContext) -> dict[str, float]:
    """Return how many batches are left of datasets of all kinds, of 12 each, and which of them are refused."""
    made, whole = batches(), in_batches()
    known = _cut(trial, whole)[0]
    endless, steps = _cut(trial, whole.repeat(), steps_per_epoch=6)
    (first, *rest), _ = _cut(trial, made, steps_per_epoch=10)
    first.on_epoch_end()
    return {
        "known": len(list(known[0])),
        "endless": float(int(endless[0].cardinality()) == -1),
        "distinct": len({float(x[0, 0]) for x, _ in endless[0].take(12)}),
        "steps": steps["steps_per_epoch"],
        "batches": first.num_batches + len(rest),
        "is_same": float((first[1][0] == made[1][0]).all()),
        "ended": made.ended,
        "unknown is refused": _is_refused(
            trial, whole.filter(lambda x, y: True), "steps_per_epoch"
        ),
        "generator is refused": _is_refused(trial, generate(), "type generator"),
    }


def _cut(trial: RunContext, x: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return with_share(trial, lambda **keywords: None, (x,), kwargs)


def _is_refused(trial: RunContext, x: Any, word: str) -> float:
    try:
        _cut(trial, x)
    except FatalError as error:
        return float(word in str(error))
    return 0.0
