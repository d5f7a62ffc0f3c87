from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

import psutil
import pytest

from aiotune.errors import ExecutorError
from aiotune.executors.base import Finished
from aiotune.executors.context import RunContext
from aiotune.executors.payload import Payload
from aiotune.executors.process import ProcessExecutor
from aiotune.executors.world import World
from tests.contracts.executor_contract import next_observed
from tests.support.processes import all_gone, descendants
from tests.support.runs import assign, ending, run_once

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the fork server is Linux's")

SEARCH = """
import asyncio, os, signal, sys
from pathlib import Path
from aiotune.executors.payload import Payload
from aiotune.executors.process import ProcessExecutor
from tests.support.runs import assign, collect

def sleep_for_ever(new_session):
    if os.fork() == 0:
        if new_session:
            os.setsid()
        while True:
            signal.pause()

def program(run):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sleep_for_ever(new_session=False)
    sleep_for_ever(new_session=True)
    print("at work", flush=True)
    open(run.directory / f"ready-{run.number}", "w").close()
    while True:
        signal.pause()

async def main(directory, preload):
    payload = Payload.create(program)
    async with ProcessExecutor(payload, preload=preload) as executor:
        print("begun", flush=True)
        runs = (executor.start(assign(directory, number=number)) for number in range(2))
        await asyncio.gather(*map(collect, await asyncio.gather(*runs)))

asyncio.run(main(Path(sys.argv[1]), sys.argv[2:]))
"""


@contextmanager
def caller(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A search in a process of its own; its first line has been printed."""
    program = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SEARCH), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == "begun\n"
        yield program
    finally:
        program.kill()
        program.wait()
        assert program.stdout is not None
        program.stdout.close()


def with_fifos(directory: Path) -> None:
    """Make the files that the runs touch when they are at work into fifos, which can be waited for."""
    for number in range(2):
        os.mkfifo(directory / f"ready-{number}")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_the_caller(tmp_path: Path, number: signal.Signals) -> None:
    with_fifos(tmp_path)
    with caller(str(tmp_path)) as program:
        for run in range(2):
            (tmp_path / f"ready-{run}").open("rb").close()  # waits for the run to open it
        family = descendants(program.pid)
        assert len(family) == 8  # the guardian, the server, two runs, two children of each
        program.send_signal(number)
        program.wait()
        assert all_gone(family, seconds=5)


def test_server_ends_with_a_caller_that_dies_during_the_imports(tmp_path: Path) -> None:
    (tmp_path / "endless.py").write_text(
        f"import time; open({str(tmp_path / 'gate')!r}, 'w').write('x'); time.sleep(1000)"
    )
    os.mkfifo(tmp_path / "gate")
    sys.path.insert(0, str(tmp_path))
    try:
        with caller(str(tmp_path), "endless") as program:
            (tmp_path / "gate").open("rb").close()
            family = descendants(program.pid)
            assert len(family) == 2
            program.kill()
            program.wait()
            assert all_gone(family, seconds=5)
    finally:
        sys.path.remove(str(tmp_path))


def test_ctrl_c_in_the_terminal_reaches_the_caller_only(tmp_path: Path) -> None:
    with_fifos(tmp_path)
    with caller(str(tmp_path)) as program:
        for run in range(2):
            (tmp_path / f"ready-{run}").open("rb").close()
        family = descendants(program.pid)
        groups = {os.getpgid(each.pid) for each in family}
        assert os.getpgid(program.pid) not in groups
        (guardian,) = psutil.Process(program.pid).children()
        (server,) = guardian.children()
        for run in server.children():
            run.send_signal(signal.SIGINT)
        assert [run.is_running() for run in server.children()] == [True, True]
        program.send_signal(signal.SIGINT)  # which unwinds the search
        assert program.wait() != 0
        assert all_gone(family, seconds=5)


@contextmanager
def room_for_descriptors(pid: int, number: int) -> Iterator[None]:
    """Lower the limit of a process so that it can open so many more."""
    used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    free = [fd for fd in range(len(used) + number + 1) if fd not in used]
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free[number], before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def reports_its_server(run: RunContext) -> Finished:
    run.report(server=os.getppid())
    while run.number == 0 and not run.should_stop:
        pass
    return Finished()


@pytest.mark.parametrize(
    ("room", "held"), [(1, 0), (2, 0), (3, 0), (6, 0), (1, 2), (3, 2), (4, 2), (8, 2)]
)
async def test_run_that_finds_no_descriptors_is_refused_and_harms_no_other(
    tmp_path: Path, room: int, held: int
) -> None:
    world = World.current({**os.environ, "KERAS_TEST": "descriptors"})
    with Payload.create(reports_its_server) as payload:
        async with ProcessExecutor(payload, world=world) as executor:
            execution = await executor.start(assign(tmp_path))
            async with aclosing(execution.events()) as events:
                server = int((await next_observed(events)).metrics["server"])
                with room_for_descriptors(server, room):
                    for _ in range(2):  # the first has cost the server nothing
                        with pytest.raises(ExecutorError, match="ulimit -n"):
                            await executor.start(assign(tmp_path, number=1), held=[0] * held)
                assert ending(await run_once(executor, tmp_path, number=1)) == Finished()
                execution.request_stop("the test is over")
                assert ending([event async for event in events]) == Finished(is_stopped=True)
