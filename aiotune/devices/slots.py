"""How many runs there may be at a time, and what bounds that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aiotune.devices.device import Device
from aiotune.devices.host import Host
from aiotune.devices.parts import Share, runs_on, share_of
from aiotune.devices.placement import size_of
from aiotune.resources import Resources

__all__ = ["Slots", "slots_of"]

_ASKED = "max_concurrent_trials"


@dataclass(frozen=True, slots=True)
class Slots:
    """How many runs there may be at a time.

    whole: those that have GPUs for themselves, or none. most: those that share GPUs, if there may be any.
    start: how many are counted on before it is known what runs ask for. reason: what bounds them, for the
    log. memory_bytes: what the runs may have of the machine; None: that does not bound them.
    """

    whole: int
    most: int
    start: int
    reason: str
    memory_bytes: int | None = None


def slots_of(
    devices: Sequence[Device],
    host: Host,
    *,
    asked: int | None,
    resources: Resources | None,
    in_caller: bool,
) -> Slots:
    """Return the slots of a pool with these GPUs.

    asked: what the user says; None: nothing. resources: what each run needs; None: each something else.
    in_caller: runs are in this process.
    """
    if not devices:
        if asked is not None:
            return Slots(asked, asked, asked, _ASKED)
        memory_bytes = None if in_caller else host.memory_bytes
        return Slots(host.slots, host.slots, host.slots, _processor(host), memory_bytes)
    number = len(devices)
    whole = number if asked is None else min(asked, number)
    reason = "the GPUs" if asked is None or asked > number else _ASKED
    most = max(number, host.slots) if asked is None else asked
    share = None if resources is None else share_of(resources)
    if share is not None:
        return _shared(devices, share, host, whole=whole, most=most, is_asked=asked is not None)
    if resources is None:
        # Some may share, and some may not: for these, cores must not be divided into more parts than there are.
        return Slots(whole, max(whole, min(most, host.slots)), whole, reason)
    return Slots(whole, whole, whole, reason)


def _shared(
    devices: Sequence[Device], share: Share, host: Host, *, whole: int, most: int, is_asked: bool
) -> Slots:
    counts = [
        runs_on(device, share) for device in devices if size_of(device) >= (share.memory_bytes or 0)
    ]
    known = [count for count in counts if count is not None]
    fitting = sum(known) if len(known) == len(counts) else most
    if fitting < most:
        return Slots(whole, max(1, fitting), max(1, fitting), "what fits on the GPUs")
    return Slots(whole, most, most, _ASKED if is_asked else _processor(host))


def _processor(host: Host) -> str:
    is_quota = host.slots < len(host.cores)
    return f"the CPU quota of {host.quota_cores:g} cores" if is_quota else "the cores"
