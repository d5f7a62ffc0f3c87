"""How runs end: each cause has its kind of failure, with words that tell what happened and what to do."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import psutil
import pytest

import aiotune
from aiotune.executors.base import Failed, Finished
from aiotune.executors.context import RunContext
from aiotune.executors.launch import StartMethod
from aiotune.executors.payload import Payload
from aiotune.executors.process import ProcessExecutor
from aiotune.resources import Resources
from aiotune.trial import FailureKind, TrialState
from tests.support.chaos import Chaos
from tests.support.hostile import take_memory
from tests.support.memory_group import memory_group, run_in_group
from tests.support.runs import ending, run_once

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the fork server is Linux's"),
    pytest.mark.usefixtures("server"),
]

PROMISE = "Failures are told apart"
MIB = 2**20

Program = Callable[[RunContext], Finished]


@asynccontextmanager
async def executor_of(program: Program, **options: Any) -> Any:
    with Payload.create(program) as payload:
        async with ProcessExecutor(payload, **options) as executor:
            yield executor


async def failure_of(program: Program, directory: Path, **changes: Any) -> Failed:
    """Run the program to its end, which must be a failure, and return that."""
    async with executor_of(program) as executor:
        last = ending(await run_once(executor, directory, **changes))
    assert isinstance(last, Failed)
    return last


# --- signals ---

# Those that end a process, whatever it does; what Python ignores is set back to its default first.
PASSING = {"SIGCHLD", "SIGCONT", "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGWINCH"}
DEADLY = [each for each in signal.Signals if each.name not in PASSING]


async def test_every_signal_is_a_crash_by_its_name(tmp_path: Path, chaos: Chaos) -> None:
    chosen = chaos.chance.sample(DEADLY, chaos.pick(8, len(DEADLY)))
    for number in chosen:

        def program(run: RunContext, number: signal.Signals = number) -> Finished:
            if number is not signal.SIGKILL:
                signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            raise AssertionError

        last = await failure_of(program, tmp_path)
        assert last.kind is FailureKind.CRASH
        real_time = number.value - signal.SIGRTMIN
        assert number.name in last.message or (real_time > 0 and str(number.value) in last.message)
    chaos.count(PROMISE, "a signal that ends a run", len(chosen))


async def test_a_kill_by_others_is_not_taken_for_want_of_memory(
    tmp_path: Path, chaos: Chaos
) -> None:
    def program(run: RunContext) -> Finished:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    last = await failure_of(program, tmp_path)
    assert last.kind is FailureKind.CRASH
    assert "another process" in last.message or "if memory ran out" in last.message
    chaos.count(PROMISE, "a kill by another process")


async def test_a_crash_leaves_no_core(tmp_path: Path, chaos: Chaos) -> None:
    def program(run: RunContext) -> Finished:
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_CORE)
        return Finished({"limit": soft})

    async with executor_of(program) as executor:
        last = ending(await run_once(executor, tmp_path))
    assert isinstance(last, Finished)
    assert last.metrics["limit"] in (0, 1)


# --- exits and errors ---


def leaves_by_exit(run: RunContext) -> Finished:
    sys.exit(0)


def leaves_with_words(run: RunContext) -> Finished:
    sys.exit("no data")


def exits_with_3(run: RunContext) -> Finished:
    os._exit(3)


def exits_with_0(run: RunContext) -> Finished:
    os._exit(0)


def exits_from_a_thread(run: RunContext) -> Finished:
    threading.Thread(target=os._exit, args=(4,)).start()
    while True:
        signal.pause()


def runs_out_in_python(run: RunContext) -> Finished:
    return Finished({"loss": float(len([0] * 2**60))})


def runs_out_in_numpy(run: RunContext) -> Finished:
    return Finished({"loss": float(numpy.zeros(2**58).sum())})


def runs_out_on_a_gpu(run: RunContext) -> Finished:
    raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0)")


def runs_out_in_a_library(run: RunContext) -> Finished:
    os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\n")
    os.abort()


def aborts(run: RunContext) -> Finished:
    os.write(2, b"assertion failed: n > 0\n")
    os.abort()


def faults(run: RunContext) -> Finished:
    import ctypes

    ctypes.string_at(0)
    raise AssertionError


def raises(run: RunContext) -> Finished:
    raise KeyError("units")


@dataclass(frozen=True)
class Case:
    program: Program
    kind: FailureKind
    words: str


CASES = [
    Case(leaves_by_exit, FailureKind.USER_ERROR, "sys.exit(0)"),
    Case(leaves_with_words, FailureKind.USER_ERROR, "sys.exit('no data')"),
    Case(exits_with_3, FailureKind.CRASH, "exited with code 3"),
    Case(exits_with_0, FailureKind.CRASH, "exited with code 0"),
    Case(exits_from_a_thread, FailureKind.CRASH, "exited with code 4"),
    Case(runs_out_in_python, FailureKind.OUT_OF_MEMORY, "MemoryError"),
    Case(runs_out_in_numpy, FailureKind.OUT_OF_MEMORY, "Unable to allocate"),
    Case(runs_out_on_a_gpu, FailureKind.OUT_OF_MEMORY, "CUDA out of memory"),
    Case(runs_out_in_a_library, FailureKind.OUT_OF_MEMORY, "bad_alloc"),
    Case(aborts, FailureKind.CRASH, "SIGABRT (aborted)"),
    Case(faults, FailureKind.CRASH, "SIGSEGV (segmentation fault)"),
    Case(raises, FailureKind.USER_ERROR, "KeyError: 'units'"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.program.__name__)
async def test_end_has_its_kind(case: Case, tmp_path: Path, chaos: Chaos) -> None:
    rounds = chaos.pick(1, 5)
    for _ in range(rounds):
        last = await failure_of(case.program, tmp_path)
        assert last.kind is case.kind
        assert case.words in last.text
        assert last.may_retry
    chaos.count(PROMISE, f"a run that {case.program.__name__.replace('_', ' ')}", rounds)


# --- memory of the machine ---


def takes_memory_of_its_own(run: RunContext) -> Finished:
    kept = [take_memory(8 * MIB) for _ in range(100)]
    while kept:
        signal.pause()
    return Finished()


def takes_memory_in_a_daemon(run: RunContext) -> Finished:
    if os.fork() == 0:
        os.setsid()
        takes_memory_of_its_own(run)
    while True:
        signal.pause()


@pytest.mark.parametrize("program", [takes_memory_of_its_own, takes_memory_in_a_daemon])
@pytest.mark.parametrize("start_method", ["fork", "spawn"])
async def test_run_that_takes_more_than_it_may_is_ended(
    program: Program, start_method: StartMethod, tmp_path: Path, chaos: Chaos
) -> None:
    rounds = chaos.pick(1, 5)
    async with executor_of(program, start_method=start_method) as executor:
        for _ in range(rounds):
            last = ending(await run_once(executor, tmp_path, memory_bytes=100 * MIB))
            assert isinstance(last, Failed)
            assert (last.kind, last.may_retry) == (FailureKind.OUT_OF_MEMORY, False)
            assert "more than its 100 MiB: raise Resources(memory=...)" in last.message
    chaos.count(PROMISE, "a run that takes more than Resources(memory=...)", rounds)


async def test_run_that_keeps_below_its_limit_goes_on(tmp_path: Path) -> None:
    def program(run: RunContext) -> Finished:
        kept = [take_memory(8 * MIB) for _ in range(5)]
        return Finished({"loss": float(len(kept))})

    async with executor_of(program) as executor:
        last = ending(await run_once(executor, tmp_path, memory_bytes=100 * MIB))
    assert last == Finished({"loss": 5.0})


def oom_score(pid: int) -> float:
    return float(Path(f"/proc/{pid}/oom_score_adj").read_text())


async def test_kernel_is_told_to_kill_runs_before_all_else(tmp_path: Path) -> None:
    def program(run: RunContext) -> Finished:
        return Finished({"run": oom_score(os.getpid()), "server": oom_score(os.getppid())})

    before = oom_score(os.getpid())
    async with executor_of(program) as executor:
        last = ending(await run_once(executor, tmp_path))
    # Who starts the tests may have raised the score of all of them.
    assert last == Finished({"run": 1000.0, "server": max(500.0, before)})
    assert oom_score(os.getpid()) == before


IN_GROUP = """
import asyncio, sys, time
from pathlib import Path
from aiotune.executors.base import Finished
from aiotune.executors.payload import Payload
from aiotune.executors.process import ProcessExecutor
from tests.support.hostile import take_memory
from tests.support.runs import ending, run_once

def program(run):
    if run.number:
        return Finished({"loss": 1.0})
    kept = []
    for _ in range(2000):
        kept.append(take_memory(2**20))
        time.sleep(0.004)  # so that the watch is first also on a busy machine
    return Finished()

async def main(directory):
    with Payload.create(program) as payload:
        async with ProcessExecutor(payload) as executor:
            last = ending(await run_once(executor, directory))
            print(last.kind.name, last.may_retry, last.message)
            print(ending(await run_once(executor, directory, number=1)))

asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.mark.parametrize(
    ("limit_bytes", "words"),
    [
        (500 * MIB, "the control group had"),  # the watch is there first
        # Here a run can hold less than the reserve: such a one the watch leaves to the kernel.
        (95 * MIB, "the kernel killed the run"),
    ],
)
def test_run_goes_before_the_caller_where_a_group_has_no_memory_left(
    limit_bytes: int, words: str, tmp_path: Path, chaos: Chaos
) -> None:
    rounds = chaos.pick(1, 5)
    for _ in range(rounds):
        with memory_group(limit_bytes) as group:
            told, again = run_in_group(group, IN_GROUP, tmp_path).splitlines()
        assert told.startswith("OUT_OF_MEMORY True killed by SIGKILL: ")
        assert words in told
        assert again == str(Finished({"loss": 1.0}))
    chaos.count(PROMISE, f"no memory left in a control group: {words} ...", rounds)


async def test_search_tells_what_a_run_took_and_goes_on(tmp_path: Path, chaos: Chaos) -> None:
    class Greedy(aiotune.RandomSearch):
        def run_trial(self, trial: Any) -> float:
            size = trial.hyperparameters.get("size")
            kept = take_memory(size * MIB)
            while size == 400:
                signal.pause()
            return float(len(kept))

    hp = aiotune.HyperParameters()
    hp.Choice("size", [1, 400])
    tuner = Greedy(
        hyperparameters=hp,
        objective=aiotune.Objective("loss", "min"),
        max_trials=2,
        directory=tmp_path,
        project_name="greedy",
        resources=Resources(memory="150MiB"),
        max_retries_per_trial=2,
        seed=0,
    )
    result = await tuner.search(verbose=0)
    states = {trial.values["size"]: trial for trial in result.trials}
    assert states[1].state is TrialState.COMPLETED
    assert states[400].state is TrialState.FAILED
    assert len(states[400].runs) == 1  # another run would take as much
    assert "more than its 150 MiB" in str(states[400].message)
    chaos.count(PROMISE, "a trial that takes more than Resources(memory=...)")


async def test_watch_over_runs_costs_next_to_nothing(tmp_path: Path, chaos: Chaos) -> None:
    seconds = chaos.pick(0.5, 20.0)

    def program(run: RunContext) -> Finished:
        server = psutil.Process(os.getppid())
        begin = server.cpu_times()
        time.sleep(seconds)
        end = server.cpu_times()
        return Finished({"seconds": end.user + end.system - begin.user - begin.system})

    async with executor_of(program) as executor:
        last = ending(await run_once(executor, tmp_path, memory_bytes=2**30))
    assert isinstance(last, Finished)
    share = last.metrics["seconds"] / seconds
    chaos.measure(
        PROMISE,
        "the watch over memory and logs of a run",
        f"{share:.2%} of a core",
        target="1 %",
        is_met=share < 0.01,
    )
