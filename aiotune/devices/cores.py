"""Arithmetic on sets of processor cores."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["equal_shares", "name_cores", "pick_cores"]


def equal_shares(cores: Sequence[int], number: int) -> tuple[tuple[int, ...], ...]:
    """Return `number` disjoint contiguous parts of `cores`, none empty, sizes within one.

    number: 1 to len(cores).
    """
    size, rest = divmod(len(cores), number)
    starts = [part * size + min(part, rest) for part in range(number + 1)]
    return tuple(tuple(cores[starts[i] : starts[i + 1]]) for i in range(number))


def pick_cores(free: Sequence[int], number: int) -> tuple[int, ...]:
    """Return `number` of the `free` cores (ascending), from the shortest run that holds them.

    Long runs are left whole for larger requests. If no run is long enough, the lowest cores are
    taken.
    """
    fitting = [run for run in _runs(free) if len(run) >= number]
    return tuple(min(fitting, key=len, default=free)[:number])


def name_cores(cores: Sequence[int]) -> str:
    """Return the cores (ascending) in the kernel's notation: "cpu:0-3,8"."""
    runs = (f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in _runs(cores))
    return f"cpu:{','.join(runs)}"


def _runs(cores: Sequence[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for core in cores:
        if runs and runs[-1][-1] == core - 1:
            runs[-1].append(core)
        else:
            runs.append([core])
    return runs
