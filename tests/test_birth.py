"""Runs that are new interpreters. Those that are forked are in test_process.py."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from aiotune.executors.base import Executor, Finished, Observed
from aiotune.executors.context import Program, RunContext
from aiotune.executors.launch import Server, acquire_server, release_server
from aiotune.executors.payload import Payload
from aiotune.executors.process import ProcessExecutor
from tests.contracts.executor_contract import AsyncProgram, ExecutorContract
from tests.support.processes import is_gone
from tests.support.runs import assign, ending, of_kind, run_once

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no process groups")


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[Server]:
    """One server for all tests of this module."""
    server = acquire_server(start_method="spawn")
    yield server
    release_server(server)


@asynccontextmanager
async def spawning(program: Program, **options: Any) -> Any:
    with Payload.create(program) as payload:
        async with ProcessExecutor(payload, start_method="spawn", **options) as executor:
            yield executor


class TestSpawnContract(ExecutorContract):
    def make(
        self, program: AsyncProgram, *, grace_seconds: float = 10.0
    ) -> AbstractAsyncContextManager[Executor]:
        def blocking(run: RunContext) -> Finished:
            import asyncio

            return asyncio.run(program(run))  # type: ignore[arg-type]

        return spawning(blocking, grace_seconds=grace_seconds)


async def test_spawned_run_is_a_new_interpreter_in_the_callers_world(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIOTUNE_TEST", "caf\u00e9 \udcff")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("somewhere")

    def program(run: RunContext) -> Finished:
        links = {}
        for fd in os.listdir("/proc/self/fd"):
            if os.path.exists(f"/proc/self/fd/{fd}") or int(fd) > 2:
                try:
                    links[int(fd)] = os.readlink(f"/proc/self/fd/{fd}").split(":")[0]
                except OSError:
                    continue  # of the listing itself
        found = {
            "command": Path("/proc/self/cmdline").read_text().split("\0")[2],
            "world": [os.getcwd(), sys.path, sys.argv, os.environ["AIOTUNE_TEST"]],
            "family": [os.getsid(0), os.getpgid(0) == os.getpid()],
            "files": links,
        }
        (run.directory / "result").write_text(repr(found))
        return Finished()

    async with spawning(program) as executor:
        assert ending(await run_once(executor, tmp_path)) == Finished()
    found = eval((tmp_path / "result").read_text())
    assert "aiotune.executors.birth" in found["command"]
    assert found["world"] == [str(tmp_path), sys.path, sys.argv, "caf\u00e9 \udcff"]
    assert found["family"] == [server.pid, True]
    log = str(tmp_path / "run.log")
    files = found["files"]
    assert (files.pop(0), files.pop(1), files.pop(2)) == ("/dev/null", log, log)
    assert list(files.values()) == ["socket"]  # for the facts


async def test_nothing_is_preloaded(tmp_path: Path, server: Server) -> None:
    def program(run: RunContext) -> Finished:
        return Finished({"server": float(os.getsid(0))})

    async with spawning(program, preload=["no_such_module"]) as executor:
        last = ending(await run_once(executor, tmp_path))
    assert last == Finished({"server": float(server.pid)})


async def test_daemon_of_a_spawned_run_ends_with_it(tmp_path: Path) -> None:
    def program(run: RunContext) -> Finished:
        import subprocess

        with open(os.devnull, "w") as nowhere:
            daemon = subprocess.Popen(["sleep", "600"], start_new_session=True, stdout=nowhere)
        run.report(pid=daemon.pid)
        return Finished()

    async with spawning(program) as executor:
        (observed,) = of_kind(await run_once(executor, tmp_path), Observed)
        assert is_gone(int(observed.metrics["pid"]))


async def test_many_are_started_at_once(tmp_path: Path) -> None:
    async with spawning(lambda run: Finished({"number": float(run.number)})) as executor:
        starts = [await executor.start(assign(tmp_path, number=number)) for number in range(4)]
        lasts = [[event async for event in each.events()][-1] for each in starts]
    assert lasts == [Finished({"number": float(number)}) for number in range(4)]
