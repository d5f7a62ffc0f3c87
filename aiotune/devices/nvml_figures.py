"""What NVML tells of one device: memory, processes, use, power, and whether it can be trusted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiotune.devices.device import Process
from aiotune.devices.nvml import Asker, Handle, code

__all__ = ["Memory", "card_fault", "energy", "power", "processes", "read_memory", "utilisation"]

_NOT_SUPPORTED = 3  # NVML_ERROR_NOT_SUPPORTED
_UNCORRECTED = 1  # NVML_MEMORY_ERROR_TYPE_UNCORRECTED
_VOLATILE = 0  # NVML_VOLATILE_ECC: since the driver was loaded
_RECOVERY_ACTION = 230  # NVML_FI_DEV_GET_GPU_RECOVERY_ACTION
_RESET = "the GPU has to be reset: nvidia-smi --gpu-reset, or restart the machine"
_RESTART = "the machine has to be restarted"
# NVML_GPU_RECOVERY_ACTION_*. Those that are absent concern the traffic between cards or machines only.
_RECOVERIES = {1: _RESET, 2: _RESTART, 4: _RESET, 6: _RESET, 7: _RESTART}


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of a device. None: not known. `is_unified`: it is the machine's own."""

    total_bytes: int | None = None
    used_bytes: int | None = None  # with what is reserved
    reserved_bytes: int | None = None  # by the driver, for itself
    is_unified: bool = False


def read_memory(asker: Asker, handle: Handle, root: Path) -> Memory:
    """Return the memory figures: by version 2 of the question, else version 1, else the machine's.

    Parts that share the machine's memory (GB10, Jetson) have none of their own, and the driver then
    does not support the question. root: where `proc` is found.
    """
    nvml = asker.nvml
    detailed = asker.optional(nvml.nvmlDeviceGetMemoryInfo, handle, nvml.nvmlMemory_v2)
    if detailed is not None and detailed.total:
        # Whether its `used` counts what is reserved is told in both ways; that it is not free is sure.
        used = int(detailed.total) - int(detailed.free)
        return Memory(int(detailed.total), used, int(detailed.reserved))
    try:
        plain = nvml.nvmlDeviceGetMemoryInfo(handle)
    except nvml.NVMLError as error:
        if code(error) == _NOT_SUPPORTED:
            return _unified_memory(root)
        if asker.is_absent(error):
            return Memory()
        raise
    return Memory(int(plain.total), int(plain.used)) if plain.total else _unified_memory(root)


def _unified_memory(root: Path) -> Memory:
    """Return the machine's memory, as far as it can be read.

    What is used of it is not said: it is mostly no device's, but ordinary memory of programs.
    """
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except (OSError, ValueError):
        return Memory()
    for line in lines:
        match line.split():
            case ["MemTotal:", kibibytes, *_] if kibibytes.isdigit():
                return Memory(int(kibibytes) * 1024 or None, is_unified=True)
    return Memory()


def card_fault(asker: Asker, card: Handle) -> str | None:
    """Return why a card (not an instance of it) cannot be trusted, though it answers.

    These are the conditions for which NVIDIA's own health check (DCGM) fails a card.
    """
    nvml = asker.nvml
    broken = asker.optional(nvml.nvmlDeviceGetTotalEccErrors, card, _UNCORRECTED, _VOLATILE)
    if broken:
        return f"memory errors that could not be corrected ({broken} since the driver started); {_RESET}"
    rows = asker.optional(nvml.nvmlDeviceGetRemappedRows, card)
    if rows is not None and rows[3]:
        return "broken memory that could not be replaced by spare rows; the card is to be exchanged"
    return _recovery(asker, card)


def _recovery(asker: Asker, card: Handle) -> str | None:
    """Return what the driver wants done after an error (an Xid); older drivers do not tell."""
    answer = asker.optional(asker.nvml.nvmlDeviceGetFieldValues, card, [_RECOVERY_ACTION])
    if answer is None or answer[0].nvmlReturn != 0:
        return None
    return _RECOVERIES.get(answer[0].value.uiVal)


def processes(asker: Asker, handle: Handle) -> tuple[Process, ...]:
    """Return the processes on a device, by pid; none where the driver does not tell."""
    nvml = asker.nvml
    computing = _listed(
        asker,
        nvml.nvmlDeviceGetComputeRunningProcesses_v3,
        nvml.nvmlDeviceGetComputeRunningProcesses_v2,
        handle,
    )
    drawing = _listed(
        asker,
        nvml.nvmlDeviceGetGraphicsRunningProcesses_v3,
        nvml.nvmlDeviceGetGraphicsRunningProcesses_v2,
        handle,
    )
    found = {each.pid: _process(each, is_graphics=True) for each in drawing}
    found |= {
        each.pid: _process(each, is_graphics=False) for each in computing
    }  # both: it computes
    return tuple(found[pid] for pid in sorted(found))


def _listed(asker: Asker, query: Any, older: Any, handle: Handle) -> Iterable[Any]:
    answer = asker.optional(query, handle)
    return (asker.optional(older, handle) if answer is None else answer) or ()


def _process(answer: Any, *, is_graphics: bool) -> Process:
    memory = answer.usedGpuMemory
    return Process(int(answer.pid), None if memory is None else int(memory), is_graphics)


def utilisation(asker: Asker, handle: Handle) -> float | None:
    """Return in which part of the last moments the device computed, 0 to 1."""
    rates = asker.optional(asker.nvml.nvmlDeviceGetUtilizationRates, handle)
    return None if rates is None else min(1.0, rates.gpu / 100)


def power(asker: Asker, handle: Handle) -> float | None:
    """Return what the device takes, in watts."""
    milliwatts = asker.optional(asker.nvml.nvmlDeviceGetPowerUsage, handle)
    return None if milliwatts is None else milliwatts / 1000


def energy(asker: Asker, handle: Handle) -> float | None:
    """Return what the device has taken since the driver was loaded, in joules."""
    millijoules = asker.optional(asker.nvml.nvmlDeviceGetTotalEnergyConsumption, handle)
    return None if millijoules is None else millijoules / 1000
