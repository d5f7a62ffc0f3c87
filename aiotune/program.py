"""What a run performs for a tuner: meet the names, or `run_trial`; its result becomes metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from aiotune.executors.base import Finished
from aiotune.executors.context import RunContext
from aiotune.objective import Objective
from aiotune.outcome import outcome_of

if TYPE_CHECKING:
    from aiotune.tuner import Tuner

__all__ = ["AsyncTunerProgram", "TunerProgram", "modules_to_preload"]


class TunerProgram:
    """A tuner's `run_trial` with the arguments of `search()`. It travels to the children."""

    def __init__(self, tuner: Tuner, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._tuner = tuner
        self._args = args
        self._kwargs = dict(kwargs)

    def __call__(self, run: RunContext) -> Finished:
        if run.assignment.is_discovery:
            self._tuner.declare(run)
            return Finished()
        result = self._tuner.run_trial(run, *self._args, **self._kwargs)
        return finished(result, run, self._tuner.objective)


class AsyncTunerProgram(TunerProgram):
    """The same for an `async def run_trial`, which runs in the caller's event loop."""

    async def __call__(self, run: RunContext) -> Finished:  # type: ignore[override]
        result = await self._tuner.run_trial(run, *self._args, **self._kwargs)
        return finished(result, run, self._tuner.objective)


def finished(result: object, run: RunContext, objective: Objective) -> Finished:
    """Return what `run_trial` returned as metrics. Nothing is fine if the run reported its metrics."""
    if result is None and run.has_reported:
        return Finished()
    outcome = outcome_of(result, objective)
    return Finished(outcome.metrics, outcome.best_step)


def modules_to_preload(tuner: Tuner, frameworks: Iterable[str]) -> tuple[str, ...]:
    """Return what the fork server should import: our own child's side, and the frameworks of the program.

    `frameworks` are those that the pickled program refers to. A hypermodel needs Keras, which imports its
    backend; a plain function must not wait for a framework that it does not use.
    """
    if tuner.hypermodel is not None:
        return ("aiotune.tuners", "aiotune.program", "aiotune.frameworks.keras", "keras")
    return ("aiotune.tuners", "aiotune.program", *sorted(frameworks))
