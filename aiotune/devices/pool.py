"""The pool of devices: each is free, or held by exactly one lease.

    async with pool.lease(Resources()) as lease:
        ...  # lease.gpus, lease.cores

Giving back is synchronous, so that no cancellation can interrupt it. The bookkeeping never waits
for anything but a short lock, so that searches in several threads and event loops can share one
pool.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiotune.devices.cores import equal_shares, name_cores, pick_cores
from aiotune.devices.device import Device
from aiotune.errors import DeviceError, FatalValueError
from aiotune.resources import Resources

__all__ = ["Capacity", "DevicePool", "Lease", "Request"]

logger = logging.getLogger("aiotune.devices")


@dataclass(frozen=True, slots=True)
class Request:
    """`Resources` with every choice made. `is_share`: the cores were left to the pool."""

    gpus: int
    gpu_memory_bytes: int
    cpus: int
    is_share: bool


@dataclass(frozen=True, slots=True)
class Capacity:
    """What there is, or what is free of it."""

    gpus: tuple[str, ...]  # UUIDs
    cores: tuple[int, ...]
    slots: int


@dataclass(frozen=True, slots=True, eq=False)
class Lease:
    """What one run holds until `release()`. Two leases are equal only if they are the same."""

    gpus: tuple[str, ...]  # UUIDs; none: the run must not touch a GPU
    cores: tuple[int, ...]  # ascending
    _give_back: Callable[[Lease], None] = field(repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """What a record says of the lease: the UUIDs, or the cores as "cpu:0-3"."""
        return self.gpus or (name_cores(self.cores),)

    def release(self) -> None:
        """Give everything back, from any thread. The second time it does nothing."""
        self._give_back(self)


@dataclass(slots=True, eq=False)
class _Waiter:
    """Somebody who awaits a lease: `lease` is set under the lock, `future` by its own loop."""

    request: Request
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Lease]
    lease: Lease | None = None


class DevicePool:
    """Leases GPUs and processor cores.

    devices: the GPUs and MIG instances that may be used. cores: the processor's, ascending. slots:
    how many leases there may be at a time. problem: why there are no (more) devices; for messages.

    Cores are exclusive to a lease as long as there are as many of them as slots. With more slots
    than cores the user asked for more runs than the processor can serve at once: then leases
    overlap in their cores.

    Invariants, whenever `_lock` is free: a GPU is in one lease at most, and so is a core if cores
    are exclusive; there are at most `slots` leases; what is free would not serve anybody in
    `_waiters`.
    """

    def __init__(
        self,
        devices: Sequence[Device],
        *,
        cores: Sequence[int],
        slots: int,
        problem: str | None = None,
    ) -> None:
        _check_distinct("devices", [device.uuid for device in devices])
        _check_distinct("cores", cores)
        if not cores or slots < 1:
            raise FatalValueError(
                f"a pool needs 1 core and 1 slot at least: cores={cores!r}, slots={slots}"
            )
        self._devices = tuple(devices)
        self._cores = tuple(cores)
        self._slots = slots
        self._problem = problem
        self._is_exclusive = slots <= len(cores)
        self._shares = equal_shares(cores, min(slots, len(cores)))
        # Reentrant: the garbage collector may end an abandoned waiter while this thread is in here.
        self._lock = threading.RLock()
        self._leases: dict[Lease, None] = {}  # an ordered set
        self._waiters: list[_Waiter] = []  # oldest first
        self._callbacks: dict[object, Callable[[], object]] = {}

    @property
    def devices(self) -> tuple[Device, ...]:
        return self._devices

    @property
    def slots(self) -> int:
        """How many leases there may be at a time."""
        return self._slots

    @property
    def total(self) -> Capacity:
        return Capacity(tuple(each.uuid for each in self._devices), self._cores, self._slots)

    @property
    def free(self) -> Capacity:
        """What is in no lease; equal to `total` when nobody holds one."""
        with self._lock:
            load = self._core_load()
            return Capacity(
                tuple(device.uuid for device in self._free_devices()),
                tuple(core for core in self._cores if not load[core]),
                self._slots - len(self._leases),
            )

    def resolve(self, resources: Resources) -> Request:
        """Return what the resources mean on this machine; DeviceError if it can never serve them.

        Cores that are left to the pool are one equal share of the machine, or one for each GPU.
        """
        gpus = resources.gpus
        if gpus is None:
            gpus = 1 if self._devices or resources.gpu_memory_bytes else 0
        share = len(self._cores) // len(self._shares)
        cpus = resources.cpus or min(share * max(1, gpus), len(self._cores))
        request = Request(gpus, resources.gpu_memory_bytes, cpus, resources.cpus is None)
        self._refuse_impossible(request)
        return request

    def has_room(self, resources: Resources) -> bool:
        """Return whether a lease could be had now. DeviceError if it never can."""
        request = self.resolve(resources)
        with self._lock:
            return self._choose(request) is not None

    def lease_nowait(self, resources: Resources) -> Lease | None:
        """Return a lease of all that is asked for, or None if some of it is taken.

        DeviceError if it can never be had.
        """
        request = self.resolve(resources)
        with self._lock:
            return self._grant(request)

    @asynccontextmanager
    async def lease(self, resources: Resources) -> AsyncIterator[Lease]:
        """Hold a lease, after waiting for it; DeviceError at once if it can never be had.

        The oldest waiter is served first; one whose request fits passes those whose does not.
        """
        lease = await self._wait(self.resolve(resources))
        try:
            yield lease
        finally:
            lease.release()

    def subscribe(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call `callback` after each release, until the returned function is called.

        It is called from whichever thread released, after the waiters were served, and without the
        lock.
        """
        token = object()
        with self._lock:
            self._callbacks[token] = callback

        def unsubscribe() -> None:
            with self._lock:
                self._callbacks.pop(token, None)

        return unsubscribe

    async def _wait(self, request: Request) -> Lease:
        loop = asyncio.get_running_loop()
        with self._lock:
            lease = self._grant(request)
            if lease is not None:
                return lease
            waiter = _Waiter(request, loop, loop.create_future())
            self._waiters.append(waiter)
        try:
            return await waiter.future
        except BaseException:
            self._withdraw(waiter)
            raise

    def _withdraw(self, waiter: _Waiter) -> None:
        """Forget a waiter that was cancelled, be it before or after it was served."""
        with self._lock:
            if waiter.lease is None:
                self._waiters.remove(waiter)
        if waiter.lease is not None:
            waiter.lease.release()

    def _release(self, lease: Lease) -> None:
        with self._lock:
            if lease not in self._leases:
                return
            del self._leases[lease]
            served = self._serve_waiters()
            callbacks = list(self._callbacks.values())
        for waiter in served:
            _wake(waiter)
        for callback in callbacks:
            try:
                callback()
            except Exception:  # a subscriber's fault must not reach the run that gives back
                logger.exception("a subscriber of the device pool failed: %r", callback)

    def _serve_waiters(self) -> list[_Waiter]:
        """Grant what can be granted, and return who was served. Needs the lock."""
        for waiter in self._waiters:
            waiter.lease = self._grant(waiter.request)
        served = [waiter for waiter in self._waiters if waiter.lease is not None]
        self._waiters = [waiter for waiter in self._waiters if waiter.lease is None]
        return served

    def _grant(self, request: Request) -> Lease | None:
        """Take all of the request, or nothing. Needs the lock."""
        chosen = self._choose(request)
        if chosen is None:
            return None
        lease = Lease(*chosen, self._release)
        self._leases[lease] = None
        return lease

    def _choose(self, request: Request) -> tuple[tuple[str, ...], tuple[int, ...]] | None:
        """Return the GPUs and cores that would serve the request now. Needs the lock."""
        if len(self._leases) >= self._slots:
            return None
        gpus = self._choose_gpus(request)
        cores = self._choose_cores(request)
        return None if gpus is None or cores is None else (gpus, cores)

    def _choose_gpus(self, request: Request) -> tuple[str, ...] | None:
        """Prefer the smallest cards that fit: the large ones are left for larger requests."""
        fitting = [device for device in self._free_devices() if _fits(device, request)]
        if len(fitting) < request.gpus:
            return None
        fitting.sort(key=_size)
        return tuple(device.uuid for device in fitting[: request.gpus])

    def _choose_cores(self, request: Request) -> tuple[int, ...] | None:
        load = self._core_load()
        if not self._is_exclusive:
            if request.is_share:
                return self._cores
            return tuple(sorted(sorted(self._cores, key=lambda core: load[core])[: request.cpus]))
        shares = [share for share in self._shares if not any(load[core] for core in share)]
        number = max(1, request.gpus)
        if request.is_share and len(shares) >= number:
            return tuple(core for share in shares[:number] for core in share)
        free = [core for core in self._cores if not load[core]]
        return pick_cores(free, request.cpus) if len(free) >= request.cpus else None

    def _free_devices(self) -> list[Device]:
        held = {uuid for lease in self._leases for uuid in lease.gpus}
        return [device for device in self._devices if device.uuid not in held]

    def _core_load(self) -> Counter[int]:
        """Return how many leases hold each core."""
        return Counter(core for lease in self._leases for core in lease.cores)

    def _refuse_impossible(self, request: Request) -> None:
        if request.gpus > len(self._devices):
            why = f" ({self._problem})" if self._problem else ""
            raise DeviceError(
                f"a run asks for {_count(request.gpus, 'GPU')}, and this machine has "
                f"{len(self._devices)} that may be used{why}: lower Resources(gpus=...)"
            )
        fitting = [device for device in self._devices if _fits(device, request)]
        if len(fitting) < request.gpus:
            cards = ", ".join(_describe(device) for device in self._devices)
            raise DeviceError(
                f"a run asks for {_count(request.gpus, 'GPU')} of "
                f"{_gibibytes(request.gpu_memory_bytes)} or more, and there are only: {cards}: "
                f"lower Resources(gpu_memory=...)"
            )
        if request.cpus > len(self._cores):
            raise DeviceError(
                f"a run asks for {_count(request.cpus, 'core')}, and this machine has "
                f"{len(self._cores)} that may be used: lower Resources(cpus=...)"
            )


def _wake(waiter: _Waiter) -> None:
    """Tell a waiter, in its own loop, that it was served."""
    assert waiter.lease is not None
    try:
        waiter.loop.call_soon_threadsafe(_resolve, waiter.future, waiter.lease)
    except RuntimeError:  # its loop was closed under it: nobody is left to use the lease
        waiter.lease.release()


def _resolve(future: asyncio.Future[Lease], lease: Lease) -> None:
    if not future.done():  # else it was cancelled, and gives the lease back itself
        future.set_result(lease)


def _fits(device: Device, request: Request) -> bool:
    """A card whose memory is unknown may serve any request."""
    return device.memory_bytes is None or device.memory_bytes >= request.gpu_memory_bytes


def _size(device: Device) -> float:
    """Cards of unknown size come last."""
    return float("inf") if device.memory_bytes is None else device.memory_bytes


def _describe(device: Device) -> str:
    size = "unknown" if device.memory_bytes is None else _gibibytes(device.memory_bytes)
    return f"{device.name} ({size})"


def _gibibytes(size: int) -> str:
    return f"{size / 2**30:.3g} GiB"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _check_distinct(what: str, members: Sequence[object]) -> None:
    twice = [member for member, number in Counter(members).items() if number > 1]
    if twice:
        raise FatalValueError(f"the pool's {what} must differ from one another; twice: {twice}")
