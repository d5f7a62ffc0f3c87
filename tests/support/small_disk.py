"""A program on a file system of its own that is small, for tests of full disks. Linux, for who may."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.programs import ROOT

__all__ = ["run_on_small_disk"]

_CANNOT_MOUNT = 77
_IN_NAMESPACE = f"""
mount -t tmpfs -o size="$1" none "$0" || exit {_CANNOT_MOUNT}
shift
exec "$@"
"""


def run_on_small_disk(
    directory: Path, size: str, command: Sequence[object]
) -> subprocess.CompletedProcess[str]:
    """Run the command with so much room ("4m") in the directory; skips where no disk can be mounted."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare is here to mount a small disk with")
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", _IN_NAMESPACE, str(directory), size, *map(str, command)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == _CANNOT_MOUNT or done.stderr.startswith("unshare:"):
        pytest.skip(f"no small disk can be mounted here: {done.stderr}")
    return done
