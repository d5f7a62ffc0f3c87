"""A stand-in for the GPU side of frameworks, in a child: it takes memory of a stand-in card (`nvml_standin`).

`frameworks/` has what programs import in the place of TensorFlow, JAX and PyTorch: the few names that aiotune
uses of them, with the rules of the real ones, each over a `Pool` of this module. Its folder comes first on
`sys.path`. What follows below are programs of runs. This module may be imported anywhere; those in
`frameworks/` only in processes of their own.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import aiotune
from aiotune.executors.base import Finished
from aiotune.executors.context import RunContext
from tests.support.nvml_standin import VARIABLE, allocate

__all__ = [
    "CONTEXT",
    "FOLDER",
    "MIB",
    "Exhausted",
    "Pool",
    "Taking",
    "cards",
    "fill",
    "hold",
    "take",
    "tell",
    "told",
    "visible",
]

FOLDER = Path(__file__).parent / "frameworks"
MIB = 2**20
CONTEXT = 448 * MIB  # what a process takes of a card before its first tensor
_MARK = "GPU "


class Exhausted(Exception):
    """The pool's limit, or the card's total, is reached."""


class Card:
    """One card that this process sees. CUDA has it a little smaller than NVML."""

    def __init__(self, uuid: str, total: int) -> None:
        self.uuid = uuid
        self.total = total
        self.held = CONTEXT
        allocate(uuid, self.held)

    def take(self, size: int) -> None:
        try:
            allocate(self.uuid, self.held + size)
        except MemoryError as error:
            raise Exhausted(str(error)) from error
        self.held += size


class Pool:
    """What one framework takes of one card, in whole and in parts."""

    def __init__(self, card: Card, limit: int | None = None, *, is_reserved: bool = False) -> None:
        self.limit = card.total if limit is None else limit
        self.used = self.peak = 0
        self._card = card
        self._reserved = 0
        if is_reserved:
            card.take(self.limit)
            self._reserved = self.limit

    @property
    def total(self) -> int:
        """The card's."""
        return self._card.total

    def take(self, size: int) -> None:
        if self.used + size > self.limit:
            raise Exhausted(f"{size} bytes wanted, {self.limit - self.used} of {self.limit} left")
        self._card.take(max(0, self.used + size - max(self.used, self._reserved)))
        self.used += size
        self.peak = max(self.peak, self.used)


_cards: list[Card] | None = None


def cards() -> list[Card]:
    """Return the cards that the variable shows, as of the first call: it makes a context on each."""
    global _cards
    if _cards is None:
        _cards = [Card(uuid, total) for uuid, total in visible().items()]
    return _cards


def visible() -> dict[str, int]:
    """Return the cards that the variable shows, with the memory that CUDA has of each. No index is taken."""
    all_cards = {}
    for line in Path(os.environ[VARIABLE]).read_text().splitlines():
        kind, *pairs = line.split("\t")
        values = dict(pair.split("=", 1) for pair in pairs)
        if kind in ("card", "instance"):
            all_cards[values["uuid"]] = int(values["total"]) - int(values["reserved"])
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shown is None:
        return all_cards
    return {} if shown == "-1" else {uuid: all_cards[uuid] for uuid in shown.split(",")}


# --- programs


def tell(run: RunContext) -> Finished:
    """Print what this process was shown of GPUs, and is told about their memory."""
    names = ("VISIBLE_DEVICES", "MEM_FRACTION", "PREALLOCATE", "ALLOW_GROWTH", "ALLOC_CONF", "NVML")
    variables = {
        name: value for name, value in os.environ.items() if any(each in name for each in names)
    }
    loaded = sys.modules.get("standins")
    _print(
        variables=variables,
        is_awake=_cards is not None,
        saw_gpu_at_import=loaded and loaded.SEES_GPU_AT_IMPORT,
        nvml=ctypes.CDLL("libnvidia-ml.so.1").nvmlDeviceGetCount_v2(ctypes.byref(ctypes.c_uint())),
    )
    return Finished()


def take(name: str, sizes: tuple[int, ...], run: RunContext) -> Finished:
    """Take so many bytes with the framework of that name, one after the other, and report each."""
    framework: Any = importlib.import_module(name)
    for size in sizes:
        framework.take(size)
        run.report(held=float(size))
    return Finished()


def fill(name: str, step: int, run: RunContext) -> Finished:
    """Take memory with the framework of that name until it has no more; the error then leaves the program."""
    framework: Any = importlib.import_module(name)
    held = 0
    try:
        while True:
            framework.take(step)
            held += step
    finally:
        _print(held=held)


def hold(name: str, size: int, end: str, run: RunContext) -> Finished:
    """Take so many bytes, report it, and then end: "killed", "exited", or when asked to ("stopped")."""
    framework: Any = importlib.import_module(name)
    framework.take(size)
    run.report(held=float(size))
    match end:
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exited":
            os._exit(3)
    while not run.should_stop:
        time.sleep(0.005)
    return Finished()


class Taking(aiotune.RandomSearch):
    """Each trial takes some memory, by the stand-in for PyTorch."""

    def run_trial(self, trial: RunContext) -> float:
        size = trial.hyperparameters.Int("size", 4, 40)  # in parts of a tenth of a GiB
        importlib.import_module("torch").take(size * 1024 * MIB // 10)
        trial.report(loss=0.0)
        tell(trial)
        return float(size)


def _print(**facts: object) -> None:
    print(_MARK + json.dumps(facts), flush=True)


def told(log: Path) -> list[dict[str, Any]]:
    """Return what programs printed into a log."""
    lines = log.read_text().splitlines()
    return [json.loads(line.removeprefix(_MARK)) for line in lines if line.startswith(_MARK)]
