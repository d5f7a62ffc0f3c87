"""The executor's contract: start a run on a lease, hear its events, ask it to stop.

An execution yields any number of `Started`, `Met`, `Observed`, `Progressed`, `Noted`, `Measured` and
`GpuMeasured`, and always ends with exactly one `Finished` or `Failed`, within bounded time after a stop request
or a cancellation.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import ClassVar, Self

from aiotune.space import HyperParameter, Scalar
from aiotune.trial import Budget, FailureKind

__all__ = [
    "Assignment",
    "Execution",
    "Executor",
    "Failed",
    "Finished",
    "GpuMeasured",
    "Measured",
    "Met",
    "Noted",
    "Observed",
    "Progressed",
    "RunEvent",
    "RunNews",
    "Started",
    "start_run",
]


@dataclass(frozen=True, slots=True)
class Assignment:
    """All that a run is given beside the payload: plain values that JSON holds."""

    trial_id: str
    number: int
    stream: int
    repeat: int
    attempt: int
    run: int
    seed: int  # the study's; a run's own seed derives from (seed, stream, repeat, seed_attempt)
    values: Mapping[str, Scalar]
    space: tuple[HyperParameter, ...]  # as known so far: the first declaration of a name holds
    draws_new_names: bool  # else a name without a value takes its default
    allow_new_entries: bool
    trial_directory: str  # exists
    log: str  # file for stdout and stderr
    gpus: tuple[str, ...] = ()  # UUIDs that the run may see; none: it must not touch a GPU
    gpu_memory: int | None = None  # bytes that it may take of its card; None: all of it, or none
    gpu_fraction: float | None = None  # the same as a part of the card's total, in (0, 1)
    cores: tuple[int, ...] = ()  # processor cores to stay on; none: all
    memory_bytes: int | None = None  # of the machine, that it may hold for itself; None: no limit
    budget: Budget | None = None
    continues: bool = False  # it goes on from the training state that its checkpoint directory has
    keeps_reports: bool = False  # it writes down what it reports, for a run that goes on from it
    interrupted: tuple[int, ...] = ()  # the runs of this budget that it goes on from, oldest first
    last_report: int | None = None  # the step of the newest report of theirs that is stored
    seed_attempt: int = (
        0  # the attempt that its seed derives from: that of the first run it goes on from
    )
    folds: int = 1  # so many repeats in turn hold out each fold of the data once
    is_discovery: bool = False  # only meet the names of the space: build, do not train
    stall_seconds: float | None = None  # it is to show that it goes on more often than that


@dataclass(frozen=True, slots=True)
class Started:
    """The child reached the first line of user code; `at` is its monotonic clock, shared by the machine."""

    at: float


@dataclass(frozen=True, slots=True)
class Met:
    """The names that the program declared so far, with their values.

    `added`, also inactive ones, were not in the assignment.
    """

    space: tuple[HyperParameter, ...]
    values: Mapping[str, Scalar]
    added: tuple[HyperParameter, ...]
    redeclared: tuple[tuple[HyperParameter, HyperParameter], ...]  # (as known, as declared now)
    is_complete: bool


@dataclass(frozen=True, slots=True)
class Observed:
    """Metrics at a step. `step` counts up within a run."""

    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Progressed:
    """The run goes on: it has trained a batch, say. Only where the assignment has `stall_seconds`."""


@dataclass(frozen=True, slots=True)
class Noted:
    """Something that the user should know, though the run goes on; the search says the same note once."""

    message: str


@dataclass(frozen=True, slots=True)
class Measured:
    """The memory that the run holds for itself alone, apart from what it shares with other processes."""

    memory_bytes: int


@dataclass(frozen=True, slots=True)
class GpuMeasured:
    """The most memory that the run has held of its GPU at a time, the CUDA context included.

    With several GPUs: of the one where it held most.
    """

    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The run returned. `is_stopped`: it ended early because it was asked to."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    best_step: int | None = None
    is_stopped: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """The run broke. `is_fatal`: user code raised FatalError, so that the whole search must end.

    `is_lost`: the run's process died with the fork server, through no fault of its own.
    `may_retry` is False where user code said so (FailedTrialError), or where a retry would end alike.
    `is_of_host`: the memory that it lacked was the machine's, and no GPU's.
    """

    kind: FailureKind
    message: str  # one line: type and text of the error, or the signal's name
    traceback: str | None = None
    is_fatal: bool = False
    is_lost: bool = False
    may_retry: bool = True
    is_of_host: bool = False

    @property
    def text(self) -> str:
        """All that is known: the traceback, or the end of a crashed run's log, with the message."""
        trace = (self.traceback or "").rstrip()
        return trace if self.message in trace else f"{self.message}\n{trace}".rstrip()


RunNews = Started | Met | Observed | Progressed | Noted | Measured | GpuMeasured
RunEvent = RunNews | Finished | Failed


class Execution(ABC):
    """One run in progress: iterate over its events to the end, in one task.

    Closing the iterator early (or cancelling the task that iterates) ends the run by force; when that returns
    no process of the run is left.
    """

    @abstractmethod
    def events(self) -> AsyncGenerator[RunEvent, None]:
        """Yield the run's events; the last one is `Finished` or `Failed`."""

    @abstractmethod
    def request_stop(self, reason: str) -> None:
        """Ask the run to end at its next batch, and return at once. After the grace it is ended by force."""


class Executor(ABC):
    """Starts runs of one program. An async context manager: leaving it ends every run that is left."""

    writes_logs: ClassVar[bool] = True  # what user code prints goes to the assignment's log

    @abstractmethod
    async def start(self, assignment: Assignment, *, held: Sequence[int] = ()) -> Execution:
        """Start a run. ExecutorError if no process can be had.

        held: descriptors that the run's process is to keep open to its end, for the locks on them; they stay
        the caller's to close. An executor without this parameter works, too: see `start_run`.
        """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None


async def start_run(executor: Executor, assignment: Assignment, held: Sequence[int]) -> Execution:
    """Start a run whose process keeps the descriptors `held` open, if the executor can have it so.

    One of the user's own may have `start(assignment)` alone; the locks then end with the lease.
    """
    if held and _takes_held(executor):
        return await executor.start(assignment, held=held)
    return await executor.start(assignment)


def _takes_held(executor: Executor) -> bool:
    try:
        parameters = inspect.signature(executor.start).parameters.values()
    except ValueError:  # of something that is not written in Python
        return False
    return any(each.name == "held" or each.kind is each.VAR_KEYWORD for each in parameters)
