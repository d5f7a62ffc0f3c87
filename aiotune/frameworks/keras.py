"""Keras models in a run: build, fit and keep the best weights; load them again.

Everything here but `load_model` is called in a child process. Keras is imported when the first function is
called, never with the module.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from aiotune.arguments import takes_keyword
from aiotune.executors.context import RunContext
from aiotune.frameworks.keras_build import (
    ModelOptions,
    build_model,
    distributed,
    require_arguments,
    require_compiled,
    require_keras,
    require_size,
)
from aiotune.frameworks.keras_callbacks import (
    EpochRecorder,
    TrainingHooks,
    copied_callbacks,
    numbers_of,
    run_callback,
)
from aiotune.frameworks.keras_checkpoint import (
    Best,
    BestCheckpoint,
    forget_training,
    restore_best,
    save_best,
)
from aiotune.frameworks.keras_course import CannotGoOn, Course
from aiotune.frameworks.keras_discovery import discover, discover_leniently
from aiotune.frameworks.keras_folds import has_own_validation
from aiotune.frameworks.keras_measures import Measures
from aiotune.frameworks.keras_start import Start, starts
from aiotune.frameworks.keras_tensorboard import hparams_session
from aiotune.frameworks.shares import with_share
from aiotune.hypermodel import HyperModel, defines_fit
from aiotune.hyperparameters import HyperParameters
from aiotune.private_files import make_directory

__all__ = [
    "ModelOptions",
    "TrainingHooks",
    "build_and_fit",
    "build_model",
    "discover",
    "discover_leniently",
    "distributed",
    "load_model",
    "require_keras",
    "save_model",
]

NO_HOOKS = TrainingHooks()


def build_and_fit(
    hypermodel: HyperModel,
    run: RunContext,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    options: ModelOptions,
    hooks: TrainingHooks = NO_HOOKS,
) -> Any:
    """Train the model of this run's hyperparameters, and return what its `fit` returned.

    `args` and `kwargs` are those of `search()`. Each epoch is reported at its absolute number; the best one's
    weights are in the run's checkpoint directory. A run that goes on from another does so from its state, as if
    there had been no break; what `fit` returns then has that one's epochs, too. StopRun when the run is asked
    to stop: at the next batch, with no validation and no report of a partial epoch.
    """
    may_go_on = not defines_fit(hypermodel) or takes_keyword(hypermodel.fit, "initial_epoch")
    for start in starts(run, may_go_on=may_go_on):
        try:
            return _fitted(hypermodel, run, args, kwargs, _Plan(options, hooks, start))
        except CannotGoOn:
            continue  # it begins elsewhere, at last anew
        except Exception:
            forget_training(run.checkpoint_dir)  # what broke is tried anew, not gone on with
            raise
    raise AssertionError("a training that begins anew always can")


@dataclass(frozen=True, slots=True)
class _Plan:
    """How a run is to train."""

    options: ModelOptions
    hooks: TrainingHooks
    start: Start


def _fitted(
    hypermodel: HyperModel,
    run: RunContext,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    plan: _Plan,
) -> Any:
    """Build the model, train it from the plan's start on, and return what `fit` returned."""
    options = plan.options
    model = build_model(hypermodel, run.hyperparameters, options, seed=run.seed)
    require_compiled(hypermodel, model)
    run.announce(is_complete=not defines_fit(hypermodel))
    run.raise_if_stopped()
    kwargs = dict(kwargs)
    if not defines_fit(hypermodel):
        args, kwargs = _with_names(model, args, kwargs)
    args, kwargs = with_share(run, hypermodel.fit, args, kwargs)
    course = Course(run, plan.start, options.checkpoint_every, is_durable=options.is_durable)
    course.restore(model)
    run.begin_at(plan.start.epoch)
    kwargs |= course.arguments()
    recorder = _recorder(run, plan, course, _objective_deadline(hypermodel, kwargs))
    callbacks = copied_callbacks(kwargs.get("callbacks"), run)
    measures = Measures(options, args[0] if args else kwargs.get("x"))
    check = partial(require_size, limit=options.max_model_size)
    watching = run_callback(run, recorder, plan.hooks, check, measures, course)
    with (
        course.followed(model),
        hparams_session(
            callbacks, run, options.objective.name, lambda: recorder.best_metrics
        ) as beginning,
    ):
        kwargs["callbacks"] = [*callbacks, *beginning, watching]
        result = hypermodel.fit(run.hyperparameters, model, *args, **kwargs)
    recorder.record_end(model)
    if recorder.is_nan:
        forget_training(run.checkpoint_dir)
    if model.built:
        measures.take(model)
    return measures.added_to(result)


def _recorder(
    run: RunContext, plan: _Plan, course: Course, is_objective_due: Callable[[int], bool]
) -> EpochRecorder:
    """Return what takes the epochs, which knows those that were trained before."""
    options, best = plan.options, plan.start.best
    checkpoint = BestCheckpoint(
        run.checkpoint_dir, options.objective, best, is_durable=options.is_durable
    )
    recorder = EpochRecorder(run, options.objective, checkpoint, is_objective_due, options.bounds)
    recorder.last_step = run.next_step - 1 if run.next_step else None
    if best is not None:
        known = (numbers_of(logs) for epoch, logs in course.rows if epoch == best.epoch)
        recorder.best_metrics = next(known, {})
    return recorder


def load_model(
    hypermodel: HyperModel, hp: HyperParameters, checkpoint_dir: Path, options: ModelOptions
) -> Any:
    """Build the model for `hp` again and load the best epoch's weights, and optimizer, into it.

    FatalRuntimeError if the directory has no checkpoint, FatalValueError if it fits another architecture only.
    """
    model = build_model(hypermodel, hp, options)
    restore_best(model, checkpoint_dir)
    return model


def save_model(model: Any, checkpoint_dir: Path, epoch: int) -> None:
    """Keep the model as the best one of its run. Its score is not known here."""
    make_directory(checkpoint_dir)
    save_best(model, checkpoint_dir, Best(epoch, None))


def _with_names(
    model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Give the arguments of `fit` after x and y their names: a budget sets `epochs`, wherever it was given.

    FatalTypeError for an argument that `model.fit` does not take.
    """
    require_arguments(model.fit, args, kwargs, "search()")
    parameters = inspect.signature(model.fit).parameters.values()
    names = [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]
    if len(args) > len(names):
        return args, kwargs  # a `fit` of the model's own, with *args
    return args[:2], dict(zip(names[2:], args[2:], strict=False)) | kwargs


def _objective_deadline(
    hypermodel: HyperModel, fit_arguments: Mapping[str, Any]
) -> Callable[[int], bool]:
    """Return whether an epoch without the objective proves that it will never be there.

    A `fit` of the user's own may compute it afterwards. Keras's `fit` has metrics of validation only in
    the epochs in which it validates.
    """
    if defines_fit(hypermodel):
        return lambda epoch: False
    frequency = fit_arguments.get("validation_freq", 1)
    if not has_own_validation(fit_arguments):
        return lambda epoch: True
    return lambda epoch: _is_validation_epoch(epoch, frequency)


def _is_validation_epoch(epoch: int, frequency: Any) -> bool:
    """Return whether Keras validates after this epoch, counted from 0."""
    if isinstance(frequency, int):
        return (epoch + 1) % frequency == 0
    return epoch + 1 in frequency
