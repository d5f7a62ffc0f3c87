"""What speaks against leasing one card now: a pure function of readings, releases, ends of runs, and times.

Nothing here reads a clock or a driver: times come in as seconds of a clock that never goes back.

- A card that is new to the watch is leased once it has been read.
- When its last run has ended, its memory must be back. If it is not within `SETTLE_SECONDS`, or no reading
  comes, the card is in quarantine till it is.
- Memory that others use keeps a card from being leased: more of it than a desktop's, and more than
  `tolerable_bytes`. Afterwards it must have been free for `CALM_SECONDS`, for a colleague's next run.
- A fault of the card, or of the driver, keeps it from being leased till readings were clean for a while: the
  longer, the oftener it happened.
- A card that runs share gets no further one when its processor was busy for `LOADED_SECONDS` without a break,
  until it is less so. Where the driver does not tell how busy it is, that is no bound.
- A card on which `FEW_FAILURES` runs in a row failed, while others succeed elsewhere, is tried again after
  `BENCH_SECONDS`: another failure then is enough.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum, auto

from aiotune.devices.base import LOADED, SETTLING
from aiotune.devices.device import Process, Reading
from aiotune.devices.offer import gibibytes

__all__ = [
    "BENCH_SECONDS",
    "CALM_SECONDS",
    "CLEAN_SECONDS",
    "FEW_FAILURES",
    "LOADED_SECONDS",
    "SETTLE_SECONDS",
    "Cause",
    "Condition",
    "Rules",
    "Verdict",
    "foreign_bytes",
    "tolerable_bytes",
]

SETTLE_SECONDS = 10.0  # for memory to be back: the driver takes milliseconds, seldom seconds
_BUSY_SETTLE_SECONDS = 5.0  # where others may use the card: what is then in use may be theirs
CALM_SECONDS = 5.0
CLEAN_SECONDS = 10.0  # without a fault; twice as long at each relapse
LONGEST_CLEAN_SECONDS = 600.0
BENCH_SECONDS = 600.0
FEW_FAILURES = 3
LOADED_SECONDS = 2.0  # three readings: one alone may fall on a single long step
_LOADED_PART, _RELIEVED_PART = 0.95, 0.9  # of the time; apart, so that a card does not come and go
_READ_EVERY = 1.0  # seconds
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5  # seconds between readings while memory is not back
_TOLERABLE_BYTES, _TOLERABLE_PART = 2**30, 0.05


class Cause(Enum):
    """Why a card is not leased now."""

    UNREAD = auto()  # its first reading is still to come
    HELD = auto()  # another process has its lock
    SETTLING = auto()
    SILENT = auto()  # no reading comes
    NOT_BACK = auto()
    BUSY = auto()
    OWN = auto()  # the caller's own process uses its memory
    FAULT = auto()
    FAILURES = auto()
    LOADED = auto()  # the runs that share it keep its processor busy

    @property
    def is_news(self) -> bool:
        """Whether the user should know: the others are a matter of moments, or of the day's business."""
        return self not in (Cause.UNREAD, Cause.HELD, Cause.SETTLING, Cause.LOADED)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a card is not leased now: the cause, and the same in words."""

    cause: Cause
    reason: str


@dataclass(frozen=True, slots=True)
class Rules:
    """What a search wants looked at.

    skips_busy: cards that others use are left alone, and one that its runs keep busy is not shared further.
    judges_memory: what is in use tells anything at all; it does not where runs are in the caller's own
    process, which keeps its memory.
    """

    skips_busy: bool = True
    judges_memory: bool = True


@dataclass(frozen=True, slots=True)
class Condition:
    """All that is known of one card. Each method returns what is known afterwards.

    round: grows with each release, so that a reading that was asked for before it can be told.
    """

    waits_since: float | None  # for a reading that shows its memory free
    is_vacated: bool = False  # what it waits for is the memory of a run that has ended
    round: int = 0
    is_read: bool = False  # in this round
    pause: float = _FIRST_PAUSE
    used_bytes: int = 0  # by others than a desktop, at the last reading that was judged
    usual_bytes: int = 0  # the same when last the card was free
    held: str | None = None  # by another process: in words
    occupied: Verdict | None = None
    occupied_since: float = 0.0
    calm_since: float | None = None
    loaded: Verdict | None = None
    loaded_since: float | None = None
    fault: str | None = None
    fault_at: float = 0.0  # when it was last seen
    relapses: int = 0
    failures: int = 0  # in a row
    failing_since: float = 0.0
    succeeded_at: float | None = None
    benched_until: float | None = None

    def verdict(self, at: float) -> Verdict | None:
        """Return why the card is not to be leased now; None: nothing speaks against it."""
        if self.held is not None:
            return Verdict(Cause.HELD, self.held)
        if self.fault is not None:
            return Verdict(Cause.FAULT, self.fault)
        if self.benched_until is not None and at < self.benched_until:
            return Verdict(Cause.FAILURES, _FAILED)
        if self.waits_since is not None:
            return self._waiting(at, self.waits_since)
        return self.occupied or self.loaded

    def _waiting(self, at: float, since: float) -> Verdict:
        if at - since < SETTLE_SECONDS:
            if self.is_vacated:
                return Verdict(Cause.SETTLING, SETTLING)
            return Verdict(Cause.UNREAD, "it is being looked at")
        if not self.is_read:
            return Verdict(Cause.SILENT, _SILENT)
        return Verdict(Cause.NOT_BACK, _not_back(self.used_bytes))

    def changes_at(self, at: float) -> float | None:
        """Return when the verdict changes by time alone, after `at`; None: it does not."""
        times = [self.benched_until]
        if self.waits_since is not None:
            times.append(self.waits_since + SETTLE_SECONDS)
        return min((time for time in times if time is not None and time > at), default=None)

    def due(self, at: float, read_at: float, read_in: int) -> float | None:
        """Return when to read the card again; None: not before its lock is free.

        read_at: when the last reading was asked for. read_in: the round it was asked for in.
        """
        if self.held is not None:
            return None
        if self.waits_since is None or at - self.waits_since >= SETTLE_SECONDS:
            return read_at + _READ_EVERY
        if read_in != self.round or not self.is_read:
            return at
        return read_at + self.pause

    def is_urgent(self, at: float) -> bool:
        """Return whether somebody may be waiting for its reading."""
        return self.waits_since is not None and at - self.waits_since < SETTLE_SECONDS

    # --- what happens ---

    def vacated(self, at: float) -> Condition:
        """The last run on it has ended."""
        return replace(
            self,
            waits_since=at,
            is_vacated=True,
            round=self.round + 1,
            is_read=False,
            pause=_FIRST_PAUSE,
            held=None,
            occupied=None,
            calm_since=None,
            loaded=None,
            loaded_since=None,
        )

    def taken(self, holder: str) -> Condition:
        """Another process has its lock."""
        return replace(self, held=holder)

    def failed(self, at: float) -> Condition:
        """A run on it has failed in a way that may be the card's fault."""
        since = self.failing_since if self.failures else at
        return replace(self, failures=self.failures + 1, failing_since=since)

    def succeeded(self, at: float) -> Condition:
        """A run on it has done its work."""
        return replace(self, failures=0, relapses=0, succeeded_at=at, benched_until=None)

    def benched(self, at: float) -> Condition:
        """It is kept from runs for a while. Another failure afterwards is one too many."""
        until = at + BENCH_SECONDS
        return replace(self, failures=FEW_FAILURES - 1, failing_since=until, benched_until=until)

    def read(
        self,
        at: float,
        reading: Reading,
        rules: Rules,
        *,
        leases: int,
        read_in: int,
        is_shared: bool = False,
    ) -> Condition:
        """It was read.

        leases: how many there are on it. read_in: the round it was asked for in. is_shared: the leases leave
        room to others.
        """
        fault = reading.fault
        new = self._without_fault(at) if fault is None else self.broken(at, fault)
        if read_in != self.round:
            return new
        new = replace(new, is_read=True)
        if fault is not None:  # its figures mean nothing
            return new
        new = new._with_load(at, reading, rules, is_shared=is_shared and leases > 0)
        if leases:
            return replace(new, waits_since=None, is_vacated=False)
        return new._with_memory(at, reading, rules)

    # --- faults ---

    def broken(self, at: float, fault: str) -> Condition:
        """Something speaks against it."""
        relapses = self.relapses + (self.fault is None)
        return replace(self, fault=fault, fault_at=at, relapses=relapses)

    def _without_fault(self, at: float) -> Condition:
        if self.fault is None:
            return self
        seconds = min(LONGEST_CLEAN_SECONDS, CLEAN_SECONDS * 2.0 ** min(self.relapses - 1, 16))
        return self if at - self.fault_at < seconds else replace(self, fault=None)

    # --- the processor ---

    def _with_load(
        self, at: float, reading: Reading, rules: Rules, *, is_shared: bool
    ) -> Condition:
        """Judge a card that runs share by how busy its processor is."""
        part = reading.utilisation if is_shared and rules.skips_busy else None
        if part is None or part < (_LOADED_PART if self.loaded is None else _RELIEVED_PART):
            return replace(self, loaded=None, loaded_since=None)
        since = at if self.loaded_since is None else self.loaded_since
        if self.loaded is not None or at - since < LOADED_SECONDS:
            return replace(self, loaded_since=since)
        reason = f"{LOADED} to {100 * part:.0f} %: no further run shares it"
        return replace(self, loaded=Verdict(Cause.LOADED, reason))

    # --- memory ---

    def _with_memory(self, at: float, reading: Reading, rules: Rules) -> Condition:
        used = foreign_bytes(reading) if rules.judges_memory else 0
        new = replace(self, used_bytes=used)
        if self.is_vacated and self.waits_since is not None:
            is_over = at - self.waits_since >= _BUSY_SETTLE_SECONDS and not rules.skips_busy
            is_over |= bool(_own_process(reading.processes))  # what it holds does not come back
            if not is_over and used > self._expected_bytes(reading, rules):
                return replace(new, pause=min(2 * self.pause, _LONGEST_PAUSE))
        new = replace(new, waits_since=None, is_vacated=False)
        return new._with_others(at, reading, rules)

    def _expected_bytes(self, reading: Reading, rules: Rules) -> int:
        """Return what may be in use when a run's memory is back."""
        usual = 0 if rules.skips_busy else self.usual_bytes
        return usual + tolerable_bytes(reading.total_bytes)

    def _with_others(self, at: float, reading: Reading, rules: Rules) -> Condition:
        """Judge a card that no run is on by what is in use there."""
        new = replace(self, usual_bytes=self.used_bytes)
        if not rules.skips_busy:
            return replace(new, occupied=None)
        if self.used_bytes > tolerable_bytes(reading.total_bytes):
            since = at if self.occupied is None else self.occupied_since
            occupied = _occupied(self.used_bytes, reading.processes)
            return replace(new, occupied=occupied, occupied_since=since, calm_since=None)
        if self.occupied is None:
            return new
        calm_since = at if self.calm_since is None else self.calm_since
        # What was busy for a moment has to be free for a moment only.
        if at - calm_since < min(CALM_SECONDS, calm_since - self.occupied_since):
            return replace(new, calm_since=calm_since)
        return replace(new, occupied=None, calm_since=None)


def foreign_bytes(reading: Reading) -> int:
    """Return what is in use of the memory of a card that no run of ours is on, a desktop's part not counted.

    Which processes are whose is not asked: in a container their ids are the host's, or there are none.
    """
    computing = sum(each.memory_bytes or 0 for each in reading.processes if not each.is_graphics)
    if reading.used_bytes is None:  # as where card and machine have one memory
        return computing
    drawing = [each for each in reading.processes if each.is_graphics]
    if any(each.memory_bytes is None for each in drawing):  # what is in use may be all theirs
        return computing
    others = sum(each.memory_bytes or 0 for each in drawing) + (reading.reserved_bytes or 0)
    return max(computing, reading.used_bytes - others)


def tolerable_bytes(total_bytes: int | None) -> int:
    """Return how much memory others may use of a card that counts as free: 1 GiB, or a twentieth."""
    return max(_TOLERABLE_BYTES, int(_TOLERABLE_PART * (total_bytes or 0)))


_FAILED = (
    f"{FEW_FAILURES} runs in a row failed on it while others succeeded elsewhere: it is tried again after "
    f"{BENCH_SECONDS / 60:g} minutes"
)
_NAMELESS = "another program, or by this process, if it has used the GPU (the driver does not say)"
_SILENT = f"the driver has not told of it for {SETTLE_SECONDS:g} s"


def _not_back(used: int) -> str:
    return (
        f"{SETTLE_SECONDS:g} s after its last run {gibibytes(used)} of its memory are in use: by what the run "
        "left, or by another program"
    )


def _occupied(used: int, processes: Iterable[Process]) -> Verdict:
    """Say who uses the memory. Process ids choose the words only: in a container they may be another's."""
    computing = [each for each in processes if not each.is_graphics]
    own = _own_process(processes)
    if own is not None:
        return Verdict(Cause.OWN, _own(own.memory_bytes or used))
    pids = ", ".join(str(each.pid) for each in computing)
    who = f"another program (process {pids})" if pids else _NAMELESS
    return Verdict(Cause.BUSY, f"{gibibytes(used)} of its memory are in use by {who}")


def _own_process(processes: Iterable[Process]) -> Process | None:
    """Return what the driver tells of this process, if it computes on the card."""
    own = (each for each in processes if not each.is_graphics and each.pid == os.getpid())
    return next(own, None)


def _own(used: int) -> str:
    return (
        f"this process itself holds {gibibytes(used)} of its memory, and gives it back only when it ends: a "
        "framework was used on it before. Search in a process that does not use the GPU (restart the "
        'kernel, or build models only in `build`), or pass busy_gpus="use"'
    )
