"""Looking at processes from outside."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import psutil

__all__ = ["all_gone", "descendants", "is_gone"]


def is_gone(pid: int) -> bool:
    """Tell whether the process has ended; a zombie has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def descendants(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def all_gone(processes: Iterable[psutil.Process], seconds: float) -> bool:
    """Wait until all have ended, `seconds` at most; tell whether they have."""
    _, alive = psutil.wait_procs(list(processes), timeout=seconds)
    return all(is_gone(process.pid) for process in alive)
