"""The watch over the cards of one search: it reads them, and withholds and restores them in the ledger.

What speaks against a card is decided in `conditions`, which all watches of a ledger have in common. The watch
brings in what happens: readings, from a sensor's thread that it never waits for; releases, which the ledger
tells; locks of other processes, which it looks at without the driver; and time.
"""

from __future__ import annotations

import logging
import math
import weakref
from asyncio import AbstractEventLoop, get_running_loop
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Protocol

import anyio

from aiotune.clock import Clock
from aiotune.devices.base import Tell
from aiotune.devices.condition import Cause, Rules, Verdict
from aiotune.devices.conditions import Conditions, News
from aiotune.devices.device import Reading
from aiotune.devices.lease import Lease
from aiotune.devices.ledger import Ledger
from aiotune.devices.sensing import Answer, Asked, Sensor, SensorThread
from aiotune.errors import DeviceError

__all__ = ["Watch"]

logger = logging.getLogger("aiotune.devices")

_LOCK_SECONDS = 0.05  # between looks at the locks of other processes
_LEAST_SECONDS = 0.001  # of sleep: after less, what is due may not be due yet, by rounding
_TOGETHER_SECONDS = 0.2  # readings that are due so soon after one another are one question


class Notes(Protocol):
    """Takes note of readings, as `Meter` does."""

    def note(self, uuid: str, at: float, reading: Reading, leases: int) -> None: ...


class Watch:
    """Watches over cards while `run` does. Made in any thread; run once at a time.

    uuids: the cards. ledger: where they are leased. sensor: reads them. rules: what is looked at. meter: takes
    note of the readings. thread: where the sensor is used; made anew for each `run`.
    """

    def __init__(
        self,
        uuids: Iterable[str],
        ledger: Ledger,
        sensor: Sensor,
        *,
        clock: Clock,
        rules: Rules | None = None,
        meter: Notes | None = None,
        thread: Callable[[Sensor], Asked] = SensorThread,
    ) -> None:
        self._uuids = tuple(uuids)
        self._ledger = ledger
        self._sensor = sensor
        self._clock = clock
        self._rules = rules or Rules()
        self._meter = meter
        self._thread = thread
        self._conditions = _conditions_of(ledger)
        self._watching: _Watching | None = None

    async def run(self, tell: Tell) -> None:
        """Watch until cancelled.

        tell: awaited for each card that is not used any more, with the reason, and that is used again; not for
        what passes in moments. DeviceError: somebody waits for a card, and the caller's own process keeps the
        memory of all.
        """
        if not self._uuids:
            return
        told = News()
        with self._standing() as watching:
            while True:
                seconds = watching.step()
                for uuid, verdict in told.of(watching.verdicts):
                    await tell(uuid, None if verdict is None else verdict.reason)
                watching.refuse_own()
                await watching.wait(seconds)

    def report(self, lease: Lease, *, failed: bool) -> None:
        """Take note of how a run on the lease ended, from any thread.

        failed: in a way that may be its card's fault: not by an exception of the user's code.
        """
        watching = self._watching
        if watching is not None:
            watching.report(lease.gpus, failed=failed)

    @contextmanager
    def _standing(self) -> Iterator[_Watching]:
        """Watch in the ledger, and have a sensor, until left."""
        uuids, ledger, conditions = self._uuids, self._ledger, self._conditions
        sensor = self._thread(self._sensor)
        watching = _Watching(uuids, ledger, conditions, sensor, self._clock, self._meter)
        with ledger.lock:
            place = conditions.open(uuids, self._rules, self._clock.monotonic())
            leave = ledger.tend(uuids, watching.vacated)
        self._watching = watching
        try:
            yield watching
        finally:
            self._watching = None
            with ledger.lock:
                watching.end()
                conditions.close(place)
            leave()
            sensor.close()


class _Watching:
    """A watch in progress, in one event loop."""

    def __init__(
        self,
        uuids: tuple[str, ...],
        ledger: Ledger,
        conditions: Conditions,
        sensor: Asked,
        clock: Clock,
        meter: Notes | None,
    ) -> None:
        self.verdicts: dict[str, Verdict | None] = dict.fromkeys(uuids)
        self._uuids = uuids
        self._ledger = ledger
        self._conditions = conditions
        self._sensor = sensor
        self._clock = clock
        self._meter = meter
        self._loop: AbstractEventLoop = get_running_loop()
        self._changed = anyio.Event()
        self._is_asked = False  # the sensor has a question
        self._is_slow = False  # the driver
        self._is_over = False
        self._read_at = dict.fromkeys(uuids, -math.inf)
        self._read_in = dict.fromkeys(uuids, -1)  # rounds

    # --- what happens, told from any thread ---

    def vacated(self, uuid: str) -> None:
        """The last lease of a card was released."""
        with self._ledger.lock:
            if not self._ledger.lease_count(uuid):
                self._conditions.vacated(uuid, self._clock.monotonic())
        self._in_loop(self._ring)

    def report(self, uuids: Iterable[str], *, failed: bool) -> None:
        """A run on these cards has ended. What follows from it holds at once, before its lease is released."""
        now = self._clock.monotonic()
        with self._ledger.lock:
            self._conditions.reported(uuids, now, failed=failed)
        self._judge(now)
        self._in_loop(self._ring)

    def _in_loop(self, function: Callable[..., object], *arguments: object) -> None:
        with suppress(RuntimeError):  # the loop was closed: nobody is left to listen
            self._loop.call_soon_threadsafe(function, *arguments)

    # --- in the loop ---

    def step(self) -> float:
        """Do what is to be done now; return in how many seconds there is more, if nothing happens before."""
        now = self._clock.monotonic()
        self._judge(now)
        self._ask(now)
        return self._seconds_left(now)

    async def wait(self, seconds: float) -> None:
        """Return when something has happened, or after so many seconds."""
        async with anyio.create_task_group() as tasks:
            if seconds < math.inf:
                tasks.start_soon(self._ring_after, seconds)
            await self._changed.wait()
            tasks.cancel_scope.cancel()
        self._changed = anyio.Event()

    async def _ring_after(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        self._ring()

    def _ring(self) -> None:
        self._changed.set()

    def refuse_own(self) -> None:
        """Raise DeviceError if somebody waits for cards of which this process itself keeps the memory."""
        verdicts = self.verdicts.values()
        if not all(each is not None and each.cause is Cause.OWN for each in verdicts):
            return
        if self._ledger.is_wanted(self._uuids):
            reason = next(each.reason for each in verdicts if each is not None)
            raise DeviceError(f"no GPU can be used: {', '.join(self._uuids)}: {reason}")

    def end(self) -> None:
        """Do nothing any more, whatever is still told. Needs the ledger's lock."""
        self._is_over = True

    # --- judging ---

    def _judge(self, now: float) -> None:
        """Withhold and restore cards as their conditions are now."""
        restored: list[tuple[str, str]] = []
        with self._ledger.lock:
            if self._is_over:
                return
            withheld = self._ledger.withheld
            for uuid in self._uuids:
                self._conditions.notice(uuid, withheld.get(uuid), now)
                self._look_at_lock(uuid, now)
                verdict = self.verdicts[uuid] = self._conditions[uuid].verdict(now)
                if verdict is None:
                    restored += [(uuid, withheld[uuid])] if uuid in withheld else []
                elif withheld.get(uuid) != verdict.reason:
                    self._ledger.withhold(uuid, verdict.reason)
                self._conditions.applied(uuid, None if verdict is None else verdict.reason)
            news = self._conditions.news.of(self.verdicts)
        for uuid, verdict in news:
            _log(uuid, verdict)
        for (
            uuid,
            reason,
        ) in restored:  # unless its last lease has just been released: it settles then
            self._ledger.restore(uuid, reason)

    def _look_at_lock(self, uuid: str, now: float) -> None:
        """See whether another process has a card that is not free, or has it no more. Needs the ledger's lock.

        Memory that is in use is then that process's, and none that a run of ours left.
        """
        card, locks = self._conditions[uuid], self._ledger.locks
        if self._ledger.lease_count(uuid) or card.verdict(now) is None:
            return
        holder = None if locks is None else locks.holder(uuid)
        if holder is not None:
            self._conditions.taken(uuid, holder)
            if locks is not None and not self._ledger.is_wanted((uuid,)):
                locks.leave(uuid)  # else who has it would go on making way for this process
        elif card.held is not None and self._is_slow:
            # Who has just left the card leaves it to this process for a moment only. Unless it was killed, its
            # memory is back: it keeps the lock till then.
            self._conditions.left(uuid)
        elif card.held is not None:
            self._conditions.vacated(uuid, now)

    # --- reading ---

    def _ask(self, now: float) -> None:
        """Have the cards read that are due, unless the sensor is at it."""
        uuids = [] if self._is_asked else self._due(now)
        if not uuids:
            return
        self._is_asked = True
        with self._ledger.lock:
            rounds = {uuid: self._conditions[uuid].round for uuid in uuids}
        self._sensor.ask(uuids, partial(self._in_loop, self._answered, now, rounds))

    def _due(self, now: float) -> list[str]:
        """Return what to read now. A card that waits for its reading does not wait for those of others."""
        dues = self._dues(now)
        urgent = [uuid for uuid, due in dues.items() if due <= now and self._is_urgent(uuid, now)]
        if urgent or min(dues.values(), default=math.inf) > now:
            return urgent
        return [uuid for uuid, due in dues.items() if due <= now + _TOGETHER_SECONDS]

    def _dues(self, now: float) -> dict[str, float]:
        """Return when each card is to be read, those left out that are another process's."""
        dues: dict[str, float] = {}
        with self._ledger.lock:
            for uuid in self._uuids:
                card = self._conditions[uuid]
                due = card.due(now, self._read_at[uuid], self._read_in[uuid])
                if due is not None:
                    dues[uuid] = due
        return dues

    def _is_urgent(self, uuid: str, now: float) -> bool:
        with self._ledger.lock:
            return self._conditions[uuid].is_urgent(now)

    def _answered(self, asked_at: float, rounds: Mapping[str, int], answer: Answer) -> None:
        """Take note of readings. rounds: those in which they were asked for."""
        if self._is_over:
            return
        self._is_asked = False
        now = self._clock.monotonic()
        self._is_slow = now - asked_at > _LOCK_SECONDS / 2
        with self._ledger.lock:
            for uuid, fault in answer.faults.items():
                self._conditions.befell(uuid, now, fault)
            for uuid, reading in answer.readings.items():
                self._note(uuid, now, reading, rounds[uuid])
                # A driver that takes its time is left alone for as long.
                self._read_at[uuid], self._read_in[uuid] = 2 * now - asked_at, rounds[uuid]
        for uuid, reading in answer.readings.items():
            if reading.fault is None:
                self._ledger.note_used(uuid, reading.used_bytes, reading.total_bytes)
        self._ring()

    def _note(self, uuid: str, now: float, reading: Reading, read_in: int) -> None:
        """Needs the ledger's lock."""
        leases = self._ledger.lease_count(uuid)
        self._conditions.notice(uuid, self._ledger.withheld.get(uuid), now)
        is_shared = self._ledger.is_shared(uuid)
        self._conditions.read(
            uuid, now, reading, leases=leases, read_in=read_in, is_shared=is_shared
        )
        if self._meter is not None:
            self._meter.note(uuid, now, reading, leases)

    # --- time ---

    def _seconds_left(self, now: float) -> float:
        times = [] if self._is_asked else list(self._dues(now).values())
        with self._ledger.lock:
            cards = [self._conditions[uuid] for uuid in self._uuids]
        for card in cards:
            changes_at = card.changes_at(now)
            times += [] if changes_at is None else [changes_at]
            times += [] if card.held is None else [now + _LOCK_SECONDS]
        return max(_LEAST_SECONDS, min(times, default=math.inf) - now)


_all_conditions: weakref.WeakKeyDictionary[Ledger, Conditions] = weakref.WeakKeyDictionary()


def _conditions_of(ledger: Ledger) -> Conditions:
    """Return what all watches of a ledger know of its cards."""
    with ledger.lock:
        return _all_conditions.setdefault(ledger, Conditions())


def _log(uuid: str, verdict: Verdict | None) -> None:
    if verdict is None:
        logger.info("%s is used again", uuid)
    else:
        logger.warning("%s is not used: %s", uuid, verdict.reason)
