"""What the runs of a search take of a card's memory, by what earlier ones were measured to take."""

from __future__ import annotations

__all__ = ["GpuNeed"]


class GpuNeed:
    """The memory of a card that the next run is taken to need. Not known before one was measured."""

    def __init__(self) -> None:
        self._largest: int | None = None

    @property
    def memory_bytes(self) -> int | None:
        """The largest peak and a sixteenth more, for the next may be larger; None: not known yet."""
        return None if self._largest is None else max(1, self._largest * 17 // 16)

    def note(self, peak_bytes: int) -> None:
        """Take note of what one run took at most."""
        self._largest = max(peak_bytes, self._largest or 0)
