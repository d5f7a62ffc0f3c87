"""A machine with cards, a sensor and a watch, in virtual time."""

from __future__ import annotations

import asyncio
import functools
import math
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from aiotune.clock import Clock
from aiotune.devices.condition import Rules
from aiotune.devices.device import Device, Process, Reading
from aiotune.devices.lease import Lease
from aiotune.devices.ledger import Ledger
from aiotune.devices.pool import DevicePool
from aiotune.devices.sensing import Answer, Sensor
from aiotune.devices.watch import Notes, Watch
from aiotune.resources import Resources
from aiotune.simulation.virtual_time import VirtualClock, run_virtually
from aiotune.tasks import beside

__all__ = ["GIB", "GPU", "FakeCard", "FakeLocks", "FakeSensor", "InLoop", "Machine", "virtually"]

GIB = 2**30
GPU = Resources(gpus=1, cpus=1)


def virtually(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test in virtual time."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        run_virtually(partial(test, *args, **kwargs))

    return run


@dataclass
class FakeCard:
    """How a card is. ours: what runs of this machine's pools use, also after their end. takes: a reading."""

    ours: int = 0
    theirs: int = 0
    own: int = 0  # this very process
    utilisation: float | None = None
    fault: str | None = None
    is_there: bool = True
    takes: float = 0.001  # seconds; math.inf: it hangs until told otherwise

    def reading(self) -> Reading:
        processes = [Process(4711, self.theirs, False)] if self.theirs else []
        processes += [Process(os.getpid(), self.own, False)] if self.own else []
        used = self.ours + self.theirs + self.own
        if self.fault is not None:
            return Reading(fault=self.fault)
        return Reading(
            total_bytes=80 * GIB,
            used_bytes=used,
            processes=tuple(processes),
            utilisation=self.utilisation,
        )


class FakeSensor:
    """Reads fake cards. `reads` counts for each card."""

    def __init__(self, uuids: Iterable[str]) -> None:
        self.cards = {uuid: FakeCard() for uuid in uuids}
        self.events: dict[str, str] = {}
        self.reads: Counter[str] = Counter()
        self.is_open = False

    def open(self) -> None:
        self.is_open = True

    def close(self) -> None:
        self.is_open = False

    def read(self, uuids: Iterable[str]) -> dict[str, Reading]:
        uuids = tuple(uuids)
        self.reads.update(uuids)
        self.is_open = True
        return {uuid: self.cards[uuid].reading() for uuid in uuids if self.cards[uuid].is_there}

    def faults(self, timeout: float) -> dict[str, str]:
        events, self.events = self.events, {}
        return events


class InLoop:
    """Asks a fake sensor in the loop's own time, as long as its cards take."""

    def __init__(self, sensor: FakeSensor) -> None:
        self._sensor = sensor

    def ask(self, uuids: Iterable[str], tell: Callable[[Answer], object]) -> None:
        uuids = tuple(uuids)
        self._later(uuids, sum(self._sensor.cards[uuid].takes for uuid in uuids), tell)

    def _later(
        self, uuids: tuple[str, ...], seconds: float, tell: Callable[[Answer], object]
    ) -> None:
        loop = asyncio.get_running_loop()
        if seconds == math.inf:
            takes = sum(self._sensor.cards[uuid].takes for uuid in uuids)
            again = partial(self._later, uuids, takes, tell)
            loop.call_later(0.1, again)
        else:
            loop.call_later(seconds, self._answer, uuids, tell)

    def _answer(self, uuids: tuple[str, ...], tell: Callable[[Answer], object]) -> None:
        readings = self._sensor.read(uuids)
        lost = Reading(fault="lost")
        tell(Answer({uuid: readings.get(uuid, lost) for uuid in uuids}, self._sensor.faults(0)))

    def close(self) -> None:
        self._sensor.close()


class FakeLocks:
    """Locks, of which other processes have those in `others`."""

    def __init__(self) -> None:
        self.others: dict[str, str] = {}
        self.taken: set[str] = set()
        self.looks: Counter[str] = Counter()

    def take(self, uuid: str) -> int | None:
        if uuid in self.others:
            return None
        assert uuid not in self.taken
        self.taken.add(uuid)
        return 7

    def drop(self, uuid: str) -> None:
        self.taken.remove(uuid)

    def leave(self, uuid: str) -> None:
        pass

    def is_due(self, uuid: str) -> bool:
        return False

    def holder(self, uuid: str) -> str | None:
        self.looks[uuid] += 1
        return self.others.get(uuid)


@dataclass
class Machine:
    """Cards a, b, ... of 80 GiB each, and the pool of one search."""

    sensor: FakeSensor
    ledger: Ledger
    watch: Watch
    pool: DevicePool
    clock: Clock
    told: list[tuple[float, str, str | None]] = field(default_factory=list)
    lag: float = 0.0  # seconds until the memory of a run is back

    @classmethod
    def of(
        cls,
        number: int,
        *,
        rules: Rules | None = None,
        ledger: Ledger | None = None,
        sensor: FakeSensor | None = None,
        meter: Notes | None = None,
        clock: Clock | None = None,
    ) -> Machine:
        uuids = "abcdefgh"[:number]
        sensor = sensor or FakeSensor(uuids)
        ledger = ledger or Ledger()
        clock = clock or VirtualClock()

        def thread(_: Sensor) -> InLoop:
            return InLoop(sensor)

        watch = Watch(uuids, ledger, sensor, clock=clock, rules=rules, meter=meter, thread=thread)
        pool = DevicePool(
            [Device(uuid, "card", 80 * GIB) for uuid in uuids],
            cores=range(64),
            slots=64,
            ledger=ledger,
            watch=watch,
        )
        return cls(sensor, ledger, watch, pool, clock)

    @asynccontextmanager
    async def tended(self) -> AsyncIterator[Machine]:
        async with beside(partial(self.pool.tend, self._tell)):
            yield self

    async def live(self) -> None:
        """Perform one short run under the watch."""
        async with self.tended():
            await self.run_for(1.0)

    async def _tell(self, uuid: str, reason: str | None) -> None:
        self.told.append((self.clock.monotonic(), uuid, reason))

    def news(self, uuid: str) -> list[bool]:
        """Return what was told of a card: True each time that it was withheld, False when it came back."""
        return [reason is not None for _, each, reason in self.told if each == uuid]

    @contextmanager
    def running(self, lease: Lease, used: int = 60 * GIB) -> Iterator[None]:
        """Use memory of the lease's cards; after the release, what is left of it goes after `lag` seconds."""
        for uuid in lease.gpus:
            self.sensor.cards[uuid].ours += used
        try:
            yield
        finally:
            lease.release()
            for uuid in lease.gpus:
                asyncio.get_running_loop().call_later(self.lag, self._free, uuid, used)

    def _free(self, uuid: str, used: int) -> None:
        self.sensor.cards[uuid].ours -= used

    async def run_for(self, seconds: float, *, used: int = 60 * GIB) -> Lease:
        """Perform a run on one card; return its lease."""
        async with self.pool.lease(GPU) as lease:
            with self.running(lease, used):
                await self.clock.sleep(seconds)
        return lease

    def withheld(self, uuid: str) -> str | None:
        return self.ledger.withheld.get(uuid)
