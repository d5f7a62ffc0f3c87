"""Fork servers as the caller sees them: launched on demand, shared by its searches, ended with the last.

Everything here is thread-safe and bound to no event loop, blocks for milliseconds at most unless it says
otherwise, and installs no signal handler.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from aiotune.errors import ExecutorError
from aiotune.executors.forkserver import END, REQUEST, RUN

__all__ = ["Server", "ServerLost", "acquire_server", "release_server"]

_CONTROL_SECONDS = 5.0  # a server that takes no request for so long is broken
_EXIT_SECONDS = 5.0  # for a server to end by itself
_ENTRY = (
    "import json, sys; config = json.loads(sys.argv.pop()); sys.path[:] = config['sys_path'];"
    "from aiotune.executors.forkserver import main; main(config)"
)
# Variables by whose values an import may differ: another value needs another server.
_IMPORT_PREFIXES = (
    *("PYTHON", "KERAS_", "TF_", "XLA_", "JAX_", "TORCH", "PYTORCH_", "CUDA_", "NVIDIA_", "HIP_"),
    *("OMP_", "MKL_", "OPENBLAS_", "NUMEXPR_", "LD_"),
)

_Key = tuple[object, ...]


class ServerLost(Exception):
    """The fork server has died; another one can be launched."""


class Server:
    """A fork server that is running, or was. `log` has what it printed, if it was given one."""

    def __init__(
        self, process: subprocess.Popen[bytes], control: socket.socket, log: Path | None
    ) -> None:
        self.log = log
        self.is_warm = False  # it has answered a request: its imports are done
        self._process = process
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
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._is_alive

    def run(self, *, facts: socket.socket, status: socket.socket, payload_fd: int) -> int:
        """Ask for a run and return its number. The caller closes its copies of the two sockets.

        The answer comes on `status`, once the server has imported what it imports. Raises ServerLost.
        """
        number = next(self._numbers)
        self._send(RUN, number, 0, (facts.fileno(), status.fileno(), payload_fd))
        return number

    def end(self, number: int, delay_seconds: float) -> None:
        """Have a run ended by SIGTERM after the delay and SIGKILL 0.5 s later; without delay by SIGKILL.

        The soonest of several requests holds. Nothing happens if the run, or the server, is gone.
        """
        with contextlib.suppress(ServerLost):
            self._send(END, number, min(round(delay_seconds * 1000), 2**32 - 1), ())

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
        """End the server by force; its children die with it. It counts as dead from now on."""
        self._process.kill()
        self._is_alive = False

    def stop(self) -> None:
        """Let the server end its runs and itself. Blocks until it is gone, 10 s at most."""
        # Shut down, not only closed: another fork of the caller may hold a copy.
        _shut_down((self._control,))
        self._mourner.join(_EXIT_SECONDS)
        if self._mourner.is_alive():
            self.kill()
            self._mourner.join(_EXIT_SECONDS)
        self._control.close()

    def _send(self, what: int, number: int, milliseconds: int, fds: Sequence[int]) -> None:
        request = REQUEST.pack(what, number, milliseconds)
        try:
            with self._sending:
                socket.send_fds(self._control, [request], list(fds))
        except OSError as error:
            self.kill()  # known before its end is noticed, lest a retry meets it again
            raise ServerLost(f"the fork server takes no request: {error}") from error

    def _mourn(self) -> None:
        self._process.wait()
        with self._watching:
            self._is_alive = False
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

    def acquire(
        self, preload: tuple[str, ...], environment: Mapping[str, str], log: Path | None
    ) -> Server:
        key: _Key = (os.getpid(), preload, _import_variables(environment))
        with self._lock:
            server = self._servers.get(key)
            if server is None or not server.is_alive:
                server = self._servers[key] = _launch(preload, environment, log)
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


_REGISTRY = _Registry()


def acquire_server(
    preload: Sequence[str] = (),
    *,
    environment: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> Server:
    """Return the process's fork server that has these modules imported; launch it if there is none.

    It imports in the background. `environment` (default: this process's) is what the imports see. Every call
    wants one `release_server`: the last one ends it. `log` counts for the first user only. Raises
    ExecutorError if no process can be started.
    """
    variables = dict(os.environ if environment is None else environment)
    return _REGISTRY.acquire(tuple(preload), variables, log)


def release_server(server: Server) -> None:
    """Give a server back. Blocks while the server ends, if this was its last user."""
    _REGISTRY.release(server)


def _launch(preload: Sequence[str], environment: Mapping[str, str], log: Path | None) -> Server:
    control, theirs = socket.socketpair()
    control.settimeout(_CONTROL_SECONDS)
    config = {
        "control": theirs.fileno(),
        "caller": os.getpid(),
        "preload": list(preload),
        "sys_path": [str(entry) for entry in sys.path],
    }
    try:
        with theirs, _open_log(log) as output:
            process = subprocess.Popen(
                [sys.executable or "python3", "-c", _ENTRY, json.dumps(config)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
    except OSError as error:
        control.close()
        raise ExecutorError(
            f"the process that starts the runs cannot be launched: {error}"
        ) from error
    return Server(process, control, log)


@contextlib.contextmanager
def _open_log(log: Path | None) -> Iterator[int]:
    if log is None:
        yield subprocess.DEVNULL
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        yield file.fileno()


def _import_variables(environment: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    return frozenset(
        (name, value) for name, value in environment.items() if name.startswith(_IMPORT_PREFIXES)
    )


def _shut_down(ends: Iterable[socket.socket]) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
