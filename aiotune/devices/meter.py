"""What runs took of their GPUs, by the readings of the watch: time, memory and energy."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

from aiotune.devices.device import Reading
from aiotune.usage import Usage

__all__ = ["Meter"]

# Beyond so many readings of a card under lease, the older half is thinned out: an hour, read every second.
_MOST_READINGS = 3600
_NEAR_SECONDS = 2.0  # a moment that is so close to a reading, or closer, counts as measured
_NEAR_PART = 0.01  # or so close, as a part of the time that is asked for

_AT = attrgetter("at")


class Meter:
    """Keeps the readings of cards, as far back as a lease in progress may ask.

    Times are seconds of `Clock.monotonic`. Used from one thread at a time.
    """

    def __init__(self) -> None:
        self._cards: dict[str, _Card] = {}

    @property
    def kept(self) -> int:
        """How many readings are kept."""
        return sum(card.kept for card in self._cards.values())

    def note(self, uuid: str, at: float, reading: Reading, leases: int) -> None:
        """Take note of a reading. leases: how many there are on the card, of all pools."""
        self._cards.setdefault(uuid, _Card()).note(at, reading, leases)

    def usage(
        self, uuids: Sequence[str], since: float, until: float, *, is_shared: bool = False
    ) -> Usage:
        """Return what a lease of these cards took from `since` to `until`.

        To be asked while the lease is held: what came before a moment without leases is forgotten.

        is_shared: it has a part of its card. It is then charged an equal part of the card's time and energy
        with whoever else was there.
        """
        cards = [self._cards.get(uuid) or _Card() for uuid in uuids]
        parts = [card.usage(since, until, is_shared=is_shared) for card in cards]
        peaks = [part.peak_bytes for part in parts if part.peak_bytes is not None]
        energies = [part.energy_joules for part in parts if part.energy_joules is not None]
        return Usage(
            sum(part.gpu_seconds for part in parts),
            max(peaks, default=None),
            sum(energies) if energies and len(energies) == len(parts) else None,
            any(part.is_estimated for part in parts),
        )


@dataclass(frozen=True, slots=True)
class _Point:
    """A moment of a sum: how much there was by then, and how fast it grew, per second, if that is known."""

    at: float
    total: float
    rate: float | None


class _Curve:
    """A sum that grows with time, linear between the moments at which it is known."""

    def __init__(self) -> None:
        self.points: list[_Point] = []

    def extend(self, at: float, amount: float, rate: float | None) -> None:
        """Add the amount that came since the last point, and the rate at `at`, which is later."""
        before = self.points[-1].total if self.points else 0.0
        self.points.append(_Point(at, before + amount, rate))

    def between(self, since: float, until: float) -> float | None:
        """Return what came between two moments. Beyond the points it grows as at the nearest one."""
        start, end = self._total(since), self._total(until)
        return None if start is None or end is None else max(0.0, end - start)

    def forget(self) -> None:
        """Keep what later moments need."""
        del self.points[:-2]

    def thin(self) -> None:
        half = len(self.points) // 2
        self.points[:half] = self.points[:half:2]

    def _total(self, at: float) -> float | None:
        points = self.points
        place = bisect_left(points, at, key=_AT)
        if place < len(points) and points[place].at == at:
            return points[place].total
        if 0 < place < len(points):
            return points[place - 1].total + _slope(points, place) * (at - points[place - 1].at)
        if not points:
            return None
        end, inner = (0, 1) if place == 0 else (-1, len(points) - 1)
        rate = points[end].rate
        if rate is None:
            if len(points) < 2:
                return None
            rate = _slope(points, inner)
        return points[end].total + rate * (at - points[end].at)


def _slope(points: Sequence[_Point], place: int) -> float:
    """Return the growth per second from the point before `place` to the one there."""
    earlier, later = points[place - 1], points[place]
    return (later.total - earlier.total) / (later.at - earlier.at)


@dataclass(frozen=True, slots=True)
class _Level:
    """The memory in use at one moment."""

    at: float
    used_bytes: int
    leases: int


class _Card:
    """The readings of one card as sums: of its time and of its energy, whole and for each lease on it."""

    def __init__(self) -> None:
        self._time = _Curve()  # for each lease
        self._energy = _Curve()
        self._part = _Curve()  # of the energy, for each lease
        self._levels: list[_Level] = []
        self._leases = 0  # at the last reading
        self._energy_leases = 0  # at the last one that told of energy
        self._counter: float | None = None  # joules; None: it has none

    @property
    def kept(self) -> int:
        return len(self._time.points)

    def note(self, at: float, reading: Reading, leases: int) -> None:
        if self._time.points and at <= self._time.points[-1].at:
            return
        self._make_room(leases)
        self._note_time(at, leases)
        self._note_energy(at, reading, leases)
        if reading.used_bytes is not None:
            self._levels.append(_Level(at, reading.used_bytes, leases))

    def usage(self, since: float, until: float, *, is_shared: bool) -> Usage:
        seconds = until - since
        curve = self._part if is_shared else self._energy
        part = self._time.between(since, until) if is_shared else None
        energy = curve.between(since, until)
        is_measured = energy is None or all(
            self._is_near(each, until - since) for each in (since, until)
        )
        return Usage(
            seconds if part is None else min(part, seconds),
            self._peak_bytes(since, until),
            energy,
            is_shared or not is_measured,
        )

    # --- sums ---

    def _note_time(self, at: float, leases: int) -> None:
        last = self._time.points[-1].at if self._time.points else at
        self._time.extend(at, (at - last) * _share(self._leases, leases), _share(leases, leases))
        self._leases = leases

    def _note_energy(self, at: float, reading: Reading, leases: int) -> None:
        counter, power = _sound(reading.energy_joules), _sound(reading.power_watts)
        if counter is None and (power is None or self._counter is not None):
            return  # a card that has a counter will tell what came meanwhile
        last = self._energy.points[-1] if self._energy.points else None
        joules = self._counted(counter)
        if joules is None:
            joules = 0.0 if last is None else _mean(last.rate, power) * (at - last.at)
        share = _share(self._energy_leases, leases)
        part_rate = None if power is None else power * _share(leases, leases)
        self._energy.extend(at, joules, power)
        self._part.extend(at, joules * share, part_rate)
        self._counter, self._energy_leases = counter, leases

    def _counted(self, counter: float | None) -> float | None:
        """Return the energy since the last reading; None where the counter does not tell, or began anew."""
        if counter is None or self._counter is None or counter < self._counter:
            return None
        return counter - self._counter

    def _is_near(self, at: float, seconds: float) -> bool:
        points = self._energy.points
        place = bisect_left(points, at, key=_AT)
        nearest = min(abs(point.at - at) for point in points[max(0, place - 1) : place + 1])
        return nearest <= max(_NEAR_SECONDS, _NEAR_PART * seconds)

    # --- memory ---

    def _peak_bytes(self, since: float, until: float) -> int | None:
        """Return what came on top of what was in use without leases; None if others were there, too."""
        place = bisect_right(self._levels, since, key=_AT)
        end = bisect_right(self._levels, until, key=_AT)
        if (
            place == end or self._levels[end - 1].leases > 1
        ):  # the usual case of a shared card, at once
            return None
        before = (self._levels[index] for index in reversed(range(place)))
        base = next((each for each in before if not each.leases), None)
        inside = self._levels[place:end]
        if base is None or any(each.leases > 1 for each in inside):
            return None
        return max(0, max(each.used_bytes for each in inside) - base.used_bytes)

    # --- room ---

    def _make_room(self, leases: int) -> None:
        """Forget what nobody can ask for any more, and thin out what is long ago."""
        curves = (self._time, self._energy, self._part)
        if leases == 0:
            for curve in curves:
                curve.forget()
            del self._levels[:-2]
        elif len(self._time.points) >= _MOST_READINGS:
            for curve in curves:
                curve.thin()
            self._levels = _thinned(self._levels)


def _share(before: int, now: int) -> float:
    """Return the part of a card that one lease had between two readings with so many leases each."""
    counts = [each for each in (before, now) if each] or [1]
    return sum(1 / each for each in counts) / len(counts)


def _mean(*rates: float | None) -> float:
    known = [each for each in rates if each is not None]
    return sum(known) / len(known) if known else 0.0


def _sound(figure: float | None) -> float | None:
    """Return a driver's figure if it can be one."""
    is_sound = figure is not None and math.isfinite(figure) and figure >= 0
    return figure if is_sound else None


def _thinned(levels: Sequence[_Level]) -> list[_Level]:
    """Return the levels with pairs of the older half as one, which has the larger figures of both."""
    half = len(levels) // 2
    thinned: list[_Level] = []
    for place in range(0, half, 2):
        pair = levels[place : min(place + 2, half)]
        thinned += [_joined(pair)] if all(each.leases for each in pair) else pair
    return [*thinned, *levels[half:]]


def _joined(levels: Sequence[_Level]) -> _Level:
    used = max(each.used_bytes for each in levels)
    return replace(levels[-1], used_bytes=used, leases=max(each.leases for each in levels))
