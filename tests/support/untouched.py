"""A program that searches, and tells what the search has changed in its process: JSON on stdout.

python -m tests.support.untouched DIRECTORY asyncio|uvloop|thread default|ignored|handled
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import random
import resource
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np  # its import adds filters of warnings
import psutil

from aiotune.events import Event, Reported
from aiotune.history import History
from tests.support import tuned

Main = Callable[[], Coroutine[Any, Any, None]]
_LAST_SECONDS = 10.0  # far above what a thread takes to end; reaching it is a failure
_KERNELS_VIEW = ("SigBlk", "SigIgn", "SigCgt", "Cpus_allowed")  # lines of /proc/self/status


def world() -> dict[str, Any]:
    """Return what belongs to the caller, by name. Handlers of native code show in the kernel's view."""
    status = Path("/proc/self/status").read_text().splitlines()
    lines = dict(line.split(":", 1) for line in status)
    return {
        "handlers": [signal.getsignal(number) for number in sorted(signal.valid_signals())],
        "kernel's view": [lines[name] for name in _KERNELS_VIEW],
        "timers": [signal.getitimer(number) for number in range(3)],
        "environment": dict(os.environ),
        "directory": os.getcwd(),
        "path": list(sys.path),
        "arguments": list(sys.argv),
        "streams": [sys.stdin, sys.stdout, sys.stderr, os.fstat(1).st_ino, os.fstat(2).st_ino],
        "hooks": [sys.excepthook, sys.unraisablehook, threading.excepthook, sys.displayhook],
        "warnings": list(warnings.filters),
        "chance": [random.getstate(), np.random.get_state()[1].tolist()],
        "logging": [logging.root.handlers[:], logging.root.level, logging.lastResort],
        "limits": [resource.getrlimit(number) for number in range(16)],
        "session": [os.getpgid(0), os.getsid(0)],
        "priority": [os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)],
    }


def wakeup_fd() -> int:
    """Return the descriptor that signals wake the loop by; -1 in a thread, where there is none."""
    if threading.current_thread() is not threading.main_thread():
        return -1
    fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
    return fd


def differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, list[str]]:
    return {
        name: [str(before[name]), str(after[name])]
        for name in before
        if before[name] != after[name]
    }


def descriptors() -> dict[str, str]:
    """Return what is open, by number; the look itself opens one, which is gone."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
    return found


async def searches(directory: Path, changed: dict[str, Any]) -> int:
    """Search to the end, to a failure and to an early leave; return how often the world was looked at."""
    inside, wakeup, looks = world(), wakeup_fd(), 0

    def look(event: Event, history: History) -> None:
        nonlocal looks
        looks += 1
        changed.update(differences(inside, world()))
        if wakeup_fd() != wakeup:
            changed["wakeup"] = wakeup_fd()

    def make(kind: type[tuned.Kind], name: str) -> tuned.Kind:
        return tuned.make(kind, directory, project_name=name, observers=[look])

    await make(tuned.Parabola, "whole").search(0.5, verbose=0)
    await make(tuned.Clumsy, "failed").search("error", 2, verbose=0)
    async with make(tuned.Deaf, "left").start() as search:
        async for event in search.events():
            if isinstance(event, Reported):
                break
    return looks


def run_asyncio(main: Main) -> None:
    asyncio.run(main())


def run_uvloop(main: Main) -> None:
    import uvloop

    uvloop.run(main())


def run_thread(main: Main) -> None:
    thread = threading.Thread(target=run_asyncio, args=(main,))
    thread.start()
    thread.join()


HOSTS = {"asyncio": run_asyncio, "uvloop": run_uvloop, "thread": run_thread}
CHILD_SIGNALS = {
    "default": signal.SIG_DFL,
    "ignored": signal.SIG_IGN,
    "handled": lambda *_: None,
}


def main(directory: str, host: str, child_signal: str) -> None:
    signal.signal(signal.SIGCHLD, CHILD_SIGNALS[child_signal])
    signal.signal(signal.SIGTERM, lambda *_: None)
    np.random.seed(0)
    HOSTS[host](nothing)  # what the loop itself leaves is there before
    before, open_before = world(), descriptors()
    during: dict[str, Any] = {}
    looks: list[int] = []

    async def search() -> None:
        looks.append(await searches(Path(directory), during))

    HOSTS[host](search)
    gc.collect()
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.main_thread():
            thread.join(_LAST_SECONDS)  # it was told to end, by the end of the loop
    print(
        json.dumps(
            {
                "looks": sum(looks),
                "during": during,
                "after": differences(before, world()),
                "descriptors": differences({"open": open_before}, {"open": descriptors()}),
                "threads": [each.name for each in threading.enumerate()],
                "children": len(psutil.Process().children(recursive=True)),
            }
        )
    )


async def nothing() -> None:
    """Let a loop begin and end. The first thread of a process makes glibc take a signal for itself."""
    await asyncio.to_thread(os.getpid)


if __name__ == "__main__":
    main(*sys.argv[1:])
