"""Parts of a card: what a run that shares it may take."""

from __future__ import annotations

from dataclasses import dataclass

from aiotune.devices.device import Device
from aiotune.resources import Resources

__all__ = ["Part", "Share", "part_on", "runs_on", "share_of", "usable_bytes"]

# What runs that share a card leave to the driver, which holds back memory for itself, for page tables and for
# memory with error correction: 0.3 to 0.7 GiB on cards of 24 and 80 GiB.
_RESERVE_PART = 64  # of the total
_RESERVE_BYTES = 256 * 2**20  # at least, but never more than a quarter


@dataclass(frozen=True, slots=True)
class Share:
    """A request for a part of a card. Neither: what earlier runs of the search took at most.

    fraction: of the card. memory_bytes: of its memory; None with a fraction: the same part of it.
    """

    fraction: float | None = None
    memory_bytes: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is not known yet how much it is: such a run gets a card for itself."""
        return self.fraction is None and self.memory_bytes is None


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a certain card, for one run.

    fraction: what it counts; those of a card are 1 together at most. memory_bytes: what the run may take; None:
    as much, where the card's total is not known. memory_fraction: the same as a part of the total. is_packed:
    as many are to be on the card as it bears; else the user has said how many.
    """

    fraction: float
    memory_bytes: int | None
    memory_fraction: float
    is_packed: bool = False


def share_of(resources: Resources) -> Share | None:
    """Return the part of a card that the resources ask for; None: whole cards, or none."""
    memory_bytes = resources.gpu_memory_bytes or None
    match resources.gpus:
        case "shared":
            return Share(None, memory_bytes)
        case float() as fraction:
            return Share(fraction, memory_bytes)
        case _:
            return None


def usable_bytes(total_bytes: int) -> int:
    """Return what runs may take together of a card that they share."""
    reserve = max(total_bytes // _RESERVE_PART, _RESERVE_BYTES)
    return total_bytes - min(reserve, total_bytes // 4)


def part_on(device: Device, share: Share) -> Part | None:
    """Return what the share is on this card, which must be large enough; None: all of it.

    It is all of it where nothing is known of the share, or of the memory that it is a part of, or where it
    leaves too little to the driver.
    """
    total = device.memory_bytes
    if share.is_open or (total is None and share.fraction is None):
        return None
    if total is None:
        assert share.fraction is not None
        return Part(share.fraction, share.memory_bytes, share.fraction)
    usable = usable_bytes(total)
    if share.memory_bytes is not None:
        memory_bytes = share.memory_bytes
    else:
        assert share.fraction is not None
        memory_bytes = int(share.fraction * usable)
    if memory_bytes > usable:
        return None
    fraction = memory_bytes / usable if share.fraction is None else share.fraction
    is_packed = share.fraction is None
    return Part(fraction, memory_bytes, memory_bytes / total, is_packed)


def runs_on(device: Device, share: Share) -> int | None:
    """Return how many such runs the card holds; None: nobody knows yet."""
    if share.is_open:
        return None
    part = part_on(device, share)
    if part is None:
        return 1
    by_fraction = int((1 + 1e-9) / part.fraction)
    if device.memory_bytes is None or not part.memory_bytes:
        return max(1, by_fraction)
    return max(1, min(by_fraction, usable_bytes(device.memory_bytes) // part.memory_bytes))
