"""Opening the pool: look at the machine, obey the user, say in one log line what was found."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import anyio.to_thread

from aiotune.devices.device import Device, Discovery
from aiotune.devices.host import Host, read_host
from aiotune.devices.ledger import Ledger, shared_ledger
from aiotune.devices.nvml import Nvml, discover
from aiotune.devices.offer import gibibytes
from aiotune.devices.pool import DevicePool
from aiotune.devices.run_memory import RUN_MEMORY_BYTES
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
    in_caller: bool = False,
    ledger: Ledger | None = None,
) -> DevicePool:
    """Return a pool of what this machine has; it looks in a thread, for drivers can be slow.

    It shares the machine with the other pools of this process.

    gpus: "auto": those that may be used; "require": the same, DeviceError if there are none; 0:
    none; a list of UUIDs, or of beginnings that only one UUID has: these, DeviceError if one is not
    there. max_concurrent: the most leases at a time. None: one for each GPU; without GPUs, as many
    as cores, CPU quota and memory allow. environment: whose CUDA_VISIBLE_DEVICES holds; None: this
    process's. nvml, root: stand-ins for the driver and the file system. in_caller: runs are performed
    in this process, so that they have no cores and no memory of their own: a lease counts them, and
    holds GPUs. ledger: where leases are kept; None: this process's.
    """
    _check(gpus, max_concurrent)
    environment = dict(os.environ) if environment is None else environment
    look = partial(_look, gpus, environment, nvml, root)
    discovery, host = await anyio.to_thread.run_sync(look, abandon_on_cancel=True)
    devices = _chosen(discovery, gpus)
    bounds = _bounds(len(devices), host, max_concurrent, in_caller)
    pool = DevicePool(
        devices,
        cores=host.cores,
        slots=bounds.slots,
        # Of all GPUs, chosen or not: two searches on a half of them each do not want all cores each.
        shares=max(bounds.slots, len(discovery.devices)) if devices else None,
        has_own_cores=not in_caller,
        memory_bytes=bounds.memory_bytes,
        problem=discovery.problem,
        ledger=shared_ledger() if ledger is None else ledger,
    )
    _log(devices, discovery.problem, host, pool.slots, bounds)
    return pool


@dataclass(frozen=True, slots=True)
class _Bounds:
    """What bounds the slots. `reason` is for the log."""

    slots: int
    reason: str
    memory_bytes: int | None = None  # None: memory does not


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


def _bounds(gpus: int, host: Host, max_concurrent: int | None, in_caller: bool) -> _Bounds:
    most = max_concurrent
    if most is not None and (not gpus or most <= gpus):
        return _Bounds(most, "max_concurrent_trials")
    if gpus:
        return _Bounds(gpus, "the GPUs")
    is_quota = host.slots < len(host.cores)
    reason = f"the CPU quota of {host.quota_cores:g} cores" if is_quota else "the cores"
    return _Bounds(host.slots, reason, None if in_caller else host.memory_bytes)


def _log(
    devices: Sequence[Device], problem: str | None, host: Host, slots: int, bounds: _Bounds
) -> None:
    """One line. It is a warning where GPUs are in use and something is wrong with others."""
    names = Counter(device.name for device in devices)
    found = ", ".join(f"{number} x {name}" for name, number in names.items()) or "no GPU"
    why = f" ({problem})" if problem else ""
    reason = bounds.reason
    if bounds.memory_bytes is not None and slots < bounds.slots:
        reason = (
            f"memory ({gibibytes(bounds.memory_bytes)} are available, and a run counts "
            f"{gibibytes(RUN_MEMORY_BYTES)} until one is measured)"
        )
    level = logging.WARNING if devices and problem else logging.INFO
    number = "1 slot" if slots == 1 else f"{slots} slots"
    logger.log(
        level, "%s%s, %d cores: %s, bounded by %s", found, why, len(host.cores), number, reason
    )
