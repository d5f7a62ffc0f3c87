"""Programs that do to a search what must not harm it. Each signals processes of its own only."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
from typing import Any

from aiotune.executors.base import Finished
from aiotune.executors.context import RunContext

__all__ = ["facts_socket", "take_memory"]

SLEEPER = "import time; time.sleep(600)"


def wait_for_ever() -> None:
    while True:
        signal.pause()


def facts_socket() -> socket.socket:
    """Return the run's socket to the search, as hostile code finds it: the only one of the process."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                return socket.socket(fileno=os.dup(int(name)))
    raise AssertionError("no socket was found")


def take_memory(size: int) -> mmap.mmap:
    """Return memory that is written to, page by page."""
    memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for position in range(0, size, mmap.PAGESIZE):
        memory[position] = 1
    return memory


# --- that wait to be ended: a request to stop must do ---


def ignores_sigterm(run: RunContext) -> Finished:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    run.report(loss=1.0)
    wait_for_ever()
    return Finished()


def blocks_all_signals(run: RunContext) -> Finished:
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))
    run.report(loss=1.0)
    wait_for_ever()
    return Finished()


def stops_itself(run: RunContext) -> Finished:
    run.report(loss=1.0)
    os.kill(os.getpid(), signal.SIGSTOP)
    wait_for_ever()
    return Finished()


def leaves_its_group(run: RunContext) -> Finished:
    """Join the process group of guardian and fork server."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.setpgid(0, os.getpgid(os.getppid()))
    run.report(loss=1.0)
    wait_for_ever()
    return Finished()


def spins(run: RunContext) -> Finished:
    run.report(loss=1.0)
    while True:
        pass


# --- that go on to a result ---


def leaves_a_daemon(run: RunContext) -> Finished:
    """Fork twice, into a session of its own, which holds stdout, and the socket."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(writer, str(os.getpid()).encode())
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            wait_for_ever()
        os._exit(0)
    os.wait()
    run.report(pid=float(os.read(reader, 100)), loss=1.0)
    return Finished({"loss": 1.0})


def prints_a_megabyte(run: RunContext) -> Finished:
    print("x" * 2**20, end="")
    return Finished({"loss": 1.0})


def prints_garbage(run: RunContext) -> Finished:
    os.write(1, bytes(range(256)) * 64)
    print("\ud800\x1b]0;title\x07", flush=True)
    return Finished({"loss": 1.0})


def fills_its_log(run: RunContext) -> Finished:
    print("the beginning")
    for number in range(64 * 16):
        os.write(1, b"y" * 2**16 if number % 16 else b"y" * (2**16 - 1) + b"\n")
    print("the end", flush=True)
    return Finished({"loss": 1.0})


def has_no_room_for_its_log(run: RunContext) -> Finished:
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 1)
    os.dup2(full, 2)
    for _ in range(100):
        print("x" * 1000)
        print("x" * 1000, file=sys.stderr, flush=True)
    return Finished({"loss": 1.0})


def changes_directory_and_umask(run: RunContext) -> Finished:
    os.chdir("/")
    os.umask(0o777)
    run.report(loss=1.0)
    return Finished({"loss": 1.0})


def makes_its_socket_nonblocking(run: RunContext) -> Finished:
    """The caller is behind: what it has not read yet must not be lost."""
    own = facts_socket()
    own.setblocking(False)
    for step in range(3000):
        run.report(step, **{f"metric {number}": 1.0 for number in range(20)})
    return Finished({"loss": 1.0})


def forks_after_its_report(run: RunContext) -> Finished:
    """Both processes come out of the program."""
    run.report(loss=1.0)
    own = os.getpid()
    os.fork()
    return Finished({"loss": 1.0 if os.getpid() == own else 2.0})


def is_interrupted_in_reports(run: RunContext) -> Finished:
    """A handler raises in the midst of reports, or reports itself."""
    interrupts = 0
    is_handling = False

    def interrupt(number: int, frame: Any) -> None:
        nonlocal interrupts, is_handling
        interrupts += 1
        if is_handling:
            return
        if interrupts % 2:
            is_handling = True
            run.report(10_000 + interrupts, loss=1.0)
            is_handling = False
        elif frame.f_globals["__name__"].startswith("aiotune.executors.child"):
            raise TimeoutError

    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.001)
    for step in range(2000):
        with contextlib.suppress(TimeoutError):
            run.report(step, **{f"metric {number}": 1.0 for number in range(20)})
    signal.setitimer(signal.ITIMER_REAL, 0)
    return Finished({"loss": 1.0})


def ends_a_thread(run: RunContext) -> Finished:
    thread = threading.Thread(target=sys.exit, args=(3,))
    thread.start()
    thread.join()
    return Finished({"loss": 1.0})


# --- that break ---


def exits_in_a_thread(run: RunContext) -> Finished:
    threading.Thread(target=os._exit, args=(3,)).start()
    wait_for_ever()
    return Finished()


def reports_ten_megabytes(run: RunContext) -> Finished:
    run.report(0, **{f"{number:0100}": 1.0 for number in range(9_999)})
    run.report(1, **{f"{number:05000}": 1.0 for number in range(2_000)})
    return Finished()


def returns_ten_megabytes(run: RunContext) -> Finished:
    return Finished({f"{number:05000}": 1.0 for number in range(2_000)})


def meets_ten_megabytes(run: RunContext) -> Finished:
    for number in range(2_000):
        run.hyperparameters.Choice(f"{number:05000}", [1, 2])
    return Finished({"loss": 1.0})


def raises_ten_megabytes(run: RunContext) -> Finished:
    raise ValueError("begin" + "x" * 10 * 2**20 + "end")


def closes_all_descriptors(run: RunContext) -> Finished:
    run.report(loss=1.0)
    os.closerange(0, 1000)
    run.report(loss=2.0)
    return Finished({"loss": 1.0})


def closes_its_sockets_and_stays(run: RunContext) -> Finished:
    run.report(loss=1.0)
    os.closerange(3, 1000)
    wait_for_ever()
    return Finished()


def writes_garbage(run: RunContext) -> Finished:
    run.report(loss=1.0)
    facts_socket().sendall(b"HTTP/1.1 200 OK\r\n\r\n" * 10)
    wait_for_ever()
    return Finished()


def announces_a_gigabyte(run: RunContext) -> Finished:
    run.report(loss=1.0)
    facts_socket().sendall(b"\x3f\xff\xff\xff")
    wait_for_ever()
    return Finished()


def nests_deeply(run: RunContext) -> Finished:
    run.report(loss=1.0)
    body = b'{"a":' * 100_000
    facts_socket().sendall(len(body).to_bytes(4, "big") + body)
    wait_for_ever()
    return Finished()


def kills_its_group(run: RunContext) -> Finished:
    run.report(loss=1.0)
    os.killpg(0, signal.SIGKILL)
    return Finished()


def runs_another_program(run: RunContext) -> Finished:
    run.report(loss=1.0)
    os.execv(sys.executable, [sys.executable, "-c", SLEEPER])


# --- that attack the fork server: the run is lost, through no fault that could be told ---


def kills_its_parent(run: RunContext) -> Finished:
    os.kill(os.getppid(), signal.SIGKILL)
    wait_for_ever()
    return Finished()


def terminates_its_parent(run: RunContext) -> Finished:
    os.kill(os.getppid(), signal.SIGTERM)
    wait_for_ever()
    return Finished()


def kills_its_session(run: RunContext) -> Finished:
    """Kill what `kill -9 -1` would, as far as it belongs to this search: guardian, fork server and runs."""
    session, own = os.getsid(0), os.getpid()
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.getsid(int(name)) == session and int(name) != own:
                os.kill(int(name), signal.SIGKILL)
    wait_for_ever()
    return Finished()


def stops_its_parent(run: RunContext) -> Finished:
    run.report(loss=1.0)
    os.kill(os.getppid(), signal.SIGSTOP)
    wait_for_ever()
    return Finished()


def starts_many(run: RunContext) -> Finished:
    """Leave processes of all kinds behind, some of which start more."""
    for is_own_session in (False, True) * 4:
        subprocess.Popen(
            [sys.executable, "-c", SLEEPER], start_new_session=is_own_session, close_fds=False
        )
    return Finished({"loss": 1.0})
