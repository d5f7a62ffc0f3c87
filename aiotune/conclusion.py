"""How a run ends: a pure function of its last event and of what it was asked to stop for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from aiotune.executors.base import Failed, Finished
from aiotune.objective import Objective, absent
from aiotune.outcome import score_of
from aiotune.settlement import has_nan
from aiotune.trial import FailureKind, Observation, Run, RunState, StopCause

__all__ = ["LOG_MARK", "Conclusion", "conclude", "cut_off"]

LOG_MARK = "Its log: "  # begins the last line of a failure's message
_WHERE = "; if it was deaf to the request to stop, the end of its log shows where it was"

_DECISIVE = frozenset({StopCause.RULE, StopCause.LIMIT, StopCause.TIMEOUT, StopCause.STALL})


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
    outcome: Finished | Failed, run: Run, objective: Objective, reports: Sequence[Observation]
) -> Conclusion:
    """Return how `run` ended, given its last event.

    `reports`: its own and those of the runs that it continues, under the same budget.
    """
    match outcome:
        case Failed() if run.stop_cause is StopCause.RULE:
            return _stopped(run, objective, reports)
        case Failed(is_lost=True):
            # The kind tells it from a run that was lost with the caller's own process.
            return Conclusion(RunState.LOST, failure=outcome.kind, message=outcome.message)
        case Failed(is_fatal=True):
            # The search ends with this error; once the program is mended, the run is made again.
            return Conclusion(RunState.CANCELLED, message=_told(outcome, run))
        case Failed():
            return _failed(outcome, run, objective, reports)
        case Finished(is_stopped=True):
            return _stopped(run, objective, reports)
        case Finished():
            return _finished(outcome, run, objective, reports)
        case _:
            assert_never(outcome)


def cut_off(
    run: Run,
    objective: Objective,
    reports: Sequence[Observation],
    *,
    state: RunState,
    message: str,
) -> Conclusion:
    """Return how a run ended, with its process or its search, that told no end: in `state`, to be run again.

    What it was asked to stop for by then decides all the same. One that a rule or a limit had ended keeps what
    it had reached, one that took too long has failed. reports: see `conclude`.
    """
    if run.stop_cause in _DECISIVE:
        stopped = _stopped(run, objective, reports)
        if stopped.state is not RunState.CANCELLED:
            return stopped
    return Conclusion(state, message=message)


def _failed(
    outcome: Failed, run: Run, objective: Objective, reports: Sequence[Observation]
) -> Conclusion:
    match run.stop_cause:
        case None | StopCause.PAUSE:  # a pause needs the state that a broken run did not leave
            return Conclusion(
                RunState.FAILED,
                failure=outcome.kind,
                # An executor that has time limits of its own would reach them again.
                may_retry=outcome.may_retry and outcome.kind is not FailureKind.TIMEOUT,
                message=_told(outcome, run),
            )
        case _:  # user code may take a request to stop badly
            return _stopped(run, objective, reports)


def _stopped(run: Run, objective: Objective, reports: Sequence[Observation]) -> Conclusion:
    metrics, best_step = _best(reports, objective)
    cause = run.stop_cause
    match cause:
        case StopCause.TIMEOUT | StopCause.STALL:
            return _timed_out(run, cause)
        case StopCause.PAUSE:
            return Conclusion(RunState.FINISHED, metrics, best_step)
        case StopCause.RULE:
            message = run.stop_reason or cause.value
            return Conclusion(RunState.STOPPED, metrics, best_step, message=message)
        case StopCause.LIMIT if metrics:
            return Conclusion(RunState.STOPPED, metrics, best_step, message=cause.value)
        case (
            StopCause.LIMIT
            | StopCause.USER
            | StopCause.SIBLING
            | StopCause.DUPLICATE
            | StopCause.CONSTRAINT
            | None
        ):
            # Its reports stay, but are no result: a resumed search runs it again.
            return Conclusion(RunState.CANCELLED, message=cause and cause.value)
        case _:
            assert_never(cause)


def _finished(
    outcome: Finished, run: Run, objective: Objective, reports: Sequence[Observation]
) -> Conclusion:
    metrics, best_step = outcome.metrics, outcome.best_step
    if not metrics:
        metrics, best_step = _best(reports, objective)
    if not objective.has_value(metrics):
        return Conclusion(
            RunState.FAILED,
            failure=FailureKind.USER_ERROR,
            message=f"{absent(objective.name, _names(metrics, reports))}{_log(run)}",
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


def _names(metrics: Mapping[str, float], reports: Sequence[Observation]) -> list[str]:
    """Return the names of the metrics that a run has: returned, or else reported."""
    return list(metrics) or list({name: None for each in reports for name in each.metrics})


def _timed_out(run: Run, cause: StopCause) -> Conclusion:
    """Return the end of a run that took too long, and would again, or that has hung, by chance maybe."""
    return Conclusion(
        RunState.FAILED,
        failure=FailureKind.TIMEOUT,
        may_retry=cause is StopCause.STALL,
        message=f"{cause.value}{_WHERE if run.log else ''}{_log(run)}",
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
    return f"\n{LOG_MARK}{run.log}" if run.log else ""
