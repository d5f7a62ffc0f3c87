"""Leasing from pools in tests: GPUs that are none, and tasks that hold a lease until told."""

from __future__ import annotations

import asyncio

from aiotune.devices.device import Device
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
