"""Trial, Run, Observation: frozen records, their states, and the tables of moves between states.

A trial is one point of the space. A run is one execution of it on one lease: repeats, retries and
promotions are all runs of the same trial. Records are replaced, never changed; `History.apply` is the
only caller of `moved`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import FrozenInstanceError, dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, NoReturn

from aiotune.changing import changed
from aiotune.errors import FatalRuntimeError
from aiotune.hyperparameters import HyperParameters
from aiotune.metrics import TrialMetrics
from aiotune.objective import Objective
from aiotune.printable import one_line, printable
from aiotune.space import HyperParameter, Scalar
from aiotune.usage import Usage, total_usage, usage_text

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
    "Usage",
    "counted_runs",
    "trial_id_of",
    "trial_text",
    "values_text",
]


def trial_id_of(number: int) -> str:
    """Return the id of the trial that is asked for as number `number`, counted from 0."""
    return f"{number:04d}"


class TrialState(StrEnum):
    """Where a trial stands. The value is what users see as `trial.status`, which looks at its runs, too."""

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

    RULE = "a rule saw no chance for it"
    PAUSE = "it waits for a promotion"
    LIMIT = "a limit of the search was reached"
    DUPLICATE = "another trial has the same values"
    CONSTRAINT = "the constraint refuses its values"
    SIBLING = "another run of the trial failed"
    TIMEOUT = "it took longer than trial_timeout"
    STALL = "it made no progress for stall_timeout"
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
    # Promoted, or not; or what it had reached by then breaks a bound.
    TrialState.PAUSED: frozenset({TrialState.QUEUED, TrialState.COMPLETED, TrialState.INFEASIBLE}),
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
    """How far a run trains: from `initial_epoch` (0-based) up to, not including, `epochs`.

    Where it stands in Hyperband is part of it, so that the facts alone tell which trial belongs where.
    """

    epochs: int
    initial_epoch: int = 0
    bracket: int | None = None  # so many rungs are above the bracket's first one
    rung: int | None = None  # 0-based
    iteration: int = 0  # which pass over all brackets, 0-based
    is_last: bool = True  # False: a trial that has used it up waits for a promotion
    # Of the training data, in (0, 1]: then `epochs` counts shares, and each run trains anew. None: all.
    share: float | None = None

    @property
    def values(self) -> dict[str, Scalar]:
        """The same as hyperparameters, under KerasTuner's names. They are no part of the point."""
        values: dict[str, Scalar] = (
            {"tuner/epochs": self.epochs, "tuner/initial_epoch": self.initial_epoch}
            if self.share is None
            else {"tuner/share": self.share}
        )
        if self.bracket is not None:
            values["tuner/bracket"] = self.bracket
        if self.rung is not None:
            values["tuner/round"] = self.rung
        return values


class Observation(NamedTuple):
    """The metrics that a run reported at one step. For Keras a step is an epoch, counted from 0.

    A named tuple, and no frozen dataclass: they are made where they are read (see `Observations`).
    """

    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a trial on one lease.

    `observations` is append-only and shared between successive records of the same run: an older record
    sees later observations, never changed ones.
    """

    index: int  # 0-based, over all runs of the trial; with the trial's id it names the run
    repeat: int  # which of `executions_per_trial`, each of which has one for every fold
    attempt: int  # how many runs of this repeat failed before; lost ones are not counted
    started_at: float
    devices: tuple[str, ...]  # UUIDs, or core sets
    log: str | None  # path of stdout and stderr
    budget: Budget | None = None
    continues: int | None = None  # the run of this trial whose training state it goes on from
    gpu_memory: int | None = None  # bytes that it could take of its card; None: all of it
    gpu_fraction: float | None = None  # the same as a part of the card's memory
    state: RunState = RunState.RUNNING
    stop_cause: StopCause | None = None  # what it was asked to stop for, if it was
    stop_reason: str | None = None  # in words, where a rule gave one
    observations: Sequence[Observation] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)  # final ones, at `best_step`
    best_step: int | None = None
    failure: FailureKind | None = None
    may_retry: bool = True  # False where user code raised an error that says so
    message: str | None = None
    ended_at: float | None = None
    usage: Usage | None = None  # None: it had no GPU, or its end told nothing of it

    @property
    def is_over(self) -> bool:
        return self.state not in RUN_MOVES

    @property
    def seconds(self) -> float | None:
        """How long it took by the machine's clock, at least 0 wherever that jumped; None: it is not over."""
        return None if self.ended_at is None else max(0.0, self.ended_at - self.started_at)

    @property
    def gpus(self) -> tuple[str, ...]:
        """Those of its devices that are no cores."""
        return tuple(each for each in self.devices if not each.startswith("cpu:"))

    @property
    def has_share(self) -> bool:
        """Whether it had a part of a card: others could have had the rest."""
        return self.gpu_memory is not None or self.gpu_fraction is not None

    def moved(self, state: RunState, **changes: object) -> Run:
        """Return this run in another state; FatalRuntimeError if the table does not allow the move."""
        if state not in RUN_MOVES.get(self.state, ()):
            raise FatalRuntimeError(f"run {self.index} cannot go from {self.state} to {state}")
        return changed(self, state=state, **changes)


# What such a run reported before it broke or was cut off is no result of its trial.
_WITHOUT_RESULT = frozenset({RunState.FAILED, RunState.LOST, RunState.CANCELLED})
_WITH_RESULT = frozenset({RunState.FINISHED, RunState.STOPPED})

_INSTEAD_OF_WRITING = {
    "hyperparameters": "declare names on trial.hyperparameters in run_trial, or propose values in an oracle",
    "status": "raise FailedTrialError in run_trial to fail a trial",
    "state": "raise FailedTrialError in run_trial to fail a trial",
}


def _explaining_writes(kind: type[Trial]) -> type[Trial]:
    """Let an attempt to change a record say what to do instead. KerasTuner's trials are open to writes."""

    def refuse(self: Trial, name: str, value: object = None) -> NoReturn:
        instead = _INSTEAD_OF_WRITING.get(
            name, "return metrics from run_trial, or call trial.report(step, loss=...) there"
        )
        raise FrozenInstanceError(
            f"trial.{name} cannot be set: a Trial is a record of what happened; {instead}"
        )

    setattr(kind, "__setattr__", refuse)  # noqa: B010  # a frozen dataclass defines it, and takes no other
    setattr(kind, "__delattr__", refuse)  # noqa: B010
    return kind


@_explaining_writes
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
    final_metrics: Mapping[str, float] = field(default_factory=dict)  # mean over the repeats
    failure: FailureKind | None = None
    message: str | None = None
    ended_at: float | None = None
    ended_after: int | None = None  # how many facts there were before its end
    objective: Objective | None = None  # that of its search
    # What the oracle gave it, whether its program met the names or not.
    proposed: Mapping[str, Scalar] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """Its state, for users: one that waits for a further run, or was cut off, is queued."""
        is_idle = self.state is TrialState.RUNNING and all(run.is_over for run in self.runs)
        return (TrialState.QUEUED if is_idle else self.state).value

    @property
    def is_over(self) -> bool:
        return self.state not in TRIAL_MOVES

    @property
    def has_score(self) -> bool:
        return self.score is not None and not math.isnan(self.score)

    @property
    def scores(self) -> tuple[float, ...]:
        """What `score` is the mean of: the score of each repeat (execution, fold), in their order.

        Empty while the trial is in progress.
        """
        if self.objective is None or not (self.is_over or self.state is TrialState.PAUSED):
            return ()
        runs = counted_runs(self, self.state, self.objective)
        return tuple(self.objective.get_value(run.metrics) for run in runs)

    @property
    def standard_error(self) -> float | None:
        """Of `score`, as the mean of `scores`; None where there are fewer than two."""
        scores = self.scores
        if len(scores) < 2 or not all(map(math.isfinite, scores)):
            return None
        return statistics.stdev(scores) / math.sqrt(len(scores))

    def curve(self, run: Run, *, of_budget: bool = False) -> list[Observation]:
        """Return what a run and those that it continues have reported, by step, each step once.

        What a later run reports holds. of_budget: only of runs under the budget of `run`.
        """
        own = list(run.observations)
        former = None if run.continues is None else self.runs[run.continues]
        if former is None or (of_budget and former.budget != run.budget):
            return own
        earlier = self.curve(former, of_budget=of_budget)
        return [each for each in earlier if not own or each.step < own[0].step] + own

    def first_step(self, run: Run) -> int:
        """Return which step of the trial a run's step 0 is: on a larger share of the data it trains anew."""
        if run.budget is None or run.budget.share is None:
            return 0
        steps = [
            observation.step
            for each in self.runs[: run.index]
            if each.repeat == run.repeat
            and each.budget != run.budget
            and each.state in _WITH_RESULT
            for observation in each.observations
        ]
        return max(steps, default=-1) + 1

    @property
    def usage(self) -> Usage | None:
        """What its runs that are over took of GPUs, all together; None: they had none, or nothing is known."""
        return total_usage(run.usage for run in self.runs)

    @property
    def hyperparameters(self) -> HyperParameters:
        """The point as `HyperParameters`, with the values of the last budget; a new object each time."""
        budgeted = {} if self.budget is None else self.budget.values
        return HyperParameters(space=self.space, values={**self.values, **budgeted})

    @property
    def metrics(self) -> TrialMetrics:
        """The final metrics, a mapping; its methods also tell what the runs reported at each step."""
        reports = [run.observations for run in self.runs if run.state not in _WITHOUT_RESULT]
        return TrialMetrics(self.final_metrics, reports, self.best_step, self.objective)

    def summary(self) -> None:
        """Print what the trial is and what it achieved."""
        for line in trial_text(self):
            print(printable(line))

    def display_hyperparameters(self) -> None:
        """Print the values, a line for each."""
        for line in values_text(self):
            print(printable(line))

    def get_state(self) -> dict[str, Any]:
        """Return the trial in plain values, laid out as KerasTuner's trial.json."""
        return {
            "trial_id": self.trial_id,
            "hyperparameters": self.hyperparameters.get_config(),
            "metrics": self.metrics.get_config(),
            "score": self.score,
            "best_step": self.best_step,
            "status": self.status,
            "message": self.message,
        }

    def moved(self, state: TrialState, **changes: object) -> Trial:
        """Return this trial in another state; FatalRuntimeError if the table does not allow the move."""
        if state not in TRIAL_MOVES.get(self.state, ()):
            raise FatalRuntimeError(f"trial {self.trial_id} cannot go from {self.state} to {state}")
        return changed(self, state=state, **changes)

    def with_run(self, run: Run) -> Trial:
        """Return this trial with `run` appended, or in the place of the run of the same index."""
        return changed(self, runs=(*self.runs[: run.index], run, *self.runs[run.index + 1 :]))


def counted_runs(trial: Trial, state: TrialState, objective: Objective) -> list[Run]:
    """Return the runs whose mean is the trial's score in `state`: one of each repeat, in their order.

    A pause compares trials at one budget. A failure leaves what was reached under smaller ones. Else the best
    epochs under any budget count: those that the checkpoints hold.
    """
    match state:
        case TrialState.PAUSED:
            runs = [run for run in trial.runs if run.budget == trial.budget]
        case TrialState.FAILED | TrialState.INFEASIBLE:
            runs = [run for run in trial.runs if run.budget != trial.budget]
        case _:
            runs = list(trial.runs)
    best: dict[int, Run] = {}
    for run in runs:
        if run.state not in _WITH_RESULT or not objective.has_value(run.metrics):
            continue
        value, former = objective.get_value(run.metrics), best.get(run.repeat)
        if former is None or objective.better_than(value, objective.get_value(former.metrics)):
            best[run.repeat] = run
    return [best[repeat] for repeat in sorted(best)]


def trial_text(trial: Trial) -> Iterator[str]:
    """Yield the lines that sum up one trial."""
    yield f"Trial {trial.trial_id} summary"
    yield "Hyperparameters:"
    yield from values_text(trial)
    if trial.score is not None:
        yield f"Score: {trial.score}"
    if trial.standard_error is not None:
        yield f"Standard error: {trial.standard_error:.4g} ({len(trial.scores)} runs)"
    if trial.usage is not None:
        yield f"GPUs: {usage_text(trial.usage)}"
    if trial.message:
        yield trial.message


def values_text(trial: Trial) -> Iterator[str]:
    """Yield a line for each of the trial's values."""
    values = trial.hyperparameters.values
    if not values:
        yield "default configuration"
    for name, value in values.items():
        yield one_line(f"{name}: {value}")
