"""The ledger: who holds what, and who comes next, over all pools of a process.

Every search has a pool of its own, with its own GPUs to choose from and its own number of slots. What
they lease from is one machine, so the pools of a process keep one ledger (`shared_ledger`). A pool has an
`Account` in it.

Who comes first. The pool with fewer leases; among equals, who asked first. A pool asks with `await`
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
import math
import os
import threading
import weakref
from collections.abc import Callable, Iterator

from aiotune.devices.account import Account, Waiter, Want
from aiotune.devices.lease import Lease
from aiotune.devices.offer import Choice, Offer, Request, Taken
from aiotune.devices.run_memory import RunMemory

__all__ = ["Ledger", "shared_ledger"]

logger = logging.getLogger("aiotune.devices")

_NEVER = math.inf  # a ticket after all others


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

    def open(self, offer: Offer, most: int, available_bytes: int | None) -> Account:
        """Return the account of a new pool. available_bytes: memory; None: it is no bound."""
        with self.lock:
            memory = None if available_bytes is None else RunMemory(self._at_hand(available_bytes))
            account = Account(offer, most, memory)
            self._accounts[next(self._numbers)] = account
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

    def taken(self) -> Taken:
        """Return what all leases hold."""
        with self.lock:
            taken = Taken()
            for account in self._accounts.values():
                account.hold(taken)
            return taken

    @property
    def is_in_use(self) -> bool:
        """Whether somebody holds a lease, waits for one, or listens."""
        with self.lock:
            return any(
                each.leases or each.waiters or each.callbacks for each in self._accounts.values()
            )

    # --- asking ---

    def has_room(self, account: Account, request: Request) -> bool:
        """Return whether the request could be served now."""
        with self.lock:
            has_room = self._decide(account, request, _age(account)) is not None
            is_loosened = False
            if not has_room or not account.leases:
                self._stake(account, request)
            else:
                is_loosened = _drop_claim(account)
        if is_loosened:
            self.settle(but=account)
        return has_room

    def take(self, account: Account, request: Request) -> Lease | None:
        """Return a lease of all of the request, or None if some of it is taken or set aside."""
        with self.lock:
            lease = self._grant(account, request, _age(account))
            if lease is None:
                self._stake(account, request)
                return None
            is_loosened = _loosen(account)
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
            is_loosened = lease is not None and _loosen(account)
        if is_loosened:
            self.settle(but=account)
        if lease is not None:
            return lease
        try:
            return await waiter.future
        except BaseException:
            self._withdraw(account, waiter)
            raise

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
                is_loosened = not account.callbacks and _drop_claim(account)
            if is_loosened:
                self.settle(but=account)

        return leave

    # --- telling ---

    def settle(self, *, but: Account | None = None) -> None:
        """Serve the waiters that can be served, then call all listeners, but for those of one account.

        To be called whenever more may be free than before, without the lock.
        """
        with self.lock:
            served = list(self._serve())
            listeners = [
                (account, callback)
                for account in self._accounts.values()
                if account is not but
                for callback in account.callbacks.values()
            ]
        for waiter in served:
            _wake(waiter)
        is_loosened = False
        for account, callback in listeners:
            if not _call(callback):  # who cannot hear would keep its claim for ever
                with self.lock:
                    is_loosened |= _drop_claim(account)
        if is_loosened:
            self.settle()

    def _serve(self) -> Iterator[Waiter]:
        """Grant what can be granted, and yield who was served. Needs the lock."""
        while True:
            queue = [
                (waiter, account)
                for account in self._accounts.values()
                for waiter in account.waiters
            ]
            for waiter, account in sorted(queue, key=lambda each: each[0].ticket):
                waiter.lease = self._grant(account, waiter.request, waiter.ticket)
                if waiter.lease is not None:
                    account.waiters.remove(waiter)
                    yield waiter
                    break  # a pool with one lease more has another place in the order
            else:
                return

    # --- deciding; all of this needs the lock ---

    def _grant(self, account: Account, request: Request, ticket: float) -> Lease | None:
        choice = self._decide(account, request, ticket)
        if choice is None:
            return None

        def give_back(lease: Lease) -> None:
            with self.lock:
                if lease not in account.leases:
                    return
                if account.claim is not None and account.is_full:
                    account.claim.ticket = next(self._tickets)  # till now it waited for itself only
                del account.leases[lease]
            self.settle()

        lease = Lease(choice.gpus, choice.cores, give_back)
        account.leases[lease] = next(self._tickets) if ticket == _NEVER else ticket
        return lease

    def _decide(self, account: Account, request: Request, ticket: float) -> Choice | None:
        """Return what would serve the request now, beside those who come first."""
        taken = self.taken()
        choice = account.choose(request, taken)
        if choice is None:
            return None
        oldest_lease = min(account.leases.values(), default=_NEVER)
        ahead = self._ahead_of(account, ticket)
        for want, other, further in ahead:
            may_gather = want.ticket < oldest_lease
            other.set_aside(want.request, taken, further=further, may_gather=may_gather)
        choice = account.choose(request, taken)
        if choice is None:
            for want, _, _ in ahead:
                want.has_held_up = True
        return choice

    def _ahead_of(self, account: Account, ticket: float) -> list[tuple[Want, Account, int]]:
        """Return the wants of other accounts that come first, the first of all in front.

        The second want of an account stands as if the first had its lease already, and so on.
        """
        own_place = (len(account.leases), ticket)
        ahead = [
            ((len(other.leases) + further, want.ticket), want, other, further)
            for other in self._accounts.values()
            if other is not account
            for further, want in enumerate(other.wants)
        ]
        ahead = [each for each in ahead if each[0] < own_place]
        ahead.sort(key=lambda each: each[0])
        return [each[1:] for each in ahead]

    def _stake(self, account: Account, request: Request) -> None:
        """Note what an account wants that will ask again; the first that it asks for stands."""
        if account.claim is None and account.callbacks:
            account.claim = Want(request, next(self._tickets))


def _age(account: Account) -> float:
    return _NEVER if account.claim is None else account.claim.ticket


def _drop_claim(account: Account) -> bool:
    """Return whether the claim held somebody up."""
    claim, account.claim = account.claim, None
    return claim is not None and claim.has_held_up


def _loosen(account: Account) -> bool:
    """Note that an account was served without waiting: it has no claim, and its waiters come later.

    Return whether one of them held somebody up.
    """
    has_held_up = [waiter.has_held_up for waiter in account.waiters]
    for waiter in account.waiters:
        waiter.has_held_up = False
    return _drop_claim(account) or any(has_held_up)


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
