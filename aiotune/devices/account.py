"""The account of one pool in the ledger: what it may lease, what it has leased, and what it wants."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from aiotune.devices.lease import Lease
from aiotune.devices.needs import GpuNeed
from aiotune.devices.offer import Offer, Request
from aiotune.devices.run_memory import RunMemory
from aiotune.devices.taken import Choice, Taken

__all__ = ["NEVER", "Account", "Holding", "Waiter", "Want", "ahead_of"]

NEVER = math.inf  # a ticket after all others


@dataclass(frozen=True, slots=True)
class Holding:
    """What a lease holds.

    ticket: its place in the order of asking. is_open: how much of a card it needs was left to measures.
    memory_bytes: what it may hold of the machine's memory; None: not said.
    """

    choice: Choice
    ticket: float
    is_open: bool = False
    memory_bytes: int | None = None

    @property
    def weight(self) -> float:
        """What it counts when searches are compared: one, or its part of a card."""
        return 1 if self.choice.part is None else self.choice.part.fraction


@dataclass(slots=True, eq=False)
class Want:
    """What was refused and is still wanted. `ticket`: its place in the order of asking."""

    request: Request
    ticket: float
    has_held_up: bool = False  # somebody was refused because of it


@dataclass(slots=True, eq=False)
class Waiter(Want):
    """A want that is awaited: `lease` is set under the lock, `future` by its own loop.

    passed: how many leases its pool has had that were asked for later.
    """

    loop: asyncio.AbstractEventLoop = field(kw_only=True)
    future: asyncio.Future[Lease] = field(kw_only=True)
    lease: Lease | None = None
    passed: int = 0


_LEAST_PATIENCE = 4


class Account:
    """One pool in the ledger: what it may lease, what it has leased, and what it wants.

    offer: what it chooses from. most: how many leases it may have at a time, as far as memory allows.
    most_shared: how many where they share cards. memory: None where it is not known what there is. priority:
    the higher comes first. What may change is read and written under the ledger's lock.
    """

    def __init__(
        self,
        offer: Offer,
        most: int,
        memory: RunMemory | None,
        *,
        most_shared: int | None = None,
        priority: int = 0,
    ) -> None:
        self.offer = offer
        self.most = most
        self.most_shared = max(most, most_shared or 0)
        self.memory = memory
        self.priority = priority
        self.need = GpuNeed()
        self._has_told_need = False
        self.leases: dict[Lease, Holding] = {}
        self.waiters: list[Waiter] = []  # oldest first
        self.claim: Want | None = None
        # What was asked for without waiting and refused since devices were last given back or leased, in the
        # order of asking, and by how many leases each was passed in a row.
        self.refused: list[Request] = []
        self._passed: Counter[Request] = Counter()
        self.callbacks: dict[object, Callable[[], object]] = {}

    @property
    def slots(self) -> int:
        if self.memory is not None and self.memory.bounds_all:
            return min(self.most, self.memory.runs)
        if self.most_shared == self.most:
            return self.most
        # Runs that share a card take one slot together, and leave one to the next that may join them.
        parts: dict[str, list[float]] = {}
        for holding in tuple(self.leases.values()):
            if holding.choice.part is not None:
                parts.setdefault(holding.choice.gpus[0], []).append(holding.choice.part.fraction)
        joinable = sum(sum(each) + min(each) <= 1 for each in parts.values())
        shared = sum(map(len, parts.values()))
        return min(self.most_shared, self.most + shared - len(parts) + joinable)

    def is_full(self, request: Request, further: int = 0) -> bool:
        """Tell whether its own slots are what keeps it from another lease, beside `further` that will be."""
        # What shares a card may be smaller than all that is there, so that the cards decide.
        most = self.slots if request.share is None else self.most_shared
        return len(self.leases) + further >= most

    @property
    def load(self) -> float:
        """What its leases count when searches are compared."""
        return round(sum(holding.weight for holding in tuple(self.leases.values())), 6)

    def bytes_of(self, asked: Request | Holding) -> int:
        """Return what a lease counts in memory: what the user says, or else what runs were measured to take."""
        if asked.memory_bytes is not None:
            return asked.memory_bytes
        return 0 if self.memory is None else self.memory.run_bytes

    @property
    def wants(self) -> list[Want]:
        """What it waits for, oldest first."""
        claim = [] if self.claim is None else [self.claim]
        return sorted([*self.waiters, *claim], key=lambda want: want.ticket)

    def choose(self, request: Request, taken: Taken, *, further: int = 0) -> Choice | None:
        """Return what would serve the request now, beside `further` leases that are not there yet."""
        if self.is_full(request, further) or not self.has_memory(request, taken):
            return None
        return self.offer.choose(self.with_need(request), taken)

    def with_need(self, request: Request) -> Request:
        """Return the request with what earlier runs took, if it was left to that and is known."""
        memory_bytes = self.need.memory_bytes
        return request if memory_bytes is None else request.with_need(memory_bytes)

    def end(self, lease: Lease) -> int | None:
        """Take back a lease; return what runs take of a card, by measure, if the user should be told now."""
        holding = self.leases.pop(lease)
        self.need.note_end(lease)
        if self._has_told_need or not holding.is_open or self.need.memory_bytes is None:
            return None
        self._has_told_need = True
        return self.need.memory_bytes

    # --- what it wants ---

    @property
    def age(self) -> float:
        """The ticket of its claim."""
        return NEVER if self.claim is None else self.claim.ticket

    def stake(self, request: Request, tickets: Iterator[int]) -> None:
        """Note what it wants, if it will ask again; the first that it asks for stands."""
        if self.claim is None and self.callbacks:
            self.claim = Want(request, next(tickets))

    def drop_claim(self) -> bool:
        """Return whether the claim held somebody up."""
        claim, self.claim = self.claim, None
        return claim is not None and claim.has_held_up

    def loosen(self) -> bool:
        """Note that it was served without waiting: it has no claim, and its waiters come later.

        Return whether one of them held somebody up.
        """
        has_held_up = [waiter.has_held_up for waiter in self.waiters]
        for waiter in self.waiters:
            waiter.has_held_up = False
        return self.drop_claim() or any(has_held_up)

    # --- the order among its own requests ---

    def note_refused(self, request: Request) -> None:
        """Take note of a request that was refused, and is not awaited."""
        if request not in self.refused:
            self.refused.append(request)

    def note_taken(self, request: Request) -> None:
        """Take note that a request was served which was not awaited: it has passed those refused before it.

        Those that were not asked for any more are forgotten.
        """
        waiting = [each for each in self.refused if each != request]
        self._passed = Counter({each: self._passed[each] + 1 for each in waiting})
        self.refused.clear()

    def note_ticket(self, ticket: float) -> None:
        """Take note that something was served: it has passed the waiters that asked before."""
        for waiter in self.waiters:
            waiter.passed += waiter.ticket < ticket

    def set_aside_passed(self, request: Request, ticket: float, taken: Taken) -> list[Waiter]:
        """Add to `taken` what is kept free for older requests of the account that were passed too often.

        A request that fits passes one that does not, so that nothing idles. Without end, one for whole cards
        would wait as long as smaller ones share them. So after as many as there are slots it is their turn to
        wait. Return the waiters among those.
        """
        patience = max(_LEAST_PATIENCE, self.slots)
        waiters = [w for w in self.waiters if w.ticket < ticket and w.passed >= patience]
        older = (
            self.refused[: self.refused.index(request)] if request in self.refused else self.refused
        )
        refused = [each for each in older if self._passed[each] >= patience]
        for each in (*(waiter.request for waiter in waiters), *refused):
            choice = self.choose(each, taken) or self.gather(each, taken)
            taken.add(choice, is_exclusive=self.offer.is_exclusive)
        return waiters

    # --- what is free ---

    def set_aside(self, request: Request, taken: Taken, *, further: int, may_gather: bool) -> None:
        """Add to `taken` what is kept free for the request: all of it, or, for the first lease, a part."""
        if self.is_full(request, further):
            return
        choice = self.choose(request, taken, further=further)
        if choice is None:
            if self.leases or further or not may_gather:
                return
            # As with GPUs and cores: no core idles for a run that waits for memory.
            has_memory = self.has_memory(request, taken)
            choice = self.gather(request, taken) if has_memory else Choice()
        taken.add(choice, is_exclusive=self.offer.is_exclusive)
        taken.memory_bytes += self.bytes_of(request)

    def gather(self, request: Request, taken: Taken) -> Choice:
        """Return what is free of a request that cannot be served as a whole, and what will be."""
        return self.offer.gather(self.with_need(request), taken)

    def hold(self, taken: Taken) -> None:
        """Add to `taken` what the leases hold."""
        for holding in tuple(self.leases.values()):  # the garbage collector may end one here
            taken.add(holding.choice, is_exclusive=self.offer.is_exclusive)
            taken.memory_bytes += self.bytes_of(holding)

    def has_memory(self, request: Request, taken: Taken) -> bool:
        """Tell whether a run more fits. The only run of all always does, and one that counts nothing."""
        counted = self.bytes_of(request)
        if self.memory is None or not counted or not taken.memory_bytes:
            return True
        return taken.memory_bytes + counted <= self.memory.available_bytes


def ahead_of(
    accounts: Iterable[Account], account: Account, ticket: float
) -> list[tuple[Want, Account, int]]:
    """Return the wants of other accounts that come first, the first of all in front.

    The second want of an account stands as if the first had its lease already, and so on: with each comes the
    number of those before it.
    """
    own_place = (-account.priority, account.load, ticket)
    ahead = [
        ((-other.priority, other.load + further, want.ticket), want, other, further)
        for other in accounts
        if other is not account
        for further, want in enumerate(other.wants)
    ]
    ahead = [each for each in ahead if each[0] < own_place]
    ahead.sort(key=lambda each: each[0])
    return [each[1:] for each in ahead]
