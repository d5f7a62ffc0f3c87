"""Children that do what they can to break a search: each has one end, of the right kind, and leaves nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from aiotune.executors.base import Assignment, Failed, Finished, Observed, RunEvent
from aiotune.executors.context import RunContext
from aiotune.executors.launch import Server
from aiotune.executors.log_cap import CAP_BYTES
from aiotune.executors.payload import Payload
from aiotune.executors.process import ProcessExecutor
from aiotune.executors.world import World
from aiotune.trial import FailureKind
from tests.support import hostile
from tests.support.chaos import Chaos
from tests.support.processes import all_gone, descendants, is_gone
from tests.support.runs import assign, collect, ending, of_kind, run_once

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the fork server is Linux's"),
    pytest.mark.usefixtures("server"),
]

PROMISE = "Nothing hangs"
MEGABYTE = 2**20

Hostile = Callable[[RunContext], Finished]


@dataclass(frozen=True)
class Case:
    """A program and its end: a failure of this kind, with these words in its text; None: a result."""

    program: Hostile
    kind: FailureKind | None = None
    words: str = ""

    @property
    def name(self) -> str:
        return self.program.__name__.replace("_", " ")


def names(case: Case) -> str:
    return case.name


WAITING = [
    Case(hostile.ignores_sigterm),
    Case(hostile.blocks_all_signals),
    Case(hostile.stops_itself),
    Case(hostile.leaves_its_group),
    Case(hostile.spins),
]
HARMLESS = [
    Case(hostile.leaves_a_daemon),
    Case(hostile.prints_a_megabyte),
    Case(hostile.prints_garbage),
    Case(hostile.fills_its_log),
    Case(hostile.has_no_room_for_its_log),
    Case(hostile.changes_directory_and_umask),
    Case(hostile.makes_its_socket_nonblocking),
    Case(hostile.forks_after_its_report),
    Case(hostile.is_interrupted_in_reports),
    Case(hostile.ends_a_thread),
    Case(hostile.starts_many),
]
USER_ERROR, CRASH = FailureKind.USER_ERROR, FailureKind.CRASH
BREAKING = [
    Case(hostile.exits_in_a_thread, CRASH, "exited with code 3"),
    Case(hostile.reports_ten_megabytes, USER_ERROR, "write what is large into a file"),
    Case(hostile.returns_ten_megabytes, USER_ERROR, "write what is large into a file"),
    Case(hostile.meets_ten_megabytes, USER_ERROR, "too much to be told"),
    Case(hostile.raises_ten_megabytes, USER_ERROR, "characters left out"),
    Case(hostile.closes_all_descriptors, CRASH, "closed the descriptors"),
    Case(hostile.closes_its_sockets_and_stays, CRASH, "killed by SIGTERM"),
    Case(hostile.writes_garbage, CRASH, "something other than aiotune wrote"),
    Case(hostile.announces_a_gigabyte, CRASH, "something other than aiotune wrote"),
    Case(hostile.nests_deeply, CRASH, "something other than aiotune wrote"),
    Case(hostile.kills_its_group, CRASH, "killed by SIGKILL"),
    Case(hostile.runs_another_program, CRASH, "killed by SIGTERM"),
]
FATAL = [
    Case(hostile.kills_its_parent),
    Case(hostile.terminates_its_parent),
    Case(hostile.kills_its_session),
]


@asynccontextmanager
async def executor_of(case: Case, **options: Any) -> Any:
    with Payload.create(case.program) as payload:
        async with ProcessExecutor(payload, **options) as executor:
            yield executor


@asynccontextmanager
async def executor_alone(case: Case, **options: Any) -> Any:
    """Have a fork server for this executor alone, which its runs may break."""
    environment = {**os.environ, "KERAS_TEST": f"alone {case.name}"}
    async with executor_of(case, world=World.current(environment), **options) as executor:
        yield executor


def run_processes(server: Server) -> list[psutil.Process]:
    """Return what is left below a fork server."""
    return [each for child in descendants(server.pid)[:1] for each in descendants(child.pid)]


def is_as_expected(case: Case, last: Finished | Failed) -> bool:
    if case.kind is None:
        return last == Finished({"loss": 1.0})
    text = f"{last.message} {last.traceback}" if isinstance(last, Failed) else ""
    return isinstance(last, Failed) and last.kind is case.kind and case.words in text


@pytest.mark.parametrize("case", WAITING, ids=names)
async def test_run_that_waits_is_ended(
    case: Case, tmp_path: Path, server: Server, chaos: Chaos
) -> None:
    rounds = chaos.pick(1, 5)
    async with executor_of(case, grace_seconds=0.05) as executor:
        for number in range(rounds):
            last = ending(await stopped(executor, assign(tmp_path, number=number)))
            assert last == Finished(is_stopped=True)
            assert not run_processes(server)
    chaos.count(PROMISE, f"a child that {case.name}", rounds)


async def stopped(executor: ProcessExecutor, assignment: Assignment) -> list[RunEvent]:
    """Run until the first report, ask it to stop, and return what comes after that."""
    execution = await executor.start(assignment)
    async with aclosing(execution.events()) as events:
        async for event in events:
            if isinstance(event, Observed):
                execution.request_stop("pruned")
                break
        return [event async for event in events]


@pytest.mark.parametrize("case", HARMLESS + BREAKING, ids=names)
async def test_run_has_one_end_of_the_right_kind(
    case: Case, tmp_path: Path, server: Server, chaos: Chaos
) -> None:
    rounds = chaos.pick(1, 5)
    async with executor_of(case) as executor:
        for number in range(rounds):
            events = await run_once(executor, tmp_path / str(number))
            last = ending(events)
            assert is_as_expected(case, last), last
            assert not run_processes(server)
            for observed in of_kind(events, Observed):
                assert is_gone(int(observed.metrics.get("pid", 2**22 + 1)))
    chaos.count(PROMISE, f"a child that {case.name}", rounds)


@pytest.mark.parametrize("case", FATAL, ids=names)
async def test_run_that_ends_its_server_is_lost_and_the_next_has_another(
    case: Case, tmp_path: Path, chaos: Chaos
) -> None:
    rounds = chaos.pick(1, 5)
    async with executor_alone(case) as executor:
        for number in range(rounds):
            last = ending(await run_once(executor, tmp_path, number=number))
            assert isinstance(last, Failed)
            assert (last.kind, last.is_lost) == (CRASH, True)
    assert not of_test(case)
    chaos.count(PROMISE, f"a child that {case.name}", rounds)


async def test_server_that_a_run_has_stopped_is_ended_when_the_run_is_due(
    tmp_path: Path, chaos: Chaos, caplog: pytest.LogCaptureFixture
) -> None:
    if not chaos.is_long:
        pytest.skip("it takes 11 s: tests/test_execution.py has it in virtual time")
    case = Case(hostile.stops_its_parent)
    async with executor_alone(case, grace_seconds=0.05) as executor:
        last = ending(await stopped(executor, assign(tmp_path)))
        assert isinstance(last, Failed)
        assert last.is_lost
    assert "does not answer" in caplog.text
    assert not of_test(case)
    chaos.count(PROMISE, f"a child that {case.name}")


def of_test(case: Case) -> list[psutil.Process]:
    """Return the living processes below this one that have the environment of the case's fork server."""
    below = descendants(os.getpid())
    mine = [each for each in below if f"alone {case.name}" in environment_of(each)]
    return [] if all_gone(mine, 5.0) else mine


def environment_of(process: psutil.Process) -> str:
    try:
        return str(process.environ())
    except psutil.Error:
        return ""


async def test_log_is_kept_short_with_its_beginning_and_its_end(
    tmp_path: Path, chaos: Chaos
) -> None:
    async with executor_of(Case(hostile.fills_its_log)) as executor:
        assert ending(await run_once(executor, tmp_path)) == Finished({"loss": 1.0})
    log = (tmp_path / "run.log").read_bytes()
    assert len(log) <= CAP_BYTES
    assert log.startswith(b"the beginning\n")
    assert log.endswith(b"the end\n")
    assert b"were cut out here" in log
    chaos.measure(
        "The disk does not fill",
        "log of a run that prints 64 MiB",
        f"{len(log) / MEGABYTE:.1f} MiB",
        target=f"{CAP_BYTES // MEGABYTE} MiB",
        is_met=len(log) <= CAP_BYTES,
    )


async def test_flood_of_reports_arrives_in_order_while_memory_stays(
    tmp_path: Path, chaos: Chaos
) -> None:
    number = chaos.pick(5_000, 100_000)

    def flood(run: RunContext) -> Finished:
        for step in range(number):
            run.report(step, loss=1.0)
        return Finished({"loss": 1.0})

    before = psutil.Process().memory_info().rss
    most = seen = 0
    async with executor_of(Case(flood)) as executor:
        execution = await executor.start(assign(tmp_path))
        async with aclosing(execution.events()) as events:
            async for event in events:
                if isinstance(event, Observed):
                    assert event.step == seen
                    seen += 1
                    if seen % 1000 == 0:
                        most = max(most, psutil.Process().memory_info().rss - before)
    assert seen == number
    assert most < 20 * MEGABYTE
    chaos.count(PROMISE, "reports in a flood", number)
    chaos.measure(
        PROMISE,
        f"memory of the caller, of {number} reports at once",
        f"{most / MEGABYTE:.1f} MiB more",
        target="20 MiB",
        is_met=most < 20 * MEGABYTE,
    )


async def test_other_runs_go_on_beside_hostile_ones(tmp_path: Path, chaos: Chaos) -> None:
    cases = [*HARMLESS, *BREAKING]
    chosen = chaos.chance.sample(cases, chaos.pick(4, len(cases)))
    for case in chosen:

        def program(run: RunContext, attack: Hostile = case.program) -> Finished:
            return attack(run) if run.number else Finished({"loss": 0.5})

        async with executor_of(Case(program)) as executor:
            hostile_run = await executor.start(assign(tmp_path / "hostile", number=1))
            assert ending(await run_once(executor, tmp_path / "good")) == Finished({"loss": 0.5})
            assert is_as_expected(case, ending(await collect(hostile_run)))
    chaos.count(PROMISE, "a good run beside a hostile one", len(chosen))
