"""What the machine offers: devices, cards that carry them, how they are, and the outcome of looking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Card", "Device", "Discovery", "Process", "Reading"]


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU or MIG instance that runs can have."""

    uuid: str  # "GPU-..." or "MIG-...", as CUDA_VISIBLE_DEVICES takes it
    name: str
    memory_bytes: int | None  # in total; None: not known
    kind: Literal["gpu", "mig"] = "gpu"
    neighbours: tuple[str, ...] = ()  # UUIDs of the other cards, closest first
    parent: str | None = None  # of a MIG instance: the UUID of its card


@dataclass(frozen=True, slots=True)
class Card:
    """One physical GPU: a device itself, or the MIG instances on it.

    A card that cannot be read keeps its place in the list, without uuid and devices, so that the
    indices of the others stay what the user means by them. One that can be read, but not be used,
    has a uuid and no devices.
    """

    uuid: str | None
    name: str
    devices: tuple[Device, ...]
    fault: str | None = None  # why it cannot be used, though it can be read


@dataclass(frozen=True, slots=True)
class Discovery:
    """The devices that may be used, and in one line what is wrong or left out."""

    devices: tuple[Device, ...]
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Process:
    """A process that uses a device.

    pid: as the driver counts; in a container it may be the host's, and mean another process here.
    memory_bytes: on this device; None: the driver does not say. is_graphics: it draws and does not
    compute, as a desktop does; a process that does both computes.
    """

    pid: int
    memory_bytes: int | None
    is_graphics: bool


@dataclass(frozen=True, slots=True)
class Reading:
    """How a device is, at one moment. What it, its driver or its kind cannot tell is None.

    used_bytes: with what the driver holds back for itself, which is `reserved_bytes`. Where device and
    host share their memory, total_bytes is the machine's, and used_bytes what the processes hold of it
    for the device. utilisation: the part of the last moments in which it computed, 0 to 1.
    energy_joules: a counter, since the driver was loaded. fault: in words, why the device cannot be
    trusted; None: nothing is known against it.
    """

    total_bytes: int | None = None
    used_bytes: int | None = None
    reserved_bytes: int | None = None
    processes: tuple[Process, ...] = ()
    utilisation: float | None = None
    power_watts: float | None = None
    energy_joules: float | None = None
    fault: str | None = None
