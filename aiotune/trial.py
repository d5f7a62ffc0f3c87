"""Trial, Run, Observation: frozen records, their states, and the tables of moves between states.

A trial is one point of the space. A run is one execution of it on one lease: repeats, retries and
promotions are all runs of the same trial. Records are replaced, never changed; `History.apply` is the
only caller of `moved`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from aiotune.errors import FatalRuntimeError
from aiotune.hyperparameters import HyperParameters
from aiotune.space import HyperParameter, Scalar

__all__ = [
    "RUN_MOVES",
    "TRIAL_MOVES",
    "Budget",
    "FailureKind",
    "Observation",
    "Run",
    "RunState",
    "StopCause",
    "Trial",
    "TrialState",
]


class TrialState(StrEnum):
    """Where a trial stands. The value is what users see as `trial.status`."""

    QUEUED = "QUEUED"  # recorded or promoted, its run not started yet
    RUNNING = "RUNNING"  # a run has started; runs may be waiting for a device again
    PAUSED = "PAUSED"  # waits for a promotion
    COMPLETED = "COMPLETED"
    PRUNED = "PRUNED"  # ended early by a rule; its score is the best so far
    FAILED = "FAILED"
    INFEASIBLE = "INFEASIBLE"  # an impossible point
    DUPLICATE = "DUPLICATE"  # the same point as another trial, seen only after the build


class RunState(StrEnum):
    """Where a run stands."""

    RUNNING = "RUNNING"
    FINISHED = "FINISHED"
    STOPPED = "STOPPED"  # ended early by a rule
    FAILED = "FAILED"
    LOST = "LOST"  # its process ended with the caller or the fork server; it is run again
    CANCELLED = "CANCELLED"  # the search was stopped or cancelled; a resumed search runs it again


class FailureKind(StrEnum):
    """Why a run broke."""

    CRASH = "crash"  # the process died: signal or exit code
    OUT_OF_MEMORY = "out of memory"
    TIMEOUT = "timeout"
    NAN = "nan"  # the objective is not a number
    INFEASIBLE = "infeasible"
    USER_ERROR = "user error"  # an exception in user code


class StopCause(StrEnum):
    """Why a run was asked to stop. What becomes of the run, and of its trial, follows from it."""

    RULE = "the oracle saw no chance for it"
    PAUSE = "it waits for a promotion"
    LIMIT = "a limit of the search was reached"
    DUPLICATE = "another trial has the same values"
    SIBLING = "another run of the trial failed"
    TIMEOUT = "it took longer than trial_timeout"
    USER = "the search was stopped"


# States absent here are final.
TRIAL_MOVES: Mapping[TrialState, frozenset[TrialState]] = {
    TrialState.QUEUED: frozenset({TrialState.RUNNING}),
    TrialState.RUNNING: frozenset(
        {
            TrialState.PAUSED,
            TrialState.COMPLETED,
            TrialState.PRUNED,
            TrialState.FAILED,
            TrialState.INFEASIBLE,
            TrialState.DUPLICATE,
        }
    ),
    TrialState.PAUSED: frozenset({TrialState.QUEUED, TrialState.COMPLETED}),  # promoted, or not
}

RUN_MOVES: Mapping[RunState, frozenset[RunState]] = {
    RunState.RUNNING: frozenset(
        {
            RunState.FINISHED,
            RunState.STOPPED,
            RunState.FAILED,
            RunState.LOST,
            RunState.CANCELLED,
        }
    ),
}


@dataclass(frozen=True, slots=True)
class Budget:
    """How far a run trains: from `initial_epoch` (0-based) up to, not including, `epochs`."""

    epochs: int
    initial_epoch: int = 0


@dataclass(frozen=True, slots=True)
class Observation:
    """The metrics that a run reported at one step. For Keras a step is an epoch, counted from 0."""

    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a trial on one lease.

    `observations` is append-only and shared between successive records of the same run: an older record
    sees later observations, never changed ones.
    """

    index: int  # 0-based, over all runs of the trial; with the trial's id it names the run
    repeat: int  # which of `executions_per_trial`
    attempt: int  # how many runs of this repeat failed before; lost ones are not counted
    started_at: float
    devices: tuple[str, ...]  # UUIDs, or core sets
    log: str | None  # path of stdout and stderr
    budget: Budget | None = None
    state: RunState = RunState.RUNNING
    stop_cause: StopCause | None = None  # what it was asked to stop for, if it was
    observations: Sequence[Observation] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)  # final ones, at `best_step`
    best_step: int | None = None
    failure: FailureKind | None = None
    may_retry: bool = True  # False where user code raised an error that says so
    message: str | None = None
    ended_at: float | None = None

    @property
    def is_over(self) -> bool:
        return self.state not in RUN_MOVES

    def moved(self, state: RunState, **changes: object) -> Run:
        """Return this run in another state; FatalRuntimeError if the table does not allow the move."""
        if state not in RUN_MOVES.get(self.state, ()):
            raise FatalRuntimeError(f"run {self.index} cannot go from {self.state} to {state}")
        return replace(self, state=state, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Trial:
    """One point of the space, and everything known of it."""

    trial_id: str
    number: int  # 0-based, in the order of asking
    stream: int  # every chance of this trial derives from (seed, stream); see `Suggest`
    values: Mapping[str, Scalar]  # proposed ones; once known, just those that the program asked for
    asked_after: int  # how many facts the oracle had seen when it proposed this trial
    created_at: float
    state: TrialState = TrialState.QUEUED
    space: tuple[HyperParameter, ...] = ()  # what the program declared in this trial, in its order
    is_path_complete: bool = False  # no further name can be met: `values` is the whole point
    budget: Budget | None = None
    parent: str | None = None  # the trial that it was derived from
    runs: tuple[Run, ...] = ()
    score: float | None = None
    best_step: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)  # final ones, mean over the repeats
    failure: FailureKind | None = None
    message: str | None = None
    ended_at: float | None = None

    @property
    def status(self) -> str:
        return self.state.value

    @property
    def is_over(self) -> bool:
        return self.state not in TRIAL_MOVES

    @property
    def has_score(self) -> bool:
        return self.score is not None and not math.isnan(self.score)

    @property
    def hyperparameters(self) -> HyperParameters:
        """The point as `HyperParameters`; a new object each time."""
        return HyperParameters(space=self.space, values=dict(self.values))

    def moved(self, state: TrialState, **changes: object) -> Trial:
        """Return this trial in another state; FatalRuntimeError if the table does not allow the move."""
        if state not in TRIAL_MOVES.get(self.state, ()):
            raise FatalRuntimeError(f"trial {self.trial_id} cannot go from {self.state} to {state}")
        return replace(self, state=state, **changes)  # type: ignore[arg-type]

    def with_run(self, run: Run) -> Trial:
        """Return this trial with `run` appended, or in the place of the run of the same index."""
        return replace(self, runs=(*self.runs[: run.index], run, *self.runs[run.index + 1 :]))
