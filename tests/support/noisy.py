"""A program whose trials write wherever they can, and which is silent itself but for its first and last word.

python -m tests.support.noisy DIRECTORY
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import subprocess
import sys
import threading
import warnings
from contextlib import suppress
from pathlib import Path

from aiotune.executors.context import RunContext
from tests.support import tuned

__all__ = ["WORDS"]

WORDS = (
    *("print", "stderr", "descriptor 1", "descriptor 2", "shell", "process", "native"),
    *("warning", "logger", "thread", "left behind"),
)


class Noisy(tuned.RandomSearch):
    """Writes each of the words in a way of its own; the second trial then dies by a fault."""

    def run_trial(self, trial: RunContext) -> float:
        x: float = trial.hyperparameters.Float("x", 0.0, 1.0)
        print("print")
        print("stderr", file=sys.__stderr__)
        os.write(1, b"descriptor 1\n")
        os.write(2, b"descriptor 2\n")
        os.system("echo shell")
        subprocess.run(["echo", "process"], check=True)
        native = ctypes.CDLL(None)
        native.puts(b"native")
        native.fflush(None)
        warnings.warn("warning", stacklevel=1)
        logging.getLogger("theirs").error("logger")
        thread = threading.Thread(target=_fail)
        thread.start()
        thread.join()
        with suppress(OSError), open("/dev/tty", "w") as terminal:
            terminal.write("terminal\n")
        with subprocess.Popen(["sh", "-c", "echo left behind; exec sleep 600"]) as left:
            assert left.stdout is None
            _wait_for("left behind", trial.assignment.log)
            if trial.number == 1:
                ctypes.string_at(0)  # a segmentation fault
            left.kill()
        return x


def _fail() -> None:
    raise ValueError("thread")


def _wait_for(word: str, log: str) -> None:
    while word not in Path(log).read_text():
        pass


def main(directory: str) -> None:
    if os.isatty(0):  # a session's leader gets its terminal by opening one
        os.close(os.open(os.ttyname(0), os.O_RDWR))
    print("begin")
    tuner = tuned.make(Noisy, Path(directory), max_trials=3)
    asyncio.run(tuner.search(verbose=0))
    print("end")


if __name__ == "__main__":
    main(*sys.argv[1:])
