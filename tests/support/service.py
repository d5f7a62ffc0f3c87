"""A service under uvicorn: started, asked and ended by a test."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.marked import MARK, marked
from tests.support.programs import ROOT, line_of

__all__ = ["Service", "serving"]

_ANSWER_SECONDS = 400.0  # far above what an answer takes; reaching it is a failure


class Service:
    """A running uvicorn, whose log and whose program's lines are one stream."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self._process = process
        self._address = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> Any:
        """Return the JSON that the service answers with."""
        with urllib.request.urlopen(self._address + path, timeout=_ANSWER_SECONDS) as answer:
            return json.load(answer)

    def wait_for(self, pattern: str | re.Pattern[str]) -> re.Match[str]:
        """Read on until a line matches; AssertionError if the service ends instead."""
        while (match := re.search(pattern, line_of(self._process))) is None:
            pass
        return match

    def interrupt(self) -> str:
        """Press Ctrl-C, and return what the service prints on its way out."""
        self._process.send_signal(signal.SIGINT)
        assert self._process.stdout is not None
        return self._process.stdout.read()


@contextmanager
def serving(
    directory: Path, mark: str, app: str, *options: str, **environment: str
) -> Iterator[Service]:
    """Serve `app`, a "module:name" of `directory`; at the end kill every process that has the mark."""
    with socket.create_server(("127.0.0.1", 0)) as door:  # it takes requests before anybody answers
        command = [sys.executable, "-m", "uvicorn", app, "--fd", str(door.fileno()), *options]
        own = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", MARK: mark}
        with subprocess.Popen(
            command,
            cwd=directory,
            env=os.environ | own | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(door.fileno(),),
            text=True,
            start_new_session=True,
        ) as process:
            try:
                yield Service(process, door.getsockname()[1])
            finally:
                for pid in {process.pid, *marked(mark)}:
                    subprocess.run(["kill", "-9", str(pid)], check=False, capture_output=True)
