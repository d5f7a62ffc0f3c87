"""The child processes of a tuner: from its program to an executor, and the fork server that they share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from types import MappingProxyType
from typing import Any

import anyio

from aiotune.arguments import named_arguments, refuse_iterators
from aiotune.devices.ledger import shared_ledger
from aiotune.devices.opening import open_pool
from aiotune.discovery import discover
from aiotune.errors import FatalRuntimeError
from aiotune.executors.context import Program
from aiotune.executors.launch import Server, acquire_server, release_server
from aiotune.executors.payload import Payload
from aiotune.executors.process import ProcessExecutor
from aiotune.executors.world import World
from aiotune.frameworks.data import REDUCERS
from aiotune.frameworks.keras_build import configured_backend
from aiotune.frameworks.sklearn import SKLEARN_MODULES
from aiotune.program import Tunable, TunerProgram
from aiotune.project import Project
from aiotune.settings import Settings
from aiotune.space import Space
from aiotune.store.database import make_directory
from aiotune.tasks import in_own_task, in_thread, made_in_thread

__all__ = [
    "OWN_MODULES",
    "discover_space",
    "modules_to_preload",
    "open_processes",
    "open_trial_processes",
    "refuse_to_block",
    "warm_processes",
]

# The child's side of aiotune. It imports no framework.
OWN_MODULES = ("aiotune.tuners", "aiotune.program", "aiotune.frameworks.keras")

_NOTHING: Mapping[str, Any] = MappingProxyType({})


async def open_trial_processes(
    stack: AsyncExitStack,
    tuner: Tunable,
    project: Project,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] = _NOTHING,
    *,
    world: World | None = None,
) -> ProcessExecutor:
    """Open processes that perform the tuner's `run_trial` with these arguments of `search()`."""
    slim = tuner.for_child()
    named = named_arguments("search()", args, kwargs)
    refuse_iterators(named)
    parts = {**named, **_parts_of(slim)}
    program = TunerProgram(slim, args, kwargs)
    return await open_processes(stack, tuner, project, program, parts, world=world)


async def open_processes(
    stack: AsyncExitStack,
    tuner: Tunable,
    project: Project,
    program: Program,
    parts: Mapping[str, object],
    *,
    world: World | None = None,
) -> ProcessExecutor:
    """Pickle the program and start its fork server, which imports while the caller goes on.

    `parts` are the program's components by the words in which an error names them. `world`: the children's;
    None: this process's as it is now.
    """
    settings = project.settings
    world = world or World.current()
    payload = await _pickled(program, parts, settings)
    stack.callback(payload.close)
    await anyio.to_thread.run_sync(make_directory, project.layout.root)
    executor = ProcessExecutor(
        payload,
        preload=modules_to_preload(tuner, payload.frameworks, settings),
        start_method=settings.start_method,
        world=world,
        server_log=project.layout.server_log,
        grace_seconds=settings.grace_seconds,
    )
    return await stack.enter_async_context(executor)


@asynccontextmanager
async def warm_processes(tuner: Tunable, project: Project) -> AsyncIterator[None]:
    """Keep the fork server of the tuner's runs, so that whatever they import is imported once in this block.

    It imports in the background: nothing waits for it here. Trials that run in the caller's process need none.
    """
    if tuner.has_async_trials or project.settings.executor not in ("auto", "process"):
        yield
        return
    servers: list[Server] = []

    async def acquire() -> None:
        slim = tuner.for_child()
        program = TunerProgram(slim, (), {})
        with await _pickled(program, _parts_of(slim), project.settings) as payload:
            preload = modules_to_preload(tuner, payload.frameworks, project.settings)
        work = partial(
            acquire_server,
            preload,
            start_method=project.settings.start_method,
            environment=World.current().environment,
            log=project.layout.server_log,
        )
        servers.append(await made_in_thread(work))

    try:
        await in_own_task(acquire)
        yield
    finally:
        for server in servers:
            await in_thread(partial(release_server, server))


async def discover_space(
    tuner: Tunable,
    project: Project,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] = _NOTHING,
) -> Space:
    """Return the space that the program declares, from one run in a child on the processor.

    The arguments, those of a search to come, are checked there, too.
    """

    async def work() -> Space:
        async with AsyncExitStack() as stack:
            executor = await open_trial_processes(stack, tuner, project, args, kwargs)
            pool = await open_pool(gpus=0)
            settings = project.settings
            found = await discover(
                project.oracle,
                project.layout,
                pool,
                executor,
                memory=None if callable(settings.resources) else settings.resources.memory,
                limits=settings.limits,
            )
            return Space(found.space)

    return await in_own_task(work)


def refuse_to_block(instead: str) -> None:
    """Raise FatalRuntimeError where a call that waits for a run would stop the loop that must let it begin."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    if shared_ledger().is_in_use:
        raise FatalRuntimeError(
            "this call waits for a process, and would stop the event loop of a search that is in progress: "
            f"write `{instead}` instead, or call it after the search"
        )


def modules_to_preload(
    tuner: Tunable, frameworks: Iterable[str], settings: Settings
) -> tuple[str, ...]:
    """Return what the fork server should import: our own child's side, and what the runs need.

    That is what `settings` say, or else the `frameworks` that the pickled program refers to; a hypermodel needs
    Keras, which imports its backend, or scikit-learn. A plain function must not wait for a framework that it
    does not use.
    """
    if settings.preload is not None:
        return tuple(dict.fromkeys((*OWN_MODULES, *settings.preload)))
    if tuner.hypermodel is None:
        return (*OWN_MODULES, *sorted(frameworks))
    if tuner.model_framework == "sklearn":
        own = (*OWN_MODULES, "aiotune.frameworks.sklearn", *SKLEARN_MODULES)
        return (*own, *sorted({*frameworks} - {"sklearn"}))
    return (*OWN_MODULES, "keras", *sorted({*frameworks} - {"keras", configured_backend()}))


async def _pickled(program: Program, parts: Mapping[str, object], settings: Settings) -> Payload:
    create = partial(Payload.create, prelude=settings.setup, reducers=REDUCERS)
    return await made_in_thread(partial(create, program, parts))


def _parts_of(slim: Tunable) -> dict[str, object]:
    """Return what a tuner takes along, by the words in which an error names it."""
    return {
        **{f"the tuner's attribute {name}": each for name, each in vars(slim).items()},
        f"the class {type(slim).__name__}": type(slim),
    }
