"""One training, so that a later run can go on from it as if it had never been interrupted.

A `Course` stands between the program and the model's `fit`: there the order of the data is set, the state of an
earlier run comes back, and that of this one is written.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from aiotune.arguments import takes_keyword
from aiotune.clock import SystemClock
from aiotune.errors import FatalValueError
from aiotune.executors.context import RunContext
from aiotune.frameworks.keras_build import require_keras
from aiotune.frameworks.keras_callback_state import (
    Attributes,
    NotKept,
    attributes_of,
    decoded,
    encoded,
    memories_of,
    remember,
)
from aiotune.frameworks.keras_checkpoint import restore_best, write_file
from aiotune.frameworks.keras_order import DataOrder
from aiotune.frameworks.keras_start import Start
from aiotune.frameworks.keras_state import restore_model, why_inexact, write_model
from aiotune.frameworks.keras_tracing import build_before_tracing
from aiotune.layout import LAST_STATE

__all__ = ["CannotGoOn", "Course"]

# Writing a state takes at most one part in so many of the time.
_WORK_PER_WRITE = 50

Array = np.ndarray[Any, Any]
Row = tuple[int, dict[str, Any]]  # an epoch and its logs


class CannotGoOn(BaseException):
    """Unwinds a training that began elsewhere than where it should have gone on.

    No Exception, so that user code does not swallow it.
    """


class Course:
    """One training from its start on.

    checkpoint_every: seconds between two states at least; 0: an epoch. is_durable: states survive a loss of
    power.
    """

    def __init__(
        self, run: RunContext, start: Start, checkpoint_every: float, *, is_durable: bool = False
    ) -> None:
        self._is_durable = is_durable
        self._run = run
        self._start = start
        self._checkpoint_every = checkpoint_every
        self._clock = SystemClock()
        self._written_at = self._clock.monotonic()
        self._write_seconds = 0.0
        self._order = DataOrder(run.seed)
        self._arrays: list[Array] = []  # of the memories and logs that were read
        self._earlier: list[Row] = []
        self._rows: list[Row] = []
        self._held_first: list[Attributes] = []  # by the callbacks, as the training began
        self._fits = 0
        self._has_begun = False

    @property
    def is_over(self) -> bool:
        """Whether the program had ended the training: an uninterrupted one would not go on either."""
        return self._start.state is not None and self._start.state.is_over

    @property
    def rows(self) -> list[Row]:
        """The logs of all epochs so far, those of the runs that it goes on from among them."""
        return self._earlier + self._rows

    def restore(self, model: Any) -> None:
        """Give a model that was just built the state to go on from.

        CannotGoOn if it does not fit; FatalValueError if it is another trial's, for then the hyperparameters
        are at fault.
        """
        start, state = self._start, self._start.state
        if start.loads_best:
            restore_best(model, self._run.checkpoint_dir)
        if state is None:
            return
        try:
            self._arrays = restore_model(model, state.file, is_foreign=state.is_foreign)
        except ValueError as error:
            raise self._misfit(error) from error
        if state.is_foreign:
            return
        self._earlier = [
            (epoch, decoded(logs, self._arrays)) for epoch, logs in state.record["rows"]
        ]
        reason = state.record["why_inexact"]
        if reason is not None:
            self._run.note(
                f"trials go on from their checkpoints, but not exactly as uninterrupted ones: {reason}"
            )

    def _misfit(self, error: ValueError) -> BaseException:
        state = self._start.state
        if state is None or not state.is_foreign:
            return CannotGoOn(str(error))
        return FatalValueError(
            f"trial {self._run.trial_id} is to go on from the weights of trial {state.record['trial']}, but "
            f"build returns another model for its values ({error}). Hyperparameters that change the shape of "
            "the model must not change while it is trained: name those that may, explore=[...]"
        )

    def arguments(self) -> dict[str, int]:
        """Return the arguments of `fit` that say from where to where it trains, less those of the user's."""
        budget, start = self._run.budget, self._start
        if budget is None or budget.share is not None:
            given = {"initial_epoch": start.epoch} if start.epoch else {}
        else:
            given = {"epochs": budget.epochs, "initial_epoch": start.epoch}
        return given | ({"epochs": start.epoch} if self.is_over else {})

    def require_start(self, epoch: int) -> None:
        """Take note of the first epoch. FatalValueError, or CannotGoOn, if the training did not begin there."""
        if self._has_begun:
            return
        self._has_begun = True
        expected = self._start.epoch
        if epoch == expected or self.is_over:
            return
        if not self._start.must_hold:
            if expected:
                raise CannotGoOn(f"it began with epoch {epoch}, not {expected}")
            return
        raise FatalValueError(
            f"trial {self._run.trial_id} goes on at epoch {expected}, from the state that the model has, but "
            f"its training began with epoch {epoch}: HyperModel.fit must pass the `initial_epoch` and `epochs` "
            "that it is given on to model.fit: `return model.fit(*args, **kwargs)`"
        )

    # --- around the model's `fit` ---

    @contextmanager
    def followed(self, model: Any) -> Iterator[None]:
        """Let `model.fit` be followed, whoever calls it.

        By an attribute of the one model: the `fit` of a HyperModel may add callbacks, or choose the size of a
        batch, so that only the model's own call shows what is trained.
        """
        attributes = vars(model)
        before = attributes.get("fit")
        original = model.fit

        @functools.wraps(original)
        def fit(*args: Any, **kwargs: Any) -> Any:
            return self._fit(model, original, args, kwargs)

        attributes["fit"] = fit
        try:
            yield
        finally:
            attributes.pop("fit", None)
            if before is not None:
                attributes["fit"] = before

    def _fit(
        self,
        model: Any,
        original: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Any:
        self._fits += 1
        if self._fits > 1:
            self._refuse_second_fit()
        bound = inspect.signature(original).bind(*args, **kwargs)
        given = bound.arguments
        if "callbacks" not in bound.signature.parameters:
            if not takes_keyword(original, "callbacks"):
                return original(*args, **kwargs)
            callbacks = self._with_own(kwargs.get("callbacks"))
            return self._completed(original(*args, **{**kwargs, "callbacks": callbacks}))
        given["callbacks"] = self._with_own(given.get("callbacks"))
        if type(model).fit is require_keras().Model.fit:
            ordered = self._order.applied(given, model)
            build_before_tracing(model, ordered.get("x"))
            return self._completed(original(**ordered))
        return self._completed(original(*bound.args, **bound.kwargs))

    def _refuse_second_fit(self) -> None:
        """A program that fits in several phases cannot be entered in the middle of one."""
        (self._run.checkpoint_dir / LAST_STATE).unlink(missing_ok=True)
        if self._start.state is not None and not self._start.must_hold and not self.is_over:
            raise CannotGoOn("it calls model.fit several times")

    def _with_own(self, callbacks: Any) -> Any:
        """Return the callbacks between two of ours: the first and the last that Keras calls."""
        if callbacks is not None and hasattr(callbacks, "callbacks"):
            return callbacks  # a CallbackList, which nothing can be added to
        opening, closing = _callback_classes()
        listed = require_keras().tree.flatten(callbacks) if callbacks else []
        return [opening(self._order), *listed, closing(self, _of_the_user(listed))]

    def begin(self, callbacks: list[Any]) -> None:
        """Give the callbacks back what they knew, after Keras has reset them."""
        state = self._start.state
        self._held_first = attributes_of(callbacks)
        if state is not None and self._fits == 1:
            memories = state.record["callbacks"]
            remember(callbacks, memories, self._arrays, is_foreign=state.is_foreign)

    def end_epoch(self, model: Any, row: Row, epochs: int | None, callbacks: list[Any]) -> None:
        """Take an epoch that is over and reported, and write the state if it is time. epochs: that of `fit`."""
        self._rows.append(row)
        budget = self._run.budget
        if self._fits > 1 or (budget is not None and budget.share is not None):
            return
        is_last = bool(model.stop_training) or row[0] + 1 == epochs
        is_due = budget is not None and not budget.is_last if is_last else self._is_time()
        if is_due:
            begun = self._clock.monotonic()
            self._write(model, row[0], bool(model.stop_training), callbacks)
            self._written_at = self._clock.monotonic()
            self._write_seconds = self._written_at - begun

    def _is_time(self) -> bool:
        if self._checkpoint_every == 0:
            return True
        passed = self._clock.monotonic() - self._written_at
        return passed >= max(self._checkpoint_every, _WORK_PER_WRITE * self._write_seconds)

    def _write(self, model: Any, epoch: int, is_over: bool, callbacks: list[Any]) -> None:
        arrays: list[Array] = []
        record = {
            "trial": self._run.trial_id,
            "epoch": epoch,
            "is_over": is_over,
            "rows": [[number, _kept(logs, arrays)] for number, logs in self.rows],
            "callbacks": memories_of(callbacks, self._held_first, arrays),
            "why_inexact": self._order.why_inexact or why_inexact(model),
        }
        path = self._run.checkpoint_dir / LAST_STATE
        write_file(
            path,
            lambda draft: write_model(draft, model, record, arrays),
            is_durable=self._is_durable,
        )

    def _completed(self, result: Any) -> Any:
        """Return a History with the earlier epochs of the budget; with all, if it trains no more."""
        if not self._earlier or not hasattr(result, "history") or not hasattr(result, "epoch"):
            return result
        budget = self._run.budget
        begin = 0 if budget is None else budget.initial_epoch
        rows = [row for row in self.rows if row[0] >= begin] or self.rows
        result.epoch = [epoch for epoch, _ in rows]
        result.history = {}
        for _, logs in rows:
            for name, value in logs.items():
                result.history.setdefault(name, []).append(value)
        return result


def _of_the_user(callbacks: list[Any]) -> list[Any]:
    return [each for each in callbacks if type(each).__module__.partition(".")[0] != _OWN_PACKAGE]


_OWN_PACKAGE = __name__.partition(".")[0]


def _kept(logs: Mapping[str, Any], arrays: list[Array]) -> Any:
    """Return the logs of an epoch as JSON, less what has no form on disk."""
    kept = {}
    for name, value in logs.items():
        try:
            kept[str(name)] = encoded(value, arrays)
        except NotKept:
            continue
    return {"dict": kept}


@functools.cache
def _callback_classes() -> tuple[Any, Any]:
    class Opening(require_keras().callbacks.Callback):  # type: ignore[misc]
        """The first of all: what others draw in an epoch is that epoch's chance."""

        def __init__(self, order: DataOrder) -> None:
            super().__init__()
            self.order = order

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.order.begin_epoch(epoch)

    class Closing(require_keras().callbacks.Callback):  # type: ignore[misc]
        """The last of all: by then the others have done what they do, and know what they remember."""

        def __init__(self, course: Course, callbacks: list[Any]) -> None:
            super().__init__()
            self.course = course
            self.callbacks_of_user = callbacks

        def on_train_begin(self, logs: Any = None) -> None:
            self.course.begin(self.callbacks_of_user)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            epochs = self.params.get("epochs") if self.params else None
            row = (epoch, dict(logs or {}))
            self.course.end_epoch(self.model, row, epochs, self.callbacks_of_user)

    return Opening, Closing
