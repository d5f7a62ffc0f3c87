"""How long the writer waits for a program that keeps the database locked: a dashboard, a backup, a shell."""

from __future__ import annotations

import logging
from pathlib import Path

from aiotune.clock import Clock

__all__ = ["ATTEMPT_SECONDS", "LONGEST_LOCK_SECONDS", "Patience"]

ATTEMPT_SECONDS = 0.5  # for each attempt, within SQLite
# Less than what the recorder and the closing of the store wait: a fact is refused, and not left in doubt.
LONGEST_LOCK_SECONDS = 20.0
_PAUSE_SECONDS = 0.05  # between attempts: some end at once

_LOG = logging.getLogger("aiotune")


class Patience:
    """Counts from the first attempt that failed to the next one that succeeds, over all facts in between.

    So a database that stays locked is waited for once, and then refuses each fact within an attempt.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._since: float | None = None

    def is_left(self) -> bool:
        """Tell, after an attempt that failed, whether there is to be another one. The first one is logged."""
        now = self._clock.monotonic()
        if self._since is None:
            self._since = now
            _LOG.warning(
                "another program keeps %s locked for writing: the search waits up to %.0f s for it",
                self._path,
                LONGEST_LOCK_SECONDS,
            )
        return now - self._since < LONGEST_LOCK_SECONDS

    def renew(self) -> None:
        """Note that an attempt succeeded."""
        self._since = None

    async def wait(self) -> None:
        """Let a moment pass before the next attempt."""
        await self._clock.sleep(_PAUSE_SECONDS)
