"""How many runs the machine's memory holds, by what runs were measured to take."""

from __future__ import annotations

__all__ = ["RUN_MEMORY_BYTES", "RunMemory"]

# What a run counts before one was measured. A run of examples/quickstart.py (Keras on TensorFlow) holds
# 0.07 to 0.1 GiB for itself, beside 0.3 GiB that it shares with the fork server. But Keras copies the data,
# and a large model with its optimizer takes gigabytes: too few runs for some moments cost less than a
# machine that is out of memory.
RUN_MEMORY_BYTES = 4 * 2**30


class RunMemory:
    """The memory that runs may share, and what one of them takes."""

    def __init__(self, available_bytes: int) -> None:
        self.available_bytes = available_bytes
        self._largest: int | None = None

    @property
    def run_bytes(self) -> int:
        """What a run counts: the largest measure and a quarter more, for the next may be larger."""
        return RUN_MEMORY_BYTES if self._largest is None else max(1, self._largest * 5 // 4)

    @property
    def runs(self) -> int:
        """How many runs fit, at least 1: whether a single one fits, only trying tells."""
        return max(1, self.available_bytes // self.run_bytes)

    def note(self, memory_bytes: int) -> None:
        """Take note of what one run holds for itself."""
        self._largest = max(memory_bytes, self._largest or 0)
