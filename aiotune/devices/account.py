"""The account of one pool in the ledger: what it may lease, what it has leased, and what it wants."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from aiotune.devices.lease import Lease
from aiotune.devices.offer import Choice, Offer, Request, Taken
from aiotune.devices.run_memory import RunMemory

__all__ = ["Account", "Waiter", "Want"]


@dataclass(slots=True, eq=False)
class Want:
    """What was refused and is still wanted. `ticket`: its place in the order of asking."""

    request: Request
    ticket: float
    has_held_up: bool = False  # somebody was refused because of it


@dataclass(slots=True, eq=False)
class Waiter(Want):
    """A want that is awaited: `lease` is set under the lock, `future` by its own loop."""

    loop: asyncio.AbstractEventLoop = field(kw_only=True)
    future: asyncio.Future[Lease] = field(kw_only=True)
    lease: Lease | None = None


class Account:
    """One pool in the ledger: what it may lease, what it has leased, and what it wants.

    offer: what it chooses from. most: how many leases it may have at a time, as far as memory allows.
    memory: None where memory does not bound its runs. What may change is read and written under the
    ledger's lock.
    """

    def __init__(self, offer: Offer, most: int, memory: RunMemory | None) -> None:
        self.offer = offer
        self.most = most
        self.memory = memory
        self.leases: dict[Lease, float] = {}  # each with its place in the order of asking
        self.waiters: list[Waiter] = []  # oldest first
        self.claim: Want | None = None
        self.callbacks: dict[object, Callable[[], object]] = {}

    @property
    def slots(self) -> int:
        return self.most if self.memory is None else min(self.most, self.memory.runs)

    @property
    def is_full(self) -> bool:
        """Whether its own slots are what keeps it from another lease."""
        return len(self.leases) >= self.slots

    @property
    def run_bytes(self) -> int:
        """What a lease counts in memory."""
        return 0 if self.memory is None else self.memory.run_bytes

    @property
    def wants(self) -> list[Want]:
        """What it waits for, oldest first."""
        claim = [] if self.claim is None else [self.claim]
        return sorted([*self.waiters, *claim], key=lambda want: want.ticket)

    def choose(self, request: Request, taken: Taken, *, further: int = 0) -> Choice | None:
        """Return what would serve the request now, beside `further` leases that are not there yet."""
        if len(self.leases) + further >= self.slots or not self._has_memory(taken):
            return None
        return self.offer.choose(request, taken)

    def set_aside(self, request: Request, taken: Taken, *, further: int, may_gather: bool) -> None:
        """Add to `taken` what is kept free for the request: all of it, or, for the first lease, a part."""
        if len(self.leases) + further >= self.slots:
            return
        choice = self.choose(request, taken, further=further)
        if choice is None:
            if self.leases or further or not may_gather:
                return
            # As with GPUs and cores: no core idles for a run that waits for memory.
            has_memory = self._has_memory(taken)
            choice = self.offer.gather(request, taken) if has_memory else Choice()
        taken.add(choice.gpus, choice.cores, is_exclusive=self.offer.is_exclusive)
        taken.memory_bytes += self.run_bytes

    def hold(self, taken: Taken) -> None:
        """Add to `taken` what the leases hold."""
        for lease in tuple(self.leases):  # the garbage collector may end one here
            taken.add(lease.gpus, lease.cores, is_exclusive=self.offer.is_exclusive)
            taken.memory_bytes += self.run_bytes

    def _has_memory(self, taken: Taken) -> bool:
        """Tell whether a run more fits. The only run of all always does."""
        if self.memory is None or not taken.memory_bytes:
            return True
        return taken.memory_bytes + self.run_bytes <= self.memory.available_bytes
