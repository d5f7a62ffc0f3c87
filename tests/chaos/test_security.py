"""What a search keeps to itself, what it takes from its children, and what it shows: no one gets in."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import secrets
import socket
import stat
import struct
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

from aiotune.cli import main
from aiotune.events import SearchEnded, SpaceGrew, TrialCreated, TrialEnded
from aiotune.executors.base import Failed, Observed
from aiotune.executors.launch import acquire_server, release_server
from aiotune.executors.sealed import make_key, write_sealed
from aiotune.executors.wire import event_to_frame
from aiotune.frameworks.array_file import ArrayFile, write_arrays
from aiotune.frameworks.keras_callback_state import remember
from aiotune.frameworks.keras_checkpoint import write_json
from aiotune.history import History
from aiotune.layout import Layout
from aiotune.processes import modules_to_preload
from aiotune.settings import Settings
from aiotune.space import Choice
from aiotune.store.reader import read_facts
from aiotune.trial import FailureKind, TrialState
from tests.support import foreign_programs
from tests.support.chaos import Chaos
from tests.support.facts import every_kind, opened, whole_trial
from tests.support.foreign import NAMES, write_store
from tests.support.foreign_programs import frame
from tests.support.programs import run_program
from tests.support.tuned import make

PROMISE = "No one gets in"
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")


@contextmanager
def umask(mask: int) -> Iterator[None]:
    former = os.umask(mask)
    try:
        yield
    finally:
        os.umask(former)


# --- files ---


def test_project_files_are_private_whatever_the_umask(tmp_path: Path, chaos: Chaos) -> None:
    """Directories of the user's stay as they are; what is made is for its owner alone."""
    tmp_path.chmod(0o755)
    modes: set[int] = set()

    def look(event: object, history: History) -> None:
        modes.update(modes_below(tmp_path))  # while the log of the database is there

    tuner = make(
        foreign_programs.Saving, tmp_path / "results", executor="process", observers=[look]
    )
    with umask(0):
        asyncio.run(tuner.search(verbose=0))
        assert os.umask(0) == 0

    names = {path.name for path in tmp_path.rglob("*")}
    assert {"study.db", "study.lock", "server.log", "run-0.log", "repeat-0"} <= names
    assert modes == {0o700, 0o600}
    assert set(modes_below(tmp_path)) == {0o700, 0o600}
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    chaos.count(PROMISE, "files made with umask 0", len(names))


def modes_below(directory: Path) -> list[int]:
    """Return the modes of all files and directories, but for those that the program itself wrote."""
    paths = [path for path in directory.rglob("*") if path.name != "weights"]
    return [stat.S_IMODE(path.lstat().st_mode) for path in paths if path.exists()]


def test_checkpoints_and_estimators_are_private(tmp_path: Path) -> None:
    with umask(0):
        write_arrays(tmp_path / "best.state", {}, [np.zeros(3)])
        write_json(tmp_path / "best.json", {})
        write_sealed(tmp_path / "estimator.sealed", [1], make_key())

    assert set(modes_below(tmp_path)) == {0o600}


def test_a_directory_that_others_may_change_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "project"
    root.mkdir()
    root.chmod(0o777)
    asyncio.run(make(foreign_programs.Quick, tmp_path, max_trials=1).search(verbose=0))

    assert "others may change the files of this search" in caplog.text
    assert stat.S_IMODE(root.stat().st_mode) == 0o777


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "a\0b", ".."])
def test_a_project_name_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="leads out of directory"):
        make(foreign_programs.Quick, tmp_path, project_name=name)


HEADERS = [
    {"record": {}, "arrays": [["O", [1]]]},
    {"record": {}, "arrays": [["|O8", [1]]]},
    {"record": {}, "arrays": [["V8", [1]]]},
    {"record": {}, "arrays": [["<i4,<i4", [1]]]},
    {"record": {}, "arrays": [[[["a", "<f8"]], [1]]]},
    {"record": {}, "arrays": [[None, [1]]]},
    {"record": {}, "arrays": [["<f8", [-1]]]},
    {"record": {}, "arrays": [["<f8", [-1, -1]]]},
    {"record": {}, "arrays": [["<f8", [2**62, 4]]]},
    {"record": {}, "arrays": [["<f8", [2**40, 2**40, 0]], ["<f8", [1]]]},
    {"record": {}, "arrays": [["<f8", [1] * 100]]},
    {"record": {}, "arrays": [["<f8", [True]]]},
    {"record": {}, "arrays": [["<f8", [1.0]]]},
    {"record": {}, "arrays": [["<f8", [2]]]},
    {"record": {}, "arrays": [["<f8", [1]], ["<f8", [1]]]},
    {"record": [], "arrays": [["<f8", [1]]]},
    {"record": {}, "arrays": {"<f8": [1]}},
    {"record": {}},
    [],
    None,
]


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: json.dumps(header)[:50])
def test_an_array_file_with_a_crafted_header_counts_as_absent(
    tmp_path: Path, header: object, chaos: Chaos
) -> None:
    path = tmp_path / "best.state"
    footer = json.dumps(header).encode()
    for length in (len(footer), 2**63, 2**64 - 1, 0):
        content = b"aiotune arrays 1\n" + bytes(8) + footer + struct.pack("<Q", length)
        path.write_bytes(content)
        assert ArrayFile.open(path) is None
    path.write_bytes(b"aiotune arrays 1\n" + b"[" * 10**6 + struct.pack("<Q", 10**6))
    assert ArrayFile.open(path) is None
    chaos.count(PROMISE, "crafted headers of checkpoints", 5)


# --- what is unpickled, imported and deserialized ---

# What makes objects of what it reads, runs it, or imports by name; and who may.
READERS = {
    "pickle",
    "cloudpickle",
    "marshal",
    "shelve",
    "np",
    "torch",
    "joblib",
    "yaml",
    "unpickler",
}
RISKY = {"Unpickler", "eval", "exec", "__import__", "import_module", "model_from_json", "fromfile"}
RISKY |= {"deserialize_keras_object", "load_weights", "execute_source"}
ALLOWED = {
    "__init__.py": {"import_module"},  # its own modules
    "changing.py": {"exec"},  # the names of the fields of aiotune's own records
    "executors/payload.py": {"Unpickler", "load"},  # in a child, what the caller sent
    "executors/sealed.py": {"loads"},  # behind a key that is in no file
    "executors/keras_settings.py": {
        "import_module"
    },  # in a child, the class of the caller's own policy
    "executors/preload.py": {"import_module"},  # in the fork server, what the caller names
    "frameworks/keras_build.py": {
        "deserialize_keras_object"
    },  # what a model in memory has told of itself
    "frameworks/keras_retraining.py": {"load_weights"},  # that of keras_checkpoint
    "frameworks/array_file.py": {"fromfile"},  # numbers, as many as the file has
    "frameworks/keras_checkpoint.py": {
        "load_weights"
    },  # numbers, into a model that the program built
}


def test_nothing_is_unpickled_or_made_of_what_is_read() -> None:
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "aiotune").rglob("*.py")):
        name = str(path.relative_to(ROOT / "aiotune"))
        calls = [
            each for each in ast.walk(ast.parse(path.read_text())) if isinstance(each, ast.Call)
        ]
        risky = {risk for each in calls if (risk := risk_of(each)) is not None}
        found |= {name: risky} if risky - ALLOWED.get(name, set()) else {}
    assert found == {}


def risk_of(call: ast.Call) -> str | None:
    match call.func:
        case ast.Attribute(value=ast.Name(id=reader), attr="load" | "loads" as name):
            return name if reader in READERS else None
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name if name in RISKY else None
        case _:
            return None


UNPICKLED = """
import asyncio, sys
from pathlib import Path
from tests.support import foreign_programs
from tests.support.tuned import make

found = []
sys.addaudithook(lambda name, args: found.append(args) if name == "pickle.find_class" else None)
for trials in (2, 4):
    tuner = make(foreign_programs.Quick, Path(sys.argv[1]), max_trials=trials, executor="process")
    asyncio.run(tuner.search(verbose=0))
    tuner.results_summary(), tuner.search_space_summary(), tuner.get_best_hyperparameters()
    [trial.summary() for trial in tuner.trials]
assert [trial.status for trial in tuner.trials] == ["COMPLETED"] * 4
print(found)
"""


def test_the_caller_unpickles_nothing_in_a_search(tmp_path: Path) -> None:
    assert run_program(UNPICKLED, tmp_path).splitlines()[-1] == "[]"


class Remembering:
    """A callback of a user's."""

    def __init__(self) -> None:
        self.wait = 0


def test_a_state_on_disk_gives_a_callback_no_other_class(chaos: Chaos) -> None:
    if "keras" not in sys.modules and not chaos.is_long:
        pytest.skip("the import of Keras takes 10 s")
    callback = Remembering()
    name = f"{Remembering.__module__}.Remembering"
    memory = {"class": name, "values": {"wait": 3, "__dict__": {"dict": {}}, "__class__": "x"}}

    remember([callback], [memory], [])

    assert (callback.wait, type(callback), vars(callback)) == (3, Remembering, {"wait": 3})


# --- what a terminal shows ---


def test_a_terminal_obeys_nothing_that_is_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], chaos: Chaos
) -> None:
    for number, name in enumerate(filter(None, NAMES)):
        project = tmp_path / f"p{number}"
        facts = [
            opened(),
            SpaceGrew(1.5, None, (Choice(name, [name]),)),
            TrialCreated(2.0, "0000", 0, 0, {name: name}, 1),
            *whole_trial()[1:-1],
            TrialEnded(9.0, "0000", TrialState.COMPLETED, 0.25, 1, {name: 0.25}, None, name),
            SearchEnded(10.0, every_kind()[-1].reason, name),  # type: ignore[union-attr]
        ]
        write_store(project / "study.db", facts)
        assert main(["show", str(project)]) == 0
        assert main(["trials", str(project)]) == 0
        assert main(["trials", str(project), "--json"]) == 0
        tuner = make(
            foreign_programs.Quick, tmp_path, project_name=project.name, objective="val_loss"
        )
        tuner.results_summary()
        tuner.trials[0].summary()
        tuner.trials[0].display_hyperparameters()
        shown = capsys.readouterr().out
        assert not set(shown) & set("\x1b\x07\r\0\u202e\u2066\ud800"), repr(name)
        chaos.count(PROMISE, "names that a terminal obeys")


# --- what a child may do ---

FRAMES = {
    "garbage": b"GET / HTTP/1.1\r\n\r\n",
    "a huge frame": struct.pack("!I", 2**32 - 1),
    "a frame of 100 MB": struct.pack("!I", 10**8),
    "no JSON": frame(b"\x80\x05."),
    "a pickle": frame(b"cos\nsystem\n(S'true'\ntR."),
    "no object": frame(b"[]"),
    "deep": frame(b'{"event":' + b"[" * 100_000),
    "NaN": frame(b'{"event":"Observed","step":0,"metrics":{"loss":NaN}}'),
    "no event": frame(b'{"event":"Rumour"}'),
    "an event of no type": frame(b'{"event":{}}'),
    "a step below 0": frame(b'{"event":"Observed","step":-1,"metrics":{}}'),
    "a step beyond all": frame(b'{"event":"Observed","step":9223372036854775807,"metrics":{}}'),
    "text for a number": frame(b'{"event":"Observed","step":0,"metrics":{"loss":"low"}}'),
    "another field": frame(b'{"event":"Noted","message":"a","exec":"b"}'),
    "a list for a text": frame(b'{"event":"Noted","message":["a"]}'),
    "memory below 0": frame(b'{"event":"Measured","memory_bytes":-1}'),
    "a kind of failure": frame(b'{"event":"Failed","kind":"magic","message":""}'),
    "a name of 100 kB": frame(
        b'{"event":"Observed","step":0,"metrics":{"' + b"x" * 10**5 + b'":1}}'
    ),
    "an infinite point": frame(
        b'{"event":"Met","space":[],"values":{"x":1e999},"added":[],"redeclared":[],"is_complete":true}'
    ),
    "a class for a hyperparameter": frame(
        b'{"event":"Met","space":[{"class_name":"os.system","config":{"name":"x"}}],"values":{},"added":[],'
        b'"redeclared":[],"is_complete":true}'
    ),
}


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hold the fork server that the searches of a test share."""
    tuner = make(foreign_programs.Writing, tmp_path_factory.mktemp("server"))
    held = acquire_server(modules_to_preload(tuner, (), Settings()))
    try:
        yield
    finally:
        release_server(held)


@pytest.mark.usefixtures("server")
def test_whatever_a_child_sends_fails_its_run_alone(tmp_path: Path, chaos: Chaos) -> None:
    names = list(FRAMES) if chaos.is_long else chaos.chance.sample(sorted(FRAMES), 5)
    for number, name in enumerate(names):
        tuner = make(
            foreign_programs.Writing,
            tmp_path,
            project_name=f"p{number}",
            max_trials=2,
            max_retries_per_trial=0,
        )
        asyncio.run(tuner.search(FRAMES[name], verbose=0))

        broken, other = tuner.trials
        assert (broken.status, other.status) == ("FAILED", "COMPLETED"), name
        assert "something other than aiotune wrote to the run's socket" in (broken.message or "")
        assert len(History(read_facts(Layout(tmp_path, f"p{number}").store)).trials) == 2
        chaos.count(PROMISE, "frames of others from a child")
    assert {path.name for path in tmp_path.iterdir()} == {f"p{n}" for n in range(len(names))}


def test_a_child_cannot_say_too_much_at_a_time() -> None:
    with pytest.raises(ValueError, match="metrics are too many"):
        event_to_frame(Observed(0, {f"m{n}": 0.0 for n in range(10_001)}))
    with pytest.raises(ValueError, match="no step"):
        event_to_frame(Observed(2**60, {"loss": 0.0}))
    told = event_to_frame(Failed(FailureKind.CRASH, "x" * 10**6, "y" * 10**7))
    assert (len(told["message"]), len(told["traceback"])) < (100_000, 1_000_000)
    assert "characters left out" in told["message"]


# --- what others could read, or reach ---


def test_no_secret_is_left_and_no_port_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chaos: Chaos
) -> None:
    secret = secrets.token_hex(16)
    monkeypatch.setenv("MY_API_TOKEN", secret)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    commands: set[str] = set()
    sockets: set[tuple[str, str]] = set()

    def look(event: object, history: History) -> None:
        for each in psutil.Process().children(recursive=True):
            try:
                commands.update(each.cmdline())
                found = each.net_connections("all")
            except psutil.Error:
                continue
            sockets.update((str(one.laddr), one.status) for one in found)

    tuner = make(foreign_programs.Quick, tmp_path, executor="process", observers=[look])
    before = listening(psutil.Process())
    asyncio.run(tuner.search(verbose=0))

    assert [trial.status for trial in tuner.trials] == ["COMPLETED"] * 4
    assert commands
    assert not [each for each in commands if secret in each]
    # Pairs without an address: nobody can connect to them.
    assert sockets == {("", psutil.CONN_NONE)}
    assert listening(psutil.Process()) == before
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if secret.encode() in path.read_bytes()]
    assert not list((tmp_path / "tmp").iterdir())
    chaos.count(PROMISE, "files searched for a secret", len(files))


def listening(process: psutil.Process) -> list[str]:
    found = process.net_connections("all")
    named = [each for each in found if each.family == socket.AF_UNIX and each.laddr]
    open_to_all = [each for each in found if each.status == psutil.CONN_LISTEN]
    return sorted(str(each.laddr) for each in [*named, *open_to_all])
