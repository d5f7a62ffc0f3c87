"""What the runs of a search take of a card's memory, by what earlier ones were measured to take."""

from __future__ import annotations

__all__ = ["GpuNeed"]


class GpuNeed:
    """The memory of a card that the next run is taken to need. Not known before one was measured."""

    def __init__(self) -> None:
        self._largest: int | None = None
        self._so_far: dict[object, int] = {}  # of runs in progress, until a need is known

    @property
    def memory_bytes(self) -> int | None:
        """The largest peak and a sixteenth more, for the next may be larger; None: not known yet."""
        return None if self._largest is None else max(1, self._largest * 17 // 16)

    def note(self, peak_bytes: int) -> None:
        """Take note of what one run took at most."""
        self._largest = max(peak_bytes, self._largest or 0)

    def note_so_far(self, run: object, peak_bytes: int) -> None:
        """Take note of what a run in progress took till now. More may come: it can only raise a need."""
        if self._largest is None:
            self._so_far[run] = max(peak_bytes, self._so_far.get(run, 0))
        else:
            self.note(peak_bytes)

    def note_end(self, run: object) -> None:
        """Take note that a run has ended: what it told last is what it took."""
        if run in self._so_far:
            self.note(max(self._so_far.values()))
            self._so_far.clear()
