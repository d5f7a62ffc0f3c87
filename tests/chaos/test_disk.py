"""The disk does not fill, and what is to stay is there, whole, whatever dies or refuses."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from aiotune.disk import look
from aiotune.errors import DiskFull
from aiotune.events import Event
from aiotune.history import History
from aiotune.layout import Layout
from aiotune.trial import RunState
from tests.support.chaos import Chaos
from tests.support.filling import Filler, Order, filler, make
from tests.support.small_disk import run_on_small_disk

PROMISE = "The disk does not fill"


def files_of(directory: Path) -> dict[str, int]:
    """Return the bytes of every file below the directories of repeats. One that vanishes is left out."""
    found = {}
    for place, _, names in os.walk(directory / "project"):
        for path in (Path(place) / name for name in names if "/repeat-" in place):
            with suppress(FileNotFoundError):
                found[str(path.relative_to(directory / "project"))] = path.stat().st_size
    return found


class Gauge:
    """Compares what checkpoints take with what they may, after each write and each fact."""

    def __init__(
        self, directory: Path, size: int, keep: int, slots: int, most: float | None = None
    ) -> None:
        self.directory = directory
        self.size = size
        self.keep = keep
        self.slots = slots
        self.limit = most  # instead of what follows from the facts
        self.history = History()
        self.looks = 0
        self.most = 0.0
        self.excesses: list[str] = []

    def __call__(self, event: Event, history: History) -> None:
        self.history = history
        self.look()

    def look(self) -> None:
        # A promoted trial's old checkpoint is there until the new one is whole.
        promotable = sum(
            any(run.state is RunState.FINISHED for run in trial.runs)
            for trial in self.history.open_trials()
        )
        taken = sum(files_of(self.directory).values()) / self.size
        allowed = self.limit or self.keep + self.slots + promotable
        self.looks += 1
        self.most = max(self.most, taken)
        if taken > allowed + 0.1:  # records and headers
            self.excesses.append(f"{taken:.2f} checkpoints, where {allowed} are allowed")


@pytest.mark.parametrize(
    ("kind", "changes", "long_changes"),
    [
        ("SavingRandom", {"max_trials": 30}, {"max_trials": 100}),
        ("SavingHyperband", {"max_epochs": 9, "factor": 3}, {"hyperband_iterations": 5}),
    ],
)
@pytest.mark.parametrize("slots", [1, 3])
async def test_checkpoints_never_take_more_than_those_that_must_stay(
    tmp_path: Path,
    chaos: Chaos,
    kind: str,
    changes: dict[str, Any],
    long_changes: dict[str, Any],
    slots: int,
) -> None:
    """At no instant more than 2 + in flight + promotable, drafts included.

    Each run writes one checkpoint. A slot counts as in flight until what its last run has left is deleted.
    """
    size = chaos.pick(80_000, 10_000_000)
    gauge = Gauge(tmp_path, size, keep=2, slots=slots)
    tuner = make(
        kind,
        tmp_path,
        keep_checkpoints="best:2",
        max_concurrent_trials=slots,
        observers=[gauge],
        **changes | chaos.pick({}, long_changes),
    )
    tuner.observe = gauge.look
    result = await tuner.search(size, keeps_each=False, verbose=0)
    chaos.count(PROMISE, "checkpoint written", gauge.looks, losses=len(gauge.excesses))
    chaos.measure(
        PROMISE,
        f"most checkpoints at once, {kind} with {slots} slots and {len(result.trials)} trials",
        f"{gauge.most:.1f}",
        target="2 + in flight + promotable",
        is_met=not gauge.excesses,
    )
    assert gauge.excesses == []
    assert len(tuner.get_best_models(2)) == 2
    kept = {path.split("/")[0] for path in files_of(tmp_path)}
    best = {f"trial_{trial.trial_id}" for trial in tuner.get_best_trials(2)}
    assert kept == best


@pytest.fixture(scope="module")
def processes() -> Iterator[Filler]:
    with filler() as made:
        yield made


def lost_best(directory: Path, kind: str) -> str | None:
    """Return what is wrong with the best trial's model; None if it is whole, or there is no trial yet."""
    layout = Layout(directory, "project")
    if not layout.store.exists():
        return None
    for trial_id, repeat, part, *_ in rows_of(directory):
        if (repeat, part) not in look(layout, trial_id).keys:
            return f"{part} of trial {trial_id} was deleted before its row"
    tuner = make(kind, directory)
    try:
        for trial, model in zip(tuner.get_best_trials(), tuner.get_best_models(), strict=True):
            if model < trial.score or (trial.is_over and model != trial.score):
                return f"trial {trial.trial_id} scored {trial.score}, its checkpoint {model}"
    except Exception as error:
        return repr(error)
    return None


def rows_of(directory: Path) -> list[tuple[Any, ...]]:
    path = Layout(directory, "project").store
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(
            "SELECT trial_id, repeat, part, bytes, reference_count FROM checkpoints"
        ).fetchall()


def check_end(directory: Path, kind: str) -> None:
    """Assert that of a search that has ended only the best checkpoint is left, and the table says so."""
    [best] = make(kind, directory).get_best_trials()
    files = files_of(directory)
    place = f"trial_{best.trial_id}/repeat-0"
    assert set(files) == {f"{place}/best.state", f"{place}/best.json"}
    assert rows_of(directory) == [(best.trial_id, 0, "best", sum(files.values()), 1)]


@pytest.mark.parametrize("kind", ["SavingRandom", "SavingHyperband"])
def test_the_best_checkpoint_outlives_a_kill_at_any_file_operation(
    tmp_path: Path, chaos: Chaos, processes: Filler, kind: str
) -> None:
    """Also in the midst of a write, and between the record of a deletion and the deletion."""
    instants = processes.run(Order(kind, str(tmp_path / "whole")))
    assert instants is not None
    check_end(tmp_path / "whole", kind)
    chosen = sorted(chaos.chance.sample(range(instants), chaos.pick(8, min(instants, 100))))
    losses = []
    for instant in chosen:
        directory = tmp_path / f"{instant}"
        for at in (instant, chaos.chance.randrange(instants)):
            processes.run(Order(kind, str(directory), at))
            losses.append(lost_best(directory, kind))
        processes.run(Order(kind, str(directory)))
        losses.append(lost_best(directory, kind))
        check_end(directory, kind)
    found = [each for each in losses if each is not None]
    chaos.count(PROMISE, "kill -9 at a file operation", 2 * len(chosen), losses=len(found))
    assert found == []


# --- max_disk ---


@pytest.mark.parametrize(
    ("kind", "changes", "long_changes"),
    [
        ("SavingRandom", {"max_trials": 15}, {"max_trials": 100}),
        ("SavingHyperband", {"max_epochs": 8, "factor": 2}, {"hyperband_iterations": 3}),
    ],
)
async def test_checkpoints_never_take_more_than_max_disk(
    tmp_path: Path, chaos: Chaos, kind: str, changes: dict[str, Any], long_changes: dict[str, Any]
) -> None:
    """Drafts included. A promoted trial whose checkpoint had to go begins anew; the best model is there."""
    size, most = chaos.pick(80_000, 10_000_000), 5.5
    gauge = Gauge(tmp_path, size, keep=0, slots=2, most=most)
    tuner = make(
        kind,
        tmp_path,
        keep_checkpoints="all",
        max_disk=int(most * size),
        observers=[gauge],
        **changes | chaos.pick({}, long_changes),
    )
    tuner.observe = gauge.look
    result = await tuner.search(size, epochs=2, verbose=0)
    chaos.count(PROMISE, "checkpoint written", gauge.looks, losses=len(gauge.excesses))
    assert gauge.excesses == []
    assert gauge.most > most - 1.6  # it is made use of
    promoted = [run for trial in result.trials for run in trial.runs if run.continues is not None]
    begun_anew = sum(run.observations[0].step == 0 for run in promoted)
    print(f"{begun_anew} of {len(promoted)} promoted runs begun anew")
    if promoted:
        assert begun_anew > 0
    assert {trial.status for trial in result.trials} == {"COMPLETED"}
    assert result.best_trial is not None
    assert tuner.get_best_models() == [result.best_trial.score]


async def test_a_search_without_room_ends_and_goes_on_when_there_is(
    tmp_path: Path, chaos: Chaos
) -> None:
    size = 80_000
    tuner = make("SavingRandom", tmp_path, max_disk=2 * size, max_concurrent_trials=1)
    with pytest.raises(DiskFull, match=r"max_disk=160 kB has no room .* Raise max_disk, or keep"):
        await tuner.search(size, verbose=0)
    assert [trial.status for trial in tuner.trials] == ["COMPLETED", "QUEUED"]
    assert tuner.get_best_models() == [tuner.trials[0].score]
    chaos.count(PROMISE, "no room below max_disk")
    tuner = make("SavingRandom", tmp_path, max_disk="1MB")
    result = await tuner.search(size, verbose=0)
    assert {trial.status for trial in result.trials} == {"COMPLETED"}
    assert len(result.trials) == 5


# --- a full disk ---

SEARCH = """
import asyncio, json, sys
from pathlib import Path
from tests.support.filling import make
from aiotune.errors import AiotuneError

directory, ballast, size = sys.argv[1], Path(sys.argv[1], "ballast"), int(sys.argv[2])
ballast_bytes = int(sys.argv[3])

def models(tuner):
    return [[trial.score, model] for trial, model in zip(tuner.get_best_trials(9), tuner.get_best_models(9))]

def found(**options):
    tuner = make("SavingRandom", directory, keep_checkpoints="all", max_concurrent_trials=1, **options)
    ended = None
    try:
        asyncio.run(tuner.search(size, verbose=0))
    except AiotuneError as error:
        ended = str(error)
    left = [str(path) for path in Path(directory).rglob("writing.*")]
    messages = [trial.message for trial in tuner.trials if trial.message]
    return {"ended": ended, "states": [trial.status for trial in tuner.trials], "messages": messages,
            "models": models(tuner), "left": left}

ballast.write_bytes(bytes(ballast_bytes))
full = found(max_trials=8)
ballast.unlink()
print(json.dumps([full, found(max_trials=8)]))
"""


def test_a_full_disk_fails_the_run_and_spares_the_rest(tmp_path: Path, chaos: Chaos) -> None:
    """What was whole stays whole, no draft is left, and with room the search goes on."""
    # Bytes of a checkpoint, and of what else takes room: so much that eight of them do not fit.
    cases = [(400_000, 300_000), (100_000, 1_400_000), (200_000, 900_000), (600_000, 300_000)]
    for size, ballast in chaos.pick(cases[:1], cases):
        command = [sys.executable, "-c", SEARCH, tmp_path, size, ballast]
        done = run_on_small_disk(tmp_path, "2m", command)
        assert done.returncode == 0, done.stderr
        full, again = json.loads(done.stdout)
        assert full["ended"] or "FAILED" in full["states"]
        assert "No space left" in str(full["ended"]) + str(full["messages"])
        for each in (full, again):
            assert all(score == model for score, model in each["models"])
            assert each["left"] == []
        assert len(again["models"]) >= len(full["models"])
        chaos.count(PROMISE, "disk full in the midst of a checkpoint")
