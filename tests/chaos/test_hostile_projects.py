"""A project directory that somebody else has made: it runs no code, leads to no other file, hangs nothing."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from aiotune.errors import AiotuneError, FatalRuntimeError, StoreError, StoreUnreadable
from aiotune.events import Event, from_json, to_json
from aiotune.frameworks.array_file import ArrayFile, write_arrays
from aiotune.frameworks.keras_checkpoint import begin_budget, read_best, write_file
from aiotune.history import History
from aiotune.inheritance import inherit
from aiotune.layout import Layout
from aiotune.private_files import make_directory, open_log
from aiotune.store.cleanup import remove_project
from aiotune.store.encoding import decode_all
from aiotune.store.reader import read_facts, read_meta
from tests.support import foreign_programs, tuned
from tests.support.chaos import Chaos
from tests.support.facts import created, every_kind, opened, whole_trial
from tests.support.foreign import (
    NAMES,
    VALUES,
    execute,
    in_time,
    obstacles,
    put,
    rewritten,
    snapshot,
    write_store,
)

PROMISE = "No one gets in"
SECRET = b"what is in the file that a link leads to"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the store of a project with a trial."""
    store = Layout(tmp_path, "project").store
    write_store(store, [opened(), *whole_trial()])
    return store


@pytest.fixture
def victim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of the user's, elsewhere."""
    file = tmp_path_factory.mktemp("home") / "file"
    file.write_bytes(SECRET)
    return file


def refused_by_all(path: Path) -> None:
    """Assert that the store is refused clearly by whoever reads or writes it."""
    for look in (read_facts, read_meta):
        with pytest.raises(StoreUnreadable, match=r"project_name|check its rights"):
            in_time(lambda look=look: look(path))
    with pytest.raises(StoreError, match=r"project_name|another directory"):
        in_time(lambda: write_store(path, [created(1)]))


# --- the schema ---

SCHEMAS = {
    "a trigger": ["CREATE TRIGGER t AFTER INSERT ON events BEGIN DELETE FROM events; END"],
    "a trigger of a table of the user's": [
        "CREATE TABLE mine (a)",
        "CREATE TRIGGER t AFTER INSERT ON mine BEGIN DELETE FROM events; END",
    ],
    "a view": ["CREATE VIEW v AS SELECT randomblob(1000000000)"],
    "a view in the place of the log": [
        "ALTER TABLE events RENAME TO hidden",
        "CREATE VIEW events AS SELECT * FROM hidden",
    ],
    "a virtual table": ["CREATE VIRTUAL TABLE v USING fts5(a)"],
    "an index with an expression": ["CREATE INDEX i ON events (hex(data))"],
    "a column that computes": [
        "ALTER TABLE metrics ADD COLUMN c AS (hex(zeroblob(100000000))) VIRTUAL"
    ],
    "a default that computes": [
        "DROP TABLE trials",
        "CREATE TABLE trials (trial_id TEXT PRIMARY KEY, number, stream, state, vals, created_at, "
        "score DEFAULT (abs(random())))",
    ],
    "a check that computes": [
        "DROP TABLE events",
        "CREATE TABLE events (seq INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, trial_id TEXT, "
        "data TEXT NOT NULL, CHECK (length(randomblob(100)) > 0))",
    ],
    "no log": ["DROP TABLE events"],
    "no index": ["DROP INDEX openings"],
    "a version below all": ["PRAGMA user_version = -1"],
    "no version, but tables": ["PRAGMA user_version = 0"],
    "a version of the future": ["PRAGMA user_version = 2000000000"],
    "another program's mark": ["PRAGMA application_id = 1"],
}


@pytest.mark.parametrize("statements", SCHEMAS.values(), ids=SCHEMAS)
def test_a_schema_of_others_is_refused_and_left_alone(
    path: Path, statements: Sequence[str], chaos: Chaos
) -> None:
    execute(path, *statements)
    before = snapshot(path.parent)["study.db"]

    refused_by_all(path)

    assert snapshot(path.parent)["study.db"] == before
    chaos.count(PROMISE, "hostile schemas")


def test_a_table_of_the_users_beside_the_log_is_no_harm(path: Path) -> None:
    execute(path, "CREATE TABLE notes (text)", "CREATE INDEX by_text ON notes (text)")

    write_store(path, [created(1)])

    assert len(read_facts(path)) == 8


def test_a_journal_that_names_another_file_deletes_nothing(
    path: Path, victim: Path, chaos: Chaos
) -> None:
    name = str(victim).encode()
    mark = bytes.fromhex("d9d505f920a163d7")
    record = name + len(name).to_bytes(4, "big") + sum(name).to_bytes(4, "big") + mark
    path.with_name("study.db-journal").write_bytes(mark + bytes(504) + bytes(4) + record)

    refused_by_all(path)

    assert victim.read_bytes() == SECRET
    chaos.count(PROMISE, "journals that name another file")


# --- what stands in the place of a file ---


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
def test_links_and_fifos_in_the_place_of_the_database(
    path: Path, victim: Path, suffix: str, chaos: Chaos
) -> None:
    place = path.with_name(path.name + suffix)
    for what, make in obstacles(victim):
        put(place, make)

        refused_by_all(path)

        assert victim.read_bytes() == SECRET, what
        assert not victim.with_name("new").exists(), what
        place.rmdir() if what == "a directory" else place.unlink()
        path.with_name("a-fifo").unlink(missing_ok=True)
        chaos.count(PROMISE, "links, FIFOs and devices in the place of a file")


def test_starting_over_neither_waits_nor_goes_through_what_is_in_the_place_of_the_database(
    path: Path, victim: Path, chaos: Chaos
) -> None:
    layout = Layout(path.parents[1], "project")
    for what, make in obstacles(victim):
        put(path, make)

        with pytest.raises(StoreError):
            in_time(lambda: remove_project(layout))

        assert victim.read_bytes() == SECRET, what
        path.rmdir() if what == "a directory" else path.unlink()
        path.with_name("a-fifo").unlink(missing_ok=True)
        chaos.count(PROMISE, "links, FIFOs and devices in the place of a file")


def test_links_and_fifos_in_the_place_of_the_lock(path: Path, victim: Path, chaos: Chaos) -> None:
    layout = Layout(path.parents[1], "project")
    tuner = tuned.make(foreign_programs.Quick, layout.directory)
    for _, make in obstacles(victim):
        layout.lock.unlink(missing_ok=True)
        put(layout.lock, make)

        with pytest.raises(StoreError, match=r"study\.lock cannot be locked"):
            in_time(lambda: asyncio.run(tuner.search(verbose=0)))

        assert victim.read_bytes() == SECRET
        layout.lock.rmdir() if layout.lock.is_dir() else layout.lock.unlink()
        path.with_name("a-fifo").unlink(missing_ok=True)
        chaos.count(PROMISE, "links, FIFOs and devices in the place of a file")


def test_links_and_fifos_in_the_place_of_a_log_are_replaced(
    tmp_path: Path, victim: Path, chaos: Chaos
) -> None:
    log = tmp_path / "run-0.log"
    for what, make in obstacles(victim):
        if what == "a directory":
            continue
        put(log, make)

        fd = in_time(lambda: open_log(log))
        os.write(fd, b"printed")
        os.close(fd)

        assert (log.read_bytes(), victim.read_bytes()) == (b"printed", SECRET), what
        assert stat.S_IMODE(log.stat().st_mode) == 0o600
        log.unlink()
        (tmp_path / "a-fifo").unlink(missing_ok=True)
        chaos.count(PROMISE, "links, FIFOs and devices in the place of a file")


def test_links_and_fifos_in_the_place_of_checkpoints(
    tmp_path: Path, victim: Path, chaos: Chaos
) -> None:
    write_arrays(victim.with_name("state"), {"record": {}}, [])
    for name in ("best.state", "last.state", "best.json", "best.weights.h5"):
        for what, make in obstacles(victim.with_name("state")):
            if what == "a hard link":
                continue  # checkpoints are linked: see keras_checkpoint.begin_budget
            directory = tmp_path / f"{name}-{what}"
            make_directory(directory)
            (directory / "best.json").write_text('{"epoch": 1, "score": 0.5}')
            put(directory / name, make)

            assert in_time(lambda d=directory: read_best(d)) is None
            assert in_time(lambda d=directory, n=name: ArrayFile.open(d / n)) is None
            if what != "a directory":
                write_file(directory / name, lambda draft: draft.write_text("new"))
                assert (directory / name).read_text() == "new"
            chaos.count(PROMISE, "links, FIFOs and devices in the place of a file")
    assert ArrayFile.open(victim.with_name("state")) is not None


def test_a_link_in_the_place_of_what_a_budget_began_with_leads_nowhere(
    tmp_path: Path, victim: Path, chaos: Chaos
) -> None:
    write_arrays(victim.with_name("last.state"), {"record": {}}, [])
    (tmp_path / "before-3").symlink_to(victim.parent)

    assert begin_budget(tmp_path, 3) is None
    assert not (tmp_path / "last.state").exists()
    chaos.count(PROMISE, "links in the place of a directory")


@pytest.mark.parametrize("name", ["trial_0001", "trial_0000/repeat-0", "trial_0000"])
def test_a_link_in_the_place_of_a_directory_leads_nowhere(
    tmp_path: Path, victim: Path, name: str, chaos: Chaos
) -> None:
    layout = Layout(tmp_path, "project")
    make_directory(layout.root)
    make_directory((layout.root / name).parent)
    (layout.root / name).symlink_to(victim.parent)
    tuner = tuned.make(
        foreign_programs.Saving,
        tmp_path,
        max_trials=2,
        executor="inline",
        max_concurrent_trials=None,
    )

    if name.endswith("repeat-0"):
        in_time(lambda: asyncio.run(tuner.search(verbose=0)))
        assert [trial.status for trial in tuner.trials] == ["FAILED", "COMPLETED"]
    else:
        with pytest.raises(AiotuneError, match="symbolic link"):
            in_time(lambda: asyncio.run(tuner.search(verbose=0)))
    with pytest.raises(FatalRuntimeError, match="cannot be copied"):
        inherit(layout, name[6:10], "0009")
    remove_project(layout)

    assert [each.name for each in victim.parent.iterdir()] == [victim.name]
    assert (layout.root / name).is_symlink()
    chaos.count(PROMISE, "links in the place of a directory")


# --- facts ---


def test_every_field_of_every_fact_is_checked(chaos: Chaos) -> None:
    facts, refused = [to_json(each) for each in every_kind()], 0
    cases = [
        (kind, {**data, name: PLACE}, value)
        for kind, data in facts
        for name in [*data, "unknown"]
        for value in VALUES
    ]
    for kind, data, value in cases if chaos.is_long else chaos.chance.sample(cases, 2000):
        text = json.dumps(data).replace(json.dumps(PLACE), value)
        refused += is_refused(kind, text)
    assert refused > 0
    chaos.count(PROMISE, "facts with a wrong value", refused)


PLACE = "the place of the value"


def is_refused(kind: str, text: str) -> bool:
    """Tell whether a fact is refused; else it must be one that aiotune itself could have written."""
    try:
        (fact,) = decode_all([(1, kind, text)], "study.db")
    except StoreUnreadable:
        return True
    written = to_json(fact)
    assert to_json(from_json(*written)) == written
    assert json.dumps(written, allow_nan=False)
    assert all(isinstance(getattr(fact, name, "a"), str | None) for name in ("trial_id", "parent"))
    assert "/" not in (getattr(fact, "trial_id", None) or "")
    return False


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("CON", "__class__")])
def test_no_id_leads_out_of_the_project(path: Path, name: str, chaos: Chaos) -> None:
    for field in ("trial_id", "parent"):
        kind, data = to_json(created())
        row = (1, kind, json.dumps({**data, field: name}))
        with pytest.raises(StoreUnreadable, match="id of a trial"):
            read_facts(rewritten(path, [row]))
        chaos.count(PROMISE, "ids that lead elsewhere")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        '{"at": ' * 100_000,
        '{"at": ' + "9" * 1_000_000 + "}",
        '{"at": NaN}',
        '{"at": 1.0, "at": 2.0',
        "",
        "null",
        '"' + "x" * 1_000_000 + '"',
        b"\x00\xff",
        None,
        7,
    ],
    ids=lambda text: f"{text!r:.12}",
)
def test_json_that_is_none_or_too_deep(path: Path, text: Any, chaos: Chaos) -> None:
    execute(path, "PRAGMA ignore_check_constraints = ON")
    row = (1, "TrialPaused", "null" if text is None else text)

    with pytest.raises(StoreUnreadable, match=r"study\.db"):
        in_time(lambda: read_facts(rewritten(path, [row])))
    chaos.count(PROMISE, "JSON that is none")


def test_huge_json_is_read_or_refused_in_time(path: Path, chaos: Chaos) -> None:
    length = chaos.pick(2 * 10**6, 10**8)
    kind, data = to_json(whole_trial()[-1])
    row = (1, kind, json.dumps({**data, "message": "x" * length}))
    (fact,) = in_time(lambda: read_facts(rewritten(path, [row])))
    assert len(getattr(fact, "message")) == length  # noqa: B009

    names = {f"name{number}": 1.0 for number in range(chaos.pick(10**4, 10**6))}
    kind, data = to_json(whole_trial()[2])
    row = (1, kind, json.dumps({**data, "metrics": names}))
    (fact,) = in_time(lambda: read_facts(rewritten(path, [row])))
    assert getattr(fact, "metrics") == names  # noqa: B009

    if chaos.is_long:
        row = (1, kind, '{"message": "' + "x" * 2**27 + '"}')
        with pytest.raises(StoreUnreadable):
            in_time(lambda: read_facts(rewritten(path, [row])))
    chaos.count(PROMISE, "huge facts", chaos.pick(2, 3))


CONTRADICTIONS: Sequence[tuple[str, Callable[[list[Event]], list[Event]]]] = [
    ("a trial twice", lambda facts: [*facts[:2], facts[1]]),
    ("a number left out", lambda facts: [facts[0], created(5)]),
    ("a run of no trial", lambda facts: [facts[0], *facts[2:]]),
    ("a report of no run", lambda facts: [*facts[:2], facts[3]]),
    ("an end of no run", lambda facts: [*facts[:2], facts[5]]),
    ("two ends", lambda facts: [*facts, facts[-1]]),
    ("runs left out", lambda facts: [*facts[:2], *every_kind()[10:11]]),
]


@pytest.mark.parametrize(
    "change", [each for _, each in CONTRADICTIONS], ids=[name for name, _ in CONTRADICTIONS]
)
def test_facts_that_contradict_one_another(
    change: Callable[[list[Event]], list[Event]], chaos: Chaos
) -> None:
    facts = change([opened(), *whole_trial()])

    with pytest.raises(FatalRuntimeError):
        History(facts)
    chaos.count(PROMISE, "facts that contradict one another")


@pytest.mark.parametrize("name", NAMES)
def test_names_of_hyperparameters_and_metrics_are_text_and_nothing_else(
    tmp_path: Path, name: str, chaos: Chaos
) -> None:
    """A name may be any text: none reaches a path, a statement or a format."""
    if not name:
        return
    kind, data = to_json(created())
    created_so = from_json(kind, {**data, "values": {name: name}})
    store = Layout(tmp_path, "project").store

    write_store(store, [opened(), created_so])

    trial = History(read_facts(store)).trial("0000")
    assert trial.hyperparameters.values == {name: name}
    found = {each.name for each in tmp_path.rglob("*")}
    assert found <= {"project", "study.db", "study.db-wal", "study.db-shm"}
    chaos.count(PROMISE, "crafted names")
