"""What user code meets inside a run: the trial that it works on, reports, and the request to stop.

A `Program` is what a run performs; `perform` calls it and turns whatever happens into one final event. Both
the inline executor and the child process use them, so that a program cannot tell where it runs.
"""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from aiotune.errors import (
    FailedTrialError,
    FatalError,
    FatalTypeError,
    FatalValueError,
    InfeasibleTrialError,
)
from aiotune.executors.base import (
    Assignment,
    Failed,
    Finished,
    Met,
    Noted,
    Observed,
    Progressed,
    RunEvent,
    Started,
)
from aiotune.executors.out_of_memory import is_out_of_memory
from aiotune.executors.reports import KeptReports
from aiotune.executors.wire import MOST_STEPS
from aiotune.hyperparameters import HyperParameters
from aiotune.private_files import make_directory
from aiotune.space import HyperParameter, Scalar, unit_draw
from aiotune.trial import Budget, FailureKind

__all__ = [
    "Channel",
    "Program",
    "RunContext",
    "StopRun",
    "abort",
    "ending_of",
    "failure_of",
    "finish",
    "perform",
    "run_seed",
]


_SIGNS = 4  # of progress, in the time that a run may go without


class StopRun(BaseException):
    """Unwinds a run that was asked to stop. Not an Exception, so that user code does not swallow it."""


class Channel(Protocol):
    """Where a run's events go, and where a request to stop shows."""

    def emit(self, event: RunEvent) -> None: ...

    @property
    def stop_reason(self) -> str | None: ...


class Program(Protocol):
    """What a run performs: user code and its framework, behind one call."""

    def __call__(self, run: RunContext) -> Finished: ...


class RunContext:
    """The trial as its run sees it; `run_trial(self, trial)` receives it as `trial`.

    It has what a `Trial` has for user code (`trial_id`, `hyperparameters`), and `report`, `should_stop`,
    `checkpoint_dir`. Changes of `hyperparameters` are facts that go up to the search.
    """

    def __init__(self, assignment: Assignment, channel: Channel) -> None:
        self.assignment = assignment
        self.trial_id = assignment.trial_id
        self.number = assignment.number
        budgeted = {} if assignment.budget is None else assignment.budget.values
        self.hyperparameters = HyperParameters(
            space=assignment.space, values={**assignment.values, **budgeted}, fill=self._fill
        )
        self._channel = channel
        self._announced: tuple[object, bool] = (None, False)  # names, is_complete
        self._first_step = _first_step(assignment)
        self._next_step = self._first_step
        self._kept = KeptReports(assignment)
        self._has_reported = False
        self._has_seen_stop = False
        self._next_sign = 0.0  # when the next sign of progress is due, by this process's clock

    @property
    def budget(self) -> Budget | None:
        """How far to train, where the search decides that (Hyperband); else None."""
        return self.assignment.budget

    @property
    def share(self) -> float:
        """How much of the training data to train with, in (0, 1]; 1 unless the search lets the data grow."""
        return 1.0 if self.budget is None or self.budget.share is None else self.budget.share

    @property
    def is_continued(self) -> bool:
        """Whether an earlier run left its state in `checkpoint_dir`, for this one to go on from.

        It was paused where the budget begins, or it was interrupted: by a crash, or with the search.
        """
        return self.assignment.continues

    @property
    def folds(self) -> int:
        """How many folds the data are split into; 1 if they are not."""
        return self.assignment.folds

    @property
    def fold(self) -> int:
        """Which fold this run holds out and is measured on, counted from 0."""
        return self.assignment.repeat % self.assignment.folds

    @property
    def directory(self) -> Path:
        """The trial's own directory; it exists."""
        return Path(self.assignment.trial_directory)

    @property
    def checkpoint_dir(self) -> Path:
        """A directory for this repeat's checkpoints; it survives retries and promotions. It exists.

        Report a step before you save the state after it: then a run that goes on from there lacks no report.
        """
        self._kept.begin()
        path = self.directory / f"repeat-{self.assignment.repeat}"
        make_directory(path)
        return path

    @property
    def seed(self) -> int:
        """32 bits of this run and of those that it continues, the same when the search is run again."""
        return run_seed(self.assignment)

    @property
    def should_stop(self) -> bool:
        """Whether the run was asked to end. A custom loop should look after each step and return.

        A look is also a sign that the run goes on, as `Limits(stall_timeout=...)` wants it.
        """
        self._show_progress()
        self._has_seen_stop |= self._channel.stop_reason is not None
        return self._has_seen_stop

    @property
    def has_seen_stop(self) -> bool:
        """Whether user code was told to end: what it returns then is the result of a shortened run."""
        return self._has_seen_stop

    @property
    def has_reported(self) -> bool:
        """Whether this run reported anything, or an interrupted one that it goes on from."""
        is_known = self._has_reported or self.assignment.last_report is not None
        return is_known or self._kept.has_lost

    @property
    def next_step(self) -> int:
        """The step after the last report; without one, that at which the run begins."""
        return self._next_step

    def begin_at(self, step: int) -> None:
        """Say at which step this run begins; earlier than its budget says where what it needs is gone."""
        self._first_step = min(step, self._first_step)
        if not self._has_reported:
            self._next_step = step

    def raise_if_stopped(self) -> None:
        """Unwind the run if it was asked to end."""
        if self.should_stop:
            raise StopRun(self._channel.stop_reason)

    def report(self, step: int | None = None, **metrics: float) -> None:
        """Report metrics at `step` (default: the step after the last report, from 0).

        A run that goes on from an earlier one begins at its budget's `initial_epoch`. The search stores what is
        reported and may answer by asking this run to stop. FatalTypeError for a metric that is not a number,
        and for a call without metrics; FatalValueError for a step that an earlier run has trained.
        """
        numbers = _numbers(metrics)
        step = self._next_step if step is None else int(step)
        if step < self._first_step:
            raise FatalValueError(_begins_anew(self, step))
        if step > MOST_STEPS:
            raise FatalValueError(f"report(step={step}): a step is a whole number of 2**53 at most")
        self._next_step, self._has_reported = step + 1, True
        self.announce(is_complete=False)
        self.report_lost(before=step)
        self._emit_report(Observed(step, numbers))

    def report_lost(self, before: int | None = None) -> None:
        """Report what earlier runs did, and the search never got; before: only lower steps, which come next."""
        for each in self._kept.lost_before(before):
            self._has_reported = True
            self._emit_report(each)

    def _emit_report(self, report: Observed) -> None:
        self._kept.keep(report)
        self._channel.emit(report)

    def announce(self, *, is_complete: bool) -> None:
        """Send up the names met so far, if that is news. `is_complete`: no further name can be met.

        Names that were declared but are not active belong to the space, not to this point.
        """
        hp = self.hyperparameters
        met, values, redeclared = hp.met, hp.met_values(), hp.redeclared
        names = (met, tuple(values.items()), redeclared)
        is_complete |= self._announced == (names, True)  # nothing new since: it stays so
        if self._announced == (names, is_complete):
            return
        self._announced = (names, is_complete)
        known = {each.identity for each in self.assignment.space}
        added = tuple(each for each in hp.declared if each.identity not in known)
        self._channel.emit(Met(met, values, added, redeclared, is_complete))

    def meet_what_was_read(self) -> None:
        """Take the proposed values for read if the program asked for no name at all.

        It has read `hyperparameters.values`, a plain dict that tells nobody, or its trials are all alike.
        """
        hp = self.hyperparameters
        if not hp.met:
            for name in self.assignment.values:
                if name in hp:
                    hp.get(name)

    def note(self, message: str) -> None:
        """Tell the user something, through the search, which says the same note once."""
        self._channel.emit(Noted(message))

    def start(self) -> None:
        """Say that user code is reached."""
        self._channel.emit(Started(time.monotonic()))

    def _show_progress(self) -> None:
        """Let the search know that the run goes on, as often as it asks for that."""
        longest = self.assignment.stall_seconds
        if longest is None or time.monotonic() < self._next_sign:
            return
        self._next_sign = time.monotonic() + longest / _SIGNS
        with contextlib.suppress(StopRun):  # the search is gone, which the channel tells as well
            self._channel.emit(Progressed())

    def _fill(self, hyperparameter: HyperParameter) -> Scalar:
        """Return the value of a name that no one proposed a value for."""
        if not self.assignment.draws_new_names:
            return hyperparameter.default
        stream = self.assignment.stream
        return hyperparameter.from_unit(
            unit_draw(self.assignment.seed, stream, hyperparameter.name)
        )


def _first_step(assignment: Assignment) -> int:
    """Return the step that a run goes on at: where its budget begins, if an earlier run came so far."""
    budget = assignment.budget
    if budget is None or budget.share is not None or not assignment.continues:
        return 0
    return budget.initial_epoch


def _begins_anew(run: RunContext, step: int) -> str:
    begin = _first_step(run.assignment)
    return (
        f"trial {run.trial_id} was trained to step {begin} by an earlier run, and this one, which is to go on "
        f"from there, reports step {step}: begin at "
        'trial.hyperparameters["tuner/initial_epoch"] (also trial.budget.initial_epoch), with what the earlier '
        "run has saved in trial.checkpoint_dir"
    )


def run_seed(assignment: Assignment) -> int:
    """Return the run's own seed, 32 bits, from (seed, stream, repeat, seed_attempt)."""
    draw = unit_draw(
        assignment.seed, "run", assignment.stream, assignment.repeat, assignment.seed_attempt
    )
    return int(draw * 2**32)


def _numbers(metrics: Mapping[str, object]) -> dict[str, float]:
    if not metrics:
        raise FatalTypeError("report() needs at least one metric: report(step, loss=0.3)")
    numbers = {}
    for name, value in metrics.items():
        try:
            numbers[name] = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            raise FatalTypeError(f"report(): {name}={value!r} is not a number") from error
    return numbers


def perform(program: Program, run: RunContext) -> Finished | Failed:
    """Call the program and return how it ended. KeyboardInterrupt and asyncio's CancelledError pass."""
    try:
        run.start()
        return finish(run, program(run))
    except (Exception, StopRun, SystemExit) as error:
        return abort(run, error)


def finish(run: RunContext, finished: object) -> Finished:
    """Return how a program that returned has ended; the names that it met are complete now."""
    if not isinstance(finished, Finished):
        raise FatalTypeError(f"a program must return Finished, not {finished!r}")
    run.report_lost()
    if run.has_seen_stop:
        return replace(finished, is_stopped=True)
    run.meet_what_was_read()
    run.announce(is_complete=True)
    return finished


def abort(run: RunContext, error: BaseException) -> Finished | Failed:
    """Return how a program that raised has ended; the names met until then go up."""
    with contextlib.suppress(StopRun):
        run.announce(is_complete=False)
        run.report_lost()
    return ending_of(error)


def ending_of(error: BaseException) -> Finished | Failed:
    """Return the end that an exception which left the program stands for."""
    match error:
        case StopRun():
            return Finished(is_stopped=True)
        case Exception():
            return failure_of(error)
        case SystemExit():
            message = f"user code called sys.exit({error.code!r}): return or raise instead"
        case _:
            message = f"user code raised {type(error).__name__}"
    return Failed(FailureKind.USER_ERROR, message, _traceback_text(error))


def failure_of(error: Exception) -> Failed:
    """Return the failure that an exception of user code stands for."""
    match error:
        case InfeasibleTrialError():
            kind = FailureKind.INFEASIBLE
        case _ if is_out_of_memory(error):
            kind = FailureKind.OUT_OF_MEMORY
        case _:
            kind = FailureKind.USER_ERROR
    return Failed(
        kind,
        "".join(traceback.format_exception_only(error)).strip(),
        _traceback_text(error),
        is_fatal=isinstance(error, FatalError),
        may_retry=not isinstance(error, (FailedTrialError, InfeasibleTrialError, FatalError)),
        is_of_host=isinstance(error, MemoryError),
    )


def _traceback_text(error: BaseException) -> str:
    """Return the traceback from the user's first frame on; in full where the error is aiotune's own."""
    trace = error.__traceback__
    while trace is not None and _is_ours(trace.tb_frame.f_globals.get("__name__", "")):
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace or error.__traceback__))


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == __name__.partition(".")[0]
