"""Discovery of GPUs and MIG instances: the only file that imports NVML or asks it by index.

Whatever NVML does, discovery ends with the devices that can be used and a line that says what is
missing; a broken driver must not stop a search that could use the processor.
"""

# ruff: noqa: N802 (NVML names its functions)
from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, cast

from aiotune.devices.device import Card, Device, Discovery
from aiotune.devices.visible import visible

__all__ = ["Nvml", "discover"]

Handle = Any  # opaque: NVML's pointer to a card or an instance

# Where NVML's own words do not say what to do. Keys are nvmlReturn_t.
_HINTS = {
    9: "the NVIDIA driver is not loaded",
    12: "no NVIDIA driver library was found on this machine",
    18: "the driver was updated under the running kernel: restart the machine",
}


class Nvml(Protocol):
    """The part of the module `pynvml` (package nvidia-ml-py) in use."""

    @property
    def NVMLError(self) -> type[Exception]: ...
    @property
    def NVML_ERROR_NO_PERMISSION(self) -> int: ...
    @property
    def NVML_ERROR_NOT_SUPPORTED(self) -> int: ...
    @property
    def NVML_ERROR_NOT_FOUND(self) -> int: ...
    @property
    def NVML_ERROR_FUNCTION_NOT_FOUND(self) -> int: ...

    def nvmlInit(self) -> None: ...
    def nvmlShutdown(self) -> None: ...
    def nvmlDeviceGetCount(self) -> int: ...
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Handle: ...
    def nvmlDeviceGetUUID(self, handle: Handle) -> str | bytes: ...
    def nvmlDeviceGetName(self, handle: Handle) -> str | bytes: ...
    def nvmlDeviceGetMemoryInfo(self, handle: Handle) -> Any: ...
    def nvmlDeviceGetMigMode(self, handle: Handle) -> Any: ...
    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Handle) -> int: ...
    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Handle, index: int) -> Handle: ...


def discover(environment: Mapping[str, str], *, nvml: Nvml | None = None) -> Discovery:
    """Return the devices that the caller may use.

    It blocks, for seconds if the driver sleeps: call it in a thread.

    environment: the caller's; its CUDA_VISIBLE_DEVICES is obeyed. nvml: the module, unless a test
    has its own.
    """
    try:
        nvml = nvml or _load()
    except ImportError as error:
        return Discovery((), f"the package nvidia-ml-py cannot be imported: {error}")
    reader = _Reader(nvml)
    try:
        with _session(nvml):
            cards = reader.cards()
    except reader.errors as error:
        return Discovery((), f"NVML: {_reason(error)}")
    if not cards:
        return Discovery((), "; ".join(reader.problems) or "NVML finds no GPU on this machine")
    found = visible(cards, environment)
    problems = [*reader.problems, *([found.problem] if found.problem else [])]
    return Discovery(found.devices, "; ".join(problems) or None)


def _load() -> Nvml:
    import pynvml

    return cast("Nvml", pynvml)


@contextlib.contextmanager
def _session(nvml: Nvml) -> Iterator[None]:
    nvml.nvmlInit()
    try:
        yield
    finally:
        with contextlib.suppress(*_errors(nvml)):
            nvml.nvmlShutdown()


class _Reader:
    """Reads cards one by one; what is wrong with one is noted and does not touch the others."""

    def __init__(self, nvml: Nvml) -> None:
        self._nvml = nvml
        self.errors = _errors(nvml)
        self.problems: list[str] = []

    def cards(self) -> list[Card]:
        """Return the cards in NVML's order, which is that of the PCI bus."""
        cards = (self._card(index) for index in range(self._nvml.nvmlDeviceGetCount()))
        return [card for card in cards if card is not None]

    def _card(self, index: int) -> Card | None:
        """Return the card, or None if it is somebody else's, so that CUDA does not count it either.

        So it is in a job whose cgroup holds some of the machine's cards, as Slurm makes them.
        """
        nvml = self._nvml
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
        except self.errors as error:
            self._note(f"GPU {index} of nvidia-smi", error)
            if _code(error) == nvml.NVML_ERROR_NO_PERMISSION:
                return None
            return Card(None, "unknown", ())
        try:
            uuid = _text(nvml.nvmlDeviceGetUUID(handle))
            name = self._name(handle)
            if not self._is_split(handle):
                return Card(uuid, name, (Device(uuid, name, self._memory(handle)),))
            return Card(uuid, name, self._instances(handle, uuid))
        except self.errors as error:
            self._note(f"GPU {index} of nvidia-smi", error)
            return Card(None, "unknown", ())

    def _is_split(self, handle: Handle) -> bool:
        """Return whether MIG is on: then the card itself is no device, its instances are."""
        mode = self._known(self._nvml.nvmlDeviceGetMigMode, handle)
        return mode is not None and mode[0] == 1  # NVML_DEVICE_MIG_ENABLE

    def _instances(self, card: Handle, uuid: str) -> tuple[Device, ...]:
        places = range(self._nvml.nvmlDeviceGetMaxMigDeviceCount(card))
        found = (self._instance(card, place, uuid) for place in places)
        instances = tuple(device for device in found if device is not None)
        if not instances:
            self.problems.append(f"{uuid} has MIG on, but no instance: create one, or turn MIG off")
        return instances

    def _instance(self, card: Handle, place: int, uuid: str) -> Device | None:
        """Return the instance, or None if the place is empty, as most are, or cannot be read."""
        nvml = self._nvml
        try:
            handle = self._known(nvml.nvmlDeviceGetMigDeviceHandleByIndex, card, place)
            if handle is None:
                return None
            own = _text(nvml.nvmlDeviceGetUUID(handle))
            return Device(own, self._name(handle), self._memory(handle), "mig")
        except self.errors as error:
            self._note(f"a MIG instance of {uuid}", error)
            return None

    def _name(self, handle: Handle) -> str:
        name = self._known(self._nvml.nvmlDeviceGetName, handle)
        return "unknown" if name is None else _text(name)

    def _memory(self, handle: Handle) -> int | None:
        memory = self._known(self._nvml.nvmlDeviceGetMemoryInfo, handle)
        return None if memory is None else int(memory.total) or None

    def _known(self, query: Any, *arguments: Any) -> Any:
        """Return the answer of a query, or None where this card or driver has none to give."""
        nvml = self._nvml
        silent = {
            nvml.NVML_ERROR_NOT_SUPPORTED,
            nvml.NVML_ERROR_NOT_FOUND,
            nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        }
        try:
            return query(*arguments)
        except nvml.NVMLError as error:
            if _code(error) in silent:
                return None
            raise

    def _note(self, what: str, error: Exception) -> None:
        self.problems.append(f"{what} cannot be used: {_reason(error)}")


def _errors(nvml: Nvml) -> tuple[type[Exception], ...]:
    """Return what NVML and its binding raise.

    OSError: the library does not load. AttributeError: a binding that is older than the driver.
    ValueError: text that does not decode, from the stub that some containers and WSL carry.
    """
    return (nvml.NVMLError, OSError, AttributeError, ValueError)


def _code(error: Exception) -> int | None:
    return getattr(error, "value", None)


def _reason(error: Exception) -> str:
    """Return NVML's words, in one line, with a hint where they need one."""
    words = " ".join(str(error).split()) or type(error).__name__
    hint = _HINTS.get(_code(error) or 0)
    return f"{hint} ({words})" if hint else words


def _text(answer: str | bytes) -> str:
    """Old bindings answer in bytes."""
    return answer.decode() if isinstance(answer, bytes) else answer
