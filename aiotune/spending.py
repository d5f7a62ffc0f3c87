"""What a search spends of its GPUs, beside what it may spend: `Limits(max_gpu_hours=, max_energy=)`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence

from aiotune.events import EndReason
from aiotune.resources import Limits
from aiotune.usage import Usage, total_usage

__all__ = ["Spending", "warn_without_gpus"]

_LOG = logging.getLogger("aiotune")

_SECONDS_PER_HOUR = 3600.0
_ENERGY_LOOK_SECONDS = 5.0  # between two looks at the energy of runs in progress
_LEAST_LOOK_SECONDS = 0.1  # where cards are shared, their time passes slower than it seems
_ROUNDING_SECONDS = 1e-6  # what sums of times may be off


class Spending:
    """GPU time and energy of a search, over all its sessions.

    usages: of the runs that are over. Those in progress are given with each question.
    """

    def __init__(self, limits: Limits, usages: Iterable[Usage | None] = ()) -> None:
        self._most_seconds = _seconds(limits.max_gpu_hours)
        self._limits = limits
        self._over = total_usage(usages)
        self._has_warned = False

    @property
    def is_limited(self) -> bool:
        return self._limits.max_gpu_hours is not None or self._limits.max_energy is not None

    def note(self, usage: Usage | None) -> None:
        """Take note of a run that is over."""
        if usage is None:
            return
        self._over = total_usage([self._over, usage])
        if usage.energy_joules is None and self._limits.max_energy is not None:
            self._warn_of_unknown_energy()

    def reached(self, running: Iterable[Usage] = ()) -> tuple[EndReason, str] | None:
        """Return the limit that is reached, and that in words."""
        spent = total_usage([self._over, *running])
        if spent is None:
            return None
        note = " (estimated)" if spent.is_estimated else ""
        most, energy = self._limits.max_energy, spent.energy_kwh
        if self._most_seconds is not None and (
            spent.gpu_seconds >= self._most_seconds - _ROUNDING_SECONDS
        ):
            words = f"max_gpu_hours={self._limits.max_gpu_hours:g} are used up{note}"
            return EndReason.GPU_HOURS, words
        if most is not None and energy is not None and energy >= most:
            return EndReason.ENERGY, f"max_energy={most:g} kWh is used up{note}"
        return None

    def next_look(self, running: Sequence[Usage], gpus: int) -> float | None:
        """Return after how many seconds a limit may be reached; None: not before a run starts.

        gpus: how many cards the runs in progress hold. To be asked anew when one starts or ends.
        """
        return min(self._looks(running, gpus), default=None) if gpus else None

    def _looks(self, running: Sequence[Usage], gpus: int) -> Iterator[float]:
        if self._most_seconds is not None:
            spent = total_usage([self._over, *running])
            left = self._most_seconds - (0.0 if spent is None else spent.gpu_seconds)
            yield max(_LEAST_LOOK_SECONDS, left / gpus)
        if self._limits.max_energy is not None:
            yield _ENERGY_LOOK_SECONDS

    def _warn_of_unknown_energy(self) -> None:
        if not self._has_warned:
            self._has_warned = True
            _LOG.warning(
                "Limits(max_energy=%g) counts known energy only, and that of a run is not known: its GPU does "
                "not tell it, as with MIG instances, or was not read. Limits(max_gpu_hours=...) needs no "
                "such figure",
                self._limits.max_energy,
            )


def warn_without_gpus(limits: Limits) -> None:
    """Say that limits of GPUs have no effect: none is used."""
    for name in ("max_gpu_hours", "max_energy"):
        if getattr(limits, name) is not None:
            _LOG.warning(
                "Limits(%s=%g) has no effect: this search uses no GPU", name, getattr(limits, name)
            )


def _seconds(hours: float | None) -> float | None:
    return None if hours is None else hours * _SECONDS_PER_HOUR
