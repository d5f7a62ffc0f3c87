from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

import psutil
import pytest

from aiotune.executors.base import Failed, Finished
from aiotune.executors.context import RunContext
from aiotune.executors.launch import Server, acquire_server, release_server
from aiotune.executors.payload import Payload
from aiotune.executors.process import ProcessExecutor
from aiotune.executors.world import World
from tests.contracts.executor_contract import next_observed
from tests.support.processes import all_gone, descendants, is_gone
from tests.support.programs import line_of, program
from tests.support.runs import assign, ending

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="subreapers are Linux's")

MEBIBYTE = 2**20
LONGEST_LIFE_SECONDS = 5.0


@contextmanager
def own_server(*preload: str, mark: str) -> Iterator[Server]:
    """A server that no other test shares."""
    server = acquire_server(preload, environment={**os.environ, "KERAS_TEST": mark})
    try:
        yield server
    finally:
        release_server(server)


def fork_server_of(server: Server) -> psutil.Process:
    (child,) = psutil.Process(server.pid).children()
    return child


def wait_until_imported(server: Server) -> None:
    """Have the server answer a request that was given up, after its imports."""
    status, theirs = socket.socketpair()
    facts, hung_up = socket.socketpair()
    with status, theirs, hung_up:
        facts.close()
        server.run(facts=hung_up, status=theirs, payload_fd=hung_up.fileno())
        theirs.close()
        assert status.recv(1)  # it is refused


def leaves_much(run: RunContext) -> Finished:
    """Start a daemon, and a daemon of a daemon; report all processes."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        is_first = os.fork() != 0
        if is_first:
            os.write(writer, str(os.getpid()).encode())
        else:
            os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            signal.pause()
    os.wait()
    daemon = int(os.read(reader, 100))
    run.report(child=os.getpid(), daemon=daemon, server=os.getppid(), guardian=os.getsid(0))
    while True:
        signal.pause()


@pytest.mark.parametrize("victim", ["server", "guardian"])
@pytest.mark.parametrize("start_method", ["fork", "spawn"])
async def test_when_a_run_is_told_to_be_lost_nothing_of_it_is_left(
    tmp_path: Path, victim: str, start_method: str
) -> None:
    world = World.current({**os.environ, "KERAS_TEST": f"{victim} {start_method}"})
    with Payload.create(leaves_much) as payload:
        async with ProcessExecutor(
            payload,
            world=world,
            start_method=start_method,  # type: ignore[arg-type]
        ) as executor:
            execution = await executor.start(assign(tmp_path))
            async with aclosing(execution.events()) as events:
                metrics = (await next_observed(events)).metrics
                family = descendants(int(metrics["guardian"]))
                assert len(family) == 4  # server, child, daemon, its daemon
                os.kill(int(metrics[victim]), signal.SIGKILL)
                last = ending([event async for event in events])
            assert isinstance(last, Failed)
            assert last.is_lost
            assert is_gone(int(metrics["guardian"]))
            left = {each.pid for each in family if not is_gone(each.pid)}
            assert left <= {
                int(metrics["server"])
            }  # it lets go of its files a little before it is dead
            assert all_gone(family, LONGEST_LIFE_SECONDS)


@pytest.mark.parametrize("victim", ["server", "guardian"])
def test_death_during_the_imports_leaves_nothing(
    tmp_path: Path, victim: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "gate")
    code = f"import time; open({str(tmp_path / 'gate')!r}, 'w').close(); time.sleep(1000)"
    (tmp_path / "endless.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    with own_server("endless", mark=f"imports {victim}") as server:
        (tmp_path / "gate").open("rb").close()  # it imports now
        fork_server = fork_server_of(server)
        os.kill(server.pid if victim == "guardian" else fork_server.pid, signal.SIGKILL)
        server.wait_end()
        assert not server.is_alive
        assert is_gone(server.pid)
        assert all_gone([fork_server], LONGEST_LIFE_SECONDS)


def test_kill_ends_a_fork_server_that_hangs() -> None:
    with own_server(mark="hangs") as server:
        wait_until_imported(server)
        fork_server = fork_server_of(server)
        fork_server.suspend()
        server.kill()
        server.wait_end()
        assert is_gone(fork_server.pid)
        assert is_gone(server.pid)


def test_request_to_end_is_heard_and_ctrl_c_is_not() -> None:
    with own_server(mark="signals") as server:
        wait_until_imported(server)
        for process in (psutil.Process(server.pid), fork_server_of(server)):
            process.send_signal(signal.SIGINT)
        wait_until_imported(server)
        psutil.Process(server.pid).terminate()
        server.wait_end()
        assert not server.is_alive


HOLDER = """
import sys
from aiotune.executors.launch import acquire_server
from tests.test_guardian import wait_until_imported

server = acquire_server()
wait_until_imported(server)
print(server.pid, flush=True)
sys.stdin.read()
"""


def test_fork_server_that_hangs_does_not_outlive_the_caller() -> None:
    with program(HOLDER) as caller:
        guardian = psutil.Process(int(line_of(caller)))
        family = [guardian, *guardian.children()]
        assert len(family) == 2
        family[1].suspend()
        caller.kill()
        assert all_gone(family, LONGEST_LIFE_SECONDS)


def test_guardian_stays_small() -> None:
    with own_server("numpy", "aiotune.tuners", mark="small") as server:
        wait_until_imported(server)
        assert "numpy" in Path(f"/proc/{fork_server_of(server).pid}/maps").read_text()
        assert "numpy" not in Path(f"/proc/{server.pid}/maps").read_text()
        assert psutil.Process(server.pid).memory_full_info().uss < 12 * MEBIBYTE
