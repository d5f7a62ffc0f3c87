from __future__ import annotations

from pathlib import Path

import pytest

import aiotune
from aiotune.checkpoints import BEST, LAST
from aiotune.errors import FatalValueError
from aiotune.layout import (
    BEFORE,
    BEST_FILES,
    LAST_STATE,
    Layout,
    reports_of,
    unfinished,
    why_no_directory,
)
from aiotune.trial import trial_id_of


def test_every_path_lies_in_the_project(tmp_path: Path) -> None:
    layout = Layout(tmp_path, "digits")
    assert layout.root == tmp_path / "digits"
    assert layout.store == tmp_path / "digits/study.db"
    assert layout.lock == tmp_path / "digits/study.lock"
    assert layout.server_log == tmp_path / "digits/server.log"
    assert layout.trial("0007") == tmp_path / "digits/trial_0007"
    assert layout.run_log("0007", 2) == tmp_path / "digits/trial_0007/run-2.log"
    assert layout.run_logs == str(tmp_path / "digits/trial_<id>/run-<n>.log")
    assert layout.repeat("0007", 1) == tmp_path / "digits/trial_0007/repeat-1"
    assert layout.evaluation_log == tmp_path / "digits/evaluate.log"
    assert layout.open_evaluation_log(3) == tmp_path / "digits/evaluate-3.log"
    retrained = layout.retrained(2)
    assert retrained.model == tmp_path / "digits/retrained_2/model.keras"
    assert {path.parent for path in retrained.files} == {retrained.directory}


def test_naming_a_path_creates_nothing(tmp_path: Path) -> None:
    layout = Layout(tmp_path, "digits")
    assert layout.run_log("0", 0).parent == layout.trial("0")
    assert list(tmp_path.iterdir()) == []


def every_path(layout: Layout) -> list[Path]:
    """Return one of each kind of path that aiotune makes, with the largest numbers that a search comes to."""
    trial_id = trial_id_of(9_999_999)
    repeat = layout.repeat(trial_id, 9_999)
    aside = repeat / f"{BEFORE}999999"
    checkpoints = [
        unfinished(place / name)
        for place in (repeat, aside, unfinished(aside))
        for name in (*BEST_FILES, LAST_STATE)
    ]
    retrained = layout.retrained(99_999)
    store = [
        layout.store.with_name(layout.store.name + each) for each in ("-wal", "-shm", "-journal")
    ]
    return [
        *store,
        layout.lock,
        layout.server_log,
        layout.evaluation_log,
        layout.open_evaluation_log(99_999),
        layout.run_log(trial_id, 99_999),
        reports_of(layout.trial(trial_id), 99_999),
        *checkpoints,
        *map(unfinished, retrained.files),
    ]


def test_paths_are_short_enough_and_have_no_odd_characters(tmp_path: Path) -> None:
    """Windows takes 260 characters: 180 are left for `directory` and `project_name`."""
    layout = Layout(tmp_path, "project")
    for path in every_path(layout):
        below = path.relative_to(layout.root).as_posix()
        assert len(below) < 80, below
        assert why_no_directory(below, is_windows=True) is None


def test_parts_of_checkpoints_are_called_as_their_files() -> None:
    assert all(name.startswith((BEST, "build")) for name in BEST_FILES)
    assert LAST_STATE.startswith(LAST)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("2026-05-01 10:30", "Windows allows no : in names"),
        ('a<b>"?', 'Windows allows no " < > ? in names'),
        ("runs/aux", "Windows has a device called aux"),
        ("NUL.txt", "Windows has a device called NUL.txt"),
        ("first.", "ends with a dot or a space"),
        ("runs /first", "ends with a dot or a space"),
    ],
)
def test_names_that_windows_refuses(name: str, reason: str) -> None:
    """Programs of KerasTuner's have them elsewhere."""
    found = why_no_directory(name, is_windows=True)
    assert found is not None
    assert reason in found
    assert why_no_directory(name, is_windows=False) is None


@pytest.mark.parametrize("name", ["digits", "runs/first", "é 1", "a.b", "./x", "console", "com10"])
def test_names_that_are_fine_everywhere(name: str) -> None:
    assert why_no_directory(name, is_windows=True) is None


def test_a_project_has_no_control_characters_in_its_name(tmp_path: Path) -> None:
    with pytest.raises(FatalValueError, match=r"project_name='a\\nb': it contains '\\n'; choose"):
        aiotune.RandomSearch(lambda hp: None, "val_loss", directory=tmp_path, project_name="a\nb")
