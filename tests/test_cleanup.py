from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from aiotune.errors import StoreLocked, StoreUnreadable
from aiotune.layout import Layout, unfinished
from aiotune.store.cleanup import remove_project
from aiotune.store.lock import hold_lock
from aiotune.store.sqlite import open_store
from tests.support.facts import opened


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "results", "digits")


async def fill(layout: Layout) -> None:
    async with open_store(layout.store) as store:
        await store.append(opened())
    with hold_lock(layout.lock):
        pass
    layout.server_log.write_text("imported")
    for trial_id in ("0000", "0001"):
        deep = layout.repeat(trial_id, 0) / "variables" / "deep"
        deep.mkdir(parents=True)
        (deep / "weights").write_bytes(b"1")
        layout.run_log(trial_id, 0).write_text("log")
    retrained = layout.retrained(1)
    retrained.directory.mkdir()
    for path in (*retrained.files, unfinished(retrained.model)):
        path.write_text("model")
    layout.evaluation_log.write_text("log")
    layout.open_evaluation_log(12).write_text("log")


async def test_everything_of_aiotune_goes_and_nothing_else(layout: Layout) -> None:
    await fill(layout)
    sibling = layout.directory / "other"
    sibling.mkdir()
    remove_project(layout)
    assert not layout.root.exists()
    assert list(layout.directory.iterdir()) == [sibling]


async def test_files_of_the_user_stay(layout: Layout, tmp_path: Path) -> None:
    await fill(layout)
    outside = tmp_path / "outside"
    (outside / "repeat-0").mkdir(parents=True)
    (outside / "repeat-0" / "mine").write_text("")
    link = layout.root / "trial_link"
    link.symlink_to(outside)
    kept = [
        layout.root / "notes.txt",
        layout.trial("0000") / "plot.png",
        layout.trial("0000") / "run-notes.log",
        layout.trial("0001") / "repeat-best" / "weights",
        layout.root / "evaluate-mine.log",
        layout.root / "retrained_best" / "model.keras",
        layout.retrained(1).directory / "plot.png",
    ]
    for path in kept:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    remove_project(layout)
    assert sorted(layout.root.rglob("*")) == sorted(
        [*kept, layout.trial("0000"), layout.trial("0001"), link]
        + [path.parent for path in kept[3:] if path.parent != layout.root]
    )
    assert (outside / "repeat-0" / "mine").exists()


async def test_live_search_is_refused_untouched(layout: Layout) -> None:
    await fill(layout)
    before = sorted(layout.root.rglob("*"))
    with hold_lock(layout.lock), pytest.raises(StoreLocked):
        remove_project(layout)
    assert sorted(layout.root.rglob("*")) == before


def test_missing_project_is_no_error(layout: Layout) -> None:
    remove_project(layout)
    assert not layout.directory.exists()


def test_another_programs_database_is_refused(layout: Layout) -> None:
    layout.root.mkdir(parents=True)
    with closing(sqlite3.connect(layout.store)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    with pytest.raises(StoreUnreadable, match="was not written by aiotune"):
        remove_project(layout)
    assert layout.store.exists()


async def test_damaged_database_can_be_removed(layout: Layout) -> None:
    await fill(layout)
    with layout.store.open("r+b") as file:
        file.truncate(1000)
    remove_project(layout)
    assert not layout.root.exists()
