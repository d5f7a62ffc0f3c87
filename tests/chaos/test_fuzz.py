"""Whatever bytes come from a child, a database or a project of KerasTuner's: a documented error, or data."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import shutil
import sqlite3
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import strategies as st

from aiotune.cli import main
from aiotune.errors import AiotuneError
from aiotune.events import Event, to_json
from aiotune.executors.base import (
    Failed,
    Finished,
    GpuMeasured,
    Measured,
    Met,
    Noted,
    Observed,
    Progressed,
    Started,
)
from aiotune.executors.wire import (
    MAX_EVENT_BYTES,
    MOST_STEPS,
    FrameDecoder,
    WireError,
    encode_frame,
    event_from_frame,
    event_to_frame,
)
from aiotune.history import History
from aiotune.kerastuner_facts import facts_of
from aiotune.kerastuner_files import read_project
from aiotune.kerastuner_import import checked, import_project
from aiotune.kerastuner_objective import objective_of
from aiotune.kerastuner_points import lineages_of
from aiotune.objective import DefaultObjective, Objective
from aiotune.results import results_text, space_text
from aiotune.store.database import connect_writer
from aiotune.store.encoding import decode_all
from aiotune.store.reader import read_facts
from aiotune.trial import FailureKind
from tests.support.chaos import Chaos
from tests.support.facts import SPACE, created, every_kind, opened, whole_trial
from tests.support.foreign import snapshot, write_store
from tests.support.fuzzing import changed_bytes, changed_documents, fuzz, nothing_imported

PROMISE = "No one gets in"
PROJECTS = Path(__file__).parents[1] / "data" / "kerastuner"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it stops what hangs by a signal")

EVENTS = [
    Started(1.5),
    Met(SPACE, {"units": 32, "rate": 0.1, "activation": "relu"}, SPACE[:1], (SPACE[:2],), True),  # type: ignore[arg-type]
    Observed(3, {"loss": 0.5, "val_loss": float("inf")}),
    Progressed(),
    Noted("a note"),
    Measured(2**30),
    GpuMeasured(2**30),
    Finished({"loss": 0.5}, best_step=3, is_stopped=True),
    Failed(FailureKind.CRASH, "killed", "Traceback", True, True, False),
]
FRAMES = [dict(event_to_frame(each)) for each in EVENTS]
FACTS = [opened(), *whole_trial(), *every_kind()[1:2], *[*every_kind()[2:]][12:14], created(1)]


# --- the wire ---


def test_frames_of_a_child(chaos: Chaos) -> None:
    """Frames that are JSON, and nearly right."""

    def check(frame: Any) -> None:
        with contextlib.suppress(WireError):
            event_of(struct.pack("!I", len(body := json.dumps(frame).encode())) + body)

    number = fuzz(chaos, changed_documents(FRAMES), check)
    chaos.count(PROMISE, "fuzzed frames of a child", number)


def test_bytes_of_a_child(chaos: Chaos) -> None:
    """Bytes that are no frames, or were some, in whatever pieces they arrive."""
    stream = b"".join(map(encode_frame, FRAMES))

    def check(data: bytes) -> None:
        with contextlib.suppress(WireError):
            event_of(data)

    number = fuzz(chaos, changed_bytes(stream) | st.binary(max_size=100), check)
    chaos.count(PROMISE, "fuzzed bytes of a child", number)


def event_of(data: bytes) -> None:
    """Take the bytes for those of a child; what comes of it must be as strict as what a child writes."""
    decoder = FrameDecoder(MAX_EVENT_BYTES)
    for piece in (data[:7], data[7:]):
        for frame in decoder.feed(piece):
            event = event_from_frame(frame)
            again = event_from_frame(event_to_frame(event))
            assert repr(again) == repr(event)
            match event:
                case Observed(step, metrics) | Finished(metrics, step):
                    assert step is None or (type(step) is int and 0 <= step <= MOST_STEPS)
                    assert {type(each) for each in metrics.values()} <= {float}
                case Failed(message=text) | Noted(text):
                    assert type(text) is str
                    assert "\x1b" not in text


# --- the store ---


def test_facts_of_a_store(chaos: Chaos) -> None:
    """A log of which some facts were changed: refused, or a history that can be shown."""
    log = [[kind, data] for kind, data in map(to_json, FACTS)]

    def check(rows: Any) -> None:
        if not isinstance(rows, list):
            return
        texts = [row if isinstance(row, list) and len(row) == 2 else [row, row] for row in rows]
        numbered = [(n, kind, json.dumps(data)) for n, (kind, data) in enumerate(texts, 1)]
        with contextlib.suppress(AiotuneError):
            show(History(decode_all(numbered, "study.db")))

    number = fuzz(chaos, changed_documents([log]), check)
    chaos.count(PROMISE, "fuzzed facts of a store", number)


def show(history: History) -> None:
    """Ask what all summaries ask."""
    config = history.opened.objective if history.opened else None
    objective = Objective.from_config(config) if config else DefaultObjective()
    list(results_text(history.trials.values(), objective, "project", 10))
    list(space_text(history.space))
    for trial in history.trials.values():
        json.dumps(trial.get_state())


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """Return a directory of a file system in memory, if there is one: for thousands of files."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        yield Path(directory)


def test_bytes_of_a_database(in_memory: Path, chaos: Chaos) -> None:
    """A database of which some bytes were changed: nothing but documented errors, and no file elsewhere."""
    path = in_memory / "project" / "study.db"
    write_store(path, FACTS)
    content, numbers = path.read_bytes(), itertools.count()
    used = [place for place in range(0, len(content), 16) if any(content[place : place + 16])]
    spot = st.tuples(st.sampled_from(used), st.integers(0, 15), st.binary(min_size=1, max_size=4))

    def check(spots: list[tuple[int, int, bytes]]) -> None:
        changed = bytearray(content)
        for place, offset, piece in spots:
            changed[place + offset : place + offset + len(piece)] = piece
        path.write_bytes(changed)
        for beside in ("-wal", "-shm", "-journal"):
            path.with_name(path.name + beside).unlink(missing_ok=True)
        command = ["trials", str(path.parent), "--json"]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            assert main(command) in (0, 1)
        with contextlib.suppress(AiotuneError):
            read_facts(path)
        if next(numbers) % 10 == 0:
            with contextlib.suppress(AiotuneError):
                connect_writer(path, durability="process", factory=Connection).close()

    check([])
    with nothing_imported():
        number = fuzz(chaos, st.lists(spot, min_size=1, max_size=4), check)
    assert {each.parent for each in in_memory.rglob("study.db*")} == {path.parent}
    assert {each.name for each in in_memory.iterdir()} == {"project"}
    chaos.count(PROMISE, "fuzzed databases", number)


class Connection(sqlite3.Connection):
    """One without a name of its own."""


# --- KerasTuner's files ---


def test_projects_of_kerastuner(in_memory: Path, chaos: Chaos) -> None:
    """Its files, of which one was changed: imported, or refused; nothing is written but the new project."""
    source = in_memory / "source"
    for name in ("hyperband", "model", "retried"):
        shutil.copytree(PROJECTS / name, source / name)
    originals = snapshot(source)
    files = [name for name in originals if name.endswith("json")]
    documents = {name: changed_documents([json.loads(originals[name])]) for name in files}
    numbers, target = itertools.count(), in_memory / "imported"

    def check(case: tuple[str, Any]) -> None:
        name, content = case
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        (source / name).write_bytes(data)
        project = source / Path(name).parts[0]
        try:
            with contextlib.suppress(AiotuneError):
                show(History(facts_in(project)))
                if next(numbers) % 30 == 0:
                    anyio.run(import_project, project, target)
                    show(History(read_facts(target / "study.db")))
        finally:
            shutil.rmtree(target, ignore_errors=True)
            (source / name).write_bytes(originals[name])

    case = st.sampled_from(files).flatmap(
        lambda name: st.tuples(st.just(name), documents[name] | changed_bytes(originals[name]))
    )
    check((files[0], originals[files[0]]))
    with nothing_imported():
        number = fuzz(chaos, case, check)
    assert snapshot(source) == originals
    assert {each.name for each in in_memory.iterdir()} == {"source"}
    chaos.count(PROMISE, "fuzzed projects of KerasTuner's", number)


def facts_in(directory: Path) -> list[Event]:
    """Return what an import would write."""
    project = read_project(directory)
    objective, lineages = objective_of(project), lineages_of(project)
    facts = facts_of(project, lineages, objective, now=1.0, version="1")
    return checked(facts, directory)
