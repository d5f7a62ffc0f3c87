"""What must be true of a project whose searching process was killed: its facts, and its final table."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from aiotune.events import Event, to_json
from aiotune.history import History
from aiotune.layout import Layout
from aiotune.store.reader import read_facts
from aiotune.trial import Run, RunState, Trial
from tests.support.crashing import SEEN
from tests.support.crashing_tuners import NAME

__all__ = [
    "Row",
    "damage",
    "differences",
    "duplicates",
    "facts_of",
    "lost_facts",
    "lost_runs",
    "table",
]

_DONE = frozenset({RunState.FINISHED, RunState.STOPPED})
_INTERRUPTED = frozenset({RunState.LOST, RunState.CANCELLED})

Row = Mapping[str, Any]


def facts_of(directory: Path) -> list[Event]:
    """Return the stored facts; none if the search was killed before there was a store."""
    path = Layout(directory, NAME).store
    return list(read_facts(path)) if path.exists() else []


def lost_facts(directory: Path, before: int) -> int:
    """Return how many facts the newest session was shown that are not stored as it saw them.

    before: how many facts earlier sessions had stored.
    """
    file = directory / SEEN
    lines = file.read_text().splitlines() if file.exists() else []
    seen = [json.loads(line) for line in lines]
    stored = [json.loads(json.dumps(to_json(each))) for each in facts_of(directory)[before:]]
    kept = 0
    for one, other in zip(seen, stored, strict=False):
        kept += one == other
    return len(seen) - kept


def damage(directory: Path) -> list[str]:
    """Return what SQLite finds wrong with the database, and how its derived tables differ from its log."""
    path = Layout(directory, NAME).store
    if not path.exists():
        return []
    # In a copy: what SQLite mends as it opens a file is left to the search that is resumed.
    with tempfile.TemporaryDirectory() as copies:
        for each in (path, *path.parent.glob(f"{path.name}-[wj]*")):
            shutil.copy(each, copies)
        with closing(sqlite3.connect(Path(copies, path.name))) as connection:
            return list(_damage(connection, History(facts_of(directory))))


def _damage(connection: sqlite3.Connection, history: History) -> Iterator[str]:
    if not connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
        return  # it was killed before there was anything in it
    yield from (each for (each,) in connection.execute("PRAGMA integrity_check") if each != "ok")
    numbers = [each for (each,) in connection.execute("SELECT seq FROM events ORDER BY seq")]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"the facts are numbered {numbers}"
    states = dict(connection.execute("SELECT trial_id, state FROM trials"))
    known = {trial_id: trial.status for trial_id, trial in history.trials.items()}
    if states != known:
        yield f"the table of trials has {states}, the log {known}"


def table(facts: Sequence[Event], *, is_ordered: bool = True) -> list[Row]:
    """Return what a search found: a row for each trial, of what must not depend on interruptions.

    is_ordered: whether trials have their numbers; else they are told apart by what they are.
    """
    rows = [_row(trial) for trial in History(facts).trials.values()]
    return rows if is_ordered else sorted(map(_bare, rows), key=repr)


def differences(found: Sequence[Row], expected: Sequence[Row]) -> list[str]:
    """Return how two tables differ, in few words."""
    if len(found) != len(expected):
        return [f"{len(found)} trials instead of {len(expected)}"]
    return [
        f"row {number}: {name} is {row[name]} instead of {other[name]}"
        for number, (row, other) in enumerate(zip(found, expected, strict=True))
        for name in row
        if row[name] != other[name]
    ]


def _bare(row: Row) -> Row:
    """Return a row without what the order of runs decides: which sibling of a broken run was cut off, too."""
    left_out = {"trial_id"} if row["state"] == "COMPLETED" else {"trial_id", "runs"}
    return {name: each for name, each in row.items() if name not in left_out}


def _row(trial: Trial) -> Row:
    return {
        "trial_id": trial.trial_id,
        "values": dict(trial.values),
        "state": trial.status,
        "score": repr(trial.score),
        "scores": [repr(each) for each in trial.scores],
        "best_step": trial.best_step,
        "budget": repr(trial.budget),
        "parent": trial.parent,
        "failure": trial.failure,
        "runs": sorted(map(repr, _run_rows(trial))),
    }


def _run_rows(trial: Trial) -> Iterator[tuple[object, ...]]:
    """Yield each run that came to an end of its own, with the steps that it and those before it reported."""
    for run in trial.runs:
        if run.state in _INTERRUPTED:
            continue
        steps = [(each.step, dict(each.metrics)) for each in trial.curve(run)]
        yield run.repeat, run.attempt, str(run.budget), run.state.value, dict(run.metrics), steps


def lost_runs(facts: Sequence[Event]) -> int:
    """Return how many runs were lost with their process."""
    return sum(run.state is RunState.LOST for run in _runs(facts))


def duplicates(facts: Sequence[Event]) -> list[str]:
    """Return the runs that were made although the same had ended, and what is still in progress."""
    found = []
    for trial in History(facts).trials.values():
        done: Counter[tuple[object, ...]] = Counter()
        for run in trial.runs:
            key = run.repeat, run.budget
            if done[key]:
                found.append(f"run {run.index} of trial {trial.trial_id} was made before")
            done[key] += run.state in _DONE
            if not run.is_over:
                found.append(f"run {run.index} of trial {trial.trial_id} is in progress")
    return found


def _runs(facts: Sequence[Event]) -> Iterator[Run]:
    return (run for trial in History(facts).trials.values() for run in trial.runs)
