"""Runs in processes of their own, as a rule forked by a server that has the frameworks imported already."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio

from aiotune.errors import ExecutorError
from aiotune.executors.base import Assignment, Executor
from aiotune.executors.execution import ProcessExecution
from aiotune.executors.launch import (
    Server,
    ServerLost,
    StartMethod,
    acquire_server,
    release_server,
)
from aiotune.executors.payload import Payload
from aiotune.executors.wire import assignment_to_frame, encode_frame
from aiotune.executors.world import World
from aiotune.tasks import in_thread, made_in_thread, whole

__all__ = ["ProcessExecutor"]


class ProcessExecutor(Executor):
    """Starts each run of one payload in a fresh process. The payload stays the caller's to close.

    preload: modules that the fork server imports before it forks; they are imported once.
    start_method: "fork" from that server, "spawn" a new interpreter for each run, or "auto".
    world: what the runs take over from this process; default: all of it, as it is now.
    server_log: where the fork server's own output goes (imports, their warnings).
    grace_seconds: between a request to stop and SIGTERM; 0.5 s later comes SIGKILL.
    """

    def __init__(
        self,
        payload: Payload,
        *,
        preload: Sequence[str] = (),
        start_method: StartMethod = "auto",
        world: World | None = None,
        server_log: Path | None = None,
        grace_seconds: float = 10.0,
    ) -> None:
        self._payload = payload
        self._preload = tuple(preload)
        self._start_method = start_method
        self._world = world or World.current()
        self._server_log = server_log
        self._grace_seconds = grace_seconds
        self._server: Server | None = None
        self._renewing = anyio.Lock()
        self._executions: set[ProcessExecution] = set()

    async def __aenter__(self) -> Self:
        await self._live_server()  # it imports while the caller goes on
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await whole(self._close())

    async def _close(self) -> None:
        for execution in list(self._executions):
            execution.kill()
        for execution in list(self._executions):
            await execution.close()
        await self._release_server()

    async def start(self, assignment: Assignment, *, held: Sequence[int] = ()) -> ProcessExecution:
        """Start a run; returns once its process is forked, which waits for the server's imports.

        Raises MissingFramework if an import fails for want of a package, else ExecutorError.
        """
        order = encode_frame(
            {"assignment": assignment_to_frame(assignment), "world": self._world.to_frame()}
        )
        for _ in range(2):  # once more if the server died in between
            execution = self._execution(await self._live_server(), assignment)
            self._executions.add(execution)
            try:
                await execution.begin(order, self._payload.fd, held, assignment.memory_bytes)
            except BaseException as error:
                await whole(execution.close())
                if not isinstance(error, ServerLost):
                    raise
            else:
                return execution
        where = "" if self._server_log is None else f"; its log is {self._server_log}"
        raise ExecutorError(f"the process that starts the runs died twice on starting one{where}")

    def _execution(self, server: Server, assignment: Assignment) -> ProcessExecution:
        return ProcessExecution(
            server,
            log=Path(self._world.directory, assignment.log),
            grace_seconds=self._grace_seconds,
            on_close=self._executions.discard,
        )

    async def _live_server(self) -> Server:
        async with self._renewing:
            server = self._server
            if server is None or not server.is_alive:
                await self._release_server()
                server = self._server = await made_in_thread(self._acquire_server)
            return server

    def _acquire_server(self) -> Server:
        return acquire_server(
            self._preload,
            start_method=self._start_method,
            environment=self._world.environment,
            log=self._server_log,
        )

    async def _release_server(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await in_thread(partial(release_server, server))
