"""Assignments, and the shortest way to run one to its end."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Any

from aiotune.executors.base import (
    Assignment,
    Execution,
    Executor,
    Failed,
    Finished,
    RunEvent,
)

__all__ = ["assign", "collect", "ending", "of_kind", "run_once"]


def assign(directory: Path, **changes: Any) -> Assignment:
    """Return an assignment whose files are in `directory`."""
    fields: dict[str, Any] = {
        "trial_id": "0",
        "number": 0,
        "stream": 0,
        "repeat": 0,
        "attempt": 0,
        "run": 0,
        "seed": 1,
        "values": {},
        "space": (),
        "draws_new_names": True,
        "allow_new_entries": True,
        "trial_directory": str(directory),
        "log": str(directory / "run.log"),
    }
    return Assignment(**fields | changes)


async def collect(execution: Execution) -> list[RunEvent]:
    """Return all events of a run."""
    async with aclosing(execution.events()) as events:
        return [event async for event in events]


async def run_once(executor: Executor, directory: Path, **changes: Any) -> list[RunEvent]:
    """Run one assignment to its end and return its events."""
    return await collect(await executor.start(assign(directory, **changes)))


def ending(events: list[RunEvent]) -> Finished | Failed:
    """Return the last event, which must be the only one that ends a run."""
    *before, last = events
    assert isinstance(last, Finished | Failed), events
    assert not any(isinstance(event, Finished | Failed) for event in before), events
    return last


def of_kind(events: Iterable[RunEvent], kind: type[RunEvent]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]
