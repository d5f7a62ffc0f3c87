"""How a run ends: a pure function of its last event and of what it was asked to stop for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import assert_never

from aiotune.executors.base import Failed, Finished
from aiotune.objective import Objective, absent
from aiotune.outcome import score_of
from aiotune.settlement import has_nan
from aiotune.trial import FailureKind, Observation, Run, RunState

__all__ = ["Conclusion", "StopCause", "conclude"]


class StopCause(Enum):
    """Why a run was asked to stop. The value is the reason that is recorded and shown."""

    RULE = "the oracle saw no chance for it"
    PAUSE = "it waits for a promotion"
    LIMIT = "a limit of the search was reached"
    DUPLICATE = "another trial has the same values"
    SIBLING = "another run of the trial failed"
    TIMEOUT = "it took longer than trial_timeout"
    USER = "the search was stopped"


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The end of a run, ready to be recorded."""

    state: RunState
    metrics: Mapping[str, float] = field(default_factory=dict)
    best_step: int | None = None
    failure: FailureKind | None = None
    may_retry: bool = True
    message: str | None = None


def conclude(
    outcome: Finished | Failed, cause: StopCause | None, run: Run, objective: Objective
) -> Conclusion:
    """Return how `run` ended, given its last event and why it was asked to stop, if it was."""
    match outcome:
        case Failed(is_lost=True):
            return Conclusion(RunState.LOST, message=outcome.message)
        case Failed(is_fatal=True):
            # The search ends with this error; once the program is mended, the run is made again.
            return Conclusion(RunState.CANCELLED, message=_told(outcome, run))
        case Failed():
            return _failed(outcome, cause, run)
        case Finished(is_stopped=True):
            return _stopped(cause, run, objective)
        case Finished():
            return _finished(outcome, run, objective)
        case _:
            assert_never(outcome)


def _failed(outcome: Failed, cause: StopCause | None, run: Run) -> Conclusion:
    if cause is StopCause.TIMEOUT:
        return _timed_out(run)
    if cause in (StopCause.USER, StopCause.SIBLING, StopCause.DUPLICATE):
        return Conclusion(RunState.CANCELLED, message=outcome.message)
    return Conclusion(
        RunState.FAILED,
        failure=outcome.kind,
        may_retry=outcome.may_retry,
        message=_told(outcome, run),
    )


def _stopped(cause: StopCause | None, run: Run, objective: Objective) -> Conclusion:
    metrics, best_step = _best(run.observations, objective)
    match cause:
        case StopCause.TIMEOUT:
            return _timed_out(run)
        case StopCause.PAUSE:
            return Conclusion(RunState.FINISHED, metrics, best_step)
        case StopCause.RULE:
            return Conclusion(RunState.STOPPED, metrics, best_step, message=cause.value)
        case StopCause.LIMIT if metrics:
            return Conclusion(RunState.STOPPED, metrics, best_step, message=cause.value)
        case StopCause.LIMIT | StopCause.USER | StopCause.SIBLING | StopCause.DUPLICATE | None:
            # Without a score there is nothing to keep but the values: a resumed search runs it again.
            return Conclusion(RunState.CANCELLED, message=cause and cause.value)
        case _:
            assert_never(cause)


def _finished(outcome: Finished, run: Run, objective: Objective) -> Conclusion:
    metrics, best_step = outcome.metrics, outcome.best_step
    if not metrics:
        metrics, best_step = _best(run.observations, objective)
    if not objective.has_value(metrics):
        return Conclusion(
            RunState.FAILED,
            failure=FailureKind.USER_ERROR,
            message=f"{absent(objective.name, _names(metrics, run))}{_log(run)}",
        )
    if has_nan(metrics, objective):
        return Conclusion(
            RunState.FAILED,
            metrics,
            best_step,
            failure=FailureKind.NAN,
            message=f"the score is not a number: {objective.name} = nan{_log(run)}",
        )
    return Conclusion(RunState.FINISHED, metrics, best_step)


def _names(metrics: Mapping[str, float], run: Run) -> list[str]:
    """Return the names of the metrics that a run has: returned, or else reported."""
    return list(metrics) or list({name: None for each in run.observations for name in each.metrics})


def _timed_out(run: Run) -> Conclusion:
    return Conclusion(
        RunState.FAILED,
        failure=FailureKind.TIMEOUT,
        may_retry=False,
        message=f"{StopCause.TIMEOUT.value}{_log(run)}",
    )


def _best(
    observations: Sequence[Observation], objective: Objective
) -> tuple[Mapping[str, float], int | None]:
    """Return the metrics at the best step so far, and that step; ({}, None) without a score."""
    best = score_of(observations, objective)
    if best is None:
        return {}, None
    _, step = best
    metrics = next(each.metrics for each in observations if each.step == step)
    return metrics, step


def _told(outcome: Failed, run: Run) -> str:
    return f"{outcome.text}{_log(run)}"


def _log(run: Run) -> str:
    return f"\nIts log: {run.log}" if run.log else ""
