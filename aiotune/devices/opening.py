"""Opening the pool: look at the machine, obey the user, say in one log line what was found."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from aiotune.clock import Clock, SystemClock
from aiotune.devices.condition import Rules
from aiotune.devices.device import Device, Discovery
from aiotune.devices.host import Host, read_host
from aiotune.devices.ledger import Ledger, shared_ledger
from aiotune.devices.locks import LEASED, open_locks
from aiotune.devices.meter import Meter
from aiotune.devices.nvml import Nvml
from aiotune.devices.nvml_discovery import discover
from aiotune.devices.nvml_readings import Sensor
from aiotune.devices.offer import gibibytes
from aiotune.devices.pool import DevicePool
from aiotune.devices.run_memory import RUN_MEMORY_BYTES
from aiotune.devices.slots import Slots, slots_of
from aiotune.devices.watch import Watch
from aiotune.errors import DeviceError, FatalTypeError, FatalValueError
from aiotune.own_thread import OwnThread
from aiotune.resources import Resources

__all__ = ["GpuChoice", "open_pool"]

logger = logging.getLogger("aiotune.devices")

# With a driver whose answer nobody wants any more; then its thread is left alone.
_PATIENCE_SECONDS = 1.0

GpuChoice = Literal["auto", "require", 0] | Sequence[str]


async def open_pool(
    *,
    gpus: GpuChoice = "auto",
    max_concurrent: int | None = None,
    resources: Resources | None = None,
    priority: int = 0,
    busy_gpus: Literal["skip", "use"] = "skip",
    environment: Mapping[str, str] | None = None,
    nvml: Nvml | None = None,
    root: Path = Path("/"),
    in_caller: bool = False,
    ledger: Ledger | None = None,
    clock: Clock | None = None,
) -> DevicePool:
    """Return a pool of what this machine has; it looks in a thread, for drivers can be slow, or hang.

    It shares the machine with the other pools of this process.

    gpus: "auto": those that may be used; "require": the same, DeviceError if there are none; 0:
    none; a list of UUIDs, or of beginnings that only one UUID has: these, DeviceError if one is not
    there. max_concurrent: the most leases at a time. None: one for each GPU, or as many as may share
    them, a core each; without GPUs, as many as cores, CPU quota and memory allow. resources: what each
    lease will be of; None: each of something else. priority: of the pools of this process that wait, the
    one with the highest comes first. busy_gpus: "skip": while the pool is tended, cards whose memory others use
    are left alone, and those that runs keep busy are not shared further. environment: whose
    CUDA_VISIBLE_DEVICES holds; None: this process's. nvml, root: stand-ins for the driver and the file
    system. in_caller: runs are performed in this process, so that they have no cores and no memory of their
    own: a lease counts them, and holds GPUs. ledger: where leases are kept; None: this process's. clock: for
    the watch over the devices.
    """
    _check(gpus, max_concurrent)
    if in_caller and resources is not None and resources.memory is not None:
        raise FatalValueError(
            f"Resources(memory={resources.memory!r}) has no effect on runs in this process "
            '(an async run_trial, executor="inline"): drop it'
        )
    environment = dict(os.environ) if environment is None else environment
    look = partial(_look, gpus, environment, nvml, root)
    clock = clock or SystemClock()
    looking = OwnThread(look, name="aiotune-devices")
    discovery, host = await looking.result(clock, patience_seconds=_PATIENCE_SECONDS)
    devices = _chosen(discovery, gpus)
    slots = slots_of(devices, host, asked=max_concurrent, resources=resources, in_caller=in_caller)
    ledger = shared_ledger() if ledger is None else ledger
    if devices:
        _share(ledger)
    run_bytes = None if resources is None else resources.memory_bytes
    meter = Meter()
    watch = Watch(
        [device.uuid for device in devices],
        ledger,
        Sensor(nvml, root=root),
        clock=clock,
        rules=Rules(
            skips_busy=busy_gpus == "skip",
            judges_memory=not in_caller and not environment.get(LEASED),
        ),
        meter=meter,
    )
    pool = DevicePool(
        devices,
        cores=host.cores,
        slots=slots.start,
        shared_slots=slots.most,
        # Of all GPUs, chosen or not: two searches on a half of them each do not want all cores each.
        shares=max(slots.whole, len(discovery.devices)) if devices else None,
        priority=priority,
        has_own_cores=not in_caller,
        memory_bytes=None if in_caller else host.memory_bytes,
        bounds_all=slots.memory_bytes is not None,
        run_bytes=run_bytes,
        total_memory_bytes=host.total_memory_bytes,
        problem=discovery.problem,
        ledger=ledger,
        watch=watch,
        meter=meter,
    )
    _log(devices, discovery.problem, host, pool.slots, slots, run_bytes)
    return pool


def _share(ledger: Ledger) -> None:
    """Have the ledger take the locks by which processes share the cards of this machine."""
    with ledger.lock:
        if ledger.locks is None:
            ledger.locks = open_locks(os.environ)


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
    return discover(environment, nvml=nvml, root=root), read_host(root)


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


def _log(
    devices: Sequence[Device],
    problem: str | None,
    host: Host,
    slots: int,
    bounds: Slots,
    run_bytes: int | None,
) -> None:
    """One line. It is a warning where GPUs are in use and something is wrong with others."""
    names = Counter(device.name for device in devices)
    found = ", ".join(f"{number} x {name}" for name, number in names.items()) or "no GPU"
    why = f" ({problem})" if problem else ""
    reason = bounds.reason
    if bounds.memory_bytes is not None and slots < bounds.start:
        counts = (
            f"{gibibytes(RUN_MEMORY_BYTES)} until one is measured"
            if run_bytes is None
            else gibibytes(run_bytes)
        )
        reason = (
            f"memory ({gibibytes(bounds.memory_bytes)} are available, and a run counts {counts})"
        )
    level = logging.WARNING if devices and problem else logging.INFO
    number = "1 slot" if slots == 1 else f"{slots} slots"
    logger.log(
        level, "%s%s, %d cores: %s, bounded by %s", found, why, len(host.cores), number, reason
    )
