"""In which order a run meets its data: from its seed and the epoch's number alone, however it was cut up.

On JAX and PyTorch Keras shuffles arrays with the random state of NumPy or of PyTorch, which is set at the
beginning of each epoch; so do the PyDatasets and the DataLoaders of a program. On TensorFlow Keras shuffles
arrays within a pipeline, whose state nobody can set: aiotune makes the pipeline instead.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from aiotune.frameworks.fit_data import FitData
from aiotune.frameworks.keras_build import require_keras
from aiotune.frameworks.rows import count_rows
from aiotune.frameworks.tf_order import OrderedBatches, as_tensor, is_distributed
from aiotune.space import unit_draw

__all__ = ["DataOrder"]

_DEFAULT_BATCH_SIZE = 32  # Keras's


class DataOrder:
    """The chance of one run, epoch by epoch.

    why_inexact: in words, where an order is drawn by what cannot be set; None if nothing is known of that.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._batches: OrderedBatches | None = None
        self.why_inexact: str | None = None

    def begin_epoch(self, epoch: int) -> None:
        """Set the random states of Python, NumPy and PyTorch, and the order of the arrays.

        Not TensorFlow's: that would throw its compiled functions away.
        """
        seed = int(unit_draw(self._seed, "epoch", epoch) * 2**32)
        random.seed(seed)
        np.random.seed(seed)
        if "torch" in sys.modules:
            sys.modules["torch"].manual_seed(seed)
        if self._batches is not None:
            rows = int(self._batches.order.shape[0])
            chance = np.random.default_rng((self._seed, epoch))
            self._batches.arrange(chance.permutation(rows))

    def applied(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of Keras's `fit`, those that are shuffled arrays as batches in this order."""
        given = dict(arguments)
        self._batches = None
        shuffle = given.get("shuffle", True)
        if shuffle is False or require_keras().backend.backend() != "tensorflow":
            return given
        data = FitData.of((), given)
        if not _are_arrays(data):
            return given
        self.why_inexact = _why_left(given)
        if self.why_inexact is not None:
            return given
        return self._ordered(given, data) or given

    def _ordered(self, given: dict[str, Any], data: FitData) -> dict[str, Any] | None:
        """Return the arguments with a dataset; None for arrays that are left to Keras."""
        counts = {count_rows(each) for each in _leaves(data)}
        rows = counts.pop()
        if counts or rows is None:
            return None  # Keras has a message for that
        kept = _rows_trained(rows, given)
        if kept is None:
            return None
        tensors = _tensors(_part(data, slice(0, kept)))
        if tensors is None:
            self.why_inexact = "the arrays are no dense blocks of numbers"
            return None
        batches = OrderedBatches.of(tensors, kept, given.get("batch_size") or _DEFAULT_BATCH_SIZE)
        self._batches = batches
        if kept < rows:
            given["validation_data"] = _part(data, slice(kept, rows)).as_validation()
            given["validation_split"] = 0.0
        return given | {"x": batches.dataset, "y": None, "sample_weight": None, "shuffle": False}


def _are_arrays(data: FitData) -> bool:
    leaves = _leaves(data)
    return bool(leaves) and all(hasattr(each, "shape") for each in leaves)


def _leaves(data: FitData) -> list[Any]:
    tree = require_keras().tree
    return [each for each in tree.flatten((data.x, data.y, data.sample_weight)) if each is not None]


def _why_left(given: Mapping[str, Any]) -> str | None:
    """Return why Keras's own way with these arguments of `fit` is kept; None if it is not."""
    if given.get("shuffle", True) == "batch":
        return 'shuffle="batch" has an order of its own'
    if given.get("steps_per_epoch") is not None:
        return "with steps_per_epoch an order may last several epochs"
    if is_distributed() or require_keras().distribution.distribution() is not None:
        return "the batches are dealt out to several devices"
    if given.get("class_weight") is not None and given.get("sample_weight") is not None:
        return "class_weight and sample_weight are both given"
    return None


def _rows_trained(rows: int, given: Mapping[str, Any]) -> int | None:
    """Return how many rows `validation_split` leaves, the first ones; None if it leaves none, or no others."""
    split = given.get("validation_split") or 0.0
    if not split or given.get("validation_data") is not None:
        return rows or None
    kept = int(rows * (1.0 - split))
    return kept if 0 < kept < rows else None


def _part(data: FitData, rows: slice) -> FitData:
    def part(leaf: Any) -> Any:
        if leaf is None:
            return None
        return leaf.iloc[rows] if hasattr(leaf, "iloc") else leaf[rows]

    tree = require_keras().tree
    return FitData(
        *(tree.map_structure(part, each) for each in (data.x, data.y, data.sample_weight))
    )


def _tensors(data: FitData) -> FitData | None:
    """Return the data as tensors, a weight for every output; None if an array cannot be one."""
    keras = require_keras()
    floatx = keras.config.floatx()
    weight = data.sample_weight
    if weight is not None and keras.tree.is_nested(data.y) and not keras.tree.is_nested(weight):
        weight = keras.tree.map_structure(lambda each: data.sample_weight, data.y)

    def convert(leaf: Any) -> Any:
        return None if leaf is None else as_tensor(leaf, floatx)

    tensors = FitData(
        *(keras.tree.map_structure(convert, each) for each in (data.x, data.y, weight))
    )
    leaves = keras.tree.flatten((data.x, data.y, weight))
    is_whole = len(_leaves(tensors)) == sum(each is not None for each in leaves)
    return tensors if is_whole else None
