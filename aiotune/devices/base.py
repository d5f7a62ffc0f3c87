"""The contracts of devices: the pool that a search leases from, and what stands behind a real one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from aiotune.devices.lease import Lease
from aiotune.resources import Resources
from aiotune.trial import Usage

__all__ = ["DUE", "HELD", "LOADED", "SETTLING", "Locks", "Pool", "Tell", "UsageMeter", "Watcher"]

# Reasons why a card is not leased now that the ledger itself gives, or knows. A holder follows after HELD and a
# colon; LOADED is the beginning of one.
SETTLING = "its memory is not back yet"
HELD = "in use by another process"
DUE = "another process has waited for it"
LOADED = "its processor is busy"  # with runs of this process, which share it

Tell = Callable[[str, str | None], Awaitable[object]]
"""Told of a device, by UUID, why it is not used any more; None: it is used again."""


class Pool(Protocol):
    """Leases devices. `DevicePool` does so on this machine; a simulation has one that is made up."""

    @property
    def slots(self) -> int:
        """How many leases there may be at a time."""
        ...

    def has_room(self, resources: Resources) -> bool:
        """Return whether a lease could be had now. DeviceError if it never can."""
        ...

    def lease_nowait(self, resources: Resources) -> Lease | None:
        """Return a lease of all that is asked for, or None if some of it is taken. DeviceError as above."""
        ...

    def lease(self, resources: Resources) -> AbstractAsyncContextManager[Lease]:
        """Hold a lease, after waiting for it. DeviceError as above."""
        ...

    def why(self, resources: Resources) -> str:
        """Return in words why a lease cannot be had now. DeviceError as above."""
        ...

    def subscribe(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call `callback` whenever more may be free than before, until the returned function is called."""
        ...

    def measure(self, memory_bytes: int) -> None:
        """Take note of the memory that one run held for itself."""
        ...

    def measure_gpu(self, lease: Lease, peak_bytes: int) -> None:
        """Take note of what a run took of its card at most, the context of its framework included."""
        ...

    def report(self, lease: Lease, *, failed: bool) -> None:
        """Take note of how a run on the lease ended. failed: in a way that may be its card's fault."""
        ...

    def usage(self, lease: Lease, since: float, until: float) -> Usage | None:
        """Return what a run took of its GPUs from `since` to `until`; None if it has none.

        Both are seconds of `Clock.monotonic`. To be asked while the lease is held.
        """
        ...

    async def tend(self, tell: Tell) -> None:
        """Watch over the devices until cancelled; return at once where there is nothing to watch."""
        ...


class Locks(Protocol):
    """Locks of cards over all processes of the machine. No method waits."""

    def take(self, uuid: str) -> int | None:
        """Return the descriptor of the card's lock; None if another process has it, or comes first.

        After None this process waits for the card, for others to see, until it gets it or leaves.
        """
        ...

    def leave(self, uuid: str) -> None:
        """Wait for the card no more."""
        ...

    def drop(self, uuid: str) -> None:
        """Give the lock back, as far as this process is concerned: who has the descriptor still holds it."""
        ...

    def is_due(self, uuid: str) -> bool:
        """Tell whether this process has had the card for long, and another one waits for it."""
        ...

    def holder(self, uuid: str) -> str | None:
        """Return in words who holds the lock; None: not known, or nobody."""
        ...


class Watcher(Protocol):
    """Watches over cards: it withholds and restores them in the ledger."""

    async def run(self, tell: Tell) -> None:
        """Watch until cancelled."""
        ...

    def report(self, lease: Lease, *, failed: bool) -> None:
        """Take note of how a run on the lease ended, from any thread."""
        ...


class UsageMeter(Protocol):
    """Knows what cards did, from readings."""

    def usage(self, uuids: Sequence[str], since: float, until: float, *, is_shared: bool) -> Usage:
        """Return what a run took of these cards from `since` to `until`, seconds of `Clock.monotonic`."""
        ...
