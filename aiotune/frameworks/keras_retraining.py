"""One model outside of a search: trained and saved, or evaluated. What the child does.

A `.keras` file may not load by itself: not with classes that are not registered with Keras. So an evaluation
builds the model anew, as a trial does, and loads the weights only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiotune.errors import FatalRuntimeError, FatalValueError
from aiotune.executors.base import Finished
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
from aiotune.frameworks.keras_callbacks import copied_callbacks, numbers_of
from aiotune.frameworks.keras_checkpoint import (
    load_weights,
    restore_best,
    save_build,
    write_file,
    write_json,
)
from aiotune.hypermodel import HyperModel, defines_fit
from aiotune.layout import Retrained
from aiotune.lazy import resolved

__all__ = ["Evaluation", "Retraining"]


@dataclass(frozen=True, slots=True)
class Retraining:
    """The program that trains the model of its run's hyperparameters and saves it in the run's directory.

    `args` and `kwargs` are those of `fit`.
    """

    hypermodel: HyperModel
    options: ModelOptions
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def __call__(self, run: RunContext) -> Finished:
        with distributed(self.options):
            return self._perform(run)

    def _perform(self, run: RunContext) -> Finished:
        hp = run.hyperparameters
        model = build_model(self.hypermodel, hp, self.options, seed=run.seed)
        require_compiled(self.hypermodel, model)
        args, kwargs = resolved(self.args, self.kwargs)
        kwargs["callbacks"] = copied_callbacks(kwargs.get("callbacks"), run)
        if self.options.max_model_size is not None:
            kwargs["callbacks"].append(_size_check(self.options.max_model_size))
        if not defines_fit(self.hypermodel):
            require_arguments(model.fit, args, kwargs, "retrain()")
        self.hypermodel.fit(hp, model, *args, **kwargs)
        _save(model, run, Retrained(run.directory))
        return Finished()


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The program that loads a model and returns its metrics, each of them a number.

    `weights` is a file of a retraining, or the directory of a trial's checkpoint. `args` and `kwargs` are
    those of `model.evaluate`. A metric with several values is left out, as it is in a search.
    """

    hypermodel: HyperModel
    options: ModelOptions
    weights: Path
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def __call__(self, run: RunContext) -> Finished:
        with distributed(self.options):
            return self._perform(run)

    def _perform(self, run: RunContext) -> Finished:
        model = build_model(self.hypermodel, run.hyperparameters, self.options, seed=run.seed)
        _require_metrics(model)
        args, kwargs = resolved(self.args, self.kwargs)
        if "callbacks" in kwargs:
            kwargs["callbacks"] = copied_callbacks(kwargs["callbacks"], run)
        if self.weights.is_dir():
            restore_best(model, self.weights)
        else:
            load_weights(model, self.weights)
        return Finished(numbers_of(model.evaluate(*args, **kwargs, return_dict=True)))


def _save(model: Any, run: RunContext, files: Retrained) -> None:
    """Write the model, and beside it what it takes to build it again. FatalRuntimeError if there is none."""
    if not model.built:
        raise FatalRuntimeError(
            "the model has no weights after the training: HyperModel.fit must train the model that it is "
            "given, `model.fit(...)`"
        )
    save_build(model, files.directory)
    write_json(files.hyperparameters, run.hyperparameters.get_config())
    try:
        write_file(files.model, lambda path: model.save(path, overwrite=True))
    except OSError:
        raise
    except Exception as error:  # of a `get_config` of the user's, or for want of one
        run.note(
            f"Keras cannot describe the model ({type(error).__name__}: {error}), so only its weights are "
            f"saved, in {files.weights}; a `get_config` of its class would help"
        )
        write_file(files.weights, lambda path: model.save_weights(path, overwrite=True))


def _require_metrics(model: Any) -> None:
    """Raise FatalValueError for a model that Keras's own `evaluate` would refuse."""
    if type(model).evaluate is require_keras().Model.evaluate and not model.compiled:
        raise FatalValueError(
            "the model is not compiled: call model.compile(loss=..., metrics=[...]) in build before "
            "`return model`, or pass loss= and metrics= to the tuner"
        )


def _size_check(limit: int) -> Any:
    """Return a callback for models whose first batch builds them: only then have they a size."""

    class SizeCheck(require_keras().callbacks.Callback):  # type: ignore[misc]
        is_due = True

        def check_once(self) -> None:
            if self.is_due and self.model.built:
                self.is_due = False
                require_size(self.model, limit)

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            self.check_once()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.check_once()

    return SizeCheck()
