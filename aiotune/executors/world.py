"""The world that a run wakes up in: the caller's, as it was when the search began, and its lease of devices."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from aiotune.devices.locks import LEASED
from aiotune.errors import ExecutorError
from aiotune.executors.base import Assignment
from aiotune.executors.gpu_memory import MemoryLimit, memory_limit
from aiotune.executors.keras_settings import KerasSettings, backend_by
from aiotune.executors.main_module import MainModule
from aiotune.executors.strays import FAMILY
from aiotune.executors.wire import Frame

__all__ = [
    "World",
    "device_variables",
    "memory_variables",
    "pin_to_cores",
    "run_as_batch",
    "thread_variables",
]

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_JAX_GPU_PLATFORMS = ("gpu", "cuda", "rocm", "")
# Two names of one variable: JAX refuses to start where both are set.
_JAX_FRACTIONS = ("XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_CLIENT_MEM_FRACTION")


@dataclass(frozen=True, slots=True)
class World:
    """What a run takes over from the caller, as it was when the search began.

    The backend of a Keras that the caller has loaded decides for the runs: the environment names it.
    """

    directory: str
    sys_path: tuple[str, ...]
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    main: MainModule
    umask: int | None = None  # None: not known
    keras: KerasSettings | None = None  # None: not loaded in the caller

    @classmethod
    def current(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Return this process's world; `environment` replaces its variables."""
        try:
            directory = os.getcwd()
        except FileNotFoundError as error:
            raise ExecutorError(
                "the working directory no longer exists: change to another one with os.chdir()"
            ) from error
        variables = dict(os.environ if environment is None else environment)
        keras = KerasSettings.current()
        if keras is not None and keras.backend != backend_by(variables):  # else servers stay shared
            variables["KERAS_BACKEND"] = keras.backend
        return cls(
            directory,
            tuple(map(str, sys.path)),
            tuple(sys.argv),
            variables,
            MainModule.current(),
            _umask(),
            keras,
        )

    def to_frame(self) -> Frame:
        return {
            "directory": self.directory,
            "sys_path": self.sys_path,
            "arguments": self.arguments,
            "environment": self.environment,
            "main": self.main.to_frame(),
            "umask": self.umask,
            "keras": None if self.keras is None else self.keras.to_frame(),
        }

    @classmethod
    def from_frame(cls, frame: Frame) -> Self:
        keras = frame["keras"]
        return cls(
            frame["directory"],
            tuple(frame["sys_path"]),
            tuple(frame["arguments"]),
            frame["environment"],
            MainModule(**frame["main"]),
            frame["umask"],
            None if keras is None else KerasSettings.from_frame(keras),
        )

    def enter(self, assignment: Assignment) -> None:
        """Make this process live in the world, on the assignment's devices and cores; but for Keras's settings.

        Those wait until Keras is loaded.
        """
        os.chdir(self.directory)
        if self.umask is not None:
            os.umask(self.umask)
        sys.path[:] = self.sys_path
        sys.argv[:] = self.arguments
        self.main.enter()
        family = os.environ.get(FAMILY)
        os.environ.clear()
        os.environ.update(self.environment)
        if family is not None:
            os.environ[FAMILY] = family
        self._set_variables(assignment)
        time.tzset()  # TZ may differ from what this process was started with
        pin_to_cores(assignment.cores)
        run_as_batch()

    def _set_variables(self, assignment: Assignment) -> None:
        limit = memory_limit(assignment.gpu_memory, assignment.gpu_fraction)
        os.environ.update(device_variables(assignment.gpus, self.environment))
        os.environ[LEASED] = ",".join(assignment.gpus)
        os.environ.update(memory_variables(limit, self.environment))
        os.environ.update(thread_variables(len(assignment.cores), self.environment))


def _umask() -> int | None:
    """Return this process's umask; None where only changing it, for all threads, would tell it."""
    try:
        with open("/proc/self/status") as file:
            lines = [line for line in file if line.startswith("Umask:")]
    except OSError:
        return None
    return int(lines[0].split()[1], 8) if lines else None


def device_variables(gpus: tuple[str, ...], environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that show a process exactly these GPUs (UUIDs), and none if there are none."""
    if gpus:
        return {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}
    platforms = environment.get("JAX_PLATFORMS", "").split(",")
    others = [each for each in platforms if each not in _JAX_GPU_PLATFORMS]
    return {
        "CUDA_VISIBLE_DEVICES": "-1",
        "HIP_VISIBLE_DEVICES": "-1",
        "JAX_PLATFORMS": ",".join(others) or "cpu",  # JAX fails if one that is named is not there
    }


def memory_variables(limit: MemoryLimit | None, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables by which frameworks keep to their share of a card; None: they may have all of it.

    JAX reads its own when it first touches a GPU, and its fraction is one of the card's total. TensorFlow,
    which is told a limit by a call, at least takes no more than it needs if there is none in bytes. What the
    user has set stays.
    """
    if limit is None:
        return {}
    variables = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    if limit.fraction is not None and not any(environment.get(name) for name in _JAX_FRACTIONS):
        variables[_JAX_FRACTIONS[0]] = f"{limit.fraction:.6f}"
    if limit.memory_bytes is None:
        variables["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    return {name: value for name, value in variables.items() if not environment.get(name)}


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
