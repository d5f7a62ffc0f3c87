"""What the fork server does before its first fork: import, and notice if the caller dies meanwhile."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import select
import socket
import sys
import threading
from collections.abc import Sequence

from aiotune.executors.system import HANG_UP
from aiotune.executors.wire import Frame

__all__ = ["ImportGuard", "close_nvml", "import_modules"]

# The extra of aiotune that brings a module.
_EXTRAS = {
    "keras": "tensorflow",
    "tensorflow": "tensorflow",
    "jax": "jax",
    "torch": "torch",
    "sklearn": "sklearn",
}
# What a framework imports when it is first used: PyTorch for any optimizer, TensorFlow for `tf.keras`.
_COMPANIONS = {"torch": "torch._dynamo", "tensorflow": "keras"}
_NVML = "libnvidia-ml.so.1"
_MOST_OPENINGS = 1000


class ImportGuard:
    """Ends this process if the caller goes while the frameworks are imported, which takes many seconds.

    A thread, for that time only: it is gone before the first fork.
    """

    def __init__(self, control: socket.socket, caller: int | None) -> None:
        self._reader, self._writer = os.pipe()
        self._poll = select.poll()
        self._poll.register(self._reader, select.POLLIN)
        self._poll.register(control, HANG_UP)
        if caller is not None:
            self._poll.register(caller, select.POLLIN)
        self._thread = threading.Thread(target=self._wait, name="aiotune-guard", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        os.write(self._writer, b".")
        self._thread.join()
        os.close(self._reader)
        os.close(self._writer)

    def _wait(self) -> None:
        ready = [fd for fd, _ in self._poll.poll()]
        if self._reader not in ready:
            os._exit(0)


def import_modules(modules: Sequence[str]) -> Frame | None:
    """Import the modules; return what to answer to every request if that fails."""
    _keep_driver_asleep()
    for name in modules:
        try:
            importlib.import_module(name)
            _import_companion(name)
        except BaseException as error:
            sys.excepthook(*sys.exc_info())
            return _refusal(name, error)
    close_nvml()
    return None


def _keep_driver_asleep() -> None:
    """Set what keeps PyTorch from starting the CUDA driver here, which no fork survives.

    Keras asks PyTorch for GPUs when it is imported. The runs ask again, on the driver, each in its own world.
    """
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    if os.environ.get("CUDA_VISIBLE_DEVICES", "").startswith("MIG-"):
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # that check would leave them to the driver


def close_nvml() -> None:
    """Close the driver's management library as often as it was opened here: PyTorch's check never does.

    It holds device files open, and a run closes every descriptor that is not its own: there the library would
    go on with numbers that stand for other files. Closed, it is opened anew by whoever needs it.
    """
    if sys.platform != "linux":
        return
    try:
        library = ctypes.CDLL(_NVML, mode=os.RTLD_NOLOAD)
    except OSError:  # nobody has loaded it
        return
    for _ in range(_MOST_OPENINGS):
        if library.nvmlShutdown() != 0:  # it is closed now
            break


def _import_companion(name: str) -> None:
    if name in _COMPANIONS:
        with contextlib.suppress(Exception):  # a run that needs it will tell
            importlib.import_module(_COMPANIONS[name])


def _refusal(name: str, error: BaseException) -> Frame:
    missing = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if missing in _EXTRAS:
        text = (
            f"{name} needs {missing}, which is not installed: "
            f'pip install "aiotune[{_EXTRAS[missing]}]"'
        )
    else:
        text = f"the module {name!r} cannot be imported before the runs: {type(error).__name__}: {error}"
    return {"refused": text, "is_missing": missing in _EXTRAS}
