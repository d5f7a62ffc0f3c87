"""In which order a run meets its data: from its seed and the epoch's number alone, however it was cut up.

On JAX and PyTorch Keras shuffles arrays with the random state of NumPy or of PyTorch, which is set at the
beginning of each epoch; so do the PyDatasets and the DataLoaders of a program. On TensorFlow Keras shuffles
arrays within a pipeline, whose state nobody can set: aiotune makes the pipeline instead.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

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

    def applied(self, arguments: Mapping[str, Any], model: Any = None) -> dict[str, Any]:
        """Return the arguments of the model's `fit`, shuffled arrays among them as batches in this order."""
        given = dict(arguments)
        self._batches = None
        is_shuffled = bool(given.get("shuffle", True))
        if not is_shuffled or require_keras().backend.backend() != "tensorflow":
            return given
        data = FitData.of((), given)
        if not _are_arrays(data):
            return given
        self.why_inexact = _why_left(given, model)
        if self.why_inexact is not None:
            return given
        return self._ordered(given, data) or given

    def _ordered(self, given: dict[str, Any], data: FitData) -> dict[str, Any] | None:
        """Return the arguments with a dataset; None for arrays that are left to Keras."""
        counts = {count_rows(each) for each in _leaves(data)}
        rows = counts.pop()
        if counts or rows is None or not _are_weights_whole(data):
            return None  # Keras has a message for that
        kept = _rows_trained(rows, given)
        if kept is None:
            return None
        weight = _weight(data, given.get("class_weight"))
        tensors = _tensors(replace(data, sample_weight=weight), kept)
        if tensors is None:
            self.why_inexact = "the arrays are no dense blocks of numbers"
            return None
        batches = OrderedBatches.of(tensors, kept, given.get("batch_size") or _DEFAULT_BATCH_SIZE)
        self._batches = batches
        if kept < rows:
            given["validation_data"] = _part(data, slice(kept, rows)).as_validation()
            given["validation_split"] = 0.0
        own = dict.fromkeys(("y", "sample_weight", "class_weight"))
        return given | own | {"x": batches.dataset, "shuffle": False}


def _are_arrays(data: FitData) -> bool:
    leaves = _leaves(data)
    return bool(leaves) and all(hasattr(each, "shape") for each in leaves)


def _leaves(data: FitData) -> list[Any]:
    tree = require_keras().tree
    return [each for each in tree.flatten((data.x, data.y, data.sample_weight)) if each is not None]


def _why_left(given: Mapping[str, Any], model: Any) -> str | None:
    """Return why Keras's own way with these arguments of `fit` is kept; None if it is not."""
    if given.get("shuffle", True) == "batch":
        return 'shuffle="batch" has an order of its own'
    if given.get("steps_per_epoch") is not None or _has_limited_steps():
        return "with steps_per_epoch an order may last several epochs"
    if is_distributed(model) or require_keras().distribution.distribution() is not None:
        return "the batches are dealt out to several devices"
    if given.get("class_weight") is not None:
        if given.get("sample_weight") is not None:
            return "class_weight and sample_weight are both given"
        if not _are_classes(given.get("y")):
            return "class_weight is given, and y is no array of one class a row"
    return None


def _has_limited_steps() -> bool:
    """Return whether Keras was told, for debugging, to cut all epochs short."""
    limit = getattr(require_keras().config, "max_steps_per_epoch", None)  # not in old ones
    return limit is not None and limit() is not None


def _are_classes(y: Any) -> bool:
    """Return whether it is one array that has a class for each row: a number or one-hot."""
    if len(getattr(y, "shape", ())) not in (1, 2):
        return False
    return np.asarray(y).dtype.kind in "biuf"


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


def _are_weights_whole(data: FitData) -> bool:
    """Return whether there are weights for every output, or one for each row; Keras refuses others."""
    keras = require_keras()
    weight = data.sample_weight
    if weight is None or not keras.tree.is_nested(data.y):
        return True
    if not keras.tree.is_nested(weight):
        return len(weight.shape) == 1 or tuple(weight.shape[1:]) == (1,)
    try:
        keras.tree.assert_same_structure(data.y, weight)
    except ValueError:
        return False
    return True


def _weight(data: FitData, class_weight: Mapping[int, float] | None) -> Any:
    """Return the weight of each row, of each output where there are several, or None."""
    keras = require_keras()
    if class_weight is not None:
        return _weight_of_classes(data.y, class_weight)
    weight = data.sample_weight
    if weight is not None and keras.tree.is_nested(data.y) and not keras.tree.is_nested(weight):
        return keras.tree.map_structure(lambda each: weight, data.y)
    return weight


def _weight_of_classes(y: Any, class_weight: Mapping[int, float]) -> npt.NDArray[Any]:
    """Return the weight of each row's class, (n,), 1 where none is given. Keras's own for batches needs all."""
    classes = np.asarray(y)
    if classes.ndim > 1:
        classes = classes.argmax(axis=-1) if classes.shape[-1] != 1 else classes[:, 0]
    found, places = np.unique(np.round(classes).astype(np.int32), return_inverse=True)
    weights = [class_weight.get(int(each), 1.0) for each in found]
    return np.array(weights, require_keras().config.floatx())[places]


def _tensors(data: FitData, rows: int) -> FitData | None:
    """Return the first rows of the data as tensors; None if an array cannot be one."""
    keras = require_keras()
    floatx = keras.config.floatx()

    def convert(leaf: Any) -> Any:
        return None if leaf is None else as_tensor(leaf, rows, floatx)

    tensors = FitData(
        *(keras.tree.map_structure(convert, each) for each in (data.x, data.y, data.sample_weight))
    )
    return tensors if len(_leaves(tensors)) == len(_leaves(data)) else None
