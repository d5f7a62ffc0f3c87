"""Fork servers as the caller sees them: launched on demand, shared by its searches, ended with the last.

Everything here is thread-safe and bound to no event loop, blocks for milliseconds at most unless it says
otherwise, and installs no signal handler.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, assert_never

from aiotune.errors import ExecutorError
from aiotune.executors.handle import ProcessHandle
from aiotune.executors.requests import END, NO_TERMS, RUN, Request, Terms
from aiotune.executors.strays import FAMILY, end_strays, new_family
from aiotune.executors.system import interpreter_command, is_hung_up
from aiotune.private_files import make_directories, open_log

__all__ = [
    "Server",
    "ServerLost",
    "StartMethod",
    "acquire_server",
    "count_users",
    "release_server",
]

_CONTROL_SECONDS = 5.0  # a server that takes no request for so long is broken
_EXIT_SECONDS = 5.0  # for a server to end by itself, and again for its guardian to end it
_GUARDIAN = "aiotune.executors.guardian"
# Variables by whose values an import may differ: another value needs another server.
_IMPORT_PREFIXES = (
    *("PYTHON", "KERAS_", "TF_", "XLA_", "JAX_", "TORCH", "PYTORCH_", "CUDA_", "NVIDIA_", "HIP_"),
    *("OMP_", "MKL_", "OPENBLAS_", "NUMEXPR_", "LD_"),
)

StartMethod = Literal["auto", "fork", "spawn"]
_Key = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a fork server is to be."""

    start_method: Literal["fork", "spawn"]
    preload: tuple[str, ...]
    environment: Mapping[str, str]

    @property
    def import_variables(self) -> frozenset[tuple[str, str]]:
        return frozenset(
            each for each in self.environment.items() if each[0].startswith(_IMPORT_PREFIXES)
        )


class ServerLost(Exception):
    """The fork server has died; another one can be launched."""


class Server:
    """A fork server with its guardian, that are running, or were. `log` has what they printed, if given one.

    It counts as dead as soon as its end is certain; the sockets that it watches are shut down when nothing
    of it is left.
    """

    def __init__(
        self,
        guardian: subprocess.Popen[bytes],
        control: socket.socket,
        log: Path | None,
        family: str,
    ) -> None:
        self.log = log
        self._family = family
        self._owner = os.getpid()
        self._guardian = ProcessHandle(guardian)
        self._control = control
        self._sending = threading.Lock()
        self._numbers = itertools.count()
        self._watching = threading.Lock()  # guards the two below
        self._watched: set[socket.socket] = set()
        self._is_alive = True
        self._mourner = threading.Thread(target=self._mourn, name="aiotune-server", daemon=True)
        self._mourner.start()

    @property
    def pid(self) -> int:
        """The guardian's process id. The fork server is its only child."""
        return self._guardian.pid

    @property
    def is_alive(self) -> bool:
        return self._is_alive

    @property
    def is_ready(self) -> bool:
        """Whether its imports are done, which it tells once, or it is dead.

        If not, it will read every request of now later than what its sockets show now.
        """
        if not self._is_alive:
            return True
        poll = select.poll()
        poll.register(self._control, select.POLLIN)  # never read, so that every thread sees it
        return bool(poll.poll(0))

    @property
    def is_ours(self) -> bool:
        """Whether this process has launched it; a fork of that process must leave it alone."""
        return self._owner == os.getpid()

    def run(
        self,
        *,
        facts: socket.socket,
        status: socket.socket,
        payload_fd: int,
        held: Sequence[int] = (),
        terms: Terms = NO_TERMS,
    ) -> int:
        """Ask for a run and return its number. The caller closes its copies of the two sockets.

        held: further descriptors, of which the run keeps copies to its end. terms: what it is held to. The
        answer comes on `status`, once the server has imported what it imports. Raises ServerLost.
        """
        number = next(self._numbers)
        fds = (status.fileno(), facts.fileno(), payload_fd, *held)
        self._send(Request(RUN, number, len(fds), terms, fds))
        return number

    def end(self, number: int, delay_seconds: float) -> None:
        """Have a run ended by SIGTERM after the delay and SIGKILL 0.5 s later; without delay by SIGKILL.

        The soonest of several requests holds. One without delay is answered on the run's status. Nothing
        happens if the run, or the server, is gone.
        """
        with contextlib.suppress(ServerLost):
            self._send(Request(END, number, min(round(delay_seconds * 1000), 2**32 - 1)))

    def watch(self, *ends: socket.socket) -> None:
        """Have these sockets shut down when the server dies: their readers see an end of file.

        Its death alone may not bring that about, for another fork of the caller may hold the other ends.
        """
        with self._watching:
            self._watched.update(ends)
            if not self._is_alive:
                _shut_down(ends)

    def unwatch(self, *ends: socket.socket) -> None:
        with self._watching:
            self._watched.difference_update(ends)

    def kill(self) -> None:
        """Have everything of the server killed, by its guardian; returns at once. It counts as dead now."""
        if self.is_ours:
            self._is_alive = False
            self._guardian.send(signal.SIGTERM)

    def stop(self) -> None:
        """Let the server end its runs and itself. Blocks until all is gone, 15 s at most."""
        if not self.is_ours:
            return
        # Shut down, not only closed: another fork of the caller may hold a copy.
        _shut_down((self._control,), socket.SHUT_WR)
        if not self._is_mourned():
            self.kill()
        if not self._is_mourned():
            self._guardian.kill_group()
        if self._is_mourned():
            self._control.close()

    def wait_end(self) -> None:
        """Block until nothing is left of a server that dies, 15 s at most."""
        self._mourner.join(3 * _EXIT_SECONDS)

    def _is_mourned(self) -> bool:
        self._mourner.join(_EXIT_SECONDS)
        return not self._mourner.is_alive()

    def _send(self, request: Request) -> None:
        if not self.is_ours:
            raise ServerLost("the fork server belongs to the process that this one was forked from")
        try:
            with self._sending:
                socket.send_fds(self._control, [request.to_bytes()], list(request.descriptors))
        except OSError as error:
            self.kill()  # known before its end is noticed, lest a retry meets it again
            raise ServerLost(f"the fork server takes no request: {error}") from error

    def _mourn(self) -> None:
        """Wait for the end of both processes, whichever is first, and then say so."""
        control = self._control.fileno()
        if not self._guardian.wait(hang_up=control):
            # The fork server is dead; the guardian now kills what it left.
            self._is_alive = False
            if not self._guardian.wait(_EXIT_SECONDS):
                self._guardian.send(signal.SIGKILL)
                self._guardian.wait(_EXIT_SECONDS)
        self._is_alive = False
        ended_well = self._guardian.bury()
        # If the guardian was killed the fork server ends its runs, unless it was killed, too.
        is_hung_up(control, _EXIT_SECONDS)
        if not ended_well:
            end_strays(self._family)
        with self._watching:
            _shut_down(self._watched)


class _Registry:
    """The servers of this process and how many users each has."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._servers: dict[_Key, Server] = {}
        self._users: dict[Server, int] = {}
        # The lock may be held by a thread that a fork of the caller does not have.
        os.register_at_fork(after_in_child=self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    def acquire(self, plan: _Plan, log: Path | None) -> Server:
        key: _Key = (os.getpid(), plan.start_method, plan.preload, plan.import_variables)
        with self._lock:
            server = self._servers.get(key)
            if server is None or not server.is_alive:
                server = self._servers[key] = _launch(plan, log)
            self._users[server] = self._users.get(server, 0) + 1
            return server

    def release(self, server: Server) -> None:
        with self._lock:
            self._users[server] -= 1
            if self._users[server] > 0:
                return
            del self._users[server]
            self._servers = {key: each for key, each in self._servers.items() if each is not server}
        server.stop()

    def count_users(self, server: Server) -> int:
        with self._lock:
            return self._users.get(server, 0)


_REGISTRY = _Registry()


def acquire_server(
    preload: Sequence[str] = (),
    *,
    start_method: StartMethod = "auto",
    environment: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> Server:
    """Return the process's fork server that has these modules imported; launch it if there is none.

    It imports in the background. With the start method "spawn" it imports nothing: each run is a new
    interpreter; "auto" forks on Linux and spawns elsewhere. `environment` (default: this process's) is what
    the imports see. Every call wants one `release_server`: the last one ends it. `log` counts for the first
    user only. Raises ExecutorError if no process can be started.
    """
    method = _resolve(start_method)
    modules = () if method == "spawn" else tuple(preload)
    variables = dict(os.environ if environment is None else environment)
    return _REGISTRY.acquire(_Plan(method, modules, variables), log)


def release_server(server: Server) -> None:
    """Give a server back. Blocks while the server ends, if this was its last user."""
    _REGISTRY.release(server)


def count_users(server: Server) -> int:
    """Return how many `acquire_server` calls have not been answered by a `release_server` yet."""
    return _REGISTRY.count_users(server)


def _resolve(method: StartMethod) -> Literal["fork", "spawn"]:
    match method:
        case "auto":
            # Elsewhere the system's own libraries do not survive a fork.
            return "fork" if sys.platform == "linux" else "spawn"
        case "fork" | "spawn":
            return method
        case _:
            assert_never(method)


def _launch(plan: _Plan, log: Path | None) -> Server:
    control, theirs = socket.socketpair()
    control.settimeout(_CONTROL_SECONDS)
    config = {
        "control": theirs.fileno(),
        "caller": os.getpid(),
        "start_method": plan.start_method,
        "preload": plan.preload,
    }
    family = new_family()
    try:
        with theirs, _open_log(log) as output:
            guardian = subprocess.Popen(
                interpreter_command(_GUARDIAN, config),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**plan.environment, FAMILY: family},
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
    except OSError as error:
        control.close()
        raise ExecutorError(
            f"the process that starts the runs cannot be launched: {error}"
        ) from error
    return Server(guardian, control, log, family)


@contextlib.contextmanager
def _open_log(log: Path | None) -> Iterator[int]:
    if log is None:
        yield subprocess.DEVNULL
        return
    make_directories(log.parent)
    with os.fdopen(open_log(log), "ab") as file:
        yield file.fileno()


def _shut_down(ends: Iterable[socket.socket], how: int = socket.SHUT_RDWR) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(how)
