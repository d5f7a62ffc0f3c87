"""Resources: what a run needs. Limits: when a search ends by itself."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from typing import Literal

from aiotune.errors import FatalTypeError, FatalValueError

__all__ = ["Limits", "Resources", "check_answer", "parse_memory"]

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY_UNITS = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_LEAST_MEMORY_BYTES = 16 * 2**20  # for a run: less is a slip, as in memory=4


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

    gpus: whole GPUs, which no other run has; None: one if the machine has any that may be used, else none. 0:
    the processor only. A float between 0 and 1: that part of one GPU, beside other runs. "shared": as much of
    one GPU as `gpu_memory` says, beside other runs.
    gpu_memory: in bytes or as "8GiB". Of whole GPUs: the least memory that each must have in total. Of a
    shared one: what the run may take of it, the context of its framework included; None: with a float the same
    part of its memory, with "shared" what earlier runs of the search took at most and a sixteenth more (until
    one was measured, a run has a GPU for itself).
    cpus: processor cores; None: an equal share of the machine.
    memory: of the machine, in bytes or as "4GiB": what one run may hold for itself, with all processes that it
    starts. What it shares with the fork server (libraries, the payload) does not count. No more runs are made
    at a time than fit, and one that takes more is ended; None: no limit of its own.
    """

    gpus: int | float | Literal["shared"] | None = None
    gpu_memory: int | str | None = None
    cpus: int | None = None
    memory: int | str | None = None

    def __post_init__(self) -> None:
        _check_gpus(self.gpus)
        _check_count("cpus", self.cpus, at_least=1)
        _check_memory(self.memory)
        if self.gpu_memory is not None:
            memory_bytes = parse_memory(self.gpu_memory)
            if self.gpus == 0:
                raise FatalValueError(
                    "Resources(gpus=0, gpu_memory=...) contradicts itself: drop one"
                )
            if self.is_shared and not memory_bytes:
                raise FatalValueError(
                    f"Resources(gpu_memory={self.gpu_memory!r}): a run cannot share a GPU without memory of it"
                )

    @property
    def gpu_memory_bytes(self) -> int:
        return 0 if self.gpu_memory is None else parse_memory(self.gpu_memory)

    @property
    def memory_bytes(self) -> int | None:
        """What a run may hold of the machine's memory; None: no limit."""
        return None if self.memory is None else parse_memory(self.memory)

    @property
    def is_shared(self) -> bool:
        """Whether a part of a GPU is asked for, so that other runs may be on it."""
        return isinstance(self.gpus, float | str)

    def alone(self, memory_bytes: int = 0) -> Resources:
        """Return the same with a whole GPU, of so much memory at least, instead of a part of one."""
        if not self.is_shared:
            return self
        return replace(self, gpus=1, gpu_memory=max(memory_bytes, self.gpu_memory_bytes) or None)


@dataclass(frozen=True, slots=True)
class Limits:
    """When a search ends by itself; the first limit reached ends it. All are optional.

    max_time: seconds from the start of `search()`. trial_timeout: seconds that one run may take.
    stall_timeout: seconds that one run may go without progress: a batch, a report, a look at `should_stop`;
    also while it builds. It must be longer than the longest build, first batch or step of the program.
    max_epochs: steps reported by all runs together. target: a score that is good enough.
    patience: so many trials in a row that ended without a better score. Of a trial that waited for a promotion
    in vain (Hyperband), only a better score counts.
    max_gpu_hours: hours for which all runs together hold a GPU; one that several share counts once.
    max_energy: kilowatt hours that the GPUs of the runs take, as far as they tell. Both are over all sessions
    of the search, and measured also while runs are in progress.

    Runs in progress are asked to stop; their trials keep the best score so far.
    """

    max_time: float | None = None
    trial_timeout: float | None = None
    stall_timeout: float | None = None
    max_epochs: int | None = None
    target: float | None = None
    patience: int | None = None
    max_gpu_hours: float | None = None
    max_energy: float | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise FatalTypeError(f"Limits({each.name}={value!r}): a number is needed")
            if each.name != "target" and not value > 0:
                raise FatalValueError(f"Limits({each.name}={value!r}): it must be above 0")
        self._require_shorter("trial_timeout", "max_time")
        self._require_shorter("stall_timeout", "max_time")
        self._require_shorter("stall_timeout", "trial_timeout")

    def _require_shorter(self, name: str, other: str) -> None:
        """Raise FatalValueError if the time limit `name` can never be reached before `other`."""
        seconds, longest = getattr(self, name), getattr(self, other)
        if seconds is not None and longest is not None and seconds > longest:
            raise FatalValueError(
                f"Limits({name}={seconds}) has no effect beside {other}={longest}, which is shorter: drop it "
                "or make it smaller"
            )


def check_answer(answer: object) -> None:
    """Raise FatalTypeError unless this is what a function that says what a run needs may return."""
    if not isinstance(answer, Resources):
        raise FatalTypeError(
            f"resources() returned {answer!r}: it must return aiotune.Resources(gpus=..., ...)"
        )


def _check_gpus(gpus: object) -> None:
    match gpus:
        case "shared":
            return
        case float():
            if not 0 < gpus < 1:
                raise FatalValueError(
                    f"Resources(gpus={gpus!r}): a part of a GPU is above 0 and below 1; for whole ones "
                    "write an int, as in gpus=1"
                )
        case str():
            raise FatalTypeError(
                f'Resources(gpus={gpus!r}): a number is needed, or "shared". '
                "Which GPUs are used is the tuner's keyword gpus=[...]"
            )
        case _:
            _check_count("gpus", gpus, at_least=0)


def _check_memory(memory: int | str | None) -> None:
    if memory is None or parse_memory(memory) >= _LEAST_MEMORY_BYTES:
        return
    raise FatalValueError(
        f"Resources(memory={memory!r}): no Python program does with less than "
        f'{_LEAST_MEMORY_BYTES // 2**20} MiB: write bytes as an int, or "4GiB"'
    )


def _check_count(name: str, value: object, *, at_least: int) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise FatalTypeError(f"Resources({name}={value!r}): a whole number is needed")
    if value < at_least:
        raise FatalValueError(f"Resources({name}={value!r}): it must be {at_least} or more")
