"""The world that a run wakes up in: the caller's directory, path and environment, and its lease of devices."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Self

from aiotune.errors import ExecutorError
from aiotune.executors.base import Assignment
from aiotune.executors.wire import Frame

__all__ = ["World", "device_variables", "pin_to_cores", "run_as_batch", "thread_variables"]

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


@dataclass(frozen=True, slots=True)
class World:
    """What a run takes over from the caller, as it was when the search began."""

    directory: str
    sys_path: tuple[str, ...]
    arguments: tuple[str, ...]
    environment: Mapping[str, str]

    @classmethod
    def current(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Return this process's world; `environment` replaces its variables."""
        try:
            directory = os.getcwd()
        except FileNotFoundError as error:
            raise ExecutorError(
                "the working directory no longer exists: change to another one with os.chdir()"
            ) from error
        variables = os.environ if environment is None else environment
        return cls(directory, tuple(map(str, sys.path)), tuple(sys.argv), dict(variables))

    def to_frame(self) -> Frame:
        return asdict(self)

    @classmethod
    def from_frame(cls, frame: Frame) -> Self:
        return cls(
            frame["directory"],
            tuple(frame["sys_path"]),
            tuple(frame["arguments"]),
            frame["environment"],
        )

    def enter(self, assignment: Assignment) -> None:
        """Make this process live in the world, on the assignment's devices and cores."""
        os.chdir(self.directory)
        sys.path[:] = self.sys_path
        sys.argv[:] = self.arguments
        threads = len(assignment.cores)
        os.environ.clear()
        os.environ.update(self.environment)
        os.environ.update(device_variables(assignment.gpus, self.environment))
        os.environ.update(thread_variables(threads, self.environment))
        pin_to_cores(assignment.cores)
        run_as_batch()


def device_variables(gpus: tuple[str, ...], environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that show a process exactly these GPUs (UUIDs), and none if there are none."""
    if gpus:
        return {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}
    hidden = {"CUDA_VISIBLE_DEVICES": "-1", "HIP_VISIBLE_DEVICES": "-1"}
    if "JAX_PLATFORMS" not in environment:
        hidden["JAX_PLATFORMS"] = "cpu"
    return hidden


def thread_variables(threads: int, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that size the thread pools of libraries loaded later; 0 threads: no wish.

    What the user has set stays.
    """
    if not threads:
        return {}
    return {name: str(threads) for name in _THREAD_VARIABLES if name not in environment}


def pin_to_cores(cores: tuple[int, ...]) -> None:
    """Keep this process on `cores`, as far as it may use them at all. Linux only; elsewhere nothing."""
    if not cores or sys.platform != "linux":
        return
    allowed = os.sched_getaffinity(0) & set(cores)
    if allowed:
        os.sched_setaffinity(0, allowed)


def run_as_batch() -> None:
    """Make this process batch work for the scheduler: its threads push nobody aside when they wake up.

    So the caller's event loop comes first. And a run on a single core is 7 to 10 % faster, as measured: at the
    end of a pass over the data TensorFlow tells a thread to end, and one that wakes up too soon sleeps on
    for tens of milliseconds before it looks again. Linux only; a policy that the user chose stays.
    """
    if sys.platform == "linux" and os.sched_getscheduler(0) == os.SCHED_OTHER:
        with contextlib.suppress(OSError):  # a sandbox may forbid it
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
