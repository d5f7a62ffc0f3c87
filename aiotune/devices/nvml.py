"""NVML: the module that talks to it, a session with it, and its errors. Nobody else imports it."""

# ruff: noqa: N802 (NVML names its functions)
from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, Protocol, TypeVar, cast

__all__ = ["Asker", "Handle", "Nvml", "code", "errors", "load", "reason", "session", "text"]

logger = logging.getLogger("aiotune.devices")

P = ParamSpec("P")
T = TypeVar("T")

Handle = Any  # opaque: NVML's pointer to a card or an instance

# Keys and members are nvmlReturn_t.
_ABSENT = {  # this card or driver has no such thing
    3,  # NOT_SUPPORTED
    6,  # NOT_FOUND
    13,  # FUNCTION_NOT_FOUND
}
_BROKEN = {  # whatever was asked: the card cannot be used, or the driver, or the session
    1,  # UNINITIALIZED
    9,  # DRIVER_NOT_LOADED
    12,  # LIBRARY_NOT_FOUND
    15,  # GPU_IS_LOST
    16,  # RESET_REQUIRED
    18,  # LIB_RM_VERSION_MISMATCH
    28,  # GPU_NOT_FOUND
}
# Where NVML's own words do not say what to do.
_HINTS = {
    9: "the NVIDIA driver is not loaded",
    12: "no NVIDIA driver library was found on this machine",
    13: "the NVIDIA driver's library lacks what is needed: it is a stub, or very old",
    15: "the GPU has fallen off the bus, or was taken away",
    16: "the GPU has to be reset: nvidia-smi --gpu-reset, or restart the machine",
    18: "the driver was updated under the running kernel: restart the machine",
}


class Nvml(Protocol):
    """The part of the module `pynvml` (package nvidia-ml-py) in use."""

    @property
    def NVMLError(self) -> type[Exception]: ...
    @property
    def NVML_ERROR_NO_PERMISSION(self) -> int: ...
    @property
    def nvmlMemory_v2(self) -> int: ...

    def nvmlInit(self) -> None: ...
    def nvmlShutdown(self) -> None: ...
    def nvmlDeviceGetCount(self) -> int: ...
    def nvmlDeviceGetHandleByIndex(self, index: int, /) -> Handle: ...
    def nvmlDeviceGetHandleByUUID(self, uuid: str, /) -> Handle: ...
    def nvmlDeviceGetUUID(self, handle: Handle, /) -> str | bytes: ...
    def nvmlDeviceGetName(self, handle: Handle, /) -> str | bytes: ...
    def nvmlDeviceGetMemoryInfo(self, handle: Handle, version: int | None = None, /) -> Any: ...
    def nvmlDeviceGetTotalEccErrors(self, handle: Handle, kind: int, counter: int, /) -> int: ...
    def nvmlDeviceGetRemappedRows(self, handle: Handle, /) -> Any: ...
    def nvmlDeviceGetFieldValues(self, handle: Handle, fields: list[int], /) -> Any: ...
    def nvmlDeviceGetMigMode(self, handle: Handle, /) -> Any: ...
    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Handle, /) -> int: ...
    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Handle, index: int, /) -> Handle: ...
    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, handle: Handle, /) -> Handle: ...
    def nvmlDeviceGetGpuInstanceId(self, handle: Handle, /) -> int: ...
    def nvmlDeviceGetTopologyCommonAncestor(self, one: Handle, other: Handle, /) -> int: ...
    def nvmlDeviceGetP2PStatus(self, one: Handle, other: Handle, capability: int, /) -> int: ...
    def nvmlDeviceGetComputeRunningProcesses_v3(self, handle: Handle, /) -> Any: ...
    def nvmlDeviceGetComputeRunningProcesses_v2(self, handle: Handle, /) -> Any: ...
    def nvmlDeviceGetGraphicsRunningProcesses_v3(self, handle: Handle, /) -> Any: ...
    def nvmlDeviceGetGraphicsRunningProcesses_v2(self, handle: Handle, /) -> Any: ...
    def nvmlDeviceGetUtilizationRates(self, handle: Handle, /) -> Any: ...
    def nvmlDeviceGetPowerUsage(self, handle: Handle, /) -> int: ...
    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Handle, /) -> int: ...
    def nvmlEventSetCreate(self) -> Any: ...
    def nvmlEventSetFree(self, events: Any, /) -> None: ...
    def nvmlDeviceRegisterEvents(self, handle: Handle, kinds: int, events: Any, /) -> None: ...
    def nvmlEventSetWait_v2(self, events: Any, milliseconds: int, /) -> Any: ...


def load() -> Nvml:
    """Return the real module. ImportError: it is not there, or broken."""
    import pynvml

    return cast("Nvml", pynvml)


@contextlib.contextmanager
def session(nvml: Nvml) -> Iterator[None]:
    """Hold NVML open. It raises what `errors` names; closing raises nothing."""
    nvml.nvmlInit()
    try:
        yield
    finally:
        with contextlib.suppress(*errors(nvml)):
            nvml.nvmlShutdown()


class Asker:
    """Asks NVML, and tells what has no answer here from what a fault keeps from being answered."""

    def __init__(self, nvml: Nvml) -> None:
        self.nvml = nvml
        self.errors = errors(nvml)
        self._told: set[tuple[str, int | None]] = set()

    def known(self, query: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T | None:
        """Return the answer, or None where this card or driver has no such thing.

        Every other error is raised: for what a device cannot be used without.
        """
        try:
            return query(*arguments, **options)
        except self.nvml.NVMLError as error:
            if self.is_absent(error):
                return None
            raise

    def is_absent(self, error: Exception) -> bool:
        """Return whether an error says that this card or driver has no such thing."""
        return code(error) in _ABSENT

    def optional(self, query: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T | None:
        """Return the answer, or None if there is none, for whatever reason.

        Only what says that the card cannot be used, or the driver, is raised: for figures that are
        good to have. Laptops, for one, answer "unknown error" to the question for power.
        """
        try:
            return query(*arguments, **options)
        except self.errors as error:
            if code(error) in _BROKEN:
                raise
            self._tell(getattr(query, "__name__", "a query"), error)
            return None

    def _tell(self, name: str, error: Exception) -> None:
        """Log why something is not known, once; that the card or driver has no such thing is no news."""
        if self.is_absent(error) or (name, code(error)) in self._told:
            return
        self._told.add((name, code(error)))
        logger.debug("%s has no answer: %s", name, reason(error))


def errors(nvml: Nvml) -> tuple[type[Exception], ...]:
    """Return what NVML and its binding raise.

    OSError: the library does not load. AttributeError: a binding that is older than the driver.
    ValueError: text that does not decode, from the stub that some containers and WSL carry.
    """
    return (nvml.NVMLError, OSError, AttributeError, ValueError)


def code(error: Exception | None) -> int | None:
    """Return the nvmlReturn_t of an error; None if it is none of NVML's, or there is none."""
    return getattr(error, "value", None)


def reason(error: Exception) -> str:
    """Return NVML's words, in one line, with a hint where they need one."""
    try:
        words = " ".join(str(error).split()) or type(error).__name__
    except ValueError:  # NVML is asked for the words, and a stub's may not decode
        words = f"error {code(error)}"
    hint = _HINTS.get(code(error) or 0)
    return f"{hint} ({words})" if hint else words


def text(answer: str | bytes) -> str:
    """Return an answer as text: old bindings answer in bytes."""
    return answer.decode() if isinstance(answer, bytes) else answer
