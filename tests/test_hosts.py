"""A search in the programs that people have: scripts, services, notebooks, threads, other loops."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import threading
import uuid
from pathlib import Path

import psutil
import pytest

from aiotune import HyperModel, HyperParameters, RandomSearch, SearchResult
from aiotune.executors.launch import Server
from tests.support import noisy, tuned
from tests.support.marked import marked, wait_until_gone
from tests.support.processes import all_gone
from tests.support.programs import ROOT, run_module
from tests.support.service import serving
from tests.support.terminal import run_in_terminal
from tests.support.tuned import make

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere hosts are best effort")

LONGEST_LIFE_SECONDS = 5.0
OWN_THREADS = {"MainThread", "aiotune-store"}  # the latter waits for the former's end


@pytest.fixture
def mark() -> str:
    return str(uuid.uuid4())


# What belongs to the caller


@pytest.mark.parametrize(
    ("host", "child_signal"),
    [("asyncio", "handled"), ("asyncio", "ignored"), ("uvloop", "default"), ("thread", "ignored")],
)
def test_the_caller_is_untouched_during_a_search_and_after(
    tmp_path: Path, host: str, child_signal: str
) -> None:
    told = json.loads(run_module("tests.support.untouched", tmp_path, host, child_signal))
    assert told.pop("looks") > 30
    threads = set(told.pop("threads"))
    assert "MainThread" in threads <= OWN_THREADS
    assert told == {"during": {}, "after": {}, "descriptors": {}, "children": 0}


# Loops


async def test_two_threads_search_at_once_each_in_its_own_loop(tmp_path: Path) -> None:
    found: dict[str, SearchResult] = {}

    def search(name: str) -> None:
        tuner = make(tuned.Parabola, tmp_path, project_name=name)
        found[name] = asyncio.run(tuner.search(0.5, verbose=0))

    threads = [threading.Thread(target=search, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    third = await make(tuned.Parabola, tmp_path, project_name="three").search(0.5, verbose=0)
    for thread in threads:
        await asyncio.to_thread(thread.join)
    points = [tuned.points(result.trials) for result in (*found.values(), third)]
    assert len(points) == 3
    assert len(points[0]) == 4
    assert points[0] == points[1] == points[2]


# Services


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """Put a service into the test's directory, and return its file."""
    file = tmp_path / "app.py"
    shutil.copy(ROOT / "tests" / "support" / "service_app.py", file)
    return file


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_service_answers_while_it_searches(app: Path, mark: str, loop: str) -> None:
    with serving(app.parent, mark, "app:app", "--loop", loop) as service:
        service.wait_for("event .* Reported")
        service.wait_for("event .* Reported")
        assert service.get("/status")["running"] == ["0000", "0001"]
        (app.parent / "gate").touch()
        told = service.get("/result")
        assert told["reason"] == "max_trials"
        assert list(told["trials"].values()) == ["COMPLETED"] * 3


def test_ctrl_c_ends_a_service_in_the_midst_of_its_search(app: Path, mark: str) -> None:
    with serving(app.parent, mark, "app:app") as service:
        service.wait_for("event .* Reported")
        assert len(marked(mark)) >= 3
        printed = service.interrupt()
        assert wait_until_gone(mark, LONGEST_LIFE_SECONDS) == []
        assert printed.count("RunEnded") >= 1
        assert "Application shutdown complete" in printed
        assert "Traceback" not in printed


def test_a_reload_ends_the_search_and_the_new_worker_goes_on(app: Path, mark: str) -> None:
    with serving(app.parent, mark, "app:app", "--reload") as service:
        service.wait_for("event .* Reported")
        service.wait_for("event .* Reported")
        worker = psutil.Process(service.get("/status")["pid"])
        old = [worker, *worker.children(recursive=True)]
        assert len(old) >= 4  # the worker, the fork server, two runs
        app.write_text(app.read_text().replace('GATE = "gate"', 'GATE = "app.py"'))
        service.wait_for(rf"event (?!{worker.pid} )\d+ SearchEnded")
        assert all_gone(old, LONGEST_LIFE_SECONDS)
        told = service.get("/result")
        assert told["trials"] == {"0000": "COMPLETED", "0001": "COMPLETED", "0002": "COMPLETED"}
        assert told["runs"] == {"0000": 2, "0001": 2, "0002": 1}
        service.interrupt()
        assert wait_until_gone(mark, LONGEST_LIFE_SECONDS) == []


def test_of_two_workers_one_searches_and_the_other_says_why_it_does_not(
    app: Path, mark: str
) -> None:
    with serving(app.parent, mark, "app:app", "--workers", "2") as service:
        refusal = (
            r"error (\d+) .* \(pid (\d+) on .* runs the search in .*choose another project_name"
        )
        refused, owner = service.wait_for(refusal).groups()
        assert refused != owner
        assert service.get("/status")["pid"] in (int(refused), int(owner))
        service.interrupt()
        assert wait_until_gone(mark, LONGEST_LIFE_SECONDS) == []


# What trials print


def test_no_word_of_a_trial_reaches_the_terminal(tmp_path: Path) -> None:
    program = ["-m", "tests.support.noisy", str(tmp_path)]
    assert run_in_terminal(program, ROOT) == "begin\nend\n"
    logs = sorted(tmp_path.glob("project/trial_*/run-0.log"))
    texts = [log.read_text() for log in logs]
    assert len(texts) == 3
    assert [[word for word in noisy.WORDS if word not in text] for text in texts] == [[], [], []]
    assert ["Segmentation fault" in text for text in texts] == [False, True, False]
    assert not any("terminal" in text for text in texts)


# Ctrl-C


class Waiting(HyperModel):
    """Waits in its build for the end of a connection."""

    def __init__(self, port: int) -> None:
        self.port = port

    def build(self, hp: HyperParameters) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.recv(1)


def test_ctrl_c_ends_a_look_at_the_space(keras_server: Server, tmp_path: Path) -> None:
    """Here in the main thread, which `search_space_summary` blocks."""
    last_words = []
    with socket.create_server(("127.0.0.1", 0)) as door:
        tuner = make(RandomSearch, tmp_path, hypermodel=Waiting(door.getsockname()[1]))

        def interrupt() -> None:
            connection, _ = door.accept()
            with connection:
                os.kill(os.getpid(), signal.SIGINT)
                last_words.append(connection.recv(1))  # waits until the child is gone

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            tuner.search_space_summary()
        thread.join()
    assert last_words == [b""]
