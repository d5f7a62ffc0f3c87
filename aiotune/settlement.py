"""What a trial still needs, and how it ends: pure functions of its record.

The run queue is derived, not kept: `pending` reads off a trial which of its repeats want a run, so that a
resumed search goes on where the facts stop.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import fmean

from aiotune.constraints import Bound, breach_of
from aiotune.objective import Objective
from aiotune.trial import (
    FailureKind,
    Run,
    RunState,
    StopCause,
    Trial,
    TrialState,
    counted_runs,
)

__all__ = [
    "FAILURES",
    "FailureRule",
    "Policy",
    "Settlement",
    "Work",
    "broken_run",
    "complete",
    "has_nan",
    "is_excused",
    "origin",
    "pending",
    "pruned",
    "settle",
]

# A run that takes the fork server down with it so often is itself the cause.
_MOST_LOSSES = 3


@dataclass(frozen=True, slots=True)
class FailureRule:
    """What follows from a failure of one kind. Its point is never proposed again, whatever the kind."""

    is_retried: bool  # within `max_retries_per_trial`, unless the run's end forbids it
    goes_on: bool  # the retry begins where the run was, if it saved its state, instead of anew
    counts: bool  # towards `max_consecutive_failed_trials`
    status: TrialState  # of a trial that gets no further attempt


# In words: docs/failures.md. What reached `trial_timeout`, and would again, forbids a retry itself.
FAILURES: Mapping[FailureKind, FailureRule] = {
    # is_retried, goes_on, counts
    FailureKind.CRASH: FailureRule(True, True, True, TrialState.FAILED),
    FailureKind.USER_ERROR: FailureRule(True, False, True, TrialState.FAILED),
    FailureKind.OUT_OF_MEMORY: FailureRule(True, False, False, TrialState.FAILED),
    FailureKind.NAN: FailureRule(True, False, False, TrialState.FAILED),
    FailureKind.TIMEOUT: FailureRule(True, True, False, TrialState.FAILED),
    FailureKind.INFEASIBLE: FailureRule(False, False, False, TrialState.INFEASIBLE),
}


@dataclass(frozen=True, slots=True)
class Policy:
    """How many runs a trial gets, repeats and retries of each repeat; what its final metrics must fulfil."""

    repeats: int = 1  # executions of the trial, each over all folds
    retries: int = 0
    folds: int = 1
    bounds: tuple[Bound, ...] = ()


@dataclass(frozen=True, slots=True)
class Work:
    """A run that waits for a device."""

    trial_id: str
    run: int
    repeat: int
    attempt: int
    continues: int | None = None  # the run whose training state it goes on from
    alone: bool = False  # on a whole card: on a part of one the trial ran out of memory


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a trial ends, or is paused."""

    status: TrialState
    score: float | None = None
    best_step: int | None = None
    metrics: Mapping[str, float] | None = None
    failure: FailureKind | None = None
    message: str | None = None


def pending(trial: Trial, policy: Policy) -> list[Work]:
    """Return the runs that the trial needs now, one for each repeat that has none in progress or done."""
    if trial.is_over or broken_run(trial, policy) is not None or _is_settled_early(trial):
        return []
    alone = any(map(_ran_out_on_share, trial.runs))
    work: list[Work] = []
    for repeat in range(policy.repeats):
        attempt = _next_attempt(trial, _last_run(trial, repeat))
        if attempt is not None:
            index, continued = len(trial.runs) + len(work), _continued_run(trial, repeat)
            work.append(Work(trial.trial_id, index, repeat, attempt, continued, alone))
    return work


def _continued_run(trial: Trial, repeat: int) -> int | None:
    """Return the run that the next one of a repeat goes on from; None: it begins anew.

    One that was interrupted goes on where it was. What an error of its own ended is tried anew, from where its
    budget begins: there a promoted trial goes on from its last rung.
    """
    last = _last_run(trial, repeat)
    if last is not None and _was_interrupted(trial, last):
        return last.index
    if trial.budget is None or trial.budget.initial_epoch == 0:
        return None
    former = [
        each
        for each in trial.runs
        if each.repeat == repeat and each.budget != trial.budget and each.state is RunState.FINISHED
    ]
    return former[-1].index if former else None


def _was_interrupted(trial: Trial, run: Run) -> bool:
    if run.state is RunState.FAILED:
        return _rule_of(run).goes_on or is_excused(trial, run)
    return run.state in (RunState.LOST, RunState.CANCELLED)


def is_excused(trial: Trial, run: Run) -> bool:
    """Tell whether a failure does not count: the run had too small a part of a card, and gets a whole one.

    Once for each repeat. So a search ends even on a pool that never gives whole cards.
    """
    former = (each for each in trial.runs[: run.index] if each.repeat == run.repeat)
    return _ran_out_on_share(run) and not any(map(_ran_out_on_share, former))


def _ran_out_on_share(run: Run) -> bool:
    is_out = run.state is RunState.FAILED and run.failure is FailureKind.OUT_OF_MEMORY
    return is_out and run.has_share and run.may_retry


def origin(trial: Trial, run: Run) -> Run:
    """Return the first of the runs that `run` goes on from: their chance derives from its attempt."""
    return run if run.continues is None else origin(trial, trial.runs[run.continues])


def _next_attempt(trial: Trial, last: Run | None) -> int | None:
    if last is None:
        return 0
    match last.state:
        case RunState.RUNNING | RunState.FINISHED | RunState.STOPPED:
            return None
        case RunState.LOST | RunState.CANCELLED:
            return last.attempt
        case RunState.FAILED:
            return last.attempt + (not is_excused(trial, last))


def _last_run(trial: Trial, repeat: int) -> Run | None:
    """Return the newest run of a repeat under the trial's present budget."""
    runs = _runs_of(trial, repeat)
    return runs[-1] if runs else None


def _runs_of(trial: Trial, repeat: int) -> list[Run]:
    return [each for each in trial.runs if each.repeat == repeat and each.budget == trial.budget]


def broken_run(trial: Trial, policy: Policy) -> Run | None:
    """Return the run whose failure ends the trial, or None."""
    for repeat in range(policy.repeats):
        run = _last_run(trial, repeat)
        if run is None:
            continue
        if run.state is RunState.FAILED and not _may_retry(trial, run, policy):
            return run
        if run.state is RunState.LOST and _losses(trial, repeat) >= _MOST_LOSSES:
            return run
    return None


def _losses(trial: Trial, repeat: int) -> int:
    """Return how many runs of a repeat were lost while the caller lived on."""
    return sum(
        run.state is RunState.LOST and run.failure is not None for run in _runs_of(trial, repeat)
    )


def _may_retry(trial: Trial, run: Run, policy: Policy) -> bool:
    if is_excused(trial, run):
        return True
    return _rule_of(run).is_retried and run.may_retry and run.attempt < policy.retries


def _rule_of(run: Run) -> FailureRule:
    """Return what follows from the run's failure; facts of foreign hands may lack its kind."""
    return FAILURES[run.failure or FailureKind.USER_ERROR]


def settle(trial: Trial, policy: Policy, objective: Objective) -> Settlement | None:
    """Return how the trial ends or is paused, or None while it has runs to do or in progress."""
    if any(not run.is_over for run in trial.runs):
        return None
    if _is_duplicate(trial):
        return Settlement(TrialState.DUPLICATE, message=StopCause.DUPLICATE.value)
    if _is_refused(trial):
        return _infeasible(StopCause.CONSTRAINT.value)
    broken = broken_run(trial, policy)
    if broken is not None:
        return _failed(broken, trial, objective)
    runs = [_last_run(trial, repeat) for repeat in range(policy.repeats)]
    done = [run for run in runs if run and run.state in (RunState.FINISHED, RunState.STOPPED)]
    if _is_pruned(trial):
        return pruned(trial, policy, objective, _reason(trial))
    if len(done) < policy.repeats:
        return None
    is_used_up = trial.budget is not None and not trial.budget.is_last
    if is_used_up or any(run.stop_cause is StopCause.PAUSE for run in done):
        return _scored(trial, objective, TrialState.PAUSED)
    return complete(trial, policy, objective)


def complete(trial: Trial, policy: Policy, objective: Objective) -> Settlement:
    """Return how a trial ends that gets no further budget."""
    return _bounded(_scored(trial, objective, TrialState.COMPLETED), policy)


def pruned(trial: Trial, policy: Policy, objective: Objective, reason: str | None) -> Settlement:
    """Return how a trial ends, with what it has reached, that a rule gives no further run."""
    scored = replace(_scored(trial, objective, TrialState.PRUNED), message=reason)
    return _bounded(scored, policy)


def _is_settled_early(trial: Trial) -> bool:
    """Tell whether the trial gets no further run, whatever its repeats lack."""
    return _is_duplicate(trial) or _is_refused(trial) or _is_pruned(trial)


def _is_duplicate(trial: Trial) -> bool:
    """Tell whether the trial was found to repeat another one."""
    return any(run.stop_cause is StopCause.DUPLICATE for run in trial.runs)


def _is_refused(trial: Trial) -> bool:
    """Tell whether the trial's point was found to break the constraint."""
    return any(run.stop_cause is StopCause.CONSTRAINT for run in trial.runs)


def _is_pruned(trial: Trial) -> bool:
    """Tell whether a rule ended a run of the trial, or has decided to.

    The request alone decides: neither a run that ended before it heard of it changes that, nor a crash.
    """
    return any(map(_is_ruled_out, trial.runs))


def _is_ruled_out(run: Run) -> bool:
    return run.state is RunState.STOPPED or run.stop_cause is StopCause.RULE


def _reason(trial: Trial) -> str | None:
    """Return why a run of the trial was ended early."""
    given = (run.stop_reason or run.message for run in trial.runs if _is_ruled_out(run))
    return next((each for each in given if each is not None), None)


def _failed(run: Run, trial: Trial, objective: Objective) -> Settlement:
    """Return the end by a broken run."""
    scored = _scored(trial, objective, _rule_of(run).status)
    return replace(scored, failure=run.failure, message=run.message)


def _bounded(ended: Settlement, policy: Policy) -> Settlement:
    """Return the end of a trial as it is within the bounds. Beyond them it keeps its metrics, but no score."""
    breach = breach_of(policy.bounds, ended.metrics or {})
    if breach is None:
        return ended
    return replace(_infeasible(breach), best_step=ended.best_step, metrics=ended.metrics)


def _infeasible(message: str) -> Settlement:
    return Settlement(TrialState.INFEASIBLE, failure=FailureKind.INFEASIBLE, message=message)


def _scored(trial: Trial, objective: Objective, status: TrialState) -> Settlement:
    """Return the mean over the repeats; a stopped run without a report contributes nothing."""
    measured = counted_runs(trial, status, objective)
    if not measured:
        return Settlement(status)
    names = [name for name in measured[0].metrics if all(name in run.metrics for run in measured)]
    steps = [run.best_step for run in measured if run.best_step is not None]
    return Settlement(
        status,
        score=fmean(objective.get_value(run.metrics) for run in measured),
        best_step=round(fmean(steps)) if steps else None,
        metrics={name: fmean(run.metrics[name] for run in measured) for name in names},
    )


def has_nan(metrics: Mapping[str, float], objective: Objective) -> bool:
    """Tell whether the objective was measured and is not a number."""
    return objective.has_value(metrics) and math.isnan(objective.get_value(metrics))
