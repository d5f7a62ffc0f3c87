"""What runs took of their GPUs: a record, its sum, and how it is shown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["JOULES_PER_KWH", "Usage", "total_usage", "usage_text"]

JOULES_PER_KWH = 3.6e6
_SECONDS_PER_HOUR = 3600


@dataclass(frozen=True, slots=True)
class Usage:
    """What a run, or several, took of GPUs, as far as it is known.

    Where leases share a card, its time and its energy are divided equally among those that are there at each
    moment: what all of them took adds up to what the card did.
    """

    gpu_seconds: float  # one GPU for one second
    peak_bytes: int | None = None  # the most that a run held on one GPU; None: not known
    energy_joules: float | None = None  # None: not known
    is_estimated: bool = False  # divided among leases, or read too seldom, or known of a part only

    @property
    def gpu_hours(self) -> float:
        return self.gpu_seconds / _SECONDS_PER_HOUR

    @property
    def energy_kwh(self) -> float | None:
        """The energy in kilowatt hours."""
        return None if self.energy_joules is None else self.energy_joules / JOULES_PER_KWH


def total_usage(usages: Iterable[Usage | None]) -> Usage | None:
    """Return the sum of what is known; None where nothing is. Its peak is the largest one."""
    known = [each for each in usages if each is not None]
    if not known:
        return None
    peaks = [each.peak_bytes for each in known if each.peak_bytes is not None]
    energies = [each.energy_joules for each in known if each.energy_joules is not None]
    is_partial = 0 < len(energies) < len(known)
    return Usage(
        sum(each.gpu_seconds for each in known),
        max(peaks, default=None),
        sum(energies) if energies else None,
        is_partial or any(each.is_estimated for each in known),
    )


def usage_text(usage: Usage) -> str:
    """Return it in words: "1.25 GPU hours, peak 3.2 GiB, 0.45 kWh (estimated)"."""
    parts = [_time_text(usage)]
    if usage.peak_bytes is not None:
        parts.append(f"peak {usage.peak_bytes / 2**30:.3g} GiB")
    if usage.energy_kwh is not None:
        parts.append(_energy_text(usage.energy_kwh))
    return ", ".join(parts) + (" (estimated)" if usage.is_estimated else "")


def _time_text(usage: Usage) -> str:
    if usage.gpu_hours < 0.1:
        return f"{usage.gpu_seconds:.3g} GPU seconds"
    number = f"{usage.gpu_hours:.3g}"
    return f"{number} GPU hour" if number == "1" else f"{number} GPU hours"


def _energy_text(kwh: float) -> str:
    return f"{kwh:.3g} kWh" if kwh >= 0.1 else f"{1000 * kwh:.3g} Wh"
