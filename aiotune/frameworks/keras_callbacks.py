"""What aiotune adds to `model.fit`: a callback that reports, keeps the best weights, and stops.

The work is done by plain objects (`EpochRecorder`); the Keras callback only passes calls on. Its class is made
when Keras is there, because importing this module must not import Keras.
"""

from __future__ import annotations

import copy
import difflib
import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

from aiotune.constraints import Bound, missing_of
from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.executors.context import RunContext
from aiotune.frameworks.keras_build import require_keras
from aiotune.frameworks.keras_checkpoint import BestCheckpoint
from aiotune.frameworks.keras_course import Course
from aiotune.frameworks.keras_measures import Measures
from aiotune.frameworks.keras_tensorboard import place_logs
from aiotune.objective import MultiObjective, Objective

__all__ = ["EpochRecorder", "TrainingHooks", "copied_callbacks", "numbers_of", "run_callback"]

Hook = Callable[..., object]


@dataclass(frozen=True, slots=True)
class TrainingHooks:
    """The user's own steps in training, each called as `hook(run, model, epoch or batch, logs=logs)`.

    Batch hooks see the batches of training, not those of validation; without one, no logs are computed there.
    """

    on_epoch_begin: Hook | None = None
    on_epoch_end: Hook | None = None
    on_batch_begin: Hook | None = None
    on_batch_end: Hook | None = None

    @classmethod
    def overridden(cls, owner: object, base: type) -> Self:
        """Return those hooks of `owner` that `base` does not have, or has otherwise.

        FatalTypeError for an async one: no event loop runs where models are trained.
        """
        hooks = {}
        for each in fields(cls):
            own = getattr(type(owner), each.name, None)
            if own is None or own is getattr(base, each.name, None):
                continue
            if inspect.iscoroutinefunction(own):
                raise FatalTypeError(
                    f"{type(owner).__name__}.{each.name} is async, but it is called from training in "
                    "a child process, where no event loop runs; write `def` instead of `async def`"
                )
            hooks[each.name] = getattr(owner, each.name)
        return cls(**hooks)


class EpochRecorder:
    """Takes each finished epoch: keeps its weights if they are the best, and reports its metrics.

    `is_objective_due(epoch)` says whether training that goes on without the objective among the metrics of
    that epoch would be in vain. Steps count up even if training begins again at epoch 0. `last_step` is the
    last one so far, that of an earlier training to begin with.
    """

    def __init__(
        self,
        run: RunContext,
        objective: Objective,
        checkpoint: BestCheckpoint,
        is_objective_due: Callable[[int], bool],
        bounds: Sequence[Bound] = (),
    ) -> None:
        self._bounds = bounds
        self._was_measured = False
        self._run = run
        self._objective = objective
        self._checkpoint = checkpoint
        self._is_objective_due = is_objective_due
        self._offset = 0
        self.last_step: int | None = None
        self.is_nan = False  # the objective was never a number
        self.best_metrics: Mapping[str, float] = {}  # those of the epoch that the checkpoint has

    def record(self, model: Any, epoch: int, logs: Mapping[str, Any]) -> None:
        """Save, then report, so that no reported epoch lacks its weights. FatalValueError without objective."""
        numbers = numbers_of(logs)
        if self._is_objective_due(epoch):
            _require_objective(self._objective, numbers)
            if missing := missing_of(self._bounds, numbers):
                raise FatalValueError(missing)
        self._judge(numbers)
        step = self._step(epoch)
        self._checkpoint.offer(model, step, numbers)
        if self._checkpoint.best is not None and self._checkpoint.best.epoch == step:
            self.best_metrics = numbers
        if numbers:
            self._run.report(step, **numbers)

    def record_end(self, model: Any) -> None:
        """Save a model that was trained without reporting a single epoch: its last weights are all there is.

        One that a `fit` of the user's own did not even build has none.
        """
        if self.last_step is None and model.built:
            self._checkpoint.offer(model, 0, {})

    def _judge(self, metrics: Mapping[str, float]) -> None:
        if self._objective.has_value(metrics):
            is_number = not math.isnan(self._objective.get_value(metrics))
            self.is_nan = not is_number and (self.is_nan or not self._was_measured)
            self._was_measured = True

    def _step(self, epoch: int) -> int:
        if self.last_step is not None and epoch + self._offset <= self.last_step:
            self._offset = self.last_step + 1 - epoch
        self.last_step = epoch + self._offset
        return self.last_step


def run_callback(
    run: RunContext,
    recorder: EpochRecorder,
    hooks: TrainingHooks,
    check_model: Callable[[Any], object],
    measures: Measures,
    course: Course,
) -> Any:
    """Return the Keras callback of this run. `check_model` is called once the model is built.

    `measures` are taken where the model is built and no batch is under way, and join the logs of each epoch.
    """
    kind = _callback_class(hooks.on_batch_begin is not None or hooks.on_batch_end is not None)
    return kind(run, recorder, hooks, check_model, measures, course)


@functools.cache
def _callback_class(has_batch_hooks: bool) -> Any:
    base = _plain_callback_class()
    return _batch_callback_class(base) if has_batch_hooks else base


def _plain_callback_class() -> Any:
    class RunCallback(require_keras().callbacks.Callback):  # type: ignore[misc]
        """Stops are raised where a batch begins, and where an epoch begins or has been reported.

        There is no `on_..._batch_end`: Keras would wait there for the logs of each batch, on every backend,
        and the next batch begins right after it.
        """

        def __init__(
            self,
            run: RunContext,
            recorder: EpochRecorder,
            hooks: TrainingHooks,
            check_model: Callable[[Any], object],
            measures: Measures,
            course: Course,
        ) -> None:
            super().__init__()
            self.course = course
            self.measures = measures
            self.run = run
            self.recorder = recorder
            self.hooks = hooks
            self.check_model: Callable[[Any], object] | None = check_model

        def check_once(self) -> None:
            """Check the model as soon as it is built: some models are by their first batch only."""
            if self.check_model is not None and self.model.built:
                self.check_model(self.model)
                self.check_model = None

        def on_train_begin(self, logs: Any = None) -> None:
            self.check_once()
            if self.model.built:
                self.measures.take(self.model)

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.run.raise_if_stopped()
            self.course.require_start(epoch)
            if self.hooks.on_epoch_begin is not None:
                self.hooks.on_epoch_begin(self.run, self.model, epoch, logs=logs)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.course.require_start(epoch)
            self.check_once()
            self.measures.take(self.model)
            logs = {} if logs is None else logs
            self.measures.join(logs)
            if self.hooks.on_epoch_end is not None:
                self.hooks.on_epoch_end(self.run, self.model, epoch, logs=logs)
            self.recorder.record(self.model, epoch, logs)
            self.run.raise_if_stopped()

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            self.run.raise_if_stopped()
            self.check_once()

        def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
            self.run.raise_if_stopped()

        def on_predict_batch_begin(self, batch: int, logs: Any = None) -> None:
            self.run.raise_if_stopped()

    return RunCallback


def _batch_callback_class(base: Any) -> Any:
    class BatchRunCallback(base):  # type: ignore[misc]
        """The same, and it calls the user's batch hooks."""

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            super().on_train_batch_begin(batch, logs)
            if self.hooks.on_batch_begin is not None:
                self.hooks.on_batch_begin(self.run, self.model, batch, logs=logs)

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.run.raise_if_stopped()
            if self.hooks.on_batch_end is not None:
                self.hooks.on_batch_end(self.run, self.model, batch, logs=logs)

    return BatchRunCallback


def copied_callbacks(callbacks: Any, run: RunContext) -> list[Any]:
    """Return the user's callbacks for one run: fresh copies, for they keep state from a training.

    `callbacks` is None, a callback, a list of them, or a function that returns one of these. TensorBoard logs
    go to a directory of the run below the given one.
    """
    keras = require_keras()
    if callable(callbacks) and not isinstance(callbacks, (type, keras.callbacks.Callback)):
        fresh = _as_list(callbacks())
    else:
        fresh = _copies(_as_list(callbacks))
    for callback in fresh:
        _require_callback(callback)
    return place_logs(fresh, run)


def _as_list(callbacks: Any) -> list[Any]:
    match callbacks:
        case None:
            return []
        case list() | tuple():
            return [each for item in callbacks for each in _as_list(item)]
        case _:
            return [callbacks]


def _copies(callbacks: list[Any]) -> list[Any]:
    try:
        return copy.deepcopy(callbacks)  # together: what they share, the copies share
    except Exception as error:
        name = type(_first_uncopyable(callbacks)).__name__
        raise FatalValueError(
            f"callback {name} cannot be copied for each run ({type(error).__name__}: {error}); pass "
            "a function that returns fresh callbacks: callbacks=lambda: [...]"
        ) from error


def _first_uncopyable(callbacks: Sequence[Any]) -> Any:
    for callback in callbacks:
        try:
            copy.deepcopy(callback)
        except Exception:
            return callback
    return callbacks


def _require_callback(callback: Any) -> None:
    if isinstance(callback, type):
        name = callback.__name__
        raise FatalTypeError(f"callbacks has the class {name}; pass an instance: {name}(...)")
    if not hasattr(callback, "set_model") or hasattr(callback, "callbacks"):
        raise FatalTypeError(
            f"callbacks must be a list of keras.callbacks.Callback; it has a {type(callback).__name__}"
        )


def numbers_of(logs: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics that are single numbers; others, say one value a class, cannot be scores."""
    numbers = {}
    for name, value in logs.items():
        try:
            numbers[name] = float(value)
        except (TypeError, ValueError, RuntimeError):
            continue
    return numbers


def _require_objective(objective: Objective, metrics: Mapping[str, float]) -> None:
    """Raise FatalValueError if the objective is not among the metrics."""
    if objective.has_value(metrics):
        return
    wanted = objective.objectives if isinstance(objective, MultiObjective) else (objective,)
    missing = next(each.name for each in wanted if not each.has_value(metrics))
    raise FatalValueError(
        f'objective "{missing}" is not among the metrics of an epoch: {", ".join(sorted(metrics))}. '
        + _remedy(missing, metrics)
    )


def _remedy(missing: str, metrics: Iterable[str]) -> str:
    names = list(metrics)
    if missing == "default_objective":
        return 'Tell the tuner which of them counts: objective="val_loss", say'
    if missing.startswith("val_") and not any(name.startswith("val_") for name in names):
        return "To have it, pass validation_data or validation_split to search()"
    close = difflib.get_close_matches(missing, names, n=1)
    if close:
        return f'Did you mean "{close[0]}"?'
    return "Add the metric in model.compile(metrics=[...]), or choose another objective"
