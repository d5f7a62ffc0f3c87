"""What a pool may lease, and how it chooses: plain functions of what is taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from aiotune.devices.cores import equal_shares, pick_cores
from aiotune.devices.device import Device
from aiotune.errors import DeviceError, FatalValueError
from aiotune.resources import Resources

__all__ = ["Choice", "Offer", "Request", "Taken", "gibibytes"]


@dataclass(frozen=True, slots=True)
class Request:
    """`Resources` with every choice made. `is_share`: the cores were left to the pool."""

    gpus: int
    gpu_memory_bytes: int
    cpus: int
    is_share: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """Devices for one lease."""

    gpus: tuple[str, ...] = ()  # UUIDs
    cores: tuple[int, ...] = ()


@dataclass(slots=True)
class Taken:
    """What is not free: it is leased, or set aside for somebody."""

    gpus: set[str] = field(default_factory=set)
    cores: set[int] = field(default_factory=set)  # where a lease has them for itself
    load: Counter[int] = field(default_factory=Counter)  # leases on each core, of every kind
    memory_bytes: int = 0  # of the runs that memory bounds

    def add(self, gpus: Sequence[str], cores: Sequence[int], *, is_exclusive: bool) -> None:
        self.gpus.update(gpus)
        self.load.update(cores)
        if is_exclusive:
            self.cores.update(cores)


class Offer:
    """The devices and cores that a pool leases from.

    shares: in how many equal parts the cores are divided. is_exclusive: a core is in one lease at
    most; else leases overlap in their cores, and neither wait for cores nor keep others from them.
    problem: why there are no (more) devices.
    """

    def __init__(
        self,
        devices: Sequence[Device],
        cores: Sequence[int],
        *,
        shares: int,
        is_exclusive: bool,
        problem: str | None = None,
    ) -> None:
        _check_distinct("devices", [device.uuid for device in devices])
        _check_distinct("cores", cores)
        self.devices = tuple(devices)
        self.cores = tuple(cores)
        self.is_exclusive = is_exclusive
        self._shares = equal_shares(cores, min(shares, len(cores)))
        self._problem = problem

    def resolve(self, resources: Resources) -> Request:
        """Return what the resources mean here; DeviceError if they can never be had."""
        gpus = resources.gpus
        if gpus is None:
            gpus = 1 if self.devices or resources.gpu_memory_bytes else 0
        share = len(self.cores) // len(self._shares)
        cpus = resources.cpus or min(share * max(1, gpus), len(self.cores))
        request = Request(gpus, resources.gpu_memory_bytes, cpus, resources.cpus is None)
        self._refuse_impossible(request)
        return request

    def free_gpus(self, taken: Taken) -> tuple[str, ...]:
        return tuple(device.uuid for device in self._free_devices(taken))

    def free_cores(self, taken: Taken) -> tuple[int, ...]:
        """Return the cores that no lease has for itself; where leases overlap, that none is on."""
        held = taken.cores if self.is_exclusive else taken.load
        return tuple(core for core in self.cores if core not in held)

    def choose(self, request: Request, taken: Taken) -> Choice | None:
        """Return devices for all of the request, or None if some of it is taken."""
        gpus = self._choose_gpus(request, taken)
        cores = self._choose_cores(request, taken)
        if len(gpus) < request.gpus or cores is None:
            return None
        return Choice(gpus, cores)

    def gather(self, request: Request, taken: Taken) -> Choice:
        """Return what is free of a request that cannot be served as a whole.

        First GPUs; cores only when the GPUs are complete, so that none idles for a run that waits
        for a GPU.
        """
        gpus = self._choose_gpus(request, taken)
        if len(gpus) < request.gpus:
            return Choice(gpus)
        return Choice(gpus, self.free_cores(taken)[: request.cpus])

    def _choose_gpus(self, request: Request, taken: Taken) -> tuple[str, ...]:
        """Return as many as there are, the smallest that fit: the large ones are left for larger requests."""
        fitting = [device for device in self._free_devices(taken) if _fits(device, request)]
        fitting.sort(key=_size)
        return tuple(device.uuid for device in fitting[: request.gpus])

    def _choose_cores(self, request: Request, taken: Taken) -> tuple[int, ...] | None:
        if not self.is_exclusive:
            if request.is_share:
                return self.cores
            calmest = sorted(self.cores, key=lambda core: taken.load[core])
            return tuple(sorted(calmest[: request.cpus]))
        shares = [share for share in self._shares if taken.cores.isdisjoint(share)]
        number = max(1, request.gpus)
        if request.is_share and len(shares) >= number:
            return tuple(core for share in shares[:number] for core in share)
        free = self.free_cores(taken)
        return pick_cores(free, request.cpus) if len(free) >= request.cpus else None

    def _free_devices(self, taken: Taken) -> list[Device]:
        return [device for device in self.devices if device.uuid not in taken.gpus]

    def _refuse_impossible(self, request: Request) -> None:
        if request.gpus > len(self.devices):
            why = f" ({self._problem})" if self._problem else ""
            raise DeviceError(
                f"a run asks for {_count(request.gpus, 'GPU')}, and this machine has "
                f"{len(self.devices)} that may be used{why}: lower Resources(gpus=...)"
            )
        fitting = [device for device in self.devices if _fits(device, request)]
        if len(fitting) < request.gpus:
            cards = ", ".join(_describe(device) for device in self.devices)
            raise DeviceError(
                f"a run asks for {_count(request.gpus, 'GPU')} of "
                f"{gibibytes(request.gpu_memory_bytes)} or more, and there are only: {cards}: "
                f"lower Resources(gpu_memory=...)"
            )
        if request.cpus > len(self.cores):
            raise DeviceError(
                f"a run asks for {_count(request.cpus, 'core')}, and this machine has "
                f"{len(self.cores)} that may be used: lower Resources(cpus=...)"
            )


def gibibytes(size: int) -> str:
    """Return bytes in words, with three digits: "1.5 GiB"."""
    return f"{size / 2**30:.3g} GiB"


def _fits(device: Device, request: Request) -> bool:
    """A card whose memory is unknown may serve any request."""
    return device.memory_bytes is None or device.memory_bytes >= request.gpu_memory_bytes


def _size(device: Device) -> float:
    """Cards of unknown size come last."""
    return float("inf") if device.memory_bytes is None else device.memory_bytes


def _describe(device: Device) -> str:
    size = "unknown" if device.memory_bytes is None else gibibytes(device.memory_bytes)
    return f"{device.name} ({size})"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _check_distinct(what: str, members: Sequence[object]) -> None:
    twice = [member for member, number in Counter(members).items() if number > 1]
    if twice:
        raise FatalValueError(f"the pool's {what} must differ from one another; twice: {twice}")
