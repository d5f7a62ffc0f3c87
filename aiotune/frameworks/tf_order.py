"""Arrays as a tf.data.Dataset of batches whose order is set from outside, epoch by epoch.

Keras's own pipeline for arrays draws the order itself, from a state that cannot be kept.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from aiotune.frameworks.fit_data import FitData

__all__ = ["OrderedBatches", "as_tensor", "is_distributed"]


@dataclass(frozen=True, slots=True)
class OrderedBatches:
    """Batches of some rows. `dataset` reads `order`, (rows,) int64, whenever it makes one."""

    dataset: Any
    order: Any

    @classmethod
    def of(cls, data: FitData, rows: int, batch_size: int) -> OrderedBatches:
        """Return the batches of data whose leaves are tensors of so many rows."""
        tf: Any = sys.modules["tensorflow"]
        keras: Any = sys.modules["keras"]
        packed = _without_lists(
            keras.utils.pack_x_y_sample_weight(data.x, data.y, data.sample_weight)
        )
        with tf.device("CPU:0"):  # where pipelines run
            order = tf.Variable(np.arange(rows), trainable=False, dtype=tf.int64)

            def batch(number: Any) -> Any:
                chosen = order[number * batch_size : (number + 1) * batch_size]
                return tf.nest.map_structure(lambda each: tf.gather(each, chosen), packed)

            dataset = tf.data.Dataset.range(-(-rows // batch_size))
            dataset = dataset.map(batch, num_parallel_calls=tf.data.AUTOTUNE)
        return cls(dataset.with_options(_options(tf)).prefetch(tf.data.AUTOTUNE), order)

    def arrange(self, order: npt.NDArray[np.int64]) -> None:
        """Set the order of the next epoch. To be called while no epoch is under way."""
        self.order.assign(order)


def as_tensor(array: Any, floatx: str) -> Any:
    """Return an array or table as a tensor in the host's memory; None for what is no dense block of numbers.

    Numbers with a fraction become `floatx`, and a series of pandas a column, as in Keras's own pipeline.
    """
    tf: Any = sys.modules["tensorflow"]
    if type(array).__module__.partition(".")[0] == "pandas":
        array = array.to_numpy()[:, None] if array.ndim == 1 else array.to_numpy()
    if isinstance(array, np.ndarray):
        if array.dtype.kind not in "biuf" or array.ndim == 0:
            return None
    elif not (isinstance(array, tf.Tensor) and array.shape.rank):
        return None
    with tf.device("CPU:0"):
        tensor = tf.convert_to_tensor(array)
        return tf.cast(tensor, floatx) if tensor.dtype.is_floating else tensor


def is_distributed() -> bool:
    """Return whether a strategy deals the batches out to several devices."""
    tf: Any = sys.modules["tensorflow"]
    return bool(tf.distribute.has_strategy())


def _options(tf: Any) -> Any:
    """Return what Keras sets for arrays, too: to optimise so short a pipeline takes longer than it saves."""
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    options.experimental_external_state_policy = tf.data.experimental.ExternalStatePolicy.IGNORE
    return options


def _without_lists(structure: Any) -> Any:
    """Return it with tuples for lists, which tf.data would take for one tensor."""
    if isinstance(structure, list | tuple):
        items = [_without_lists(each) for each in structure]
        make = getattr(type(structure), "_make", tuple)
        return make(items)
    if isinstance(structure, dict):
        return {key: _without_lists(each) for key, each in structure.items()}
    return structure
