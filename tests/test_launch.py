from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from aiotune.executors.launch import ServerLost, acquire_server, release_server
from tests.support.processes import is_gone
from tests.support.programs import run_program

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the fork server is Linux's")


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "KERAS_TEST": "test_launch", **changes}


def test_server_is_shared_and_ends_with_its_last_user() -> None:
    first = acquire_server(environment=environment())
    second = acquire_server(environment=environment())
    assert first is second
    release_server(first)
    assert second.is_alive
    assert not is_gone(second.pid)
    release_server(second)
    assert not first.is_alive
    assert is_gone(first.pid)


def test_other_imports_want_another_server() -> None:
    servers = [
        acquire_server(environment=environment()),
        acquire_server(["json"], environment=environment()),
        acquire_server(environment=environment(KERAS_BACKEND="jax")),
        acquire_server(environment=environment(UNRELATED="value")),
        acquire_server(environment=environment(), start_method="spawn"),
        acquire_server(["json"], environment=environment(), start_method="spawn"),
    ]
    try:
        assert len({server.pid for server in servers}) == 4
        assert servers[0] is servers[3]
        assert servers[4] is servers[5]  # which imports nothing
    finally:
        for server in servers:
            release_server(server)


def test_death_shuts_the_watched_sockets_down() -> None:
    server = acquire_server(environment=environment())
    before, other = socket.socketpair()
    after, another = socket.socketpair()
    with before, other, after, another:
        server.watch(before)
        server.kill()
        assert before.recv(1) == b""  # waits
        server.watch(after)
        assert after.recv(1) == b""
        with pytest.raises(ServerLost):
            server.run(facts=other, status=another, payload_fd=other.fileno())
        server.end(0, 1.0)  # and that is no error
    release_server(server)


def test_server_is_not_ready_before_its_imports_are_done(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    (tmp_path / "gated.py").write_text(f"open({str(tmp_path / 'gate')!r}).read()")
    sys.path.insert(0, str(tmp_path))
    try:
        server = acquire_server(["gated"], environment=environment())
        with (tmp_path / "gate").open("w"):
            is_ready_before = server.is_ready
        server.kill()
        assert (is_ready_before, server.is_ready) == (False, True)  # nothing is to come from it
        release_server(server)
    finally:
        sys.path.remove(str(tmp_path))


def test_dead_server_is_replaced() -> None:
    first = acquire_server(environment=environment())
    first.kill()
    release_server(first)
    second = acquire_server(environment=environment())
    try:
        assert second.is_alive
        assert second.pid != first.pid
    finally:
        release_server(second)


def test_log_has_what_the_server_prints(tmp_path: Path) -> None:
    (tmp_path / "talkative.py").write_text("print('hello from the import')")
    log = tmp_path / "deep" / "server.log"
    sys.path.insert(0, str(tmp_path))
    try:
        server = acquire_server(["talkative"], environment=environment(), log=log)
        own, other = socket.socketpair()
        with own, other:
            facts, theirs = socket.socketpair()
            facts.close()  # a run that was given up: it is refused, after the imports
            server.run(facts=theirs, status=other, payload_fd=theirs.fileno())
            theirs.close()
            other.close()
            assert own.recv(1)
            assert server.is_ready
        release_server(server)
    finally:
        sys.path.remove(str(tmp_path))
    assert "hello from the import" in log.read_text()


CALLER = """
import asyncio, os, signal, sys, threading
from pathlib import Path
import psutil
from tests.support import tuned

def reap_all():
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            if is_over.wait(0.001):
                break

is_over = threading.Event()
if sys.argv[2] == "ignores":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
else:
    thief = threading.Thread(target=reap_all)
    thief.start()

def kill_server(event, history):
    if type(event).__name__ == "Reported" and not killed:
        (guardian,) = psutil.Process().children()
        killed.extend(guardian.children())
        killed[0].kill()

killed = []
tuner = tuned.make(tuned.Parabola, Path(sys.argv[1]), observers=[kill_server])
result = asyncio.run(tuner.search(verbose=0))
is_over.set()
print([trial.status for trial in result.trials], len(psutil.Process().children()))
"""


@pytest.mark.parametrize("caller", ["ignores", "reaps"])
def test_search_of_a_caller_that_ignores_or_reaps_all_its_children(
    tmp_path: Path, caller: str
) -> None:
    printed = run_program(CALLER, tmp_path, caller)
    assert printed.split("\n")[-2] == f"{['COMPLETED'] * 4} 0"


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_fork_of_the_caller_cannot_harm_the_server() -> None:
    server = acquire_server(environment=environment())
    try:
        pid = os.fork()
        if pid == 0:
            try:
                server.kill()
                server.end(0, 0)
                release_server(server)  # as if it unwound the caller's stack
                os._exit(0 if server.is_alive else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        again = acquire_server(environment=environment())
        assert again is server
        release_server(again)
        assert not is_gone(server.pid)
        assert server.is_alive
    finally:
        release_server(server)
    assert is_gone(server.pid)
