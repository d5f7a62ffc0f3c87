"""What a run performs for a tuner: meet the names, or `run_trial`; its result becomes metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from aiotune.errors import FatalRuntimeError
from aiotune.executors.base import Finished
from aiotune.executors.context import RunContext
from aiotune.hypermodel import HyperModel
from aiotune.lazy import resolved
from aiotune.objective import Objective
from aiotune.outcome import outcome_of
from aiotune.trial import Trial

__all__ = ["AsyncTunerProgram", "Tunable", "TunerProgram", "current_run"]


class Tunable(Protocol):
    """What a search, and a run of it, need of a tuner."""

    hypermodel: HyperModel | None
    executions_per_trial: int
    model_framework: str  # what makes and trains the models

    @property
    def objective(self) -> Objective: ...

    @property
    def project_dir(self) -> str: ...

    @property
    def has_discovery(self) -> bool: ...

    @property
    def trains_by_itself(self) -> bool: ...

    @property
    def has_async_trials(self) -> bool: ...

    def for_child(self) -> Tunable: ...

    def serving(self, run: RunContext) -> AbstractContextManager[None]: ...

    def declare(
        self, run: RunContext, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] = ...
    ) -> None: ...

    def count_folds(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int: ...

    def run_trial(self, trial: RunContext, *args: Any, **kwargs: Any) -> Any: ...

    def on_search_begin(self) -> Any: ...

    def on_search_end(self) -> Any: ...

    def on_trial_begin(self, trial: Trial) -> Any: ...

    def on_trial_end(self, trial: Trial) -> Any: ...

    def pre_create_trial(self) -> Any: ...


class TunerProgram:
    """A tuner's `run_trial` with the arguments of `search()`. It travels to the children.

    What is Lazy among them is made for each run that trains. Discovery does without: it may be costly.
    """

    def __init__(self, tuner: Tunable, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._tuner = tuner
        self._args = args
        self._kwargs = dict(kwargs)

    def __call__(self, run: RunContext) -> Finished:
        with self._tuner.serving(run), _performing(run):
            return self._perform(run)

    def _perform(self, run: RunContext) -> Finished:
        if run.assignment.is_discovery:
            if self._tuner.has_discovery:
                self._tuner.declare(run, self._args, self._kwargs)
            return Finished()
        args, kwargs = resolved(self._args, self._kwargs)
        result = self._tuner.run_trial(run, *args, **kwargs)
        return finished(result, run, self._tuner.objective)


class AsyncTunerProgram(TunerProgram):
    """The same for an `async def run_trial`, which runs in the caller's event loop."""

    async def __call__(self, run: RunContext) -> Finished:  # type: ignore[override]
        with _performing(run):
            result = await self._tuner.run_trial(run, *self._args, **self._kwargs)
        return finished(result, run, self._tuner.objective)


# The run that this task, or process, performs: runs of one trial may share a process.
_current_run: ContextVar[RunContext] = ContextVar("aiotune run")


@contextmanager
def _performing(run: RunContext) -> Iterator[None]:
    token = _current_run.set(run)
    try:
        yield
    finally:
        _current_run.reset(token)


def current_run(trial_id: str) -> RunContext:
    """Return the run that is performed here, one of the trial's. FatalRuntimeError if there is none."""
    run = _current_run.get(None)
    if run is None or run.trial_id != trial_id:
        where = "no trial runs here" if run is None else f"here runs trial {run.trial_id}"
        raise FatalRuntimeError(
            f"what belongs to a run of trial {trial_id} is known within its run_trial only, and {where}"
        )
    return run


def finished(result: object, run: RunContext, objective: Objective) -> Finished:
    """Return what `run_trial` returned as metrics. Nothing is fine if the run reported its metrics."""
    if result is None and run.has_reported:
        return Finished()
    outcome = outcome_of(result, objective)
    return Finished(outcome.metrics, outcome.best_step)
