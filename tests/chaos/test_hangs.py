"""Nothing hangs: whatever does not go on is ended, told as what it was, and leaves nothing."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

from aiotune import Limits, RandomSearch
from aiotune.errors import FatalRuntimeError
from aiotune.event_log import EventLog, EventStream
from aiotune.events import EndReason, Event, Reported
from aiotune.executors.context import RunContext
from aiotune.executors.launch import acquire_server, release_server
from aiotune.history import History
from aiotune.trial import FailureKind, RunState, StopCause, Trial
from tests.conftest import ENVIRONMENT
from tests.support.chaos import Chaos
from tests.support.hanging import (
    HANGS,
    TELLING,
    Busy,
    Hanging,
    Heavy,
    HungModel,
    Loaded,
    hung_setup,
)
from tests.support.tuned import make

PROMISE = "Nothing hangs"
STALL_SECONDS = 1.0
SOON_SECONDS = 2.0  # for what hangs at once; a busy machine must get there
QUICK_GRACE = {"grace_seconds": 0.1}


@pytest.fixture(autouse=True, scope="module")
def _server() -> Iterator[None]:
    """Hold the fork server that most of these searches share."""
    server = acquire_server(environment=ENVIRONMENT)
    yield
    release_server(server)


def pids(trials: Iterator[Trial] | list[Trial]) -> set[int]:
    """Return the processes that runs have reported."""
    return {
        int(observation.metrics["pid"])
        for trial in trials
        for run in trial.runs
        for observation in run.observations
        if "pid" in observation.metrics
    }


def draw_kinds(chaos: Chaos) -> list[str]:
    """Return what each trial does: every way to hang, in any order, among trials that do not."""
    chance = random.Random(chaos.seed)
    ways = [f"{kind}, {when}" for kind in HANGS for when in ("later", "at once")]
    chosen = [chance.choice(ways[2 * n : 2 * n + 2]) for n in range(len(HANGS))]
    chosen = chaos.pick(chosen, chosen + ways * 3)
    kinds = [*chosen, *["fine"] * (len(chosen) // 3)]
    chance.shuffle(kinds)
    return kinds


async def test_runs_that_hang_are_ended_and_the_search_goes_on(
    tmp_path: Path, chaos: Chaos
) -> None:
    kinds = draw_kinds(chaos)
    # Long enough for those that do not hang, of which two cores have four at a time, some beside a spin.
    limits = Limits(stall_timeout=2 * STALL_SECONDS)
    tuner = make(
        Hanging,
        tmp_path,
        max_trials=len(kinds),
        limits=limits,
        max_concurrent_trials=4,
        **QUICK_GRACE,
    )
    result = await tuner.search(kinds)

    assert result.reason is EndReason.MAX_TRIALS
    for trial, kind in zip(tuner.trials, kinds, strict=True):
        check_end(trial, kind)
    assert not any(map(psutil.pid_exists, pids(tuner.trials)))
    for kind in kinds:
        if kind != "fine":
            chaos.count(PROMISE, f"a run hangs: {kind}")


def check_end(trial: Trial, kind: str) -> None:
    """Check that a trial ended as what it was, and that the log of one that hung shows where."""
    (run,) = trial.runs
    if kind == "fine":
        assert (trial.status, run.state) == ("COMPLETED", RunState.FINISHED)
        return
    assert (trial.status, trial.failure) == ("FAILED", FailureKind.TIMEOUT), kind
    assert run.stop_cause is StopCause.STALL
    assert trial.message is not None
    assert trial.message.startswith("it made no progress for stall_timeout")
    function = TELLING.get(kind.partition(",")[0])
    if function is not None:
        assert run.log is not None
        assert f"in {function}" in Path(run.log).read_text()


@pytest.mark.parametrize("place", ["declare", "build", "setup", "load"])
async def test_what_hangs_before_the_first_trial_ends_the_search(
    tmp_path: Path, chaos: Chaos, place: str
) -> None:
    by_stall = chaos.chance.random() < 0.5
    limit = {"stall_timeout" if by_stall else "trial_timeout": SOON_SECONDS}
    options: dict[str, Any] = {"limits": Limits(**limit), **QUICK_GRACE}
    argument: Any = ["fine"]
    kind: type[RandomSearch] = Hanging
    match place:
        case "declare" | "build":
            options |= {"hypermodel": HungModel(place), "preload": ()}
        case "setup":
            options["setup"] = hung_setup
        case _:
            kind, argument = Loaded, Heavy()
            options["setup"] = print  # so that there is a run before the first trial
    tuner = make(kind, tmp_path, **options)
    with pytest.raises(FatalRuntimeError, match="building the model once") as caught:
        await tuner.search(argument)
    name = next(iter(limit))
    assert f"{name}={SOON_SECONDS:g} s" in str(caught.value)
    log = tmp_path / "project" / "trial_discovery" / "run-0.log"
    assert str(log) in str(caught.value)
    assert "in _sleep" in log.read_text()
    assert not tuner.trials
    if place == "build":
        with pytest.raises(FatalRuntimeError, match=f"{name}={SOON_SECONDS:g} s"):
            await tuner.discover(argument)
    chaos.count(PROMISE, f"the build before the first trial hangs: {place}")


def block(seconds: float) -> None:
    """Hold the loop up: the fault itself."""
    time.sleep(seconds)


async def test_runs_that_go_on_are_left_alone_even_if_the_caller_does_not(
    tmp_path: Path, chaos: Chaos
) -> None:
    """The caller's own code blocks the loop for longer than runs may be silent: what they sent waits unread."""
    blocks, gate = chaos.pick(1, 6), tmp_path / "gate"
    limits = Limits(stall_timeout=1.5 * STALL_SECONDS)
    tuner = make(Busy, tmp_path, max_trials=2, limits=limits, **QUICK_GRACE)
    async with tuner.start(str(gate)) as search:
        begun: set[str] = set()
        async for event in search.events():
            if isinstance(event, Reported):
                begun.add(event.trial_id)
            if len(begun) == 2:
                break
        for _ in range(blocks):
            block(3 * STALL_SECONDS)
            await anyio.wait_all_tasks_blocked()
        gate.touch()
        await search.result()

    states = [trial.status for trial in tuner.trials]
    false_alarms = 2 - states.count("COMPLETED")
    fault = "the caller blocks its loop while runs go on"
    chaos.count(PROMISE, fault, blocks, losses=false_alarms)
    assert false_alarms == 0


@pytest.mark.parametrize("way", ["max_time", "request_stop", "cancel", "max_epochs"])
async def test_a_search_ends_whatever_its_runs_do(tmp_path: Path, chaos: Chaos, way: str) -> None:
    kinds = chaos.chance.sample(list(HANGS), chaos.pick(2, len(HANGS)))
    limits = {
        "max_time": Limits(max_time=1.0),
        "max_epochs": Limits(max_epochs=len(kinds)),
    }.get(way, Limits())
    tuner = make(
        Hanging,
        tmp_path,
        max_trials=len(kinds),
        max_concurrent_trials=len(kinds),
        limits=limits,
        **QUICK_GRACE,
    )
    async with tuner.start(kinds) as search:
        reported = 0
        async for event in search.events():
            reported += isinstance(event, Reported)
            if reported == len(kinds):
                break
        if way == "request_stop":
            search.request_stop()
        if way != "cancel":
            result = await search.result()
            assert result.reason.name == {
                "max_time": "TIME",
                "request_stop": "STOPPED",
                "max_epochs": "EPOCHS",
            }.get(way)
    # A slow machine may not have started them within so short a time.
    assert len(pids(tuner.trials)) == len(kinds) or way == "max_time"
    assert not any(map(psutil.pid_exists, pids(tuner.trials)))
    assert all(run.is_over for trial in tuner.trials for run in trial.runs)
    chaos.count(PROMISE, f"runs hang at the end of the search, by {way}", len(kinds))


# --- readers of events ---


class Reporting(RandomSearch):
    """Many reports, in the loop."""

    async def run_trial(self, trial: RunContext, number: int) -> float:
        x: float = trial.hyperparameters.Float("x", 0.0, 1.0)
        for step in range(number):
            trial.report(step, loss=x)
        return x


async def test_readers_that_never_read_or_raise_do_not_harm_the_search(
    tmp_path: Path, chaos: Chaos
) -> None:
    number = chaos.pick(200, 3000)
    tuner = make(Reporting, tmp_path, max_trials=4)
    async with tuner.start(chaos.pick(20, 100)) as search:
        idle = [search.events() for _ in range(number)]
        seen = [await anext(each) for each in idle]
        raising = [asyncio.ensure_future(read_and_raise(search.events())) for _ in range(number)]
        waiting = [asyncio.ensure_future(read_all(search.events())) for _ in range(20)]
        result = await search.result()
        ends = await asyncio.gather(*raising, return_exceptions=True)
        lengths = {len(each) for each in await asyncio.gather(*waiting)}
    assert result.reason is EndReason.MAX_TRIALS
    assert len(set(map(type, seen))) == 1
    assert all(isinstance(end, ZeroDivisionError) for end in ends)
    assert len(lengths) == 1
    left = [event async for event in idle[0]]  # it may read on after the end
    assert len(left) == lengths.pop() - 1
    chaos.count(PROMISE, "a reader of events never reads", number)
    chaos.count(PROMISE, "a reader of events raises", number)


async def read_and_raise(events: EventStream) -> None:
    async for _ in events:
        raise ZeroDivisionError


async def read_all(events: EventStream) -> list[Event]:
    return [event async for event in events]


async def test_what_nobody_reads_is_kept_up_to_a_limit(chaos: Chaos) -> None:
    log, history = EventLog(), History()
    stream = EventStream(log)
    event: Any = object()
    most = chaos.pick(60_000, 300_000)
    for _ in range(most):
        log(event, history)
    log.close()
    left = 0
    with anyio.CancelScope():
        async for _ in stream:
            left += 1
            if left == 10:
                break
    assert stream.missed == most - 20_000
    chaos.count(PROMISE, "more events than are kept for a reader that never reads")
