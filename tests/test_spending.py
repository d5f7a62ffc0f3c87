"""Limits of GPU time and energy: by themselves, and in a search."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import aiotune
from aiotune.devices.device import Device, Reading
from aiotune.devices.meter import Meter
from aiotune.errors import FatalValueError
from aiotune.events import EndReason, RunEnded, RunStarted
from aiotune.executors.base import Failed, Finished, GpuMeasured, RunEvent
from aiotune.objective import Objective
from aiotune.oracles.random_search import RandomSearchOracle
from aiotune.resources import Limits, Resources
from aiotune.settlement import Policy
from aiotune.spending import Spending
from aiotune.trial import FailureKind, RunState, TrialState
from aiotune.usage import JOULES_PER_KWH, Usage
from tests.support.fake_executor import FakeExecutor, Script, hanging
from tests.support.searches import SearchOfFakes

GIB = 2**30
HOUR = 3600.0
CARDS = [Device(f"GPU-{n}", "A100", 80 * GIB) for n in range(2)]


# --- by itself ---


def test_without_limits_nothing_is_reached() -> None:
    spending = Spending(Limits(), [Usage(1e9, energy_joules=1e12)])
    assert spending.reached() is None
    assert not spending.is_limited
    assert spending.next_look([], gpus=4) is None


def test_gpu_hours_of_all_runs_count() -> None:
    spending = Spending(Limits(max_gpu_hours=2), [Usage(0.5 * HOUR), None])
    assert spending.is_limited
    spending.note(Usage(1.0 * HOUR))
    spending.note(None)
    assert spending.reached([Usage(0.25 * HOUR)]) is None
    assert spending.next_look([Usage(0.25 * HOUR)], gpus=3) == pytest.approx(0.25 * HOUR / 3)
    reached = spending.reached([Usage(0.3 * HOUR), Usage(0.2 * HOUR)])
    assert reached == (EndReason.GPU_HOURS, "max_gpu_hours=2 are used up")


def test_energy_is_looked_at_while_a_gpu_is_held() -> None:
    spending = Spending(Limits(max_energy=2), [Usage(10, energy_joules=1.5 * JOULES_PER_KWH)])
    assert spending.next_look([], gpus=0) is None
    assert spending.next_look([], gpus=1) == 5
    assert spending.reached([Usage(10)]) is None
    running = Usage(10, energy_joules=0.5 * JOULES_PER_KWH, is_estimated=True)
    reached = spending.reached([running])
    assert reached == (EndReason.ENERGY, "max_energy=2 kWh is used up (estimated)")


def test_energy_that_is_not_known_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    spending = Spending(Limits(max_energy=2))
    for _ in range(3):
        spending.note(Usage(10))
    assert caplog.text.count("counts known energy only") == 1


@pytest.mark.parametrize("name", ["max_gpu_hours", "max_energy"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_limit_must_be_above_zero(name: str, value: Any) -> None:
    with pytest.raises(FatalValueError, match=f"{name}=.*above 0"):
        Limits(**{name: value})


@pytest.mark.parametrize("name", ["max_gpu_hours", "max_energy"])
def test_a_limit_that_can_have_no_effect_is_refused(name: str) -> None:
    limits = Limits(**{name: 1})
    with pytest.raises(FatalValueError, match=rf"Limits\({name}=...\).*gpus=0: drop one"):
        aiotune.Settings(limits=limits, gpus=0)
    with pytest.raises(FatalValueError, match=rf"{name}.*Resources\(gpus=0\): drop one"):
        aiotune.Settings(limits=limits, resources=Resources(gpus=0))
    aiotune.Settings(limits=limits)  # there may be a GPU


async def test_a_search_without_a_gpu_says_that_the_limit_has_no_effect(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Plain(aiotune.RandomSearch):
        async def run_trial(self, trial: Any) -> float:
            return float(trial.hyperparameters.Float("x", 0, 1))

    tuner = Plain(
        objective="loss", max_trials=1, directory=tmp_path, limits=Limits(max_gpu_hours=1)
    )
    result = await tuner.search(verbose=0)
    assert result.reason is EndReason.MAX_TRIALS
    assert "Limits(max_gpu_hours=1) has no effect: this search uses no GPU" in caplog.text


# --- in a search ---


def oracle(max_trials: int | None = 4) -> RandomSearchOracle:
    objective = Objective("score", "min")
    return RandomSearchOracle(objective=objective, max_trials=max_trials, seed=1)


def search_on(
    directory: Path, executor: FakeExecutor, cards: int = 1, **options: Any
) -> SearchOfFakes:
    most = options.pop("max_trials", 4)
    return SearchOfFakes(
        oracle(most),
        executor,
        directory,
        slots=options.pop("slots", cards),
        devices=CARDS[:cards],
        **options,
    )


def ends(search: SearchOfFakes) -> list[RunEnded]:
    return [fact for fact in search.store.facts if isinstance(fact, RunEnded)]


async def test_each_end_of_a_run_tells_what_it_took(tmp_path: Path) -> None:
    search: SearchOfFakes

    async def play(script: Script) -> AsyncIterator[RunEvent]:
        number = script.assignment.number
        search.clock.advance(10)
        yield GpuMeasured((1 + number) * GIB)
        if number == 1:
            yield Failed(FailureKind.CRASH, "SIGSEGV")
        yield Finished({"score": 0.0}, 0)

    search = search_on(tmp_path, FakeExecutor(play), max_trials=2)
    await search.run()
    assert [each.usage for each in ends(search)] == [Usage(10, GIB), Usage(10, 2 * GIB)]
    trials = search.history.trials.values()
    assert [trial.usage for trial in trials] == [Usage(10, GIB), Usage(10, 2 * GIB)]
    assert [trial.runs[0].gpus for trial in trials] == [("GPU-0",)] * 2


async def test_a_run_that_is_cut_off_tells_what_it_took(tmp_path: Path) -> None:
    search = search_on(tmp_path, FakeExecutor(hanging))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(search.run)
        while not search.scheduler.running:
            await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
        search.clock.advance(7)
        tasks.cancel_scope.cancel()
    (end,) = ends(search)
    assert (end.state, end.usage) == (RunState.CANCELLED, Usage(7))


async def test_gpu_hours_end_the_search_at_the_moment_at_which_they_are_used_up(
    tmp_path: Path,
) -> None:
    limits = Limits(max_gpu_hours=2)
    search = search_on(tmp_path, FakeExecutor(hanging), cards=2, limits=limits)

    async def going_on() -> None:
        while len(search.scheduler.running) < 2:
            await anyio.lowlevel.checkpoint()
        for step in (HOUR - 1, 1):
            await anyio.wait_all_tasks_blocked()
            assert not ends(search)
            search.clock.advance(step)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(going_on)
        end = await search.run()
    assert (end.reason, end.message) == (EndReason.GPU_HOURS, "max_gpu_hours=2 are used up")
    assert [each.usage for each in ends(search)] == [Usage(HOUR)] * 2
    assert search.pool.free == search.pool.total


async def test_gpu_hours_of_earlier_sessions_count(tmp_path: Path) -> None:
    search: SearchOfFakes

    async def play(script: Script) -> AsyncIterator[RunEvent]:
        search.clock.advance(HOUR)
        yield Finished({"score": 0.0}, 0)

    search = search_on(tmp_path, FakeExecutor(play), limits=Limits(max_gpu_hours=3), max_trials=2)
    assert (await search.run()).reason is EndReason.MAX_TRIALS
    first = search.store.facts
    search = search.again(oracle(None))
    assert (await search.run()).reason is EndReason.GPU_HOURS
    assert len(search.history.trials) == 3
    spent = search.again(oracle(None))
    assert (await spent.run()).reason is EndReason.GPU_HOURS
    assert len(spent.history.trials) == 3
    search = search.again(oracle(None), facts=first, limits=Limits(max_gpu_hours=4))
    await search.run()
    assert len(search.history.trials) == 4


async def test_a_killed_session_leaves_the_time_that_is_known(tmp_path: Path) -> None:
    search: SearchOfFakes

    async def play(script: Script) -> AsyncIterator[RunEvent]:
        yield script.met(lambda hp: hp.Float("x", 0, 1))
        search.clock.advance(30)
        yield Finished({"score": 0.0}, 0)

    search = search_on(tmp_path, FakeExecutor(play), max_trials=1)
    await search.run()
    facts = search.store.facts
    killed = facts[: next(n for n, each in enumerate(facts) if isinstance(each, RunEnded))]
    search = search.again(oracle(1), facts=[*killed, *killed[:1]])  # opened again
    await search.run()
    lost, done = ends(search)
    assert (lost.state, done.state) == (RunState.LOST, RunState.FINISHED)
    assert lost.usage is not None
    assert lost.usage.is_estimated
    assert done.usage == Usage(30)


async def test_energy_ends_the_search(tmp_path: Path) -> None:
    meter = Meter()
    limits = Limits(max_energy=1)
    search = search_on(tmp_path, FakeExecutor(hanging), limits=limits, meter=meter)

    async def consuming() -> None:
        for _ in range(3):
            await search.clock.wait_sleeping()
            search.clock.advance(5)
            joules = 0.4 * JOULES_PER_KWH / 5 * search.clock.monotonic()
            meter.note("GPU-0", search.clock.monotonic(), Reading(energy_joules=joules), 1)

    meter.note("GPU-0", 0, Reading(energy_joules=0), 0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(consuming)
        end = await search.run()
    assert (end.reason, end.message) == (EndReason.ENERGY, "max_energy=1 kWh is used up")
    assert search.clock.monotonic() == 15


# --- out of memory on a part of a card ---


async def test_a_run_that_lacks_memory_on_a_part_of_a_card_gets_a_whole_one(tmp_path: Path) -> None:
    async def play(script: Script) -> AsyncIterator[RunEvent]:
        large = script.assignment.number == 1
        await anyio.lowlevel.checkpoint()
        if large and script.assignment.gpu_memory is not None:
            yield Failed(FailureKind.OUT_OF_MEMORY, "RESOURCE_EXHAUSTED")
        yield Finished({"score": 0.0}, 0)

    executor = FakeExecutor(play)
    resources = Resources(gpus=0.25)
    search = search_on(tmp_path, executor, slots=4, resources=resources, max_trials=6)
    assert (await search.run()).reason is EndReason.MAX_TRIALS
    trials = list(search.history.trials.values())
    assert {trial.state for trial in trials} == {TrialState.COMPLETED}
    small, alone = trials[1].runs
    assert (small.gpu_memory is not None, small.has_share, small.attempt) == (True, True, 0)
    assert (alone.has_share, alone.state, alone.attempt) == (False, RunState.FINISHED, 0)
    assert [len(trial.runs) for trial in trials] == [1, 2, 1, 1, 1, 1]
    assert search.pool.free == search.pool.total


@pytest.mark.parametrize("retries", [0, 2])
async def test_only_the_lack_of_memory_on_a_whole_card_counts(tmp_path: Path, retries: int) -> None:
    async def play(script: Script) -> AsyncIterator[RunEvent]:
        yield Failed(FailureKind.OUT_OF_MEMORY, "RESOURCE_EXHAUSTED")

    policy, resources = Policy(retries=retries), Resources(gpus=0.5)
    search = search_on(
        tmp_path, FakeExecutor(play), resources=resources, policy=policy, max_trials=1, slots=2
    )
    await search.run()
    trial = search.history.trial("0000")
    assert trial.state is TrialState.FAILED
    assert [run.has_share for run in trial.runs] == [True, *[False] * (1 + retries)]
    assert [run.attempt for run in trial.runs] == [0, *range(1 + retries)]


async def test_a_trial_that_waits_for_a_whole_card_holds_no_other_up(tmp_path: Path) -> None:
    order: list[str] = []
    search: SearchOfFakes

    async def play(script: Script) -> AsyncIterator[RunEvent]:
        name = f"{script.assignment.trial_id}.{script.assignment.run}"
        order.append(name)
        if name == "0000.0":
            yield Failed(FailureKind.OUT_OF_MEMORY, "RESOURCE_EXHAUSTED")
        while name == "0001.0" and len(order) < 4:  # it keeps its part of the only card
            await anyio.lowlevel.checkpoint()
        yield Finished({"score": 0.0}, 0)

    search = search_on(
        tmp_path, FakeExecutor(play), resources=Resources(gpus=0.5), max_trials=4, slots=2
    )
    with anyio.fail_after(10):
        await search.run()
    assert order[-1] == "0000.1"
    started = [fact for fact in search.store.facts if isinstance(fact, RunStarted)]
    assert started[-1].gpu_fraction is None
    assert started[0].gpu_memory is not None
