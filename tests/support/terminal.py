"""Running a program in a terminal of its own, to see all that a user would see."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

__all__ = ["run_in_terminal"]


def run_in_terminal(arguments: list[str], directory: Path, **environment: str) -> str:
    """Run Python with these arguments and return what its terminal shows; AssertionError if it fails."""
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            [sys.executable, *arguments],
            cwd=directory,
            env=os.environ | environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        ) as process:
            os.close(theirs)
            shown = b"".join(iter(lambda: _read(ours), b"")).decode().replace("\r\n", "\n")
        assert process.returncode == 0, shown
        return shown
    finally:
        os.close(ours)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # nobody has it open any more
        return b""
