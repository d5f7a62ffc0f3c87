"""How many runs the machine's memory holds, by what runs were measured to take."""

from __future__ import annotations

__all__ = ["RUN_MEMORY_BYTES", "RunMemory"]

# What a run counts before one was measured. A run of examples/quickstart.py (Keras on TensorFlow) holds
# 0.07 to 0.1 GiB for itself, beside 0.3 GiB that it shares with the fork server. But Keras copies the data,
# and a large model with its optimizer takes gigabytes: too few runs for some moments cost less than a
# machine that is out of memory.
RUN_MEMORY_BYTES = 4 * 2**30


class RunMemory:
    """The memory that runs may share, and what one of them takes.

    run_bytes: what each may hold, as the user says; None: what is measured counts. bounds_all: also runs of
    which the user does not say what they may hold count, and wait for memory; else those count nothing.
    """

    def __init__(
        self, available_bytes: int, *, run_bytes: int | None = None, bounds_all: bool = True
    ) -> None:
        self.available_bytes = available_bytes
        self.bounds_all = bounds_all
        self._asked = run_bytes
        self._largest: int | None = None

    @property
    def run_bytes(self) -> int:
        """What a run counts: what it may hold, or the largest measure and a quarter more."""
        if self._asked is not None:
            return self._asked
        if not self.bounds_all:
            return 0
        return RUN_MEMORY_BYTES if self._largest is None else max(1, self._largest * 5 // 4)

    @property
    def runs(self) -> int:
        """How many runs fit, where memory bounds all; at least 1: if a single one fits, only trying tells."""
        return max(1, self.available_bytes // max(1, self.run_bytes))

    def note(self, memory_bytes: int) -> None:
        """Take note of what one run holds for itself."""
        self._largest = max(memory_bytes, self._largest or 0)
