"""Frozen facts: what happened in a search, in the order in which the store wrote it.

A search is the sum of its facts: `History.apply` folds them, the store keeps them as rows, observers read
them. An event says what happened, never what to do. Field types are JSON scalars, tuples and mappings of
them, and the records named below, so that `to_json` and `from_json` are each other's inverse.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, get_args

from aiotune.checkpoints import Checkpoint
from aiotune.decoding import (
    Check,
    a_count,
    a_flag,
    a_moment,
    a_number,
    a_text,
    a_trial_id,
    a_whole,
    checks_of,
    listed,
    metrics_of,
    reader_of,
    space_of,
    texts_of,
    values_of,
)
from aiotune.objective import Objective
from aiotune.space import HyperParameter, Scalar, serialize
from aiotune.trial import Budget, FailureKind, RunState, StopCause, TrialState, Usage

__all__ = [
    "CheckpointsDropped",
    "CheckpointsKept",
    "DeviceChanged",
    "EndReason",
    "Event",
    "Reported",
    "RunEnded",
    "RunStarted",
    "SearchEnded",
    "SearchOpened",
    "SpaceGrew",
    "StopRequested",
    "TrialCreated",
    "TrialEnded",
    "TrialMet",
    "TrialPaused",
    "TrialPromoted",
    "from_json",
    "to_json",
]


class EndReason(StrEnum):
    """Why a search ended."""

    MAX_TRIALS = "max_trials"  # as many trials as asked for
    EXHAUSTED = "exhausted"  # the oracle has nothing more to propose
    TIME = "max_time"
    EPOCHS = "max_epochs"
    GPU_HOURS = "max_gpu_hours"
    ENERGY = "max_energy"
    TARGET = "target"  # the score that was asked for is reached
    PATIENCE = "patience"  # so many trials brought no improvement
    STOPPED = "stopped"  # by `request_stop()`
    FAILED = "failed"  # by an error, which the message gives


@dataclass(frozen=True, slots=True)
class SearchOpened:
    """A process opened the project: the first time, or again."""

    at: float
    objective: Mapping[str, Any]  # Objective.get_config()
    seed: int
    oracle: str
    version: str
    folds: int | None = None  # that the data are split into; None: not known


@dataclass(frozen=True, slots=True)
class SpaceGrew:
    """Names were met for the first time: in discovery (`trial_id` is None) or in a trial.

    `redeclared` are known names that were declared again with another range: the first one holds.
    """

    at: float
    trial_id: str | None
    added: tuple[HyperParameter, ...]
    redeclared: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TrialCreated:
    """The oracle proposed a point; nothing runs yet. The program may meet further names later."""

    at: float
    trial_id: str
    number: int
    stream: int
    values: Mapping[str, Scalar]
    asked_after: int
    budget: Budget | None = None
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run got its devices: UUIDs, or cores as "cpu:0-1"."""

    at: float
    trial_id: str
    run: int  # its index in the trial
    repeat: int
    attempt: int
    devices: tuple[str, ...]
    log: str | None
    budget: Budget | None = None
    continues: int | None = None  # the run of the trial whose training state it goes on from
    gpu_memory: int | None = None  # bytes that it may take of its card; None: all, or there is none
    gpu_fraction: float | None = None  # the same as a part of the card's memory


@dataclass(frozen=True, slots=True)
class TrialMet:
    """What the program asked for in this trial, so far or, if `is_complete`, for good."""

    at: float
    trial_id: str
    space: tuple[HyperParameter, ...]
    values: Mapping[str, Scalar]
    is_complete: bool


@dataclass(frozen=True, slots=True)
class Reported:
    """A run reported its metrics at a step; for Keras, an epoch counted from 0."""

    at: float
    trial_id: str
    run: int
    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class StopRequested:
    """A run was asked to end: it does so at its next batch."""

    at: float
    trial_id: str
    run: int
    cause: StopCause
    reason: str | None = None  # in words, where a rule gave one


@dataclass(frozen=True, slots=True)
class RunEnded:
    """A run is over. `metrics` are those of `best_step`; `message` has the error and its log."""

    at: float
    trial_id: str
    run: int
    state: RunState
    metrics: Mapping[str, float]
    best_step: int | None = None
    failure: FailureKind | None = None
    may_retry: bool = True
    message: str | None = None
    usage: Usage | None = None  # of GPUs; None: it had none, or nothing is known


@dataclass(frozen=True, slots=True)
class TrialPaused:
    """A trial has used its budget and waits for a promotion."""

    at: float
    trial_id: str
    score: float | None = None
    best_step: int | None = None


@dataclass(frozen=True, slots=True)
class TrialPromoted:
    """A paused trial goes on, with a larger budget."""

    at: float
    trial_id: str
    budget: Budget


@dataclass(frozen=True, slots=True)
class TrialEnded:
    """A trial is over, with a score if it has one: the mean over its repeats."""

    at: float
    trial_id: str
    status: TrialState
    score: float | None = None
    best_step: int | None = None
    metrics: Mapping[str, float] | None = None
    failure: FailureKind | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class CheckpointsKept:
    """What a trial has on disk, as measured, and how many hold each part. It replaces what was told before."""

    at: float
    trial_id: str
    checkpoints: tuple[Checkpoint, ...]


@dataclass(frozen=True, slots=True)
class CheckpointsDropped:
    """Nobody refers to these parts of a trial's checkpoints any more: their files are deleted after this."""

    at: float
    trial_id: str
    checkpoints: tuple[Checkpoint, ...]
    reason: str | None = None  # in words, where it was for want of room


@dataclass(frozen=True, slots=True)
class DeviceChanged:
    """A GPU is not leased any more for a reason, in words, or it is leased again (`reason` is None)."""

    at: float
    device: str  # its UUID
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class SearchEnded:
    """The search is over; a later process may go on with it."""

    at: float
    reason: EndReason
    message: str | None = None


Event = (
    SearchOpened
    | SpaceGrew
    | TrialCreated
    | RunStarted
    | TrialMet
    | Reported
    | StopRequested
    | RunEnded
    | TrialPaused
    | TrialPromoted
    | TrialEnded
    | CheckpointsKept
    | CheckpointsDropped
    | DeviceChanged
    | SearchEnded
)


def _encode(value: Any) -> Any:
    """Return `value` in plain JSON; a float that JSON cannot hold becomes a string (see `a_number`)."""
    match value:
        case float() if not math.isfinite(value):
            return repr(value)
        case HyperParameter():
            return serialize(value)
        case Budget() | Usage() | Checkpoint():
            return asdict(value)
        case StrEnum():
            return value.value
        case tuple() | list():
            return [_encode(item) for item in value]
        case Mapping():
            return {key: _encode(item) for key, item in value.items()}
        case _:
            return value


def _objective(value: Any) -> Mapping[str, Any]:
    """Return an objective's config, or an empty one, as it is; ValueError if it describes none."""
    if type(value) is not dict:
        raise ValueError(f"{value!r:.100} is no objective")
    try:
        if value:
            Objective.from_config(value)
    except (TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"{value!r:.100} is no objective: {error!r:.100}") from error
    return value


# By the type of a field, as it is written above.
_CHECKS: dict[str, Check] = {
    "str": a_text,
    "int": a_count,
    "float": a_number,
    "bool": a_flag,
    "tuple[str, ...]": texts_of,
    "tuple[HyperParameter, ...]": space_of,
    "Mapping[str, float]": metrics_of,
    "Mapping[str, Scalar]": values_of,
    "EndReason": EndReason,
    "FailureKind": FailureKind,
    "RunState": RunState,
    "StopCause": StopCause,
    "TrialState": TrialState,
}
_CHECKS |= {each.__name__: reader_of(each, checks_of(each, _CHECKS)) for each in (Budget, Usage)}
_CHECKS["tuple[Checkpoint, ...]"] = listed(reader_of(Checkpoint, checks_of(Checkpoint, _CHECKS)))
_BY_NAME: dict[str, Check] = {
    "at": a_moment,
    "trial_id": a_trial_id,
    "parent": a_trial_id,
    "seed": a_whole,
    "stream": a_whole,
    "objective": _objective,
}
_READERS: Mapping[str, Callable[[Any], Event]] = {
    kind.__name__: reader_of(kind, checks_of(kind, _CHECKS, **_BY_NAME)) for kind in get_args(Event)
}


def to_json(event: Event) -> tuple[str, dict[str, Any]]:
    """Return the event's kind and its fields as plain, strict JSON values."""
    data = {each.name: _encode(getattr(event, each.name)) for each in fields(event)}
    return type(event).__name__, data


def from_json(kind: str, data: Mapping[str, Any]) -> Event:
    """Return the event that `to_json` took apart, wherever it was since: nothing of it is believed.

    KeyError for a kind of a newer version, TypeError for a field of one, and ValueError for a value that none
    of its kind has: of another type, an id that is no plain name, a number that is too large.
    """
    return _READERS[kind](data)
