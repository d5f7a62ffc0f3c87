"""Leasing from pools in tests: GPUs that are none, and tasks that hold a lease until told."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from random import Random

from aiotune.devices.device import Device
from aiotune.devices.parts import usable_bytes
from aiotune.devices.pool import DevicePool, Lease
from aiotune.resources import Resources

GIB = 2**30


def gpus(*gibibytes: int | None) -> list[Device]:
    """Return devices with these memories, called a, b, c, ..."""
    names = "abcdefghijklmnop"
    return [
        Device(names[i], f"card {size}", None if size is None else size * GIB)
        for i, size in enumerate(gibibytes)
    ]


def take(pool: DevicePool, resources: Resources | None = None) -> Lease:
    lease = pool.lease_nowait(resources or Resources())
    assert lease is not None
    return lease


async def settle() -> None:
    """Let every task run until all wait."""
    for _ in range(10):
        await asyncio.sleep(0)


class Tenant:
    """A task that leases, holds until told, and gives back."""

    def __init__(self, pool: DevicePool, resources: Resources, log: list[Tenant] | None = None):
        self.resources = resources
        self.held: Lease | None = None
        self._log = [] if log is None else log
        self._leave = asyncio.Event()
        self.task = asyncio.create_task(self._stay(pool))

    async def _stay(self, pool: DevicePool) -> None:
        async with pool.lease(self.resources) as lease:
            self.held = lease
            self._log.append(self)
            try:
                await self._leave.wait()
            finally:
                self.held = None

    @property
    def is_waiting(self) -> bool:
        return self.held is None and not self.task.done()

    def leave(self) -> None:
        self._leave.set()


class Dispatcher:
    """Starts runs as a scheduler does: the oldest first, past those that do not fit; a run ends when told.

    passed: by how many later runs each was passed before it started. places: the cards of each run.
    """

    def __init__(self, pool: DevicePool, wanted: Sequence[Resources]) -> None:
        self.pool = pool
        self.queue = list(enumerate(wanted))
        self.running: dict[int, Lease] = {}
        self.places: dict[int, tuple[str, ...]] = {}
        self.passed: Counter[int] = Counter()
        pool.subscribe(lambda: None)  # who does not listen has no place in the order

    def start(self) -> None:
        """Start all that fits."""
        while self._start_one():
            check_leases(self.pool, self.running.values())

    def _start_one(self) -> bool:
        refused: set[Resources] = set()
        for place, (number, resources) in enumerate(self.queue):
            lease = None if resources in refused else self.pool.lease_nowait(resources)
            if lease is None:
                refused.add(resources)
            else:
                self.passed.update(older for older, _ in self.queue[:place])
                self.running[number], self.places[number] = lease, lease.gpus
                del self.queue[place]
                return True
        return False

    def end(self, number: int) -> None:
        self.running.pop(number).release()

    def play(self, random: Random) -> None:
        """Run everything to its end, in a random order."""
        self.start()
        while self.running:
            self.end(random.choice(list(self.running)))
            self.start()
        assert not self.queue, self.pool.why(self.queue[0][1])


def check_leases(pool: DevicePool, leases: Iterable[Lease]) -> None:
    """Check what must always hold of all leases that there are: a card is one run's, or has room for all."""
    held: dict[str, list[Lease]] = {}
    for lease in leases:
        for uuid in lease.gpus:
            held.setdefault(uuid, []).append(lease)
        assert lease.gpu_fraction is None or len(lease.gpus) == 1
    totals = {device.uuid: device.memory_bytes for device in pool.devices}
    for uuid, sharing in held.items():
        if any(lease.gpu_fraction is None for lease in sharing):
            assert len(sharing) == 1, f"{uuid} is in {len(sharing)} leases, one of them exclusive"
            continue
        assert sum(lease.gpu_fraction or 0 for lease in sharing) <= 1 + 1e-9
        total = totals[uuid]
        if total is not None:
            assert sum(lease.gpu_memory_bytes or 0 for lease in sharing) <= usable_bytes(total)
