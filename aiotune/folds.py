"""Which rows of the data each fold holds out: by a number of folds, by a splitter, or as given.

A fold is split off in the process of its run, again for each run. So all that decides about it travels, and
what is left to chance derives from the study's seed: every trial of a search meets the same folds.
"""

from __future__ import annotations

import copy
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.space import unit_draw

__all__ = [
    "EvenFolds",
    "Folds",
    "GivenFolds",
    "Sample",
    "ShuffledFolds",
    "SplitterFolds",
    "as_folds",
    "classes_of",
]

Indices = npt.NDArray[np.intp]
Split = tuple[Indices, Indices]  # the rows to train with, (m,), and those held out, (k,)


@dataclass(frozen=True, slots=True)
class Sample:
    """What is split. `length`: its rows; None where they are not known yet, for the data are Lazy."""

    length: int | None = None
    x: Any = None
    y: Any = None
    groups: Any = None


class Folds(ABC):
    """A way to split data. FatalValueError, which says why, where that cannot be done."""

    @abstractmethod
    def count(self, sample: Sample) -> int:
        """Return the number of folds."""

    @abstractmethod
    def split(self, sample: Sample, fold: int, seed: int) -> Split:
        """Return the rows of fold number `fold`, counted from 0. `seed` is the study's."""


@dataclass(frozen=True, slots=True)
class ShuffledFolds(Folds):
    """So many folds of equal size, shuffled; each has its share of each class.

    What `y` has are classes if each of its values is there once for every fold, at least; rows of a single 1
    among zeros count as one value each.
    """

    folds: int

    def count(self, sample: Sample) -> int:
        if sample.length is not None and self.folds > sample.length:
            raise FatalValueError(
                f"{self.folds} folds need as many rows, but the data have {sample.length}: pass fewer folds"
            )
        return self.folds

    def split(self, sample: Sample, fold: int, seed: int) -> Split:
        self.count(sample)
        assert sample.length is not None
        order = np.random.default_rng(_chance(seed)).permutation(sample.length)
        classes = classes_of(sample.y, self.folds)
        if classes is not None:
            order = order[np.argsort(classes[order], kind="stable")]
        dealt = np.empty(sample.length, np.intp)
        dealt[order] = np.arange(sample.length) % self.folds
        return np.flatnonzero(dealt != fold), np.flatnonzero(dealt == fold)


@dataclass(frozen=True, slots=True)
class EvenFolds(Folds):
    """What scikit-learn's `KFold(folds, shuffle=True, random_state=state)` does, without scikit-learn."""

    folds: int
    state: int

    def count(self, sample: Sample) -> int:
        return ShuffledFolds(self.folds).count(sample)

    def split(self, sample: Sample, fold: int, seed: int) -> Split:
        self.count(sample)
        assert sample.length is not None
        order = np.arange(sample.length)
        np.random.RandomState(self.state).shuffle(order)
        is_held_out = np.zeros(sample.length, bool)
        is_held_out[np.array_split(order, self.folds)[fold]] = True
        return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)


@dataclass(frozen=True, slots=True)
class GivenFolds(Folds):
    """Splits that somebody made: for each fold the rows to train with, and those held out."""

    splits: tuple[Split, ...]

    def count(self, sample: Sample) -> int:
        if sample.length is not None:
            for number in range(len(self.splits)):
                self.split(sample, number, 0)
        return len(self.splits)

    def split(self, sample: Sample, fold: int, seed: int) -> Split:
        return _checked(self.splits[fold], sample, fold)


@dataclass(frozen=True, slots=True)
class SplitterFolds(Folds):
    """An object of scikit-learn's kind: with `split` and `get_n_splits`."""

    splitter: Any

    def count(self, sample: Sample) -> int:
        try:
            count = int(self.splitter.get_n_splits(sample.x, sample.y, sample.groups))
        except Exception as error:
            raise FatalValueError(self._cannot("tell its number of folds", error)) from error
        if count < 1:
            raise FatalValueError(f"{self.splitter!r} makes {count} folds: one at least is needed")
        return count

    def split(self, sample: Sample, fold: int, seed: int) -> Split:
        splitter = copy.deepcopy(
            self.splitter
        )  # it may hold a random state, which a split moves on
        with _seeded(_chance(seed)):
            try:
                splits = splitter.split(sample.x, sample.y, sample.groups)
                split = next(itertools.islice(splits, fold, None), None)
            except Exception as error:
                raise FatalValueError(self._cannot("split the data", error)) from error
        if split is None:
            raise FatalValueError(
                f"{self.splitter!r} makes fewer folds than its get_n_splits() says: fold {fold} is missing"
            )
        return _checked(split, sample, fold)

    def _cannot(self, what: str, error: Exception) -> str:
        return (
            f"{self.splitter!r} cannot {what}: {type(error).__name__}: {error}. If it needs what it is not "
            "given here, pass the splits themselves: list(splitter.split(X, y, groups))"
        )


def as_folds(given: object, name: str = "folds") -> Folds | None:
    """Return what a user gave as `name`: a number, a splitter, or (train, test) pairs of rows; None for None.

    FatalTypeError and FatalValueError for anything else.
    """
    match given:
        case None | Folds():
            return given
        case bool() | str() | bytes():
            pass
        case int() | np.integer():
            if given < 2:
                raise FatalValueError(
                    f"{name}={given}: a number of folds must be 2 or more; without {name} nothing is split"
                )
            return ShuffledFolds(int(given))
        case _ if isinstance(given, type) and hasattr(given, "split"):
            raise FatalTypeError(
                f"{name}={given.__name__} is a class: pass an instance, {given.__name__}()"
            )
        case _ if callable(getattr(given, "split", None)):
            return _of_splitter(given, name)
        case Iterable():
            return GivenFolds(
                tuple(_pair(each, name, at) for at, each in enumerate(_some(given, name)))
            )
    raise FatalTypeError(
        f"{name}={given!r:.100} is no way to split data: pass a number, a scikit-learn splitter such as "
        "KFold(5), or a list of (train, test) pairs of indices"
    )


def _of_splitter(splitter: Any, name: str) -> SplitterFolds:
    if callable(getattr(splitter, "get_n_splits", None)):
        return SplitterFolds(splitter)
    raise FatalTypeError(
        f"{name}={splitter!r:.100} has a method split, but no get_n_splits, which tells the number of folds "
        "before the data are split: add it, or pass list(splitter.split(X, y))"
    )


def _some(given: Iterable[Any], name: str) -> Sequence[Any]:
    splits = list(given)
    if not splits:
        raise FatalValueError(f"{name} is empty: pass one (train, test) pair of indices at least")
    return splits


def _pair(split: Any, name: str, at: int) -> Split:
    try:
        train, test = split
        return _indices(train), _indices(test)
    except (TypeError, ValueError) as error:
        raise FatalTypeError(
            f"{name}: fold {at} is no pair (train, test) of row numbers: {error}"
        ) from error


def _indices(rows: Any) -> Indices:
    """Return the row numbers, (n,); a mask of booleans becomes those of its true rows."""
    array = np.asarray(rows)
    if array.ndim != 1:
        raise ValueError(f"an array of one dimension is needed, not of {array.ndim}")
    if array.dtype == bool:
        return np.flatnonzero(array)
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"whole numbers are needed, not {array.dtype}")
    return array.astype(np.intp)


def _checked(split: Any, sample: Sample, fold: int) -> Split:
    """Return the split. FatalValueError for a part that is empty, or that names rows which are not there."""
    train, test = _pair(split, "folds", fold)
    for part, rows in (("to train with", train), ("held out", test)):
        if not rows.size:
            raise FatalValueError(f"fold {fold} has no rows {part}: pass fewer folds, or more data")
        if sample.length is not None and (rows.min() < 0 or rows.max() >= sample.length):
            raise FatalValueError(
                f"fold {fold} has rows {part} from {rows.min()} to {rows.max()}, but the data have "
                f"{sample.length}, numbered from 0"
            )
    return train, test


def classes_of(y: Any, least: int) -> Indices | None:
    """Return the number of each row's class, (n,), or None if `y` has none that occur `least` times each."""
    if y is None:
        return None
    try:
        values = np.asarray(y)
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        elif values.ndim == 2 and _is_one_hot(values):
            values = values.argmax(axis=1)
        if values.ndim != 1:
            return None
        _, classes, sizes = np.unique(values, return_inverse=True, return_counts=True)
    except (TypeError, ValueError):  # values that have no order, rows of unequal length
        return None
    return classes if sizes.min() >= least else None


def _is_one_hot(values: npt.NDArray[Any]) -> bool:
    if values.dtype.kind not in "biuf":
        return False
    is_one = values == 1
    return bool((is_one | (values == 0)).all() and (is_one.sum(axis=1) == 1).all())


def _chance(seed: int) -> int:
    """Return 32 bits for the folds of a study."""
    return int(unit_draw(seed, "folds") * 2**32)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the state that a splitter without a `random_state` draws from: NumPy's own, which is put back."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)
