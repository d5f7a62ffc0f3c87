from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from aiotune.errors import ExecutorError, MissingFramework
from aiotune.executors.base import Executor, Failed, Finished, Observed
from aiotune.executors.context import RunContext
from aiotune.executors.launch import Server, acquire_server, release_server
from aiotune.executors.payload import Payload
from aiotune.executors.process import ProcessExecutor
from aiotune.executors.world import World
from aiotune.trial import FailureKind
from tests.contracts.executor_contract import AsyncProgram, ExecutorContract, next_observed
from tests.support.processes import all_gone, descendants, is_gone
from tests.support.runs import assign, collect, ending, of_kind, run_once

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the fork server is Linux's"),
    pytest.mark.usefixtures("server"),
]


@asynccontextmanager
async def process(program: Callable[[RunContext], Any], **options: Any) -> Any:
    with Payload.create(program) as payload:
        async with ProcessExecutor(payload, **options) as executor:
            yield executor


class TestContract(ExecutorContract):
    def make(
        self, program: AsyncProgram, *, grace_seconds: float = 10.0
    ) -> AbstractAsyncContextManager[Executor]:
        def blocking(run: RunContext) -> Finished:
            import asyncio

            return asyncio.run(program(run))  # type: ignore[arg-type]

        return process(blocking, grace_seconds=grace_seconds)


# --- how runs end ---


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (signal.SIGSEGV, "SIGSEGV"),
        (signal.SIGKILL, "SIGKILL"),
        (signal.SIGABRT, "SIGABRT"),
        (signal.SIGRTMIN + 3, "signal 37"),
    ],
)
async def test_killed_run_is_a_crash(tmp_path: Path, number: int, name: str) -> None:
    def program(run: RunContext) -> Finished:
        print("last words", flush=True)
        os.kill(os.getpid(), number)
        raise AssertionError

    async with process(program) as executor:
        last = ending(await run_once(executor, tmp_path))
        assert isinstance(last, Failed)
        assert last.kind is FailureKind.CRASH
        assert f"killed by {name}" in last.message
        assert "last words" in (last.traceback or "")
        assert not last.is_lost
        again = ending(await run_once(executor, tmp_path))  # it cost that run only
    assert isinstance(again, Failed)


@pytest.mark.parametrize("code", [0, 3])
async def test_run_that_exits_by_itself_is_a_crash(tmp_path: Path, code: int) -> None:
    def program(run: RunContext) -> Finished:
        os._exit(code)

    async with process(program) as executor:
        last = ending(await run_once(executor, tmp_path))
    assert isinstance(last, Failed)
    assert last.kind is FailureKind.CRASH
    assert f"exited with code {code}" in last.message


async def test_keyboard_interrupt_of_user_code_is_a_failure(tmp_path: Path) -> None:
    def program(run: RunContext) -> Finished:
        raise KeyboardInterrupt

    async with process(program) as executor:
        last = ending(await run_once(executor, tmp_path))
    assert isinstance(last, Failed)
    assert "KeyboardInterrupt" in last.message


async def test_program_that_cannot_be_loaded_ends_the_search(tmp_path: Path) -> None:
    class Stubborn:
        def __reduce__(self) -> Any:
            return (__import__, ("no_such_module",))

    stubborn = Stubborn()

    def program(run: RunContext) -> Finished:
        return Finished({"x": float(id(stubborn))})

    async with process(program) as executor:
        last = ending(await run_once(executor, tmp_path))
    assert isinstance(last, Failed)
    assert last.is_fatal
    assert "could not be loaded" in last.message
    assert "no_such_module" in last.message


async def test_child_deaf_to_stop_and_sigterm_is_killed(tmp_path: Path) -> None:
    def program(run: RunContext) -> Finished:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        run.report(pid=os.getpid())
        while True:
            signal.pause()

    async with process(program, grace_seconds=0.05) as executor:
        execution = await executor.start(assign(tmp_path))
        async with aclosing(execution.events()) as events:
            pid = int((await next_observed(events)).metrics["pid"])
            execution.request_stop("pruned")
            rest = [event async for event in events]
        assert ending(rest) == Finished(is_stopped=True)
        assert is_gone(pid)


async def test_crash_after_a_stop_request_is_still_a_crash(tmp_path: Path) -> None:
    def program(run: RunContext) -> Finished:
        run.report(loss=1.0)
        while not run.should_stop:
            pass
        os.kill(os.getpid(), signal.SIGSEGV)
        return Finished()

    async with process(program) as executor:
        execution = await executor.start(assign(tmp_path))
        async with aclosing(execution.events()) as events:
            await next_observed(events)
            execution.request_stop("pruned")
            last = ending([event async for event in events])
    assert isinstance(last, Failed)
    assert "SIGSEGV" in last.message


def fork_sleeper(*, new_session: bool) -> int:
    """Fork a process that would sleep for ever, and return its id."""
    pid = os.fork()
    if pid == 0:
        if new_session:
            os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            signal.pause()
    return pid


@pytest.mark.parametrize("new_session", [False, True], ids=["same group", "daemon"])
@pytest.mark.parametrize("is_killed", [False, True])
async def test_grandchildren_do_not_outlive_the_run(
    tmp_path: Path, new_session: bool, is_killed: bool
) -> None:
    def program(run: RunContext) -> Finished:
        run.report(pid=fork_sleeper(new_session=new_session))
        if is_killed:
            os.kill(os.getpid(), signal.SIGKILL)
        return Finished()

    async with process(program) as executor:
        events = await run_once(executor, tmp_path)
        ending(events)
        (observed,) = of_kind(events, Observed)
        assert is_gone(int(observed.metrics["pid"]))


@pytest.mark.parametrize("how", ["close", "cancel", "executor"])
async def test_run_ended_by_force_leaves_no_process(tmp_path: Path, how: str) -> None:
    def program(run: RunContext) -> Finished:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        run.report(pid=os.getpid(), grandchild=fork_sleeper(new_session=False))
        while True:
            signal.pause()

    pids: dict[str, float] = {}
    has_reported = asyncio.Event()

    async def follow(execution: Any) -> None:
        async with aclosing(execution.events()) as events:
            pids.update((await next_observed(events)).metrics)
            has_reported.set()
            if how != "close":
                await anext(events)

    async with process(program) as executor:
        task = asyncio.create_task(follow(await executor.start(assign(tmp_path))))
        await has_reported.wait()
        if how == "cancel":
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert all(is_gone(int(pid)) for pid in pids.values())
        elif how == "close":
            await task
            assert all(is_gone(int(pid)) for pid in pids.values())
    assert all(is_gone(int(pid)) for pid in pids.values())
    await asyncio.wait([task])
    assert task.cancelled() == (how == "cancel")


# --- the fork server ---


async def test_death_of_the_server_loses_its_runs_and_the_next_start_has_a_new_one(
    tmp_path: Path,
) -> None:
    def program(run: RunContext) -> Finished:
        run.report(server=os.getppid(), pid=os.getpid())
        while run.number == 0:
            signal.pause()
        return Finished()

    # A server of its own, for other tests share theirs.
    environment = {**os.environ, "KERAS_TEST": "own server"}
    async with process(program, world=World.current(environment)) as executor:
        execution = await executor.start(assign(tmp_path))
        async with aclosing(execution.events()) as events:
            metrics = (await next_observed(events)).metrics
            child = descendants(int(metrics["server"]))
            os.kill(int(metrics["server"]), signal.SIGKILL)
            last = ending([event async for event in events])
        assert isinstance(last, Failed)
        assert last.is_lost
        assert last.kind is FailureKind.CRASH
        assert [each.pid for each in child] == [int(metrics["pid"])]
        assert all_gone(child, seconds=5)
        events_of_next = await run_once(executor, tmp_path, number=1)
        (observed,) = of_kind(events_of_next, Observed)
        assert ending(events_of_next) == Finished()
        assert observed.metrics["server"] != metrics["server"]
    assert is_gone(int(observed.metrics["server"]))


async def test_missing_framework_names_the_extra(tmp_path: Path) -> None:
    missing = tmp_path / "needs_jax.py"
    missing.write_text("raise ModuleNotFoundError('no jax', name='jax')")
    sys.path.insert(0, str(tmp_path))
    try:
        async with process(lambda run: Finished(), preload=["needs_jax"]) as executor:
            for _ in range(2):
                with pytest.raises(MissingFramework, match=r'pip install "aiotune\[jax\]"'):
                    await executor.start(assign(tmp_path))
    finally:
        sys.path.remove(str(tmp_path))


async def test_preload_that_fails_says_why(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "server.log"
    async with process(
        lambda run: Finished(), preload=["no_such_module"], server_log=log
    ) as executor:
        with pytest.raises(ExecutorError, match="no_such_module"):
            await executor.start(assign(tmp_path))
    assert "ModuleNotFoundError" in log.read_text()


async def test_start_can_be_cancelled_while_the_server_imports(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    module = tmp_path / "slow_import.py"
    module.write_text(f"open({str(tmp_path / 'gate')!r}).read()")
    sys.path.insert(0, str(tmp_path))

    def program(run: RunContext) -> Finished:
        (run.directory / "has run").touch()
        return Finished()

    try:
        async with process(program, preload=["slow_import"]) as executor:
            task = asyncio.create_task(executor.start(assign(tmp_path)))
            gate = await asyncio.to_thread(open, tmp_path / "gate", "w")  # the import goes on
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            gate.close()
            second = await collect(await executor.start(assign(tmp_path)))
        assert ending(second) == Finished()
    finally:
        sys.path.remove(str(tmp_path))


@asynccontextmanager
async def halted_in_a_start(
    tmp_path: Path, executor: Executor, server: psutil.Process
) -> AsyncIterator[None]:
    """Cancel a start that a halted server has not read; at the end it goes on and the start has ended.

    What is done inside may let the server go on: the loop stands still, so that no answer is read.
    """
    server.suspend()
    task = asyncio.create_task(executor.start(assign(tmp_path)))
    for _ in range(20):  # ample for the request to be sent
        await asyncio.sleep(0)
    yield
    server.suspend()
    task.cancel()
    for _ in range(20):
        await asyncio.sleep(0)
    assert not task.done()  # it waits for the server
    server.resume()
    with pytest.raises(asyncio.CancelledError):
        await task


def fork_server_of(executor_environment: dict[str, str]) -> psutil.Process:
    """Return the fork server for that environment, which must be ready."""
    server = acquire_server(environment=executor_environment)
    (process,) = psutil.Process(server.pid).children()
    release_server(server)
    return process


def tells_its_id(run: RunContext) -> Finished:
    (run.directory / "id").write_text(str(os.getpid()))
    while run.number == 0:
        signal.pause()
    return Finished()


async def test_start_cancelled_after_the_fork_leaves_no_process(tmp_path: Path) -> None:
    environment = {**os.environ, "KERAS_TEST": "cancelled after"}
    async with process(tells_its_id, world=World.current(environment)) as executor:
        assert ending(await run_once(executor, tmp_path, number=1)) == Finished()
        (tmp_path / "id").unlink()
        os.mkfifo(tmp_path / "id")
        server_process = fork_server_of(environment)
        async with halted_in_a_start(tmp_path, executor, server_process):
            server_process.resume()
            pid = int((tmp_path / "id").read_text())
        assert is_gone(pid)
        assert server_process.is_running()


async def test_start_cancelled_before_a_ready_server_reads_it(tmp_path: Path) -> None:
    environment = {**os.environ, "KERAS_TEST": "cancelled before"}
    async with process(tells_its_id, world=World.current(environment)) as executor:
        assert ending(await run_once(executor, tmp_path, number=1)) == Finished()
        (tmp_path / "id").unlink()
        server_process = fork_server_of(environment)
        async with halted_in_a_start(tmp_path, executor, server_process):
            pass
        assert not (tmp_path / "id").exists()
        assert ending(await run_once(executor, tmp_path, number=1)) == Finished()
        assert server_process.is_running()


def run_in_a_loop_of_its_own(directory: Path, number: int, results: dict[int, int]) -> None:
    def program(run: RunContext) -> Finished:
        return Finished({"server": float(os.getsid(0))})

    async def main() -> None:
        async with process(program) as executor:
            last = ending(await run_once(executor, directory, number=number))
            assert isinstance(last, Finished), last
            results[number] = int(last.metrics["server"])

    asyncio.run(main())


def test_loops_in_several_threads_share_a_server(tmp_path: Path, server: Server) -> None:
    results: dict[int, int] = {}
    threads = [
        threading.Thread(target=run_in_a_loop_of_its_own, args=(tmp_path, number, results))
        for number in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(results) == {0, 1, 2}
    assert set(results.values()) == {server.pid}


# --- the child's world ---


async def report_of(
    tmp_path: Path, program: Callable[[RunContext], Finished], **changes: Any
) -> str:
    """Run a program that writes to `result` in its directory, and return what it wrote."""
    async with process(program) as executor:
        last = ending(await run_once(executor, tmp_path, **changes))
    assert isinstance(last, Finished), last
    return (tmp_path / "result").read_text()


async def test_world_is_the_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIOTUNE_TEST", "caf\u00e9 \udcff")
    monkeypatch.delenv("LANG", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("somewhere")

    def program(run: RunContext) -> Finished:
        world = [os.getcwd(), sys.path, sys.argv, os.environ["AIOTUNE_TEST"], "LANG" in os.environ]
        (run.directory / "result").write_text(repr(world))
        return Finished()

    expected = [str(tmp_path), sys.path, sys.argv, "caf\u00e9 \udcff", False]
    assert await report_of(tmp_path, program) == repr(expected)


async def test_child_has_only_its_own_descriptors(tmp_path: Path) -> None:
    def program(run: RunContext) -> Finished:
        names = {}
        for fd in os.listdir("/proc/self/fd"):
            try:
                names[int(fd)] = os.readlink(f"/proc/self/fd/{fd}").split(":")[0]
            except OSError:
                continue  # of the listing itself
        (run.directory / "result").write_text(repr(names))
        return Finished()

    found = eval(await report_of(tmp_path, program))
    log = str(tmp_path / "run.log")
    assert (found.pop(0), found.pop(1), found.pop(2)) == ("/dev/null", log, log)
    assert list(found.values()) == ["socket"]  # for the facts


async def test_devices_are_those_of_the_lease(tmp_path: Path) -> None:
    def program(run: RunContext) -> Finished:
        names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
        found = [*(os.environ.get(name) for name in names), sorted(os.sched_getaffinity(0))]
        (run.directory / "result").write_text(repr(found))
        return Finished()

    cores = tuple(sorted(os.sched_getaffinity(0))[:1])
    text = await report_of(tmp_path, program, gpus=("GPU-a", "GPU-b"), cores=cores)
    assert text == repr(["GPU-a,GPU-b", "1", list(cores)])
    text = await report_of(tmp_path, program)
    assert text == repr(["-1", os.environ.get("OMP_NUM_THREADS"), sorted(os.sched_getaffinity(0))])


@pytest.mark.skipif(sys.platform != "linux", reason="a scheduling policy of Linux")
async def test_run_is_batch_work(tmp_path: Path) -> None:
    def program(run: RunContext) -> Finished:
        (run.directory / "result").write_text(str(os.sched_getscheduler(0)))
        return Finished()

    assert await report_of(tmp_path, program) == str(os.SCHED_BATCH)
    assert os.sched_getscheduler(0) == os.SCHED_OTHER  # the caller's own is as it was


async def test_random_numbers_belong_to_the_run(tmp_path: Path) -> None:
    def program(run: RunContext) -> Finished:
        import random

        import numpy as np

        return Finished({"python": random.random(), "numpy": np.random.rand()})

    async with process(program) as executor:
        first, same, other = [
            ending(await run_once(executor, tmp_path, repeat=repeat)) for repeat in (0, 0, 1)
        ]
    assert isinstance(first, Finished)
    assert isinstance(other, Finished)
    assert first == same
    assert first.metrics["numpy"] != other.metrics["numpy"]
    assert first.metrics["python"] != other.metrics["python"]


async def test_output_goes_to_the_log(tmp_path: Path) -> None:
    def program(run: RunContext) -> Finished:
        print("x" * 1_000_000, end="")
        os.write(2, b"native")
        return Finished()

    log = tmp_path / "deep" / "run.log"
    async with process(program) as executor:
        for _ in range(2):  # appended
            assert ending(await run_once(executor, tmp_path, log=str(log))) == Finished()
    text = log.read_text()
    assert (text.count("x"), text.count("native")) == (2_000_000, 2)


async def test_fork_keeps_the_handler_of_user_code(tmp_path: Path) -> None:
    """And where there is none it ends at SIGTERM, and writes no stacks to the log."""

    def end_a_fork() -> int:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(writer, b".")  # from here on no signal gets lost
            while True:
                time.sleep(0.01)
        os.read(reader, 1)
        os.kill(pid, signal.SIGTERM)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def program(run: RunContext) -> Finished:
        plain = end_a_fork()
        signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
        return Finished({"plain": float(plain), "handled": float(end_a_fork())})

    async with process(program) as executor:
        last = ending(await run_once(executor, tmp_path))
    assert last == Finished({"plain": -15.0, "handled": 7.0})
    assert "Thread" not in (tmp_path / "run.log").read_text()


async def test_large_report_arrives(tmp_path: Path) -> None:
    def program(run: RunContext) -> Finished:
        run.report(0, **{f"{number:0100}": float(number) for number in range(8_000)})
        return Finished()

    async with process(program) as executor:
        events = await run_once(executor, tmp_path)
    (observed,) = of_kind(events, Observed)
    assert len(observed.metrics) == 8_000
    assert ending(events) == Finished()


async def test_large_assignment_arrives(tmp_path: Path) -> None:
    values = {f"{number:0100}": number for number in range(20_000)}  # 2 MB

    async with process(lambda run: Finished()) as executor:
        assert ending(await run_once(executor, tmp_path, values=values)) == Finished()


async def test_foreign_bytes_on_the_wire_end_the_run(tmp_path: Path) -> None:
    def program(run: RunContext) -> Finished:
        for fd in range(3, 100):
            if os.path.exists(f"/proc/self/fd/{fd}") and stat.S_ISSOCK(os.fstat(fd).st_mode):
                os.write(fd, b"hello, world")
        while True:
            signal.pause()

    async with process(program) as executor:
        last = ending(await run_once(executor, tmp_path))
    assert isinstance(last, Failed)
    assert "something other than aiotune" in last.message


async def test_caller_stays_untouched(tmp_path: Path) -> None:
    def state() -> tuple[Any, ...]:
        handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        return handlers, mask, dict(os.environ), os.getcwd(), list(sys.path)

    before = state()
    descriptors = sorted(os.listdir("/proc/self/fd"))
    async with process(lambda run: Finished(), preload=["json"]) as executor:
        await run_once(executor, tmp_path)
        assert state() == before
    assert state() == before
    assert sorted(os.listdir("/proc/self/fd")) == descriptors


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
async def test_sibling_that_holds_the_sockets_keeps_nothing_alive(tmp_path: Path) -> None:
    def program(run: RunContext) -> Finished:
        run.report(loss=1.0)
        while not run.should_stop:
            time.sleep(0.001)
        return Finished({"server": float(os.getsid(0))})

    environment = {**os.environ, "KERAS_TEST": "sibling"}
    async with process(program, world=World.current(environment)) as executor:
        execution = await executor.start(assign(tmp_path))
        async with aclosing(execution.events()) as events:
            await next_observed(events)
            sibling = os.fork()
            if sibling == 0:
                signal.pause()
            try:
                execution.request_stop("pruned")
                last = ending([event async for event in events])
                assert isinstance(last, Finished)
                await executor.__aexit__(None, None, None)
                assert is_gone(int(last.metrics["server"]))
            finally:
                os.kill(sibling, signal.SIGKILL)
                os.waitpid(sibling, 0)  # noqa: ASYNC222  (it is dead)
