"""What a run is told: its assignment, from the facts and its lease."""

from __future__ import annotations

from aiotune.devices.lease import Lease
from aiotune.executors.base import Assignment
from aiotune.history import History
from aiotune.oracles.base import Oracle
from aiotune.plan import Plan
from aiotune.settlement import origin
from aiotune.trial import Run, RunState, Trial

__all__ = ["assignment_of", "spent_reports"]


def assignment_of(
    trial: Trial, run: Run, lease: Lease, *, history: History, oracle: Oracle, plan: Plan
) -> Assignment:
    """Return all that a run of the trial is given, whose start is recorded."""
    return Assignment(
        trial_id=trial.trial_id,
        number=trial.number,
        stream=trial.stream,
        repeat=run.repeat,
        attempt=run.attempt,
        run=run.index,
        seed=oracle.chance,
        values=trial.values,
        space=tuple(history.space),
        draws_new_names=oracle.draws_new_names,
        allow_new_entries=oracle.allow_new_entries,
        trial_directory=str(plan.layout.trial(trial.trial_id)),
        log=run.log or "",
        gpus=lease.gpus,
        gpu_memory=lease.gpu_memory_bytes,
        gpu_fraction=lease.gpu_fraction,
        cores=lease.cores,
        memory_bytes=lease.memory_bytes,
        budget=run.budget,
        continues=_continues(trial, run) and not history.has_lost_state(trial, run),
        keeps_reports=not plan.is_simulated,
        interrupted=tuple(_interrupted(trial, run)),
        last_report=_last_report(trial, run),
        seed_attempt=origin(trial, run).attempt,
        folds=plan.policy.folds,
        stall_seconds=plan.limits.stall_timeout,
    )


def spent_reports(trial: Trial) -> list[int]:
    """Return the runs that are over, and whose kept reports (`layout.reports_of`) no run will ask for."""
    over = [run for run in trial.runs if run.is_over]
    if trial.is_over:
        return [run.index for run in over]
    done = [run for run in over if run.state in (RunState.FINISHED, RunState.STOPPED)]
    return [index for run in done for index in (*_interrupted(trial, run), run.index)]


def _continues(trial: Trial, run: Run) -> bool:
    """Tell whether a run begins with the training state of an earlier one, which may be another trial's."""
    if run.continues is not None:
        return True
    return trial.parent is not None and run.budget is not None and run.budget.initial_epoch > 0


def _interrupted(trial: Trial, run: Run) -> list[int]:
    """Return the runs under its budget that a run goes on from, oldest first: each was cut off in its midst."""
    former = None if run.continues is None else trial.runs[run.continues]
    if former is None or former.budget != run.budget:
        return []
    return [*_interrupted(trial, former), former.index]


def _last_report(trial: Trial, run: Run) -> int | None:
    """Return the newest step that these have reported, as they count it; None: nothing is stored."""
    reports = trial.curve(run, of_budget=True)
    return reports[-1].step - trial.first_step(run) if reports else None
