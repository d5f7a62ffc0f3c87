"""A control group with little memory, in which a test has a program run out of it. Linux, for who may."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aiotune.devices.control_groups import groups
from tests.support.programs import ROOT

__all__ = ["memory_group", "run_in_group"]

_LIMIT_FILES = ("memory.max", "memory.limit_in_bytes")  # of version 2, and 1


@contextmanager
def memory_group(limit_bytes: int) -> Iterator[Path]:
    """Yield a new control group below this process's own, with so much memory; skips where none can be made."""
    own = next((each for each in _memory_groups() if (each / "cgroup.procs").exists()), None)
    if own is None:
        pytest.skip("there are no control groups for memory here")
    group = own / f"aiotune-test-{os.getpid()}-{time.monotonic_ns()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made: {error}")
    try:
        limit = next((group / name for name in _LIMIT_FILES if (group / name).exists()), None)
        if limit is None:
            pytest.skip("the control group has no limit of memory")
        limit.write_text(str(limit_bytes))
        yield group
    finally:
        _remove(group)


def run_in_group(group: Path, code: str, *arguments: object) -> str:
    """Run the program in the group to its end and return what it printed; AssertionError if it fails."""
    enter = f"open({str(group / 'cgroup.procs')!r}, 'w').write('0')\n"
    done = subprocess.run(
        [sys.executable, "-c", enter + code, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _memory_groups() -> Iterator[Path]:
    yield from groups(Path("/"), "memory")
    yield from groups(Path("/"), "")


def _remove(group: Path) -> None:
    """Remove the group; that takes until the last process of it is gone for the kernel, too."""
    for _ in range(100):
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.05)
