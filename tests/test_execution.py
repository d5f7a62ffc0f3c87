"""How long a killed run is waited for: with a fake server, on a loop whose time passes at once."""

from __future__ import annotations

import asyncio
import logging
import selectors
import socket
from collections.abc import Coroutine, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from aiotune.executors.base import Failed, Finished, Observed, RunEvent
from aiotune.executors.execution import ProcessExecution
from aiotune.executors.launch import Server
from aiotune.executors.requests import NO_TERMS, Terms
from aiotune.executors.wire import encode_frame, event_to_frame


class Impatient(selectors.DefaultSelector):
    """Never waits for time to pass; tells how much would have passed."""

    skipped = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(None if timeout is None else 0)
        if not ready and timeout is not None:
            self.skipped += timeout
        return ready


class ImpatientLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._impatient = Impatient()
        super().__init__(self._impatient)

    def time(self) -> float:
        return super().time() + self._impatient.skipped


class FakeServer(Server):
    """Starts nothing. It answers so many requests to kill, the last of them with the end of the run."""

    is_ready = True
    is_ours = True

    def __init__(self, *, answers: int, ends_run: bool) -> None:
        self.log = None
        self.is_killed = False
        self._answers = answers
        self._ends_run = ends_run
        self._ends: list[socket.socket] = []

    def run(
        self,
        *,
        facts: socket.socket,
        status: socket.socket,
        payload_fd: int,
        held: Sequence[int] = (),
        terms: Terms = NO_TERMS,
    ) -> int:
        self._ends = [facts.dup(), status.dup()]
        self._tell({"pid": 1})
        return 0

    def end(self, number: int, delay_seconds: float) -> None:
        if delay_seconds > 0 or self._answers == 0:
            return
        self._answers -= 1
        self._tell({"pid": 1})
        if self._answers == 0 and self._ends_run:
            self._tell({"signal": 9})

    def watch(self, *ends: socket.socket) -> None:
        pass

    def unwatch(self, *ends: socket.socket) -> None:
        pass

    def kill(self) -> None:
        self.is_killed = True

    def wait_end(self) -> None:
        for end in self._ends:
            end.close()

    def report(self, *events: RunEvent) -> None:
        """Send what a child would, in one piece: many small ones would wait for the reader."""
        self._ends[0].sendall(b"".join(encode_frame(event_to_frame(event)) for event in events))

    def _tell(self, frame: dict[str, Any]) -> None:
        self._ends[1].send(encode_frame(frame))


def on_impatient_loop(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=ImpatientLoop) as runner:
        runner.run(main)


async def begun(server: FakeServer) -> ProcessExecution:
    execution = ProcessExecution(
        server, log=Path("no.log"), grace_seconds=1, on_close=lambda execution: None
    )
    await execution.begin(b"", 0)
    return execution


@pytest.mark.parametrize(
    ("answers", "ends_run", "is_killed", "logged"),
    [
        (1, True, False, []),
        (4, True, False, []),
        (100, False, False, ["a run was killed and does not end"]),
        (0, False, True, ["the fork server does not answer"]),
        (3, False, True, ["the fork server does not answer"]),
    ],
)
def test_only_a_server_that_does_not_answer_is_ended(
    caplog: pytest.LogCaptureFixture,
    answers: int,
    ends_run: bool,
    is_killed: bool,
    logged: list[str],
) -> None:
    server = FakeServer(answers=answers, ends_run=ends_run)

    async def main() -> None:
        await (await begun(server)).close()

    with caplog.at_level(logging.ERROR, "aiotune"):
        on_impatient_loop(main())
    server.wait_end()
    assert server.is_killed == is_killed
    assert [record.message[: len(text)] for record in caplog.records for text in logged] == logged
    assert len(caplog.records) == len(logged)


def test_reader_of_a_run_that_does_not_end_is_told() -> None:
    server = FakeServer(answers=100, ends_run=False)
    seen: list[RunEvent] = []

    async def follow(execution: ProcessExecution) -> None:
        async with aclosing(execution.events()) as events:
            seen.extend([event async for event in events])

    async def main() -> None:
        execution = await begun(server)
        async with asyncio.TaskGroup() as group:
            group.create_task(follow(execution))
            await asyncio.sleep(0.1)
            await execution.close()

    on_impatient_loop(main())
    server.wait_end()
    (last,) = seen
    assert isinstance(last, Failed)
    assert "does not end" in last.message
    assert not last.is_lost
    assert not server.is_killed


async def all_events(execution: ProcessExecution) -> list[RunEvent]:
    async with aclosing(execution.events()) as events:
        return [event async for event in events]


@pytest.mark.parametrize("cause", ["a request to stop", "a last event"])
def test_server_that_hangs_is_noticed_when_the_end_of_a_run_is_due(
    caplog: pytest.LogCaptureFixture, cause: str
) -> None:
    server = FakeServer(answers=0, ends_run=False)
    seen: list[RunEvent] = []

    async def main() -> None:
        execution = await begun(server)
        if cause == "a request to stop":
            execution.request_stop("pruned")
        else:
            server.report(Finished({"loss": 1.0}))
        seen.extend(await all_events(execution))

    on_impatient_loop(main())
    (last,) = seen
    assert server.is_killed
    if cause == "a last event":
        assert last == Finished({"loss": 1.0})
    else:
        assert isinstance(last, Failed)
        assert last.is_lost
    assert "does not answer" in caplog.text


def test_the_first_last_event_holds() -> None:
    server = FakeServer(answers=1, ends_run=True)
    seen: list[RunEvent] = []

    async def main() -> None:
        execution = await begun(server)
        server.report(Finished({"loss": 1.0}), Observed(1, {"loss": 0.0}), Finished({"loss": 0.0}))
        seen.extend(await all_events(execution))

    on_impatient_loop(main())
    server.wait_end()
    assert seen == [Finished({"loss": 1.0})]


def test_flood_of_events_leaves_the_loop_to_others() -> None:
    server = FakeServer(answers=1, ends_run=True)
    flood = [Observed(step, {"loss": 1.0}) for step in range(600)]
    most = 0

    async def main() -> None:
        nonlocal most
        execution = await begun(server)
        server.report(*flood, Finished())
        in_turn = 0

        async def other() -> None:
            nonlocal in_turn
            while True:
                in_turn = 0
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        async with aclosing(execution.events()) as events:
            async for _ in events:
                in_turn += 1
                most = max(most, in_turn)
        task.cancel()

    on_impatient_loop(main())
    server.wait_end()
    assert 1 < most <= 64
