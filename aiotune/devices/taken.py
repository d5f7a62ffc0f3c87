"""What is not free: leased, set aside for somebody, or withheld."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from aiotune.devices.base import LOADED, SETTLING
from aiotune.devices.device import Device
from aiotune.devices.parts import Part, usable_bytes

__all__ = ["CardUse", "Choice", "Taken"]

_ROUNDING = 1e-9  # ten tenths are one


@dataclass(frozen=True, slots=True)
class Choice:
    """Devices for one lease. part: what it takes of its only card; None: it takes its cards whole."""

    gpus: tuple[str, ...] = ()  # UUIDs
    cores: tuple[int, ...] = ()
    part: Part | None = None


@dataclass(slots=True)
class CardUse:
    """What is taken of one card. is_closed: nobody may join, for it is leased whole, or being emptied."""

    is_closed: bool = False
    runs: int = 0
    fraction: float = 0.0
    memory_bytes: int = 0

    def add(self, part: Part | None) -> None:
        self.runs += 1
        if part is None:
            self.is_closed = True
        else:
            self.fraction += part.fraction
            self.memory_bytes += part.memory_bytes or 0

    def has_room(self, part: Part, total_bytes: int | None, others_bytes: int = 0) -> bool:
        """Return whether a run more with this part may join. others_bytes: in use beside the leases."""
        if self.is_closed or self.fraction + part.fraction > 1 + _ROUNDING:
            return False
        if total_bytes is None or part.memory_bytes is None:
            return True
        return self.memory_bytes + part.memory_bytes + others_bytes <= usable_bytes(total_bytes)


@dataclass(slots=True)
class Taken:
    """What is not free."""

    cards: dict[str, CardUse] = field(default_factory=dict)  # by UUID; no entry: nothing is taken
    withheld: dict[str, str] = field(default_factory=dict)  # cards that get no new lease -> why
    others: dict[str, int] = field(
        default_factory=dict
    )  # shared cards -> bytes in use beside leases
    cores: set[int] = field(default_factory=set)  # where a lease has them for itself
    load: Counter[int] = field(default_factory=Counter)  # leases on each core, of every kind
    memory_bytes: int = 0  # of the runs that memory bounds

    def add(self, choice: Choice, *, is_exclusive: bool) -> None:
        """Take what was chosen. is_exclusive: its cores, too, are for it alone."""
        for uuid in choice.gpus:
            self.cards.setdefault(uuid, CardUse()).add(choice.part)
        self.load.update(choice.cores)
        if is_exclusive:
            self.cores.update(choice.cores)

    def is_free(self, device: Device) -> bool:
        """Return whether nothing of a card is taken."""
        return device.uuid not in self.cards and device.uuid not in self.withheld

    def has_room(self, device: Device, part: Part | None) -> bool:
        """Return whether a run may have this part of a card; None: all of it."""
        if part is None or self.is_free(device):
            return self.is_free(device)
        if self._is_kept_from(device, part):
            return False
        others = self.others.get(device.uuid, 0)
        return self.cards[device.uuid].has_room(part, device.memory_bytes, others)

    def _is_kept_from(self, device: Device, part: Part) -> bool:
        """Return whether a card that runs share is withheld from a run with this part."""
        why = self.withheld.get(device.uuid)
        return why is not None and (part.is_packed or not why.startswith(LOADED))

    def may_empty(self, device: Device) -> bool:
        """Return whether a card is shared, so that it is free once nobody joins any more."""
        use = self.cards.get(device.uuid)
        if use is None or use.is_closed:
            return False
        why = self.withheld.get(device.uuid)
        return why is None or why.startswith(LOADED)

    def soon(self) -> Taken:
        """Return what is not free once memory is back that is only settling, and busy processors are idle.

        It shares all else with this.
        """
        passing = (SETTLING, LOADED)
        withheld = {uuid: why for uuid, why in self.withheld.items() if not why.startswith(passing)}
        return replace(self, withheld=withheld)
