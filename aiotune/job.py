"""A job: one run that belongs to no trial, on a lease of its own.

Nothing of it is stored, and no lock is taken, so that it may go on beside a search of the same project.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio

from aiotune.arguments import refuse_iterators
from aiotune.devices.opening import open_pool
from aiotune.devices.pool import Lease
from aiotune.discovery import fatal_error
from aiotune.errors import ExecutorError, FatalRuntimeError
from aiotune.executors.base import Assignment, Execution, Executor, Failed, Finished, Noted
from aiotune.executors.context import Program
from aiotune.executors.inline import InlineExecutor
from aiotune.hyperparameters import HyperParameters
from aiotune.labels import is_scalar, label_of, plain
from aiotune.processes import open_processes
from aiotune.program import Tunable
from aiotune.project import Project
from aiotune.resources import Resources, check_answer
from aiotune.space import Scalar
from aiotune.tasks import beside

__all__ = ["Job", "perform"]

_LOG = logging.getLogger("aiotune")
_STREAM = -2  # for chance: no trial's, and always the same, so that a call can be repeated


@dataclass(frozen=True, slots=True)
class Job:
    """One run: its point, what it performs, and its files.

    arguments, parts: what of the program is in the user's call, and what else it consists of, by the words in
    which an error names them. directory: exists.
    """

    name: str
    hyperparameters: HyperParameters
    program: Program
    arguments: Mapping[str, object]
    parts: Mapping[str, object]
    directory: Path
    log: Path


async def perform(tuner: Tunable, project: Project, job: Job) -> Finished:
    """Run the job once the resources of `settings` are free. Raises the error that the program raised."""
    settings = project.settings
    resources = _resources(settings.resources, job.hyperparameters)
    seed = await anyio.to_thread.run_sync(project.seed)
    async with AsyncExitStack() as stack:
        pool = await open_pool(
            gpus=settings.gpus,
            max_concurrent=settings.max_concurrent_trials,
            resources=resources,
            priority=settings.priority,
            busy_gpus=settings.busy_gpus,
            in_caller=settings.executor == "inline",
        )
        pool.resolve(resources)  # DeviceError now, before a process is started
        executor = await _open_executor(stack, tuner, project, job)
        async with beside(partial(pool.tend, _leave_to_the_log)), pool.lease(resources) as lease:
            execution = await executor.start(_assignment(job, lease, seed), held=lease.guards)
            return await _ending(execution, job.log)


async def _leave_to_the_log(device: str, reason: str | None) -> None:
    """A job records nothing; the watch over the devices logs what it finds."""


async def _open_executor(
    stack: AsyncExitStack, tuner: Tunable, project: Project, job: Job
) -> Executor:
    """Open child processes, also where the tuner has an executor of the user's, which knows trials only."""
    if project.settings.executor == "inline":
        return await stack.enter_async_context(InlineExecutor(job.program, allow_blocking=True))
    refuse_iterators(job.arguments)
    return await open_processes(stack, tuner, project, job.program, {**job.arguments, **job.parts})


def _resources(
    resources: Resources | Callable[[HyperParameters], Resources], hp: HyperParameters
) -> Resources:
    if not callable(resources):
        return resources
    try:
        asked = resources(hp.copy())
    except Exception as error:
        raise FatalRuntimeError(
            f"resources() failed at {hp.values}: {type(error).__name__}: {error}"
        ) from error
    check_answer(asked)
    return asked


def _assignment(job: Job, lease: Lease, seed: int) -> Assignment:
    hp = job.hyperparameters
    return Assignment(
        trial_id=job.name,
        number=-1,
        stream=_STREAM,
        repeat=0,
        attempt=0,
        run=0,
        seed=seed,
        values={name: _scalar(value) for name, value in hp.values.items()},
        space=tuple(hp.space),
        draws_new_names=False,  # a name that `hp` does not have takes its default
        allow_new_entries=True,
        trial_directory=str(job.directory),
        log=str(job.log),
        gpus=lease.gpus,
        gpu_memory=lease.gpu_memory_bytes,
        gpu_fraction=lease.gpu_fraction,
        cores=lease.cores,
        memory_bytes=lease.memory_bytes,
    )


def _scalar(value: object) -> Scalar:
    """Return a value, maybe set by hand, as JSON holds it."""
    value = plain(value)
    return value if is_scalar(value) else label_of(value)


async def _ending(execution: Execution, log: Path) -> Finished:
    async with aclosing(execution.events()) as events:
        async for event in events:
            match event:
                case Noted():
                    _LOG.warning("%s", event.message)
                case Failed():
                    is_there = await anyio.Path(log).exists()  # inline, the caller saw the output
                    raise fatal_error(event, str(log) if is_there else None)
                case Finished():
                    return event
                case _:
                    pass
    raise ExecutorError(f"the run ended without a word; its log: {log}")
