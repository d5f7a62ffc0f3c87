"""Python programs in processes of their own, for tests of what a killed or foreign process does."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 60.0  # far above what any of them takes; reaching it is a failure


def run_program(code: str, *arguments: object) -> str:
    """Run the program to its end and return what it printed; AssertionError if it fails."""
    return _run(_command(code, arguments))


def run_module(name: str, *arguments: object) -> str:
    """Run a module of the tests, as `python -m`, and return what it printed; AssertionError if it fails."""
    return _run([sys.executable, "-m", name, *map(str, arguments)])


def _run(command: list[str]) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@contextmanager
def obeying(module: str) -> Iterator[subprocess.Popen[str]]:
    """Start a module of the tests, as `python -m`, that reads orders and writes answers, a line each."""
    with subprocess.Popen(
        [sys.executable, "-m", module],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process


@contextmanager
def program(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Start the program with pipes to its stdin and stdout; kill it at the end if it still runs."""
    with subprocess.Popen(
        _command(code, arguments),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    """Return the next line that the program prints; AssertionError if it ends instead."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"the program ended with {process.wait()}"
    return line.strip()


def _command(code: str, arguments: tuple[object, ...]) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
