"""The watch over memory: which run has to end, before the kernel ends one, or the caller.

`too_large` and `in_want` decide, from readings alone; `MemoryWatch` looks, as often as it must: the less is
left, the more often, and never for more than two parts in a hundred of a core.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from aiotune.executors.memory_readings import Readings, Room

__all__ = [
    "MEMORY_REMEDY",
    "MemoryWatch",
    "Shortage",
    "in_want",
    "in_words",
    "reserve_bytes",
    "too_large",
]

MEMORY_REMEDY = (
    "have fewer runs at a time (Resources(memory=...) says what each may take, or max_concurrent_trials), or "
    "have them take less"
)

_MEBIBYTE = 2**20
_GIBIBYTE = 2**30

# What is to be left: enough for the caller and the system to go on while a run dies.
_RESERVE_PART = 32  # of the total
_LEAST_RESERVE = 64 * _MEBIBYTE
_MOST_RESERVE = 512 * _MEBIBYTE

_FASTEST = 8 * _GIBIBYTE  # bytes that runs take in a second, at most: pages have to be zeroed
_SHORTEST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 1.0
_COST_RATIO = 50
_DEATH_SECONDS = 2.0  # for the memory of a killed run to come back, before another one is killed


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why a run is to be ended. `may_retry`: it may do better at another time, for others took memory, too."""

    number: int
    why: str
    may_retry: bool


def too_large(number: int, held: int, limit: int | None) -> Shortage | None:
    """Return why a run that holds so much is to end by its own limit, or None."""
    if limit is None or held <= limit:
        return None
    why = (
        f"the run held {in_words(held)}, more than its {in_words(limit)}: raise Resources(memory=...), or have "
        "the run take less (smaller batches or models, data that is read piece by piece)"
    )
    return Shortage(number, why, may_retry=False)


def in_want(holds: Mapping[int, int], rooms: Iterable[Room]) -> Shortage | None:
    """Return which run is to end because memory runs out: the one that holds most; or None.

    holds: what each run holds. Where all runs together hold less than what is to be left, none ends: others
    have taken the memory.
    """
    for room in rooms:
        reserve = reserve_bytes(room)
        if room.left_bytes >= reserve or sum(holds.values()) < reserve:
            continue
        number = max(holds, key=lambda each: holds[each])
        why = (
            f"{room.place} had {in_words(room.left_bytes)} left, and this run held most, "
            f"{in_words(holds[number])}: {MEMORY_REMEDY}"
        )
        return Shortage(number, why, may_retry=True)
    return None


def reserve_bytes(room: Room) -> int:
    """Return how much is to be left."""
    return min(max(room.total_bytes // _RESERVE_PART, _LEAST_RESERVE), _MOST_RESERVE)


def in_words(size: int) -> str:
    """Return bytes in words: "210 MiB", "6.1 GiB"."""
    if size < _GIBIBYTE:
        return f"{max(0, size) / _MEBIBYTE:.0f} MiB"
    return f"{size / _GIBIBYTE:.3g} GiB"


@dataclass(slots=True)
class _Watched:
    """A run. `shared_bytes`: what it has mapped and does not hold for itself, as far as it was measured.

    margin: what it may take until its limit, as of the last look.
    """

    pid: int
    limit: int | None
    margin: float = float("inf")
    shared_bytes: int = 0
    measure_at: float = 0.0  # not before that again


class MemoryWatch:
    """Watches over the runs that were added. `next_look`: when to look again; never while there is none."""

    def __init__(self, readings: Readings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._readings = readings
        self._clock = clock
        self._runs: dict[int, _Watched] = {}
        self._dying: int | None = None
        self._is_dying_until = 0.0
        self.next_look = float("inf")

    def add(self, number: int, pid: int, limit: int | None) -> None:
        """Watch over a run. limit: bytes that it may hold; None: as much as there is."""
        self._runs[number] = _Watched(pid, limit)
        self.next_look = self._clock()

    def remove(self, number: int) -> None:
        """Watch over a run no more: its process is dead."""
        self._runs.pop(number, None)
        if number == self._dying:
            self._dying = None
        if not self._runs:
            self.next_look = float("inf")

    def look(self) -> list[Shortage]:
        """Return the runs that are to be killed now; they are watched no more."""
        begin = self._clock()
        over = [each for each in map(self._check_limit, list(self._runs)) if each is not None]
        rooms = list(self._readings.rooms())
        if not over:
            over = self._check_rooms(rooms, begin)
        for each in over:
            del self._runs[each.number]
        end = self._clock()
        pause = max(_COST_RATIO * (end - begin), self._seconds_left(rooms))
        self.next_look = end + pause if self._runs else float("inf")
        return over

    def _check_limit(self, number: int) -> Shortage | None:
        """Measure what a run holds if it may be more than its limit: what it has mapped is no less."""
        run = self._runs[number]
        if run.limit is None:
            return None
        resident = self._readings.resident(run.pid)
        if resident is None:
            return None
        run.margin = run.limit - resident + run.shared_bytes
        if resident <= run.limit:
            return None
        now = self._clock()
        if resident - run.shared_bytes <= run.limit and now < run.measure_at:
            return None
        held = self._readings.held(run.pid)
        if held is None:
            return None
        run.shared_bytes, run.margin = resident - held, run.limit - held
        # What it shares becomes its own as it writes to it, so that the difference does not last.
        run.measure_at = self._clock() + _COST_RATIO * (self._clock() - now)
        return too_large(number, held, run.limit)

    def _check_rooms(self, rooms: Sequence[Room], now: float) -> list[Shortage]:
        is_short = any(room.left_bytes < reserve_bytes(room) for room in rooms)
        if not is_short or (self._dying is not None and now < self._is_dying_until):
            return []
        holds = {number: self._readings.held(run.pid) for number, run in self._runs.items()}
        found = in_want({number: held for number, held in holds.items() if held}, rooms)
        if found is None:
            return []
        self._dying, self._is_dying_until = found.number, now + _DEATH_SECONDS
        return [found]

    def _seconds_left(self, rooms: Sequence[Room]) -> float:
        """Return for how long memory lasts in any case, within bounds."""
        margins: list[float] = [room.left_bytes - reserve_bytes(room) for room in rooms]
        margins += [run.margin for run in self._runs.values()]
        seconds = min(margins, default=float("inf")) / _FASTEST
        return min(max(seconds, _SHORTEST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
