"""What a tuner calls on the way, for a subclass to override: in the caller's process, and in training."""

from __future__ import annotations

from typing import Any

from aiotune.executors.context import RunContext
from aiotune.trial import Trial

__all__ = ["TunerHooks"]


class TunerHooks:
    """Nothing happens in any of them, unless a subclass says so.

    In the caller's process, what one raises ends the search, with a note that names the hook; in the child it
    fails the run. One that comes before something is cancelled if the search ends meanwhile.
    """

    def on_search_begin(self) -> Any:
        """Called in the caller's process before the first trial. This and the next three may be `async def`."""

    def on_search_end(self) -> Any:
        """Called in the caller's process after the last trial, unless the search failed."""

    def on_trial_begin(self, trial: Trial) -> Any:
        """Called in the caller's process before the trial's first run."""

    def on_trial_end(self, trial: Trial) -> Any:
        """Called in the caller's process when the trial is over."""

    def pre_create_trial(self) -> Any:
        """Called in the caller's process before the oracle is asked."""

    def on_epoch_begin(self, trial: RunContext, model: Any, epoch: int, logs: Any = None) -> None:
        """Called in the child before each epoch."""

    def on_epoch_end(self, trial: RunContext, model: Any, epoch: int, logs: Any = None) -> None:
        """Called in the child after each epoch."""

    def on_batch_begin(self, trial: RunContext, model: Any, batch: int, logs: Any = None) -> None:
        """Called in the child before each training batch. Overriding it costs a Python call for each."""

    def on_batch_end(self, trial: RunContext, model: Any, batch: int, logs: Any = None) -> None:
        """Called in the child after each training batch. Overriding it costs a Python call for each."""
