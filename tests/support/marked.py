"""Finding the processes of a program by a mark in their environment: no name, no parent is relied upon."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Collection
from pathlib import Path

__all__ = ["MARK", "marked", "wait_until_gone"]

MARK = "AIOTUNE_TEST_MARK"


def marked(mark: str) -> list[int]:
    """Return the processes that were started with this mark and live; a zombie shows no environment."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                variables = (entry / "environ").read_bytes().split(b"\0")
            except OSError:  # it ended, or belongs to somebody else
                continue
            if wanted in variables:
                found.append(int(entry.name))
    return found


def wait_until_gone(mark: str, seconds: float, *, but: Collection[int] = ()) -> list[int]:
    """Wait until no process `but` those has the mark, `seconds` at most; return what else is left."""
    deadline = time.monotonic() + seconds
    while (left := [pid for pid in marked(mark) if pid not in but]) and time.monotonic() < deadline:
        _wait_for_end(left[0], deadline - time.monotonic())
    return left


def _wait_for_end(pid: int, seconds: float) -> None:
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        select.select([fd], [], [], max(seconds, 0))
    finally:
        os.close(fd)
