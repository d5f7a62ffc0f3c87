"""The world of a run, in real children: setup, `__main__`, imports, memory."""

from __future__ import annotations

import ast
import importlib
import logging
import sys
import textwrap
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import aiotune
from aiotune.errors import FatalRuntimeError, FatalTypeError, FatalValueError
from aiotune.executors.base import Failed, Finished, Measured, Noted
from aiotune.executors.context import RunContext
from aiotune.executors.launch import acquire_server, release_server
from aiotune.executors.payload import Payload, Prelude
from aiotune.executors.process import ProcessExecutor
from aiotune.processes import OWN_MODULES
from tests.support import tuned
from tests.support.programs import ROOT, run_module, run_program
from tests.support.runs import ending, of_kind, run_once
from tests.support.tuned import make

MEGABYTE = 2**20


@pytest.fixture(scope="module", autouse=True)
def fork_server() -> Iterator[None]:
    """Keep one fork server alive, so that the searches need not launch one each."""
    server = acquire_server(OWN_MODULES)
    yield
    release_server(server)


@asynccontextmanager
async def process(program: Any, prelude: Prelude | None = None, **options: Any) -> Any:
    options = {"preload": OWN_MODULES} | options
    with Payload.create(program, prelude=prelude) as payload:
        async with ProcessExecutor(payload, **options) as executor:
            yield executor


# --- `__main__` and setup


SEEN = {
    "loss": 0,
    "scale": 3,
    "offset": 4,
    "environment": 5,
    "path": 1,
    "item": 7,
    "function": 2,
    "forked": 9,
    "spawned": 3,  # a new interpreter imports the program anew: what setup did is not in it
    "pooled": 9,
    "argument": 42,
    "is_main": 1,
    "umask": 0o27,
    "hour": 5,
}


@pytest.mark.parametrize("is_module", [True, False])
def test_a_program_finds_all_that_is_its_own(tmp_path: Path, is_module: bool) -> None:
    if is_module:
        printed = run_module("tests.support.own_world", tmp_path, 42)
    else:
        printed = run_script(ROOT / "tests" / "support" / "own_world.py", tmp_path, 42)
    seen, after = printed.splitlines()
    assert ast.literal_eval(seen) == SEEN
    assert after == "1 {'offset': 0} False"  # the caller's own world is as it was


def run_script(path: Path, *arguments: object) -> str:
    """Run a file as a script and return what it printed."""
    code = f"""
        import os, subprocess, sys
        environment = {{**os.environ, "PYTHONPATH": {str(ROOT)!r}}}
        subprocess.run([sys.executable, {str(path)!r}, *sys.argv[1:]], env=environment, check=True)
    """
    return run_program(code, *arguments)


def test_search_at_the_top_of_a_program_is_refused_in_its_workers(tmp_path: Path) -> None:
    path = tmp_path / "unguarded.py"
    path.write_text(
        textwrap.dedent(
            """
            import multiprocessing, sys, aiotune
            try:
                aiotune.RandomSearch(lambda hp: None, "loss", directory=sys.argv[1]).search().close()
            except Exception as error:
                print(error)
            def work(): pass
            if __name__ == "__main__":
                worker = multiprocessing.get_context("spawn").Process(target=work)
                worker.start()
                worker.join()
            """
        )
    )
    assert 'if __name__ == "__main__"' in run_script(path, tmp_path)


async def test_setup_that_fails_ends_the_search_before_the_first_trial(tmp_path: Path) -> None:
    def set_up() -> None:
        raise LookupError("no such registry")

    tuner = make(tuned.Coin, tmp_path, setup=set_up)
    with pytest.raises(FatalRuntimeError, match="setup failed in the child: LookupError") as caught:
        await tuner.search()
    assert "in set_up" in str(caught.value)
    assert tuner.trials == ()


async def test_setup_is_called_before_the_program_is_unpickled(tmp_path: Path) -> None:
    module = tmp_path / "somewhere" / "aiotune_test_user_module.py"
    module.parent.mkdir()
    module.write_text("def program(run):\n    from aiotune.executors.base import Finished\n")
    with module.open("a") as file:
        file.write("    return Finished({'loss': 2.0})\n")
    folder = str(module.parent)

    def set_up() -> None:
        import sys

        sys.path.insert(0, folder)

    sys.path.insert(0, folder)
    try:
        program = importlib.import_module("aiotune_test_user_module").program
    finally:
        sys.path.remove(folder)
    async with process(program, set_up) as executor:
        last = ending(await run_once(executor, tmp_path))
    assert last == Finished({"loss": 2.0})
    async with process(program) as executor:
        last = ending(await run_once(executor, tmp_path))
    assert isinstance(last, Failed)
    assert last.is_fatal
    assert "could not be loaded" in last.message


async def test_setup_has_no_effect_in_the_callers_loop(tmp_path: Path) -> None:
    tuner = make(tuned.Endless, tmp_path, setup=print)
    with pytest.raises(FatalValueError, match="setup is for the child processes"):
        await tuner.search([])


def test_async_setup_is_refused(tmp_path: Path) -> None:
    async def set_up() -> None: ...

    with pytest.raises(FatalTypeError, match="write `def`"):
        make(tuned.Coin, tmp_path, setup=set_up)


# --- what a run tells


def write_slow_package(directory: Path) -> Path:
    """Write an installed package whose import takes over a second by the clock, and return its place."""
    place = directory / "site-packages"
    place.mkdir()
    # It turns the clock of the counter, so that no time need pass.
    (place / "aiotune_test_slow.py").write_text(
        "import sys\n"
        "finder = sys.meta_path[0]\n"
        "begin = finder._clock\n"
        "finder._clock = lambda: begin() + 3.0\n"
    )
    return place


async def test_run_that_spends_seconds_importing_says_so(tmp_path: Path) -> None:
    place = str(write_slow_package(tmp_path))

    def program(run: RunContext) -> Finished:
        sys.path.insert(0, place)
        importlib.import_module("aiotune_test_slow")
        return Finished({"loss": 1.0})

    async with process(program) as executor:
        (note,) = of_kind(await run_once(executor, tmp_path), Noted)
    assert "over 2 s importing aiotune_test_slow" in note.message
    assert 'preload=["aiotune_test_slow"]' in note.message
    async with process(program, preload=(), start_method="spawn") as executor:
        assert of_kind(await run_once(executor, tmp_path), Noted) == []


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
async def test_run_tells_the_memory_that_it_holds(tmp_path: Path) -> None:
    captured = bytearray(64 * MEGABYTE)

    def program(run: RunContext) -> Finished:
        own = bytearray(b"x") * (80 * MEGABYTE)
        total = sum(captured[::4096])  # shared with other runs
        return Finished({"loss": float(total + len(own))})

    async with process(program) as executor:
        measured = of_kind(await run_once(executor, tmp_path), Measured)
    assert 80 * MEGABYTE < max(each.memory_bytes for each in measured) < 160 * MEGABYTE


async def test_search_logs_a_note_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Noting(aiotune.RandomSearch):
        def run_trial(self, trial: RunContext) -> float:
            trial.note("a word")
            return float(trial.hyperparameters.Float("x", 0.0, 1.0))

    with caplog.at_level(logging.WARNING, "aiotune"):
        await make(Noting, tmp_path).search()
    assert caplog.messages.count("a word") == 1
