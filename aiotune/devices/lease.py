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
    """What one run holds until `release()`. Two leases are equal only if they are the same.

    gpu_memory_bytes: what the run may take of its card, all in all, the context of its framework included;
    None: all of it. gpu_fraction: the same as a part of the card's total, above 0 and below 1; None: the
    run has its cards for itself. guards: descriptors of lock files, which the run's process must keep open
    to its end. memory_bytes: what the run may hold of the machine's memory; None: no limit.
    """

    gpus: tuple[str, ...]  # UUIDs; none: the run must not touch a GPU
    cores: tuple[int, ...]  # ascending
    _give_back: Callable[[Lease], None] = field(repr=False)
    gpu_memory_bytes: int | None = None
    gpu_fraction: float | None = None
    guards: tuple[int, ...] = ()
    memory_bytes: int | None = None

    @property
    def is_shared(self) -> bool:
        """Whether other runs may be on its card."""
        return self.gpu_fraction is not None

    @property
    def names(self) -> tuple[str, ...]:
        """What a record says of the lease: the UUIDs, or the cores as "cpu:0-3"."""
        return self.gpus or (name_cores(self.cores),)

    def release(self) -> None:
        """Give everything back, from any thread. The second time it does nothing."""
        self._give_back(self)
