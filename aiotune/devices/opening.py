"""Opening the pool: look at the machine, obey the user, say in one log line what was found."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import anyio.to_thread

from aiotune.devices.device import Device, Discovery
from aiotune.devices.host import Host, read_host
from aiotune.devices.nvml import Nvml, discover
from aiotune.devices.pool import DevicePool
from aiotune.errors import DeviceError, FatalTypeError, FatalValueError

__all__ = ["GpuChoice", "open_pool"]

logger = logging.getLogger("aiotune.devices")

GpuChoice = Literal["auto", "require", 0] | Sequence[str]


async def open_pool(
    *,
    gpus: GpuChoice = "auto",
    max_concurrent: int | None = None,
    environment: Mapping[str, str] | None = None,
    nvml: Nvml | None = None,
    root: Path = Path("/"),
) -> DevicePool:
    """Return a pool of what this machine has; it looks in a thread, for drivers can be slow.

    gpus: "auto": those that may be used; "require": the same, DeviceError if there are none; 0:
    none; a list of UUIDs, or of beginnings that only one UUID has: these, DeviceError if one is not
    there. max_concurrent: the most leases at a time. None: one for each GPU; without GPUs, as many
    as cores, CPU quota and memory allow. environment: whose CUDA_VISIBLE_DEVICES holds; None: this
    process's. nvml, root: stand-ins for the driver and the file system.
    """
    _check(gpus, max_concurrent)
    environment = dict(os.environ) if environment is None else environment
    look = partial(_look, gpus, environment, nvml, root)
    discovery, host = await anyio.to_thread.run_sync(look, abandon_on_cancel=True)
    devices = _chosen(discovery, gpus)
    slots = _slots(len(devices), host, max_concurrent)
    _log(devices, discovery.problem, host, slots)
    return DevicePool(devices, cores=host.cores, slots=slots, problem=discovery.problem)


def _check(gpus: object, max_concurrent: int | None) -> None:
    """FatalTypeError, FatalValueError: the words of the message are for the user of a tuner."""
    match gpus:
        case "auto" | "require":
            pass
        case int() if gpus == 0 and not isinstance(gpus, bool):
            pass
        case [] | ():
            raise FatalValueError("gpus=[]: to use none, write gpus=0")
        case list() | tuple() if all(isinstance(each, str) and each for each in gpus):
            pass
        case _:
            raise FatalValueError(
                f'gpus={gpus!r}: write "auto", "require", 0, or a list of UUIDs. '
                "How many GPUs one run gets is Resources(gpus=...)"
            )
    if max_concurrent is None:
        return
    if isinstance(max_concurrent, bool) or not isinstance(max_concurrent, int):
        raise FatalTypeError(f"max_concurrent_trials={max_concurrent!r}: a whole number is needed")
    if max_concurrent < 1:
        raise FatalValueError(f"max_concurrent_trials={max_concurrent}: it must be 1 or more")


def _look(
    gpus: GpuChoice, environment: Mapping[str, str], nvml: Nvml | None, root: Path
) -> tuple[Discovery, Host]:
    """Blocks. NVML is not touched if no GPU is wanted."""
    if gpus == 0:
        return Discovery((), "gpus=0"), read_host(root)
    return discover(environment, nvml=nvml), read_host(root)


def _chosen(discovery: Discovery, gpus: GpuChoice) -> tuple[Device, ...]:
    devices = discovery.devices
    if gpus == "require" and not devices:
        raise DeviceError(f'gpus="require", but no GPU can be used: {discovery.problem}')
    if isinstance(gpus, str | int):
        return devices
    chosen = tuple(_named(prefix, discovery) for prefix in gpus)
    twice = [device.uuid for device, number in Counter(chosen).items() if number > 1]
    if twice:
        raise FatalValueError(f"gpus={list(gpus)!r} names {twice[0]} twice")
    return chosen


def _named(prefix: str, discovery: Discovery) -> Device:
    matches = [device for device in discovery.devices if device.uuid.startswith(prefix)]
    if len(matches) == 1:
        return matches[0]
    known = ", ".join(device.uuid for device in discovery.devices) or "none"
    why = f" ({discovery.problem})" if discovery.problem else ""
    fault = "names several GPUs" if matches else "is no GPU that may be used"
    raise DeviceError(f"gpus=[...]: {prefix!r} {fault}; there are: {known}{why}")


def _slots(gpus: int, host: Host, max_concurrent: int | None) -> int:
    if gpus:
        return gpus if max_concurrent is None else min(max_concurrent, gpus)
    return host.slots if max_concurrent is None else max_concurrent


def _log(devices: Sequence[Device], problem: str | None, host: Host, slots: int) -> None:
    """One line. It is a warning where GPUs are in use and something is wrong with others."""
    names = Counter(device.name for device in devices)
    found = ", ".join(f"{number} x {name}" for name, number in names.items()) or "no GPU"
    why = f" ({problem})" if problem else ""
    level = logging.WARNING if devices and problem else logging.INFO
    logger.log(level, "%s%s, %d cores: %d slots", found, why, len(host.cores), slots)
