"""The time limits of one run: how long it may take, and how long it may go without a sign of progress."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf

from aiotune.clock import Clock
from aiotune.resources import Limits
from aiotune.trial import StopCause

__all__ = ["RunTimer"]

_ROUNDING_SECONDS = 1e-6  # what sums of times may be off
_LATE_SECONDS = 0.5  # a clock that wakes later than this had a loop that stood still
_FORGIVEN = 0.25  # the part of the limit that a run then gets once more


class RunTimer:
    """The time of one run, from now on.

    A run is silent while its next event is waited for. While the search is busy with an event (a slow disk, an
    oracle that thinks), further ones wait unread: that time does not count. If the caller's loop stood still,
    the run gets a part of the limit once more, in which what it has sent meanwhile is read.
    """

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._longest = inf if limits.trial_timeout is None else limits.trial_timeout
        self._longest_silence = inf if limits.stall_timeout is None else limits.stall_timeout
        self._clock = clock
        self._begun = clock.monotonic()
        self._silent_since: float | None = self._begun

    @property
    def is_limited(self) -> bool:
        return min(self._longest, self._longest_silence) < inf

    def heard(self) -> None:
        """Take note of a sign of progress."""
        self._silent_since = self._clock.monotonic()

    @contextmanager
    def hearing(self) -> Iterator[None]:
        """Hold this while an event of the run is dealt with."""
        self._silent_since = None
        try:
            yield
        finally:
            self.heard()

    async def wait_over(self) -> StopCause:
        """Return which limit the run has reached, once it has. To be awaited only if it is limited."""
        while (left := min(self._time_left(), self._silence_left())) > _ROUNDING_SECONDS:
            due = self._clock.monotonic() + left
            await self._clock.sleep(left)
            if self._clock.monotonic() - due > _LATE_SECONDS:
                self._forgive()
        return StopCause.TIMEOUT if self._time_left() <= _ROUNDING_SECONDS else StopCause.STALL

    def _time_left(self) -> float:
        return self._begun + self._longest - self._clock.monotonic()

    def _silence_left(self) -> float:
        """Return after how many seconds the run may be silent for too long: the earliest that it can be."""
        if self._silent_since is None:
            return self._longest_silence
        return self._silent_since + self._longest_silence - self._clock.monotonic()

    def _forgive(self) -> None:
        if self._silent_since is not None and self._longest_silence < inf:
            least = self._clock.monotonic() - (1 - _FORGIVEN) * self._longest_silence
            self._silent_since = max(self._silent_since, least)
