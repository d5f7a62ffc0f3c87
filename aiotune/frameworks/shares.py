"""Which part of the training data a run gets, where a search grows the data instead of the epochs.

The rows are drawn once from the study's seed: all trials train on the same ones, and a larger share has those
of every smaller one. What a model is validated on is never cut. Nothing here imports a framework by itself.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from aiotune.arguments import leaves, takes_keyword
from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.executors.context import RunContext
from aiotune.folds import classes_of
from aiotune.frameworks.fit_data import FitData, is_one_array
from aiotune.frameworks.keras_build import require_keras
from aiotune.frameworks.keras_data import is_py_dataset
from aiotune.frameworks.rows import count_rows, take_rows
from aiotune.frameworks.tf_data import is_tf_dataset
from aiotune.space import unit_draw

__all__ = ["rows_of_share", "with_share"]

_OWN_WAY = "or cut it yourself in an overridden run_trial, which finds the share in trial.share"


def with_share(
    run: RunContext, fit: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of `fit` with the run's share of the training data, and of `steps_per_epoch`.

    Of arrays these are rows, as many of each class as it has a part in them; of a tf.data.Dataset or PyDataset
    the first elements. Without x it is left to `fit`. FatalTypeError, FatalValueError for what cannot be cut.
    """
    data, kwargs = FitData.of(args, kwargs), dict(kwargs)
    if run.budget is None or run.budget.share is None or data.x is None:
        return args, kwargs
    if run.share >= 1 and not kwargs.get("validation_split"):
        return args, kwargs
    steps = kwargs.get("steps_per_epoch")
    if steps is not None:
        steps = kwargs["steps_per_epoch"] = _part(run.share, steps)
    if is_tf_dataset(data.x):
        cut = FitData(_first_elements(data.x, run.share, steps), data.y, data.sample_weight)
    elif is_py_dataset(data.x):
        cut = FitData(_first_batches(data.x, run.share, steps), data.y, data.sample_weight)
    else:
        cut, kwargs = _cut_arrays(data, run, fit, args, kwargs)
    return cut.instead(args, kwargs)


def rows_of_share(count: int, share: float, seed: int, y: Any = None) -> npt.NDArray[np.intp]:
    """Return which of `count` rows are the share, in their order: (k,). `seed` is the study's.

    A larger share has the rows of a smaller one. Each class has its part of the rows, and one of them at least
    as far as there are so many. What `y` has are classes if each of its values is there twice, and there are
    sqrt(count) of them at most.
    """
    order = np.random.default_rng(int(unit_draw(seed, "share") * 2**32)).permutation(count)
    classes = classes_of(y, least=2)
    if classes is not None and (classes.max() + 1) ** 2 <= count:
        order = order[_in_turn(classes[order])]
    return np.sort(order[: _part(share, count)])


def _in_turn(classes: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return an order in which every beginning has its part of each class: (n,), (n,).

    Row number i of a class with m rows stands where i / m of all rows have passed.
    """
    sizes = np.bincount(classes)
    grouped = np.argsort(classes, kind="stable")
    rank = np.empty(len(classes), np.intp)
    rank[grouped] = np.arange(len(classes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.argsort(rank / sizes[classes], kind="stable")


def _part(share: float, count: int) -> int:
    """Return how many of `count` things the share is, rounded up."""
    return max(1, math.ceil(share * count - 1e-9))  # 0.07 * 100 is a little above 7


# --- arrays


def _cut_arrays(
    data: FitData,
    run: RunContext,
    fit: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[FitData, dict[str, Any]]:
    """Return the rows of the share, and the keywords of `fit`: what was to be split off is split off whole."""
    _require_names(args)
    length = _length(data)
    count = length
    split = kwargs.get("validation_split")
    if split and kwargs.get("validation_data") is None:
        count = math.floor(length * (1.0 - split))  # as Keras does: the last rows
        if not 0 < count < length:
            return data, kwargs  # Keras says it better
        _require_validation_data(fit)
        held_out = data.rows(np.arange(count, length)).as_validation()
        kwargs = {**kwargs, "validation_split": 0.0, "validation_data": held_out}
    y = take_rows(data.y, np.arange(count)) if is_one_array(data.y) else None
    return data.rows(rows_of_share(count, run.share, run.assignment.seed, y)), kwargs


def _require_names(args: tuple[Any, ...]) -> None:
    if len(args) > 2:
        raise FatalTypeError(
            'resource="data" cuts x, y and sample_weight of search(x, y, sample_weight=...): name all that '
            "comes after y"
        )


def _require_validation_data(fit: Callable[..., Any]) -> None:
    if not takes_keyword(fit, "validation_data"):
        raise FatalTypeError(
            'with resource="data" the rows of validation_split are held out before the data are cut, so that '
            "every share is validated on the same: let your fit take validation_data, and pass it on"
        )


def _length(data: FitData) -> int:
    """Return the number of rows. FatalTypeError for what has none, FatalValueError for unequal numbers."""
    lengths = {
        name: _require_rows(name, leaf) for name, leaf in leaves(data.named) if leaf is not None
    }
    if len(set(lengths.values())) != 1:
        listed = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise FatalValueError(
            f'resource="data" needs arrays of the same number of rows: {listed or "there are none"}'
        )
    return next(iter(lengths.values()))


def _require_rows(name: str, leaf: Any) -> int:
    length = count_rows(leaf)
    if length is None:
        raise FatalTypeError(
            f'resource="data" cuts arrays, tf.data.Dataset and PyDataset, and {name} of search() is of type '
            f"{type(leaf).__qualname__}: pass one of these, {_OWN_WAY}"
        )
    return length


# --- datasets


def _first_elements(dataset: Any, share: float, steps: int | None) -> Any:
    """Return the first elements of a tf.data.Dataset. steps: the share of `steps_per_epoch`, if given."""
    count = int(dataset.cardinality())
    if count >= 0:
        return dataset.take(_part(share, count))
    if steps is not None:
        return dataset.take(steps).repeat()  # each epoch goes on where the one before stopped
    kind = "is infinite" if count == -1 else "does not know its length"
    raise FatalValueError(
        f'resource="data" trains on the first part of a dataset, and this tf.data.Dataset {kind}: pass '
        "steps_per_epoch, of which it takes the part, or "
        f"dataset.apply(tf.data.experimental.assert_cardinality(n)), or arrays, {_OWN_WAY}"
    )


def _first_batches(dataset: Any, share: float, steps: int | None) -> Any:
    """The same of a PyDataset."""
    count = dataset.num_batches
    if count is not None:
        return _first_batches_class()(dataset, _part(share, count))
    if steps is not None:
        return _first_batches_class()(dataset, steps)
    raise FatalValueError(
        'resource="data" trains on the first part of a dataset, and this PyDataset is infinite: pass '
        f"steps_per_epoch, of which it takes the part, or give it a num_batches, {_OWN_WAY}"
    )


@functools.cache
def _first_batches_class() -> Any:
    """Return the class below. It is made when Keras is there: importing this module must not import it."""

    class FirstBatches(require_keras().utils.PyDataset):  # type: ignore[misc]
        """The first batches of another PyDataset."""

        def __init__(self, dataset: Any, count: int) -> None:
            super().__init__(
                workers=dataset.workers,
                use_multiprocessing=dataset.use_multiprocessing,
                max_queue_size=dataset.max_queue_size,
            )
            self.dataset = dataset
            self.count = count

        @property
        def num_batches(self) -> int:
            return self.count

        def __getitem__(self, index: int) -> Any:
            return self.dataset[index]

        def on_epoch_begin(self) -> None:
            self.dataset.on_epoch_begin()

        def on_epoch_end(self) -> None:
            self.dataset.on_epoch_end()

    return FirstBatches
