"""One model outside of a search: `retrain` trains and saves it, `evaluate` measures it; its files."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from aiotune.arguments import in_lines, named_arguments
from aiotune.errors import FatalTypeError, FatalValueError, StoreUnwritable
from aiotune.frameworks.keras_build import ModelOptions
from aiotune.frameworks.keras_checkpoint import read_best
from aiotune.frameworks.keras_retraining import Evaluation, Retraining
from aiotune.hypermodel import HyperModel, defines_fit
from aiotune.hyperparameters import HyperParameters
from aiotune.job import Job, perform
from aiotune.layout import Layout, Retrained
from aiotune.private_files import DIRECTORY_MODE, create_file, make_directories, read_bytes
from aiotune.program import Tunable
from aiotune.project import Project
from aiotune.tasks import in_own_task, in_thread, made_in_thread
from aiotune.trial import Trial

__all__ = [
    "Models",
    "Weights",
    "claimed_files",
    "evaluate",
    "point_of",
    "retrain",
    "weights_at",
    "weights_of",
]

_MOST_BYTES = 2**26  # of a space with its values
_BROKEN = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)

Claimed = TypeVar("Claimed", Path, Retrained)


@dataclass(frozen=True, slots=True)
class Models:
    """What makes a tuner's models, and where its files are."""

    tuner: Tunable
    hypermodel: HyperModel
    options: ModelOptions
    project: Project

    @property
    def parts(self) -> dict[str, object]:
        """What travels to a child, by the words in which an error names it."""
        overrides = {f"the tuner's {name}": each for name, each in self.options.overrides.items()}
        strategy = {"the tuner's distribution_strategy": self.options.distribution}
        return {"the hypermodel": self.hypermodel, **overrides, **strategy}


@dataclass(frozen=True, slots=True)
class Weights:
    """A trained model: its point, and a file of `retrain`, or the directory of a trial's checkpoint."""

    hyperparameters: HyperParameters
    path: Path


# --- what may be trained and evaluated


def point_of(hp: object) -> HyperParameters:
    """Return the values to train with: those of a trial, or given ones. FatalTypeError for anything else."""
    match hp:
        case Trial():
            return hp.hyperparameters
        case HyperParameters():
            return hp.copy()
        case list() | tuple():
            remedy = "it is a list: pass one of its members, [0] is the best"
        case Mapping():
            remedy = "it is a dict: hp = HyperParameters(); hp.values.update(...)"
        case _:
            remedy = f"it is of type {type(hp).__name__}"
    raise FatalTypeError(
        "retrain() needs HyperParameters, say tuner.get_best_hyperparameters()[0], or a Trial first, "
        f"then the arguments of fit; {remedy}"
    )


def weights_of(trial: Trial, checkpoint: Path) -> Weights:
    """Return the best epoch of the trial. FatalValueError if it was not kept. Blocks."""
    if read_best(checkpoint) is None:
        raise FatalValueError(
            f"trial {trial.trial_id} has no checkpoint in {checkpoint}: none of its epochs had a score, it is "
            "no trial of this project, or keep_checkpoints let it go. Evaluate one of get_best_trials(), "
            "or train it with retrain()"
        )
    return Weights(trial.hyperparameters, checkpoint)


def weights_at(path: Path) -> Weights:
    """Return what `retrain` saved there. FatalValueError if it did not. Blocks."""
    path = path.absolute()
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "does not exist"
        raise FatalValueError(f"evaluate(): {path} {what}; pass the path that retrain() returned")
    record = Retrained(path.parent).hyperparameters
    try:
        content = json.loads(read_bytes(record, _MOST_BYTES).decode())
        return Weights(HyperParameters.from_config(content), path)
    except FileNotFoundError as error:
        raise FatalValueError(
            f"evaluate(): {path} is no model of retrain(): there is no {record.name} beside it"
        ) from error
    except _BROKEN as error:
        raise FatalValueError(f"evaluate(): {record} cannot be read: {error}") from error


# --- the two calls


async def retrain(
    models: Models, hp: HyperParameters, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Path:
    """Train the model for `hp` with these arguments of `fit`, and return the file that it is saved in."""
    return await in_own_task(partial(_retrain, models, hp, args, kwargs))


async def evaluate(
    models: Models, weights: Weights, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, float]:
    """Return the model's metrics with these arguments of `model.evaluate`."""
    return await in_own_task(partial(_evaluate, models, weights, args, kwargs))


async def _retrain(
    models: Models, hp: HyperParameters, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Path:
    program = Retraining(
        models.hypermodel,
        models.options,
        args,
        in_lines(kwargs, is_taken=not defines_fit(models.hypermodel)),
    )
    arguments = named_arguments("retrain()", args, kwargs)
    async with claimed_files(models.project.layout) as files:
        job = Job(
            files.directory.name,
            hp,
            program,
            arguments,
            models.parts,
            files.directory,
            files.log,
        )
        await perform(models.tuner, models.project, job)
        saved = await anyio.to_thread.run_sync(_saved, files)
        # Whoever was cancelled just now gets no path: nothing may stay then.
        await checkpoint()
        return saved


async def _evaluate(
    models: Models, weights: Weights, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, float]:
    layout = models.project.layout
    log = await made_in_thread(partial(_claim_log, layout))
    job = Job(
        log.stem,
        weights.hyperparameters,
        Evaluation(
            models.hypermodel,
            models.options,
            weights.path,
            args,
            in_lines(kwargs, is_taken=True),
        ),
        named_arguments("evaluate()", args, kwargs),
        models.parts,
        layout.root,
        log,
    )
    try:
        finished = await perform(models.tuner, models.project, job)
    except BaseException as error:
        await in_thread(partial(_discard_log, log, keeps_text=isinstance(error, Exception)))
        raise
    await in_thread(partial(os.replace, log, layout.evaluation_log))
    return dict(finished.metrics)


# --- its files


@asynccontextmanager
async def claimed_files(layout: Layout, *, keeps: bool = True) -> AsyncIterator[Retrained]:
    """Make a directory that nobody has. What a failure leaves is deleted, but for the log that its error names.

    Without `keeps` so is what a success leaves.
    """
    files = await made_in_thread(partial(_claim_directory, layout))
    try:
        yield files
    except BaseException as error:
        await in_thread(partial(_discard, files, keeps_log=isinstance(error, Exception)))
        raise
    if not keeps:
        await in_thread(partial(_discard, files, keeps_log=False))


def _claim_directory(layout: Layout) -> Retrained:
    """Make the first directory that nobody has."""
    return _first_free(layout, lambda number: _make_directory(layout.retrained(number)))


def _make_directory(files: Retrained) -> Retrained:
    files.directory.mkdir(DIRECTORY_MODE)
    return files


def _claim_log(layout: Layout) -> Path:
    """Make the first log that nobody has."""
    return _first_free(layout, lambda number: _make_file(layout.open_evaluation_log(number)))


def _make_file(path: Path) -> Path:
    os.close(create_file(path))
    return path


def _first_free(layout: Layout, make: Callable[[int], Claimed]) -> Claimed:
    """Return what `make` makes of the first number that it does not meet FileExistsError for."""
    try:
        make_directories(layout.root)
        for number in itertools.count():
            with suppress(FileExistsError):
                return make(number)
    except OSError as error:
        raise StoreUnwritable(
            f"{error.filename or layout.root} cannot be made ({error.strerror}): check the rights, or "
            "choose another directory"
        ) from error
    raise AssertionError("numbers never end")


def _saved(files: Retrained) -> Path:
    return files.model if files.model.exists() else files.weights


def _discard(files: Retrained, *, keeps_log: bool) -> None:
    """Delete what a training that did not end well has left; the log is named in its error."""
    if not (keeps_log and files.log.exists()):
        shutil.rmtree(files.directory, ignore_errors=True)
        return
    for path in files.directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path != files.log:
            path.unlink()


def _discard_log(log: Path, *, keeps_text: bool) -> None:
    if not (keeps_text and log.stat().st_size):
        log.unlink()
