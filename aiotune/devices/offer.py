"""What a pool may lease, and how it chooses: plain functions of what is taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from aiotune.devices.cores import equal_shares, pick_cores
from aiotune.devices.device import Device
from aiotune.devices.parts import Part, Share, runs_on, share_of
from aiotune.devices.placement import place_shared, place_whole, size_of, to_empty
from aiotune.devices.taken import Choice, Taken
from aiotune.errors import DeviceError, FatalValueError
from aiotune.resources import Resources

__all__ = ["Offer", "Request", "counted", "gibibytes"]


@dataclass(frozen=True, slots=True)
class Request:
    """`Resources` with every choice made.

    gpus: cards. gpu_memory_bytes: what each must have in total. is_share: the cores were left to the pool.
    share: the part of its only card; None: whole cards. memory_bytes: what the run may hold of the machine's
    memory; None: not said.
    """

    gpus: int
    gpu_memory_bytes: int
    cpus: int
    is_share: bool
    share: Share | None = None
    memory_bytes: int | None = None

    def with_need(self, memory_bytes: int) -> Request:
        """Return the request for so much memory of a card, if it was left to what earlier runs took."""
        if self.share is None or not self.share.is_open:
            return self
        return replace(self, gpu_memory_bytes=memory_bytes, share=Share(None, memory_bytes))


class Offer:
    """The devices and cores that a pool leases from.

    shares: in how many equal parts the cores are divided. most_shares: in how many at most where runs share
    cards. is_exclusive: a core is in one lease at most; else leases overlap in their cores, and neither wait
    for cores nor keep others from them. problem: why there are no (more) devices. memory_bytes: all that the
    machine has; None: not known.
    """

    def __init__(
        self,
        devices: Sequence[Device],
        cores: Sequence[int],
        *,
        shares: int,
        most_shares: int | None = None,
        is_exclusive: bool,
        problem: str | None = None,
        memory_bytes: int | None = None,
    ) -> None:
        _check_distinct("devices", [device.uuid for device in devices])
        _check_distinct("cores", cores)
        self.devices = tuple(devices)
        self.cores = tuple(cores)
        self.is_exclusive = is_exclusive
        self._shares = equal_shares(cores, min(shares, len(cores)))
        self._most_shares = max(shares, most_shares or 0)
        self._problem = problem
        self._memory_bytes = memory_bytes

    def resolve(self, resources: Resources) -> Request:
        """Return what the resources mean here; DeviceError if they can never be had."""
        share = share_of(resources)
        gpus = self._count_of(resources)
        cpus = resources.cpus or self._equal_cores(gpus, share)
        is_share = resources.cpus is None
        memory_bytes = resources.memory_bytes
        request = Request(gpus, resources.gpu_memory_bytes, cpus, is_share, share, memory_bytes)
        self._refuse_impossible(request)
        return request

    def _count_of(self, resources: Resources) -> int:
        match resources.gpus:
            case int() as gpus:
                return gpus
            case None:
                return 1 if self.devices or resources.gpu_memory_bytes else 0
            case _:
                return 1

    def _equal_cores(self, gpus: int, share: Share | None) -> int:
        """Return how many cores are an equal share of the machine: for each card, or for a part of one."""
        whole = len(self.cores) // len(self._shares)
        if share is None:
            return min(whole * max(1, gpus), len(self.cores))
        # The card that most runs share decides: which card a run gets must not change its number of threads.
        counts = [runs_on(device, share) for device in self.devices]
        on_each = max((count or self._most_shares for count in counts), default=1)
        parts = min(self._most_shares, on_each * len(self._shares))
        return max(1, len(self.cores) // parts)

    def free_gpus(self, taken: Taken) -> tuple[str, ...]:
        return tuple(device.uuid for device in self.devices if taken.is_free(device))

    def free_cores(self, taken: Taken) -> tuple[int, ...]:
        """Return the cores that no lease has for itself; where leases overlap, that none is on."""
        held = taken.cores if self.is_exclusive else taken.load
        return tuple(core for core in self.cores if core not in held)

    def choose(self, request: Request, taken: Taken) -> Choice | None:
        """Return devices for all of the request, or None if some of it is taken."""
        placed = self.place(request, taken)
        cores = self.choose_cores(request, taken)
        if placed is None or cores is None:
            return None
        gpus, part = placed
        return Choice(gpus, cores, part)

    def gather(self, request: Request, taken: Taken) -> Choice:
        """Return what is free of a request that cannot be served as a whole, and what will be.

        First GPUs, and shared ones that nobody should join any more; cores only when the GPUs are complete, so
        that none idles for a run that waits for a GPU. Nothing for a request that cannot be served even when
        all leases have ended.
        """
        soon = taken.soon()
        if self.choose(request, Taken(withheld=soon.withheld)) is None:
            return Choice()
        placed = self.place(request, taken)
        if placed is not None:
            gpus, part = placed
            return Choice(gpus, self.free_cores(taken)[: request.cpus], part)
        fitting = self.fitting(request)
        is_whole = request.share is None or request.share.is_open
        free = place_whole(filter(soon.is_free, fitting), request.gpus) if is_whole else ()
        emptying = to_empty(fitting, request.gpus - len(free), taken)
        return Choice(tuple(device.uuid for device in (*free, *emptying)))

    def place(self, request: Request, taken: Taken) -> tuple[tuple[str, ...], Part | None] | None:
        """Return the cards for a request, and the part of a shared one; None if there are too few now."""
        fitting = self.fitting(request)
        if request.share is not None:
            placed = place_shared(fitting, request.share, taken)
            return None if placed is None else ((placed[0].uuid,), placed[1])
        cards = place_whole(filter(taken.is_free, fitting), request.gpus)
        if len(cards) < request.gpus:
            return None
        return tuple(device.uuid for device in cards), None

    def fitting(self, request: Request) -> list[Device]:
        """Return the cards that are large enough. What is more than any has asks for the largest.

        That may be what earlier runs took and somewhat more; who wrote it was told that it is impossible.
        """
        devices = self._of_kind(request)
        asked = min(request.gpu_memory_bytes, max(map(size_of, devices), default=0))
        return [device for device in devices if size_of(device) >= asked]

    def _of_kind(self, request: Request) -> Sequence[Device]:
        """Return the devices that may serve a request. CUDA uses one MIG instance in a process, not several."""
        if request.gpus < 2:
            return self.devices
        return [device for device in self.devices if device.kind != "mig"]

    def choose_cores(self, request: Request, taken: Taken) -> tuple[int, ...] | None:
        """Return the cores for a request, or None if there are too few now."""
        if not self.is_exclusive:
            if request.is_share:
                return self.cores
            calmest = sorted(self.cores, key=lambda core: taken.load[core])
            return tuple(sorted(calmest[: request.cpus]))
        shares = [share for share in self._shares if taken.cores.isdisjoint(share)]
        number = max(1, request.gpus)
        if request.is_share and request.share is None and len(shares) >= number:
            return tuple(core for share in shares[:number] for core in share)
        free = self.free_cores(taken)
        return pick_cores(free, request.cpus) if len(free) >= request.cpus else None

    def _refuse_impossible(self, request: Request) -> None:
        devices = self._of_kind(request)
        if request.gpus > len(devices):
            why = f" ({self._problem})" if self._problem else ""
            if len(devices) < len(self.devices):
                why = " (of MIG instances CUDA uses only one in a process)"
            number = len(devices) or "none"
            remedy = (
                "lower Resources(gpus=...)" if devices else "for the processor, Resources(gpus=0)"
            )
            raise DeviceError(
                f"a run asks for {_gpus(request)}, and this machine has {number} that may be used{why}: "
                f"{remedy}"
            )
        asked = request.gpu_memory_bytes
        if sum(size_of(device) >= asked for device in devices) < request.gpus:
            cards = ", ".join(_describe(device) for device in devices)
            size = gibibytes(asked)
            what = f"{size} of a GPU" if request.share else f"{_gpus(request)} of {size} or more"
            raise DeviceError(
                f"a run asks for {what}, and there are only: {cards}: lower Resources(gpu_memory=...)"
            )
        if request.cpus > len(self.cores):
            raise DeviceError(
                f"a run asks for {counted(request.cpus, 'core')}, and this machine has "
                f"{len(self.cores)} that may be used: lower Resources(cpus=...)"
            )
        memory_bytes = request.memory_bytes or 0
        if self._memory_bytes is not None and memory_bytes > self._memory_bytes:
            raise DeviceError(
                f"a run asks for {gibibytes(memory_bytes)} of memory, and this machine has "
                f"{gibibytes(self._memory_bytes)} that may be used: lower Resources(memory=...)"
            )


def gibibytes(size: int) -> str:
    """Return bytes in words, with three digits: "1.5 GiB"."""
    return f"{size / 2**30:.3g} GiB"


def _describe(device: Device) -> str:
    size = "unknown" if device.memory_bytes is None else gibibytes(device.memory_bytes)
    return f"{device.name} ({size})"


def _gpus(request: Request) -> str:
    return "a part of a GPU" if request.share else counted(request.gpus, "GPU")


def counted(number: int, what: str) -> str:
    """Return "1 core", "2 cores"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _check_distinct(what: str, members: Sequence[object]) -> None:
    twice = [member for member, number in Counter(members).items() if number > 1]
    if twice:
        raise FatalValueError(f"the pool's {what} must differ from one another; twice: {twice}")
