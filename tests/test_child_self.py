"""`self` in a trial's process: what it has, what it refuses, and what it says of attributes written there."""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aiotune import HyperParameters
from aiotune.child_self import attributes_of
from aiotune.executors.launch import acquire_server, release_server
from aiotune.processes import OWN_MODULES
from tests.support import slim
from tests.support.tuned import make


@pytest.fixture(scope="module", autouse=True)
def fork_server() -> Iterator[None]:
    """Keep one fork server alive, so that the searches need not launch one each."""
    server = acquire_server(OWN_MODULES)
    yield
    release_server(server)


async def looked(tmp_path: Path, **options: Any) -> dict[str, Any]:
    """Return what a run of `Looking` saw."""
    tuner = make(slim.Looking, tmp_path, max_trials=1, **options)
    await tuner.search(str(tmp_path / "seen"))
    seen: dict[str, Any] = ast.literal_eval((tmp_path / "seen").read_text())
    return seen


async def test_it_has_the_users_attributes_the_directories_and_the_oracles_options(
    tmp_path: Path,
) -> None:
    given = HyperParameters()
    given.Boolean("given")
    seen = await looked(tmp_path, hyperparameters=given, max_retries_per_trial=2, seed=5)
    del seen["refused"]
    assert seen == {
        "class": "Looking",
        "favourite": {"colour": "blue"},
        "directory": str(tmp_path),
        "project_name": "project",
        "project_dir": str(tmp_path / "project"),
        "trial_dir": True,
        "objective": ("loss", "min"),
        "executions_per_trial": 1,
        "max_trials": 1,
        "seed": 5,
        "given": ["given"],
        "entries": (True, True),
        "retries": 2,
        "space": ["given", "x", "n"],
        "space has values": False,
        "own trial": True,
        "has private": False,
    }


async def test_it_knows_the_seed_that_the_search_chose(tmp_path: Path) -> None:
    assert isinstance((await looked(tmp_path, seed=None))["seed"], int)


async def test_directories_are_absolute_in_a_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tuner = make(slim.Looking, Path("."), max_trials=1)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    await tuner.search(str(tmp_path / "seen"))
    seen = ast.literal_eval((tmp_path / "seen").read_text())
    assert seen["project_dir"] == str(tmp_path / "project")
    assert seen["trial_dir"]


async def test_what_only_the_caller_knows_is_refused_with_the_remedy(tmp_path: Path) -> None:
    errors = (await looked(tmp_path))["refused"]
    assert set(errors) == set(slim.REFUSED)
    for name, error in errors.items():
        assert "trial's process" in error or "the process of trial" in error, name
    assert "on_trial_end" in errors["trials"]
    assert "on_trial_end" in errors["oracle.update_trial, another's"]
    log = next((tmp_path / "project").glob("trial_*/run-0.log")).read_text()
    assert "never awaited" not in log


async def test_attributes_written_in_a_child_are_told_once_each(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tuner = make(slim.Writing, tmp_path, max_consecutive_failed_trials=3)
    with caplog.at_level(logging.WARNING, "aiotune"):
        await tuner.search()
    told = sorted(line for line in caplog.messages if "does not come back" in line)
    names = [line.partition(" ")[0] for line in told]
    assert names == ["Writing.count", "Writing.last", "Writing.scores"]
    assert "metric" in told[0]
    assert "trial.directory" in told[0]
    assert "on_trial_end" in told[0]
    assert (tuner.count, tuner.scores) == (0, [])
    assert not hasattr(tuner, "last")


async def test_inline_attributes_come_back_and_nothing_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tuner = make(
        slim.Writing, tmp_path, max_trials=1, executor="inline", max_concurrent_trials=None
    )
    with caplog.at_level(logging.WARNING, "aiotune"):
        await tuner.search()
    assert tuner.count == 1
    assert not any("does not come back" in line for line in caplog.messages)


async def test_slots_properties_and_a_watching_setattr_travel(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tuner = make(slim.Guarded, tmp_path, max_trials=1)
    with caplog.at_level(logging.WARNING, "aiotune"):
        result = await tuner.search()
    assert result.trials[0].metrics["sum"] == 6
    told = {line.partition(" ")[0] for line in caplog.messages if "does not come back" in line}
    assert told == {"Guarded.slot", "Guarded._level"}


async def test_a_getstate_of_the_users_says_what_travels(tmp_path: Path) -> None:
    tuner = make(slim.Secretive, tmp_path, max_trials=1)
    try:
        result = await tuner.search()
        assert result.trials[0].metrics["has_diary"] == 0
    finally:
        tuner.diary.close()


def test_attributes_are_those_of_the_object_and_its_slots(tmp_path: Path) -> None:
    tuner = make(slim.Guarded, tmp_path)
    own = attributes_of(tuner)
    assert (own["slot"], own["_Guarded__secret"], own["_level"]) == (1, 2, 3)
    assert "run_trial" not in own
