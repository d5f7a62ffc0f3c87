"""The best epoch's weights on disk, and back into a model; and what a later run goes on from.

    {checkpoint directory}/
        best.state         weights, seeds and optimizer of the best epoch, and which it is
        best.json          {"epoch": ..., "score": ...}: the same for people
        last.state         the training at the end of an epoch, for a run that goes on from it
        before-3/          the same as they were when a budget began at epoch 3 (Hyperband)

A project that was imported from KerasTuner has best.weights.h5, and build.json with the shapes of the input,
in the place of best.state; there best.json, written last, says that they are whole. Each file is written under
another name and then moved into place, so that no reader sees half of one.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from aiotune.errors import FatalRuntimeError, FatalValueError
from aiotune.frameworks.array_file import ArrayFile
from aiotune.frameworks.hdf5 import require_own_data
from aiotune.frameworks.keras_state import build_config, build_from, restore_model, write_model
from aiotune.layout import BEFORE, LAST_STATE, unfinished
from aiotune.objective import Objective
from aiotune.private_files import FILE_MODE, is_plain, make_directory, read_bytes

__all__ = [
    "Best",
    "BestCheckpoint",
    "adopt_best",
    "begin_budget",
    "forget_best",
    "forget_training",
    "load_weights",
    "read_best",
    "restore_best",
    "save_best",
    "save_build",
    "write_file",
    "write_json",
]

STATE = "best.state"
BEST = "best.json"
WEIGHTS = "best.weights.h5"
BUILD = "build.json"

_MOST_JSON_BYTES = 2**26


@dataclass(frozen=True, slots=True)
class Best:
    """The epoch that the weights on disk belong to. No score: the objective was not known then."""

    epoch: int
    score: float | None


class BestCheckpoint:
    """Keeps the weights of the best epoch: the first of several equal ones, never one whose score is NaN.

    As long as no epoch has shown the objective, each epoch replaces the one before.
    """

    def __init__(
        self,
        directory: Path,
        objective: Objective,
        best: Best | None = None,
        *,
        is_durable: bool = False,
    ) -> None:
        self._directory = directory
        self._is_durable = is_durable
        self._objective = objective
        self._was_scored = best is not None and best.score is not None
        self.best = best

    def offer(self, model: Any, epoch: int, logs: Mapping[str, float]) -> None:
        """Save the model if this epoch is the best so far."""
        score = self._objective.get_value(logs) if self._objective.has_value(logs) else None
        if not self._is_wanted(score):
            return
        self._was_scored = score is not None
        save_best(model, self._directory, Best(epoch, score), is_durable=self._is_durable)
        self.best = Best(epoch, score)

    def _is_wanted(self, score: float | None) -> bool:
        if score is None:
            return not self._was_scored
        if math.isnan(score):
            return False
        if self.best is None or self.best.score is None:
            return True
        return self._objective.better_than(score, self.best.score)


def read_best(directory: Path) -> Best | None:
    """Return which epoch's weights the directory holds, or None if there are none that are whole."""
    file = ArrayFile.open(directory / STATE)
    own = None if file is None else file.record.get("record")
    try:
        # A process that was killed between the two files has left the record of an earlier epoch beside it.
        record = own if own else _read_json(directory / BEST)
        epoch, score = int(record["epoch"]), record["score"]
        best = Best(epoch, None if score is None else float(score))
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return best if file is not None or is_plain(directory / WEIGHTS) else None


def forget_best(directory: Path) -> None:
    """Remove what an earlier attempt saved. What says that there are weights goes first."""
    for name in (STATE, BEST, BUILD, WEIGHTS):
        (directory / name).unlink(missing_ok=True)


def forget_training(directory: Path) -> None:
    """Remove what a later run would go on from. What was there when the budget began stays."""
    (directory / LAST_STATE).unlink(missing_ok=True)


def begin_budget(directory: Path, initial_epoch: int) -> Best | None:
    """Return the best epoch before `initial_epoch`, whose weights the directory then has; None without one.

    A run that was cut off or broke may have left later, better weights, and a later state: the next one begins
    where it did.
    """
    aside = directory / f"{BEFORE}{initial_epoch}"
    if _has_files(aside):
        _link_files(aside, directory)
    elif _has_files(directory):
        for older in directory.glob(f"{BEFORE}*"):
            shutil.rmtree(older)
        draft = unfinished(aside)
        make_directory(draft)
        _link_files(directory, draft)
        draft.rename(aside)
    return read_best(directory)


def _has_files(directory: Path) -> bool:
    has_some = is_plain(directory / LAST_STATE) or read_best(directory) is not None
    return has_some and not directory.is_symlink()


def _link_files(source: Path, target: Path) -> None:
    """Let `target` have the checkpoint of `source`: by links, since no file is ever changed in place."""

    def link(name: str, draft: Path) -> None:
        try:
            os.link(source / name, draft)
        except OSError:  # a file system without links
            shutil.copyfile(source / name, draft)

    for name in (LAST_STATE, STATE, WEIGHTS, BUILD, BEST):
        if is_plain(source / name):
            write_file(target / name, partial(link, name))
        else:
            (target / name).unlink(missing_ok=True)


def save_best(model: Any, directory: Path, best: Best, *, is_durable: bool = False) -> None:
    """Write the model's weights and what it takes to load them. is_durable: see `write_file`."""
    record = _record_of(best)
    path = directory / STATE
    write_file(path, lambda draft: write_model(draft, model, record), is_durable=is_durable)
    write_json(directory / BEST, record, is_durable=is_durable)


def adopt_best(directory: Path, best: Best, *, weights: Path, build: Path) -> None:
    """Copy weights that another program saved, with the input shapes in `build`, if it is there."""
    make_directory(directory)
    (directory / STATE).unlink(missing_ok=True)
    write_file(directory / WEIGHTS, partial(shutil.copyfile, weights))
    if is_plain(build):
        write_file(directory / BUILD, partial(shutil.copyfile, build))
    else:
        write_json(directory / BUILD, None)
    write_json(directory / BEST, _record_of(best))


def _record_of(best: Best) -> dict[str, Any]:
    is_finite = best.score is None or math.isfinite(best.score)  # strict JSON has no infinity
    return {"epoch": best.epoch, "score": best.score if is_finite else repr(best.score)}


def restore_best(model: Any, directory: Path) -> Best:
    """Load the best epoch's weights, and the optimizer's variables, into a new model of the same kind.

    FatalRuntimeError if there is no checkpoint, FatalValueError if it belongs to another architecture.
    """
    best = read_best(directory)
    if best is None:
        raise FatalRuntimeError(
            f"there is no checkpoint in {directory}: no epoch of this trial had a score, its files "
            "were deleted, or HyperModel.fit did not pass its `callbacks` on to model.fit"
        )
    file = ArrayFile.open(directory / STATE)
    if file is None:
        load_weights(model, directory / WEIGHTS)
        return best
    try:
        restore_model(model, file)
    except ValueError as error:
        raise _misfit(directory, error) from error
    return best


def load_weights(model: Any, path: Path) -> None:
    """Load a file of weights, beside which `save_build` wrote, into a new model of the same kind.

    FatalValueError if it belongs to another architecture.
    """
    try:
        build_from(model, _read_json(path.parent / BUILD))
        require_own_data(path)
        model.load_weights(path)
    except (ValueError, RecursionError) as error:
        raise _misfit(path.parent, error) from error


def _misfit(directory: Path, error: Exception) -> FatalValueError:
    return FatalValueError(
        f"the weights in {directory} do not fit the model that build returns for these values "
        f"({error}). Did the build function change since they were saved? A model whose layers "
        "get their weights in the first call may need a `build(self, input_shape)` method"
    )


def save_build(model: Any, directory: Path) -> None:
    """Write what `load_weights` needs beside the weights."""
    write_json(directory / BUILD, build_config(model))


def _read_json(path: Path) -> Any:
    return json.loads(read_bytes(path, _MOST_JSON_BYTES).decode())


def write_json(path: Path, record: object, *, is_durable: bool = False) -> None:
    """Write a record of plain JSON values. is_durable: see `write_file`."""
    text = json.dumps(record, allow_nan=False)
    write_file(path, lambda draft: draft.write_text(text), is_durable=is_durable)


def write_file(path: Path, write: Callable[[Path], object], *, is_durable: bool = False) -> None:
    """Let `write` make the file under another name, then put it in place at once.

    Whatever process dies, the file is the old or the new one. is_durable: also after a loss of power, at the
    price of waiting for the disk twice.
    """
    draft = unfinished(path)
    draft.unlink(missing_ok=True)  # one that was cut off may be a link to what must not be changed
    try:
        write(draft)
        if not draft.is_dir():
            os.chmod(draft, FILE_MODE)  # Keras knows no modes, and copies keep theirs
        if is_durable:
            _flush(draft)
        os.replace(draft, path)
        if is_durable and os.name == "posix":  # elsewhere directories cannot be opened
            _flush(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Return once the disk has what was written."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
