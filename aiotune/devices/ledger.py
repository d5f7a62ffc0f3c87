"""The ledger: who holds what, and who comes next, over all pools of a process.

Every search has a pool of its own, with its own GPUs to choose from and its own number of slots. What
they lease from is one machine, so the pools of a process keep one ledger (`shared_ledger`). A pool has an
`Account` in it.

Who comes first. The pool of higher priority; among equals that with fewer leases (one that shares a card
counts its part of it); among equals, who asked first. A pool asks with `await`
(`Waiter`), or it asks without waiting, is refused, and asks again when it is called back: it then has a
`Want` standing, its claim. A pool that does not listen (`subscribe`) has none. What a want that comes
first could have now is set aside for it. A want that does not fit is passed by others, unless its pool
has no lease: then even a part of it is set aside, so that it is served at last however many small requests
keep coming. But only from pools whose leases were all asked for after it: the others may end their round,
or devices would idle beside a run that keeps the want waiting anyway.

Nobody waits for somebody who sleeps. A waiter is served the moment it can be. A claim goes when its pool
gets a lease, when its pool is shown that there is room and holds other leases (it may not want more now),
and when its pool stops listening. A pool without a lease keeps its claim: a search that has nothing in
progress starts something, or ends. Whenever a want that held somebody up goes, all others are called.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from types import MappingProxyType

from aiotune.devices.account import NEVER, Account, Holding, Waiter, ahead_of
from aiotune.devices.base import SETTLING, Locks
from aiotune.devices.cards import Cards
from aiotune.devices.lease import Lease
from aiotune.devices.offer import Offer, Request, gibibytes
from aiotune.devices.parts import usable_bytes
from aiotune.devices.reasons import why_refused
from aiotune.devices.run_memory import RunMemory
from aiotune.devices.taken import Choice, Taken

__all__ = ["Ledger", "shared_ledger"]

logger = logging.getLogger("aiotune.devices")


class Ledger:
    """The leases and wants of any number of pools, from any number of threads and event loops.

    Nothing here waits for anything but a short lock.

    Invariants, whenever the lock is free: a GPU is in one lease at most, and so is a core among the
    leases that have cores for themselves; no account has been given more leases than its slots; no waiter
    could be served.
    """

    def __init__(self) -> None:
        # Reentrant: the garbage collector may end an abandoned waiter while this thread is in here.
        self.lock = threading.RLock()
        # Weak: the leases of a search whose event loop was thrown away go with its pool.
        self._accounts: weakref.WeakValueDictionary[int, Account] = weakref.WeakValueDictionary()
        self._numbers = itertools.count()
        self._tickets = itertools.count()
        self._memory_bytes = 0  # what was available when last none of our runs used any
        self._cards = Cards()

    def open(
        self,
        offer: Offer,
        most: int,
        available_bytes: int | None,
        *,
        most_shared: int | None = None,
        priority: int = 0,
        run_bytes: int | None = None,
        bounds_all: bool = True,
    ) -> Account:
        """Return the account of a new pool. available_bytes: memory; None: not known, and no bound.

        run_bytes: what each run may hold of it; None: each something else. bounds_all: it is a bound also for
        runs of which that is not said, which count what was measured.
        """
        with self.lock:
            memory = None
            if available_bytes is not None:
                at_hand = self._at_hand(available_bytes)
                memory = RunMemory(at_hand, run_bytes=run_bytes, bounds_all=bounds_all)
            account = Account(offer, most, memory, most_shared=most_shared, priority=priority)
            self._accounts[next(self._numbers)] = account
            weakref.finalize(account, self._unlock_orphans).atexit = False
            return account

    def _at_hand(self, available_bytes: int) -> int:
        """Return the memory for all runs, those in progress included.

        What these count is added to what is available. It may be more than they use yet, so that there
        never is more than before they began.
        """
        in_progress = self.taken().memory_bytes
        if not in_progress:
            self._memory_bytes = available_bytes
        return min(available_bytes + in_progress, max(self._memory_bytes, available_bytes))

    def _living(self) -> list[Account]:
        """Return the accounts that are still there.

        A list made at once: while one iterates over `values()`, the garbage collector may end another account,
        whose end looks through the accounts, too, and would take entries away under that iteration.
        """
        found = [each() for each in self._accounts.valuerefs()]
        return [account for account in found if account is not None]

    def taken(self) -> Taken:
        """Return what all leases hold."""
        with self.lock:
            taken = Taken(withheld=dict(self._cards.withheld), others=dict(self._cards.others))
            for account in self._living():
                account.hold(taken)
            return taken

    def _unlock_orphans(self) -> None:
        """Let other processes have the cards of leases that went with their pool."""
        with self.lock:
            orphans = [uuid for uuid in self._cards.leased if not self.lease_count(uuid)]
            vacated = self._cards.vacate(orphans)
        for call in vacated:
            _call(call)
        if orphans:
            self.settle()

    @property
    def is_in_use(self) -> bool:
        """Whether somebody holds a lease, waits for one, or listens."""
        with self.lock:
            return any(each.leases or each.waiters or each.callbacks for each in self._living())

    # --- cards that are withheld ---

    @property
    def locks(self) -> Locks | None:
        """Where the first lease of a card in this process takes a lock, which its last release drops."""
        return self._cards.locks

    @locks.setter
    def locks(self, locks: Locks | None) -> None:
        with self.lock:
            self._cards.locks = locks

    @property
    def withheld(self) -> Mapping[str, str]:
        """The cards that get no new lease, by UUID, each with the reason in words."""
        with self.lock:
            return MappingProxyType(dict(self._cards.withheld))

    def withhold(self, uuid: str, reason: str) -> None:
        """Give the card no new lease from now on. Leases in progress stay."""
        with self.lock:
            self._cards.withheld[uuid] = reason
            if reason != SETTLING:
                self._cards.settled(uuid)

    def restore(self, uuid: str, reason: str | None = None) -> None:
        """Lease the card again, if it was withheld. reason: only if it is still withheld for that."""
        with self.lock:
            if reason is not None and self._cards.withheld.get(uuid) != reason:
                return
            was_withheld = self._cards.withheld.pop(uuid, None) is not None
            self._cards.settled(uuid)
        if was_withheld:
            self.settle()

    def lease_count(self, uuid: str) -> int:
        """Return how many leases hold the card, or a part of it."""
        with self.lock:
            return sum(
                uuid in lease.gpus
                for account in self._living()
                for lease in tuple(account.leases)  # the garbage collector may end one here
            )

    def is_shared(self, uuid: str) -> bool:
        """Return whether runs are on the card, and others may join them."""
        with self.lock:
            use = self.taken().cards.get(uuid)
            return use is not None and not use.is_closed

    def note_used(self, uuid: str, used_bytes: int | None, total_bytes: int | None = None) -> None:
        """Take note of how much of a card's memory is in use, of how much; None: not known.

        What is more than its leases may take, and more than what is set aside for the driver, where they share
        it, is missing to further ones.
        """
        set_aside = 0 if total_bytes is None else total_bytes - usable_bytes(total_bytes)
        with self.lock:
            use = self.taken().cards.get(uuid)
            others = 0
            if use is not None and not use.is_closed:
                others = max(0, (used_bytes or 0) - use.memory_bytes - set_aside)
            before = self._cards.others.pop(uuid, 0)
            if others:
                self._cards.others[uuid] = others
        if others < before:
            self.settle()

    def is_wanted(self, uuids: Collection[str]) -> bool:
        """Return whether somebody who may have one of these cards was refused a GPU, and still wants it."""
        with self.lock:
            return any(
                want.request.gpus and any(each.uuid in uuids for each in account.offer.devices)
                for account in self._living()
                for want in account.wants
            )

    def tend(self, uuids: Iterable[str], vacated: Callable[[str], object]) -> Callable[[], None]:
        """Watch over cards until the returned function is called.

        While somebody does, the release of a card's last lease withholds it (SETTLING) and calls
        `vacated(uuid)`, from the releasing thread and without the lock; `restore` is then up to the watch.
        Until then, or until another reason is found, other processes do not get the card either. When nobody
        watches a card any more, it is not withheld any more.
        """
        with self.lock:
            tender = self._cards.tend(uuids, vacated)

        def leave() -> None:
            with self.lock:
                is_loosened = self._cards.leave(tender)
            if is_loosened:
                self.settle()

        return leave

    # --- asking ---

    def has_room(self, account: Account, request: Request) -> bool:
        """Return whether the request could be served now."""
        with self.lock:
            has_room = self._decide(account, request, account.age) is not None
            is_loosened = False
            if not has_room or not account.leases:
                account.stake(request, self._tickets)
            else:
                is_loosened = account.drop_claim()
        if is_loosened:
            self.settle(but=account)
        return has_room

    def take(self, account: Account, request: Request) -> Lease | None:
        """Return a lease of all of the request, or None if some of it is taken or set aside."""
        with self.lock:
            lease = self._grant(account, request, account.age)
            if lease is None:
                account.note_refused(request)
                account.stake(request, self._tickets)
                return None
            account.note_taken(request)
            is_loosened = account.loosen()
        if is_loosened:
            self.settle(but=account)
        return lease

    async def wait(self, account: Account, request: Request) -> Lease:
        """Return a lease of all of the request, as soon as it can be had."""
        loop = asyncio.get_running_loop()
        with self.lock:
            ticket = next(self._tickets)
            lease = self._grant(account, request, ticket)
            if lease is None:
                waiter = Waiter(request, ticket, loop=loop, future=loop.create_future())
                account.waiters.append(waiter)
            is_loosened = lease is not None and account.loosen()
        if is_loosened:
            self.settle(but=account)
        if lease is not None:
            return lease
        try:
            return await waiter.future
        except BaseException:
            self._withdraw(account, waiter)
            raise

    def why(self, account: Account, request: Request) -> str:
        """Return in words why the request cannot be served now."""
        with self.lock:
            return why_refused(account, request, self.taken())

    def _withdraw(self, account: Account, waiter: Waiter) -> None:
        """Forget a waiter that was cancelled, be it before or after it was served."""
        with self.lock:
            if waiter.lease is None:
                account.waiters.remove(waiter)
        if waiter.lease is not None:
            waiter.lease.release()
        elif waiter.has_held_up:
            self.settle()

    def listen(self, account: Account, callback: Callable[[], object]) -> Callable[[], None]:
        """Call `callback` whenever more may be free than before, until the returned function is called."""
        token = object()
        with self.lock:
            account.callbacks[token] = callback

        def leave() -> None:
            with self.lock:
                account.callbacks.pop(token, None)
                is_loosened = not account.callbacks and account.drop_claim()
            if is_loosened:
                self.settle(but=account)

        return leave

    # --- telling ---

    def settle(self, *, but: Account | None = None) -> None:
        """Serve the waiters that can be served, then call all listeners, but for those of one account.

        To be called whenever more may be free than before, without the lock.
        """
        with self.lock:
            for account in self._living():
                if account is not but:  # that one is in the midst of asking
                    account.refused.clear()
            served = list(self._serve())
            listeners = [
                (account, callback)
                for account in self._living()
                if account is not but
                for callback in account.callbacks.values()
            ]
        for waiter in served:
            _wake(waiter)
        is_loosened = False
        for account, callback in listeners:
            if not _call(callback):  # who cannot hear would keep its claim for ever
                with self.lock:
                    is_loosened |= account.drop_claim()
        if is_loosened:
            self.settle()

    def _serve(self) -> Iterator[Waiter]:
        """Grant what can be granted, and yield who was served. Needs the lock."""
        while (waiter := self._serve_one()) is not None:
            yield waiter

    def _serve_one(self) -> Waiter | None:
        """Grant to the first that can be served: then its pool has another place in the order."""
        queue = [(waiter, account) for account in self._living() for waiter in account.waiters]
        refused: set[tuple[Account, Request]] = (
            set()
        )  # what an older waiter did not get, no other does
        for waiter, account in sorted(queue, key=lambda each: each[0].ticket):
            if (account, waiter.request) in refused:
                continue
            waiter.lease = self._grant(account, waiter.request, waiter.ticket)
            if waiter.lease is not None:
                account.waiters.remove(waiter)
                return waiter
            refused.add((account, waiter.request))
        return None

    # --- deciding; all of this needs the lock ---

    def _grant(self, account: Account, request: Request, ticket: float) -> Lease | None:
        choice = self._choose_unlocked(account, request, ticket)
        if choice is None:
            return None
        lease = Lease(
            choice.gpus,
            choice.cores,
            partial(self._give_back, account),
            None if choice.part is None else choice.part.memory_bytes,
            None if choice.part is None else choice.part.memory_fraction,
            self._cards.guards(choice.gpus),
            request.memory_bytes,
        )
        place = next(self._tickets) if ticket == NEVER else ticket
        is_open = request.share is not None and request.share.is_open
        account.leases[lease] = Holding(choice, place, is_open, request.memory_bytes)
        account.note_ticket(ticket)
        return lease

    def _choose_unlocked(self, account: Account, request: Request, ticket: float) -> Choice | None:
        """Return what serves the request now, with the locks of its cards taken."""
        passed_over: list[str] = []
        try:
            while (choice := self._decide(account, request, ticket)) is not None:
                refused = self._cards.refused_lock(choice.gpus)
                if refused is None:
                    return choice
                passed_over.append(refused)
            return None
        finally:
            self._cards.reconsider(passed_over)

    def _give_back(self, account: Account, lease: Lease) -> None:
        """Take back a lease, from any thread. Does not need the lock."""
        with self.lock:
            if lease not in account.leases:
                return
            if account.claim is not None and account.is_full(account.claim.request):
                account.claim.ticket = next(self._tickets)  # till now it waited for itself only
            need = account.end(lease)
            vacated = self._cards.vacate(uuid for uuid in lease.gpus if not self.lease_count(uuid))
        for call in vacated:
            _call(call)
        if need is not None:
            logger.info("a run takes %s of a GPU, by measure: runs share", gibibytes(need))
        self.settle()

    def _decide(self, account: Account, request: Request, ticket: float) -> Choice | None:
        """Return what would serve the request now, beside those who come first."""
        taken = self.taken()
        choice = account.choose(request, taken)
        if choice is None:
            return None
        oldest_lease = min((each.ticket for each in account.leases.values()), default=NEVER)
        ahead = ahead_of(self._living(), account, ticket)
        for want, other, further in ahead:
            may_gather = want.ticket < oldest_lease
            other.set_aside(want.request, taken, further=further, may_gather=may_gather)
        passed = account.set_aside_passed(request, ticket, taken)
        choice = account.choose(request, taken)
        if choice is None:
            for want in (*(each[0] for each in ahead), *passed):
                want.has_held_up = True
        return choice


def _call(callback: Callable[[], object]) -> bool:
    try:
        callback()
    except Exception:  # a subscriber's fault must not reach the run that gives back
        logger.exception("a subscriber of the device pool failed: %r", callback)
        return False
    return True


def _wake(waiter: Waiter) -> None:
    """Tell a waiter, in its own loop, that it was served."""
    assert waiter.lease is not None
    try:
        waiter.loop.call_soon_threadsafe(_resolve, waiter.future, waiter.lease)
    except RuntimeError:  # its loop was closed under it: nobody is left to use the lease
        waiter.lease.release()


def _resolve(future: asyncio.Future[Lease], lease: Lease) -> None:
    if not future.done():  # else it was cancelled, and gives the lease back itself
        future.set_result(lease)


_shared = Ledger()


def shared_ledger() -> Ledger:
    """Return the ledger of this process. A fork of it begins with an empty one: its runs are its own."""
    return _shared


def _begin_anew() -> None:
    global _shared
    _shared = Ledger()


os.register_at_fork(after_in_child=_begin_anew)
