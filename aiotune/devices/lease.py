"""What a run holds, and what there is to hold: plain records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from aiotune.devices.cores import name_cores

__all__ = ["Capacity", "Lease"]


@dataclass(frozen=True, slots=True)
class Capacity:
    """What there is, or what is free of it."""

    gpus: tuple[str, ...]  # UUIDs
    cores: tuple[int, ...]
    slots: int


@dataclass(frozen=True, slots=True, eq=False)
class Lease:
    """What one run holds until `release()`. Two leases are equal only if they are the same."""

    gpus: tuple[str, ...]  # UUIDs; none: the run must not touch a GPU
    cores: tuple[int, ...]  # ascending
    _give_back: Callable[[Lease], None] = field(repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """What a record says of the lease: the UUIDs, or the cores as "cpu:0-3"."""
        return self.gpus or (name_cores(self.cores),)

    def release(self) -> None:
        """Give everything back, from any thread. The second time it does nothing."""
        self._give_back(self)
