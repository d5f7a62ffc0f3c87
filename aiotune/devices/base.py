"""The pool's contract: what a search asks of whatever leases devices to its runs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from aiotune.devices.lease import Lease
from aiotune.resources import Resources

__all__ = ["Pool"]


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

    def subscribe(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call `callback` whenever more may be free than before, until the returned function is called."""
        ...

    def measure(self, memory_bytes: int) -> None:
        """Take note of the memory that one run held for itself."""
        ...
