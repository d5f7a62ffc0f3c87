"""What a killed process has left in progress: its runs are over, and what it was about to decide is decided.

A report is stored before it is judged. So the newest report of each run that was left may have had no verdict,
and a limit that was reached may not have reached the runs: both are made up for, from the same facts. Then each
trial is where it would be if the process had been killed a moment later, and goes on from there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

from aiotune.clock import Clock
from aiotune.events import StopRequested
from aiotune.history import History
from aiotune.runner import Runner
from aiotune.trial import Run, StopCause, Trial, TrialState

__all__ = ["adopt"]


async def adopt(
    history: History,
    runner: Runner,
    record: Callable[..., Awaitable[None]],
    clock: Clock,
    *,
    is_ending: bool,
) -> None:
    """End the runs that an earlier process left in progress, and the trials that need no further run.

    is_ending: a limit of the search had been reached by then.
    """
    left = _left(history)
    if left:
        requests = [each async for each in _overdue(left, runner, clock, is_ending=is_ending)]
        if requests:
            await record(*requests)
        ended = _left(history)  # with what they are now asked to stop for
        runs = [run for _, run in ended]
        await record(*(runner.lost(trial, run, runs) for trial, run in ended))
    for trial in history.open_trials():
        if trial.runs and trial.state is not TrialState.PAUSED:
            await runner.settle(trial.trial_id)


Left = tuple[Trial, Run]  # a run that a killed process has left, and its trial


def _left(history: History) -> list[Left]:
    return [
        (trial, run) for trial in history.open_trials() for run in trial.runs if not run.is_over
    ]


async def _overdue(
    left: Sequence[Left], runner: Runner, clock: Clock, *, is_ending: bool
) -> AsyncIterator[StopRequested]:
    """Yield the requests to stop that the process was killed before it could make."""
    ruled_out: set[str] = set()
    for trial, run in left:
        if run.stop_cause is not None or trial.trial_id in ruled_out:
            continue
        if is_ending:
            yield StopRequested(clock.now(), trial.trial_id, run.index, StopCause.LIMIT)
        elif run.observations:
            ruling = await runner.ruling((trial.trial_id, run.index), run.observations[-1])
            if ruling is not None and ruling.cause is StopCause.RULE:
                ruled_out.add(trial.trial_id)
                for index in _in_progress(trial):
                    yield StopRequested(clock.now(), trial.trial_id, index, *ruling)


def _in_progress(trial: Trial) -> Iterable[int]:
    return (run.index for run in trial.runs if not run.is_over and run.stop_cause is None)
