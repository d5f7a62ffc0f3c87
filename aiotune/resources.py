"""Resources: what a run needs. Limits: when a search ends by itself."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

from aiotune.errors import FatalTypeError, FatalValueError

__all__ = ["Limits", "Resources", "parse_memory"]

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY_UNITS = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def parse_memory(size: int | str) -> int:
    """Return bytes: 8_000_000, "8GB" (powers of 1000) or "8GiB" (powers of 1024)."""
    if isinstance(size, int) and not isinstance(size, bool) and size >= 0:
        return size
    match = re.fullmatch(r"\s*([\d.]+)\s*([kmgt]?i?)b?\s*", str(size).lower())
    units = _UNITS | _BINARY_UNITS
    try:
        if match is None:
            raise ValueError(size)
        return int(float(match[1]) * units[match[2]])
    except (KeyError, ValueError) as error:
        raise FatalValueError(
            f'{size!r} is no amount of memory: write bytes as an int, or "8GiB", "500MB"'
        ) from error


@dataclass(frozen=True, slots=True)
class Resources:
    """What one run needs. None leaves the choice to the pool.

    gpus: whole GPUs; None: one if the machine has any that may be used, else none. 0: the processor only.
    gpu_memory: the least memory that each of them must have in total, in bytes or as "8GiB".
    cpus: processor cores; None: an equal share of the machine.
    """

    gpus: int | None = None
    gpu_memory: int | str | None = None
    cpus: int | None = None

    def __post_init__(self) -> None:
        _check_count("gpus", self.gpus, at_least=0)
        _check_count("cpus", self.cpus, at_least=1)
        if self.gpu_memory is not None:
            parse_memory(self.gpu_memory)
            if self.gpus == 0:
                raise FatalValueError(
                    "Resources(gpus=0, gpu_memory=...) contradicts itself: drop one"
                )

    @property
    def gpu_memory_bytes(self) -> int:
        return 0 if self.gpu_memory is None else parse_memory(self.gpu_memory)


@dataclass(frozen=True, slots=True)
class Limits:
    """When a search ends by itself; the first limit reached ends it. All are optional.

    max_time: seconds from the start of `search()`. trial_timeout: seconds that one run may take.
    max_epochs: steps reported by all runs together. target: a score that is good enough.
    patience: so many trials in a row that ended without a better score. Of a trial that waited for a promotion
    in vain (Hyperband), only a better score counts.

    Runs in progress are asked to stop; their trials keep the best score so far.
    """

    max_time: float | None = None
    trial_timeout: float | None = None
    max_epochs: int | None = None
    target: float | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise FatalTypeError(f"Limits({each.name}={value!r}): a number is needed")
            if each.name != "target" and not value > 0:
                raise FatalValueError(f"Limits({each.name}={value!r}): it must be above 0")
        if self.max_time and self.trial_timeout and self.trial_timeout > self.max_time:
            raise FatalValueError(
                f"Limits(trial_timeout={self.trial_timeout}) has no effect beside "
                f"max_time={self.max_time}, which is shorter: drop it or make it smaller"
            )


def _check_count(name: str, value: int | None, *, at_least: int) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise FatalTypeError(f"Resources({name}={value!r}): a whole number is needed")
    if value < at_least:
        raise FatalValueError(f"Resources({name}={value!r}): it must be {at_least} or more")
