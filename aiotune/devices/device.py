"""What the machine offers: devices, cards that carry them, and the outcome of looking for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Card", "Device", "Discovery"]


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU or MIG instance that a run can have for itself."""

    uuid: str  # "GPU-..." or "MIG-...", as CUDA_VISIBLE_DEVICES takes it
    name: str
    memory_bytes: int | None  # in total; None: the driver does not say, as on unified-memory parts
    kind: Literal["gpu", "mig"] = "gpu"


@dataclass(frozen=True, slots=True)
class Card:
    """One physical GPU: a device itself, or the MIG instances on it.

    A card that cannot be read keeps its place in the list, without uuid and devices, so that the
    indices of the others stay what the user means by them.
    """

    uuid: str | None
    name: str
    devices: tuple[Device, ...]


@dataclass(frozen=True, slots=True)
class Discovery:
    """The devices that may be used, and in one line what is wrong or left out."""

    devices: tuple[Device, ...]
    problem: str | None = None
