"""Searches whose runs take memory of stand-in cards. Children import this module, so it imports little.

`torch` is the stand-in for it (`gpu_framework.FOLDER` comes first on `sys.path`).
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from aiotune import HyperParameters, RandomSearch, Resources
from aiotune.executors.context import RunContext
from aiotune.executors.gpu_memory import CONTEXT_BYTES
from tests.support import tuned
from tests.support.nvml_standin import VARIABLE

__all__ = ["GIB", "Crowd", "Greedy", "Guests", "Sized", "make", "room_for"]

GIB = 2**30
_POLL_SECONDS = 0.005  # between looks of a child at a folder; a test never polls


def make(kind: type[RandomSearch], directory: Path, **changes: Any) -> Any:
    """Return a tuner that takes every failure as it comes, on all cards."""
    options: dict[str, Any] = {
        "max_trials": 8,
        "gpus": "require",
        "max_concurrent_trials": None,
        "preload": (),
        "grace_seconds": 0.5,
        "max_consecutive_failed_trials": 10_000,
    }
    return tuned.make(kind, directory, **options | changes)


def _take(size: int) -> None:
    import torch  # the stand-in

    torch.take(size)  # type: ignore[attr-defined, unused-ignore]


class Guests(RandomSearch):
    """Trials that end in every way: well, by an error, by a crash, and not at all.

    Each reports what it sees of the cards: whether that is the UUID of one card.
    """

    def run_trial(self, trial: RunContext) -> float:
        _take(GIB)
        shown = os.environ["CUDA_VISIBLE_DEVICES"]
        trial.report(loss=trial.hyperparameters.Float("x", 0.0, 1.0), names=float(is_uuid(shown)))
        match trial.number % 40:
            case 3 | 13 | 23 | 33:
                os.kill(os.getpid(), signal.SIGKILL)
            case 5 | 25:
                raise ValueError("as it goes")
            case 7 if trial.number < 100:
                while True:
                    time.sleep(_POLL_SECONDS)
        return trial.hyperparameters.get("x")


def is_uuid(shown: str) -> bool:
    return shown.startswith("GPU-") and "," not in shown


class Crowd(RandomSearch):
    """Trials of 2 GiB each; all but the first wait until so many as are wanted were on the card together.

    It reports how many were.
    """

    def run_trial(self, trial: RunContext, wanted: int) -> dict[str, float]:
        _take(2 * GIB - CONTEXT_BYTES)
        trial.report(loss=trial.hyperparameters.Float("x", 0.0, 1.0), together=1.0)
        flag = Path(os.environ[VARIABLE]).parent / "was-full"
        while trial.number and (together := _guests()) < wanted and not flag.exists():
            time.sleep(_POLL_SECONDS)
        if trial.number:
            flag.touch()
        return {"loss": 1.0, "together": float(together if trial.number else 1)}


def _guests() -> int:
    """Return how many living processes hold memory of the machine's cards."""
    number = 0
    for path in (Path(os.environ[VARIABLE]).parent / "allocations").iterdir():
        try:
            os.kill(int(path.name.rpartition("@")[2]), 0)
        except OSError:  # it has ended
            continue
        number += 1
    return number


class Sized(RandomSearch):
    """Trials of different sizes."""

    def run_trial(self, trial: RunContext) -> float:
        size = trial.hyperparameters.Choice("gibibytes", [2, 20, 60])
        trial.hyperparameters.Float("x", 0.0, 1.0)
        _take(size * GIB)
        return float(size)


def room_for(hp: HyperParameters) -> Resources:
    """Return a card that has the memory for a trial of `Sized`."""
    size = hp.values.get("gibibytes", 2)
    return Resources(gpus=1, gpu_memory=f"{size + 1}GiB", cpus=1)


class Greedy(RandomSearch):
    """Trials that want 30 GiB, whatever they were given."""

    def run_trial(self, trial: RunContext) -> float:
        _take(30 * GIB)
        return trial.hyperparameters.Float("x", 0.0, 1.0)
