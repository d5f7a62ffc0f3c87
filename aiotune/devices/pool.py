"""The pool of devices of one search: each device is free, or held by exactly one lease.

    async with pool.lease(Resources()) as lease:
        ...  # lease.gpus, lease.cores

Giving back is synchronous, so that no cancellation can interrupt it. A pool may serve several threads and
event loops. What it leases is kept in a ledger, where the pools of all searches meet.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from aiotune.devices.base import Tell, UsageMeter, Watcher
from aiotune.devices.device import Device
from aiotune.devices.lease import Capacity, Lease
from aiotune.devices.ledger import Ledger
from aiotune.devices.meter import Meter
from aiotune.devices.offer import Offer, Request, gibibytes
from aiotune.errors import FatalValueError
from aiotune.resources import Resources
from aiotune.trial import Usage

__all__ = ["Capacity", "DevicePool", "Lease", "Request"]

logger = logging.getLogger("aiotune.devices")


class DevicePool:
    """Leases GPUs and processor cores.

    devices: the GPUs and MIG instances that may be used. cores: the processor's, ascending. slots: how
    many leases there may be at a time. shares: in how many equal parts the cores are divided, of which a
    run gets one, or one for each GPU; None: one for each slot. shared_slots: how many leases there may be
    where they share GPUs; None: no more. priority: of several pools that wait, the one with the highest
    comes first. has_own_cores: no two leases have a core in common. memory_bytes: what is available to runs;
    None: not known. bounds_all: it bounds the slots, by what runs are measured to take; else only runs wait
    for memory of which it is said what they may hold (`Resources(memory=...)`). run_bytes: what each run may
    hold; None: each something else. total_memory_bytes: more than that can never be had. problem: why there
    are no (more) devices; for messages. ledger: where the pools meet that lease from one machine; None: there
    is no other. watch: watches over the devices while the pool is tended. meter: knows what they did.

    With more slots or shares than cores, the user asked for more runs than the processor can serve at
    once: then leases overlap in their cores, as without `has_own_cores`.
    """

    def __init__(
        self,
        devices: Sequence[Device],
        *,
        cores: Sequence[int],
        slots: int,
        shares: int | None = None,
        shared_slots: int | None = None,
        priority: int = 0,
        has_own_cores: bool = True,
        memory_bytes: int | None = None,
        bounds_all: bool = True,
        run_bytes: int | None = None,
        total_memory_bytes: int | None = None,
        problem: str | None = None,
        ledger: Ledger | None = None,
        watch: Watcher | None = None,
        meter: UsageMeter | None = None,
    ) -> None:
        if not cores or slots < 1:
            raise FatalValueError(
                f"a pool needs 1 core and 1 slot at least: cores={cores!r}, slots={slots}"
            )
        shares = slots if shares is None else shares
        most = max(slots, shared_slots or 0)
        is_exclusive = has_own_cores and max(most, shares) <= len(cores)
        self._offer = Offer(
            devices,
            cores,
            shares=shares,
            most_shares=most,
            is_exclusive=is_exclusive,
            problem=problem,
            memory_bytes=total_memory_bytes,
        )
        self._ledger = ledger or Ledger()
        self._account = self._ledger.open(
            self._offer,
            slots,
            memory_bytes,
            most_shared=shared_slots,
            priority=priority,
            run_bytes=run_bytes,
            bounds_all=bounds_all,
        )
        self._watch = watch
        self._meter = Meter() if meter is None else meter

    @property
    def devices(self) -> tuple[Device, ...]:
        return self._offer.devices

    @property
    def slots(self) -> int:
        """How many leases there may be at a time. Where memory bounds them, measures change it."""
        with self._ledger.lock:
            return self._account.slots

    @property
    def total(self) -> Capacity:
        offer = self._offer
        return Capacity(tuple(each.uuid for each in offer.devices), offer.cores, self.slots)

    @property
    def free(self) -> Capacity:
        """What is in no lease of any pool; equal to `total` when nobody holds one.

        Its slots are this pool's: there may be more of them than other pools leave room for.
        """
        offer, account = self._offer, self._account
        with self._ledger.lock:
            taken = self._ledger.taken()
            slots = max(0, account.slots - len(account.leases))
            return Capacity(offer.free_gpus(taken), offer.free_cores(taken), slots)

    def resolve(self, resources: Resources) -> Request:
        """Return what the resources mean on this machine; DeviceError if it can never serve them.

        Cores that are left to the pool are one equal share of the machine, or one for each GPU.
        """
        return self._offer.resolve(resources)

    def has_room(self, resources: Resources) -> bool:
        """Return whether a lease could be had now. DeviceError if it never can.

        Whoever subscribes, and hears that there is none, has a place in the order of all pools from then
        on.
        """
        return self._ledger.has_room(self._account, self.resolve(resources))

    def lease_nowait(self, resources: Resources) -> Lease | None:
        """Return a lease of all that is asked for, or None if some of it is taken.

        DeviceError if it can never be had. Whoever subscribes, and gets none, has a place in the order of
        all pools from then on.
        """
        return self._ledger.take(self._account, self.resolve(resources))

    @asynccontextmanager
    async def lease(self, resources: Resources) -> AsyncIterator[Lease]:
        """Hold a lease, after waiting for it; DeviceError at once if it can never be had.

        The oldest waiter is served first; one whose request fits passes those whose does not.
        """
        lease = await self._ledger.wait(self._account, self.resolve(resources))
        try:
            yield lease
        finally:
            lease.release()

    def subscribe(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call `callback` whenever more may be free than before, until the returned function is called.

        That is after each release in any pool of the ledger, and after whatever else lets a request pass
        that was refused. It is called from whichever thread caused it, after the waiters were served, and
        without a lock. A subscriber has to look again each time, or to leave: what it was refused is kept
        free for it when its turn comes.
        """
        return self._ledger.listen(self._account, callback)

    def measure(self, memory_bytes: int) -> None:
        """Take note of the memory that one run held for itself.

        Where memory bounds the slots, a run counts the largest measure and a quarter more from then on.
        Leases in progress stay. It may be called from any thread.
        """
        memory = self._account.memory
        if memory is None:
            return
        with self._ledger.lock:
            before, counted = self._account.slots, memory.run_bytes
            memory.note(memory_bytes)
            slots, run_bytes = self._account.slots, memory.run_bytes
        if slots != before:
            logger.info(
                "a run counts %s of memory, by measure: %d slots (before: %d)",
                gibibytes(run_bytes),
                slots,
                before,
            )
        if run_bytes < counted:
            self._ledger.settle()

    def measure_gpu(self, lease: Lease, peak_bytes: int) -> None:
        """Take note of what a run took of its card at most, the context of its framework included.

        A run that asks for "shared" without saying how much gets the largest measure and a sixteenth more, once
        a run has ended that told one: till then it may have more to take. Leases in progress stay. It may be
        called from any thread.
        """
        if not peak_bytes:
            return  # no framework told anything, which says nothing of the next run
        need = self._account.need
        with self._ledger.lock:
            if lease in self._account.leases:
                need.note_so_far(lease, peak_bytes)
                return
            was_known = need.memory_bytes is not None
            need.note(peak_bytes)
        if not was_known:
            self._ledger.settle()

    def report(self, lease: Lease, *, failed: bool) -> None:
        """Take note of how a run on the lease ended. failed: in a way that may be its card's fault."""
        if self._watch is not None and lease.gpus:
            self._watch.report(lease, failed=failed)

    def usage(self, lease: Lease, since: float, until: float) -> Usage | None:
        """Return what a run took of its GPUs from `since` to `until`; None if it has none.

        Both are seconds of `Clock.monotonic`. To be asked while the lease is held.
        """
        if not lease.gpus:
            return None
        return self._meter.usage(lease.gpus, since, until, is_shared=lease.is_shared)

    async def tend(self, tell: Tell) -> None:
        """Watch over the devices until cancelled; return at once where there is nothing to watch."""
        if self._watch is not None:
            await self._watch.run(tell)

    def why(self, resources: Resources) -> str:
        """Return in words why a lease cannot be had now. DeviceError if it never can."""
        return self._ledger.why(self._account, self.resolve(resources))
