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
                if rows % batch_size == 0:
                    chosen.set_shape([batch_size])  # layers with a state of their own ask for it
                return tf.nest.map_structure(
                    lambda each: None if each is None else tf.gather(each, chosen), packed
                )

            dataset = tf.data.Dataset.range(-(-rows // batch_size))
            dataset = dataset.map(batch, num_parallel_calls=tf.data.AUTOTUNE)
        return cls(dataset.with_options(_options(tf)).prefetch(tf.data.AUTOTUNE), order)

    def arrange(self, order: npt.NDArray[np.int64]) -> None:
        """Set the order of the next epoch. To be called while no epoch is under way."""
        self.order.assign(order)


def as_tensor(array: Any, rows: int, floatx: str) -> Any:
    """Return the first rows of an array or table as a tensor of the host; None for no dense block of numbers.

    Numbers with a fraction become `floatx`, and a series of pandas a column, as in Keras's own pipeline.
    """
    tf: Any = sys.modules["tensorflow"]
    if type(array).__module__.partition(".")[0] == "pandas":
        array = array.to_numpy()[:, None] if array.ndim == 1 else array.to_numpy()
    with tf.device("CPU:0"):
        if isinstance(array, np.ndarray):
            return _tensor_of_array(tf, array, rows, floatx)
        if not (isinstance(array, tf.Tensor) and array.shape.rank):
            return None
        tensor = array if rows == array.shape[0] else array[:rows]
        return tf.cast(tensor, floatx) if tensor.dtype.is_floating else tensor


def _tensor_of_array(tf: Any, array: npt.NDArray[Any], rows: int, floatx: str) -> Any:
    if array.dtype.kind not in "biuf" or array.ndim == 0:
        return None
    array = array[:rows]
    if array.dtype.kind == "f":
        array = array.astype(floatx, copy=False)  # by NumPy: no tensor of doubles is in between
    return tf.convert_to_tensor(array)


def is_distributed(model: Any = None) -> bool:
    """Return whether a strategy, this one's or the model's, deals the batches out to several devices."""
    tf: Any = sys.modules["tensorflow"]
    usual = tf.distribute.get_strategy()
    own = getattr(model, "distribute_strategy", usual)
    return bool(tf.distribute.has_strategy()) or own is not usual


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
