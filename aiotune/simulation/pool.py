"""Made-up devices, all alike."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio

from aiotune.devices.base import Tell
from aiotune.devices.lease import Lease
from aiotune.errors import DeviceError
from aiotune.resources import Resources
from aiotune.trial import Usage

__all__ = ["SimulatedPool"]


class SimulatedPool:
    """A `Pool` of so many devices. A run takes one, or as many as it asks for GPUs, the first that are free.

    Whatever else a run asks for is taken to be there.
    """

    def __init__(self, devices: int) -> None:
        self._devices = devices
        self._free = list(range(devices))  # a heap
        self._held: dict[Lease, list[int]] = {}
        self._callbacks: dict[object, Callable[[], object]] = {}

    @property
    def slots(self) -> int:
        return self._devices

    def has_room(self, resources: Resources) -> bool:
        return self._count(resources) <= len(self._free)

    def lease_nowait(self, resources: Resources) -> Lease | None:
        count = self._count(resources)
        if count > len(self._free):
            return None
        numbers = [heapq.heappop(self._free) for _ in range(count)]
        lease = Lease(tuple(f"device {number}" for number in numbers), (), self._take_back)
        self._held[lease] = numbers
        return lease

    @asynccontextmanager
    async def lease(self, resources: Resources) -> AsyncIterator[Lease]:
        while (lease := self.lease_nowait(resources)) is None:
            released = anyio.Event()
            leave = self.subscribe(released.set)
            try:
                await released.wait()
            finally:
                leave()
        try:
            yield lease
        finally:
            lease.release()

    def subscribe(self, callback: Callable[[], object]) -> Callable[[], None]:
        token = object()
        self._callbacks[token] = callback

        def leave() -> None:
            self._callbacks.pop(token, None)

        return leave

    def why(self, resources: Resources) -> str:
        return f"{self._count(resources)} devices are needed, {len(self._free)} are free"

    def measure(self, memory_bytes: int) -> None:
        pass  # a simulated run holds no memory

    def measure_gpu(self, lease: Lease, peak_bytes: int) -> None:
        pass

    def report(self, lease: Lease, *, failed: bool) -> None:
        pass  # a simulated device is never at fault

    def usage(self, lease: Lease, since: float, until: float) -> Usage | None:
        return Usage(len(lease.gpus) * (until - since))

    async def tend(self, tell: Tell) -> None:
        pass

    def _count(self, resources: Resources) -> int:
        """Return how many devices a run takes. DeviceError if there never are so many."""
        count = resources.gpus or 1 if isinstance(resources.gpus, int | None) else 1
        if count > self._devices:
            raise DeviceError(
                f"a run asks for {count} devices, and the simulation has {self._devices}: pass "
                f"devices={count} or more"
            )
        return count

    def _take_back(self, lease: Lease) -> None:
        for number in self._held.pop(lease, ()):
            heapq.heappush(self._free, number)
        for callback in list(self._callbacks.values()):
            callback()
