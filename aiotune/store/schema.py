"""The tables, their versions, and what each fact writes into them.

`events` is the log and the only truth. `trials`, `runs` and `metrics` repeat it for people with an
SQL prompt and for dashboards; they are written in the same transaction, and aiotune itself never
reads them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import astuple
from typing import Any, NamedTuple, assert_never

from aiotune.events import (
    CheckpointsDropped,
    CheckpointsKept,
    DeviceChanged,
    Event,
    Reported,
    RunEnded,
    RunStarted,
    SearchEnded,
    SearchOpened,
    SpaceGrew,
    StopRequested,
    TrialCreated,
    TrialEnded,
    TrialMet,
    TrialPaused,
    TrialPromoted,
    to_json,
)
from aiotune.trial import RunState, TrialState

__all__ = ["APPLICATION_ID", "MIGRATIONS", "Statement", "derived", "logged"]

APPLICATION_ID = 0x61696F74  # "aiot", in the header of every file of aiotune

# Step n takes a file from version n to n + 1. Steps are only ever added, and none may change the
# columns seq, kind and data of `events`: older files are read without being migrated.
MIGRATIONS: Sequence[Sequence[str]] = (
    (
        """
        CREATE TABLE events (
            seq INTEGER PRIMARY KEY,  -- 1, 2, 3, ...: the fact's number
            at REAL NOT NULL,         -- seconds since 1970
            kind TEXT NOT NULL,
            trial_id TEXT,
            data TEXT NOT NULL        -- JSON, where "nan", "inf", "-inf" stand for these numbers
        )
        """,
        """
        CREATE TABLE trials (
            trial_id TEXT PRIMARY KEY,
            number INTEGER NOT NULL,
            stream INTEGER NOT NULL,
            state TEXT NOT NULL,
            score REAL,               -- NULL: none, or not a number
            best_step INTEGER,
            vals TEXT NOT NULL,       -- JSON: name -> value
            failure TEXT,
            message TEXT,
            created_at REAL NOT NULL,
            ended_at REAL
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE runs (
            trial_id TEXT NOT NULL,
            run INTEGER NOT NULL,
            repeat INTEGER NOT NULL,
            attempt INTEGER NOT NULL,
            state TEXT NOT NULL,
            devices TEXT NOT NULL,    -- JSON list
            log TEXT,
            started_at REAL NOT NULL,
            ended_at REAL,
            failure TEXT,
            message TEXT,
            PRIMARY KEY (trial_id, run)
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE metrics (
            trial_id TEXT NOT NULL,
            run INTEGER NOT NULL,
            step INTEGER NOT NULL,
            name TEXT NOT NULL,
            value REAL,               -- NULL: not a number
            PRIMARY KEY (trial_id, run, step, name)
        ) WITHOUT ROWID
        """,
        "CREATE INDEX openings ON events (seq) WHERE kind = 'SearchOpened'",
        "CREATE INDEX trials_by_score ON trials (state, score)",
        "CREATE INDEX metrics_by_name ON metrics (name, value)",
    ),
    (
        "ALTER TABLE runs ADD COLUMN gpu_memory INTEGER",  # bytes; NULL: a whole card, or none
        "ALTER TABLE runs ADD COLUMN gpu_fraction REAL",
        "ALTER TABLE runs ADD COLUMN gpu_seconds REAL",  # from here on NULL: not known
        "ALTER TABLE runs ADD COLUMN peak_bytes INTEGER",
        "ALTER TABLE runs ADD COLUMN energy_joules REAL",
        "ALTER TABLE runs ADD COLUMN is_estimated INTEGER",
    ),
    (
        """
        CREATE TABLE checkpoints (
            trial_id TEXT NOT NULL,
            repeat INTEGER NOT NULL,
            part TEXT NOT NULL,           -- best, last, before-<epoch>, own
            bytes INTEGER NOT NULL,       -- as last measured
            reference_count INTEGER NOT NULL,
            PRIMARY KEY (trial_id, repeat, part)
        ) WITHOUT ROWID
        """,
    ),
)


class Statement(NamedTuple):
    """One SQL statement and the rows of parameters to execute it with."""

    sql: str
    rows: Sequence[Sequence[object]]


# A derived table never refuses what the log takes in: the later row replaces the earlier one.
_ADD_EVENT = "INSERT INTO events VALUES (?, ?, ?, ?, ?)"
_ADD_TRIAL = """
    INSERT OR REPLACE INTO trials (trial_id, number, stream, state, vals, created_at)
    VALUES (?, ?, ?, ?, ?, ?)
"""
_ADD_RUN = """
    INSERT OR REPLACE INTO runs
        (trial_id, run, repeat, attempt, state, devices, log, started_at, gpu_memory, gpu_fraction)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_ADD_METRIC = "INSERT OR REPLACE INTO metrics VALUES (?, ?, ?, ?, ?)"
_SET_VALUES = "UPDATE trials SET vals = ? WHERE trial_id = ?"
_SET_STATE = "UPDATE trials SET state = ? WHERE trial_id = ?"
# As `Trial.status` has it. What follows from the end of the run is written after it.
_AWAIT_RUN = """
    UPDATE trials SET state = 'QUEUED'
    WHERE trial_id = ? AND state = 'RUNNING'
        AND NOT EXISTS (SELECT 1 FROM runs WHERE trial_id = ? AND state = 'RUNNING')
"""
_SET_SCORE = "UPDATE trials SET state = ?, score = ?, best_step = ? WHERE trial_id = ?"
_END_TRIAL = """
    UPDATE trials
    SET state = ?, score = ?, best_step = ?, failure = ?, message = ?, ended_at = ?
    WHERE trial_id = ?
"""
_FORGET_CHECKPOINTS = "DELETE FROM checkpoints WHERE trial_id = ?"
_ADD_CHECKPOINT = "INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?, ?, ?)"
_DROP_CHECKPOINT = "DELETE FROM checkpoints WHERE trial_id = ? AND repeat = ? AND part = ?"
_END_RUN = """
    UPDATE runs
    SET state = ?, failure = ?, message = ?, ended_at = ?,
        gpu_seconds = ?, peak_bytes = ?, energy_joules = ?, is_estimated = ?
    WHERE trial_id = ? AND run = ?
"""


def logged(number: int, fact: Event, *, kind: str, text: str) -> Statement:
    """Return what puts the fact, encoded as `kind` and `text`, into the log as number `number`."""
    trial_id = getattr(fact, "trial_id", None)
    return _one(_ADD_EVENT, number, fact.at, kind, trial_id, text)


def derived(fact: Event) -> Iterable[Statement]:
    """Return what brings the derived tables up to date with the fact."""
    match fact:
        case TrialCreated():
            return (_add_trial(fact),)
        case TrialMet():
            return (_one(_SET_VALUES, _json(fact, "values"), fact.trial_id),)
        case RunStarted():
            return (_add_run(fact), _one(_SET_STATE, TrialState.RUNNING, fact.trial_id))
        case Reported():
            return (_add_metrics(fact),)
        case RunEnded():
            return (_end_run(fact), _one(_AWAIT_RUN, fact.trial_id, fact.trial_id))
        case TrialPaused():
            return (_one(_SET_SCORE, TrialState.PAUSED, fact.score, fact.best_step, fact.trial_id),)
        case TrialPromoted():
            return (_one(_SET_STATE, TrialState.QUEUED, fact.trial_id),)
        case TrialEnded():
            return (_end_trial(fact),)
        case CheckpointsKept():
            return (_one(_FORGET_CHECKPOINTS, fact.trial_id), _add_checkpoints(fact))
        case CheckpointsDropped():
            return (_drop_checkpoints(fact),)
        case SearchOpened() | SearchEnded() | SpaceGrew() | StopRequested() | DeviceChanged():
            return ()
        case _:
            assert_never(fact)


def _add_trial(fact: TrialCreated) -> Statement:
    values = _json(fact, "values")
    return _one(
        _ADD_TRIAL, fact.trial_id, fact.number, fact.stream, TrialState.QUEUED, values, fact.at
    )


def _add_run(fact: RunStarted) -> Statement:
    return _one(
        _ADD_RUN,
        fact.trial_id,
        fact.run,
        fact.repeat,
        fact.attempt,
        RunState.RUNNING,
        _json(fact, "devices"),
        fact.log,
        fact.at,
        fact.gpu_memory,
        fact.gpu_fraction,
    )


def _add_metrics(fact: Reported) -> Statement:
    rows = [
        tuple(map(_column, (fact.trial_id, fact.run, fact.step, name, value)))
        for name, value in fact.metrics.items()
    ]
    return Statement(_ADD_METRIC, rows)


def _end_run(fact: RunEnded) -> Statement:
    used: tuple[object, ...] = (None,) * 4 if fact.usage is None else astuple(fact.usage)
    return _one(
        _END_RUN,
        fact.state,
        fact.failure,
        fact.message,
        fact.at,
        *used,
        fact.trial_id,
        fact.run,
    )


def _end_trial(fact: TrialEnded) -> Statement:
    return _one(
        _END_TRIAL,
        fact.status,
        fact.score,
        fact.best_step,
        fact.failure,
        fact.message,
        fact.at,
        fact.trial_id,
    )


def _add_checkpoints(fact: CheckpointsKept) -> Statement:
    rows = [
        (fact.trial_id, each.repeat, each.part, each.bytes, each.references)
        for each in fact.checkpoints
    ]
    return Statement(_ADD_CHECKPOINT, rows)


def _drop_checkpoints(fact: CheckpointsDropped) -> Statement:
    rows = [(fact.trial_id, each.repeat, each.part) for each in fact.checkpoints]
    return Statement(_DROP_CHECKPOINT, rows)


def _one(sql: str, *parameters: object) -> Statement:
    return Statement(sql, [tuple(map(_column, parameters))])


def _json(fact: Event, field: str) -> str:
    data: dict[str, Any] = to_json(fact)[1]
    return json.dumps(data[field], allow_nan=False)


def _column(value: object) -> object:
    """Return `value` as a column holds it, whatever user code put into a message or a stream.

    Text that is no Unicode (a stray byte of a file name) is escaped; an integer beyond 64 bits
    becomes text.
    """
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case int() if not -(2**63) <= value < 2**63:
            return str(value)
        case _:
            return value
