"""A search in progress: events, status, stopping, cancelling, leaving; with real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import aiotune
from aiotune import EndReason, HyperParameters, Limits, Resources, Search
from aiotune.errors import SearchFailed
from aiotune.events import (
    Event,
    Reported,
    RunEnded,
    RunStarted,
    SearchEnded,
    SearchOpened,
    SpaceGrew,
    StopRequested,
    TrialCreated,
    TrialEnded,
    TrialMet,
)
from aiotune.executors.launch import acquire_server, release_server
from aiotune.processes import OWN_MODULES
from aiotune.store.reader import read_facts
from aiotune.trial import FailureKind, RunState, TrialState
from tests.support import tuned
from tests.support.processes import is_gone
from tests.support.tuned import make

LONGEST_SECONDS = 60.0  # far above what anything here takes; reaching it is a failure


@pytest.fixture(scope="module", autouse=True)
def fork_server() -> Iterator[None]:
    """Keep one fork server alive, so that the searches need not launch one each."""
    server = acquire_server(OWN_MODULES)
    yield
    release_server(server)


async def next_of(search: Search, kind: type[Event], count: int = 1) -> list[Any]:
    """Return the first `count` events of a kind."""
    found = []
    async with asyncio.timeout(LONGEST_SECONDS):
        async for event in search.events():
            if isinstance(event, kind):
                found.append(event)
                if len(found) == count:
                    return found
    raise AssertionError(f"the search ended with {len(found)} of {count} {kind.__name__}")


def text_of(file: str | None) -> str:
    return Path(file or "").read_text()


# Result


async def test_the_result_says_what_was_found_and_why_it_ended(tmp_path: Path) -> None:
    tuner = make(tuned.Parabola, tmp_path, max_trials=5)
    result = await tuner.search(0.5)
    assert result.reason is EndReason.MAX_TRIALS
    assert [trial.trial_id for trial in result.trials] == ["0000", "0001", "0002", "0003", "0004"]
    assert {trial.status for trial in result.trials} == {"COMPLETED"}
    scores = {(trial.values["x"] - 0.5) ** 2: trial for trial in result.trials}  # type: ignore[operator]
    assert result.best_score == min(scores)
    assert result.best_trial is scores[min(scores)]
    assert result.best_hyperparameters is not None
    assert result.best_hyperparameters.get("x") == result.best_trial.values["x"]
    assert "5 trials" in str(result)
    assert "max_trials" in str(result)


async def test_each_trial_has_its_own_process_log_and_reports(tmp_path: Path) -> None:
    result = await make(tuned.Parabola, tmp_path).search()
    assert len({trial.metrics["pid"] for trial in result.trials} | {os.getpid()}) == 5
    for trial in result.trials:
        (run,) = trial.runs
        assert [each.step for each in run.observations] == [0, 1, 2]
        assert run.observations[2].metrics["loss"] == trial.score
        assert text_of(run.log) == f"x is {trial.values['x']}\n"


async def test_a_finite_space_is_exhausted_exactly(tmp_path: Path) -> None:
    result = await make(tuned.Coin, tmp_path, max_trials=20).search()
    assert result.reason is EndReason.EXHAUSTED
    done = [trial for trial in result.trials if trial.state is TrialState.COMPLETED]
    assert sorted(trial.score or 0.0 for trial in done) == [0.0, 1.0, 2.0, 3.0]


async def test_a_finite_space_without_max_trials(tmp_path: Path) -> None:
    result = await make(tuned.Coin, tmp_path, max_trials=None).search()
    assert result.reason is EndReason.EXHAUSTED
    assert sorted(trial.score for trial in result.trials if trial.has_score) == [0, 1, 2, 3]  # type: ignore[type-var]


async def test_a_second_search_of_the_same_tuner_goes_on(tmp_path: Path) -> None:
    tuner = make(tuned.Parabola, tmp_path, max_trials=2)
    first = await tuner.search()
    again = await tuner.search()
    assert again.reason is EndReason.MAX_TRIALS
    assert again.trials == first.trials
    tuner.oracle.max_trials = 3
    more = await tuner.search()
    assert more.trials[:2] == first.trials
    assert len(more.trials) == 3


# Events


async def test_events_are_typed_and_come_from_first_to_last(tmp_path: Path) -> None:
    async with make(tuned.Parabola, tmp_path, max_trials=2).start() as search:
        events = [event async for event in search.events()]
        result = await search.result()
    assert isinstance(events[0], SearchOpened)
    assert events[-1] == SearchEnded(events[-1].at, EndReason.MAX_TRIALS)
    kinds = Counter(type(event) for event in events)
    assert kinds[TrialCreated] == kinds[RunStarted] == kinds[RunEnded] == kinds[TrialEnded] == 2
    assert kinds[Reported] == 6
    assert kinds[TrialMet] >= 2
    ends = {event.trial_id: event for event in events if isinstance(event, TrialEnded)}
    for trial in result.trials:
        assert ends[trial.trial_id].score == trial.score
        assert ends[trial.trial_id].status is TrialState.COMPLETED


async def test_the_events_are_the_facts_of_the_store(tmp_path: Path) -> None:
    tuner = make(tuned.Parabola, tmp_path)
    async with tuner.start() as search:
        events = [event async for event in search.events()]
    assert events == read_facts(tmp_path / "project" / "study.db")


async def test_two_readers_see_the_same_and_may_leave_early(tmp_path: Path) -> None:
    async def some(search: Search, count: int) -> list[Event]:
        seen: list[Event] = []
        async for event in search.events():
            seen.append(event)
            if len(seen) == count:
                break
        return seen

    async with make(tuned.Parabola, tmp_path).start() as search:
        short, whole = await asyncio.gather(some(search, 3), some(search, 10_000))
        assert (await search.result()).reason is EndReason.MAX_TRIALS
        late = [event async for event in search.events()]
    assert whole[:3] == short
    assert late == whole
    assert isinstance(whole[-1], SearchEnded)


# Status


async def test_the_status_names_who_runs_and_who_waits_for_what(tmp_path: Path) -> None:
    tuner = make(tuned.Patient, tmp_path, max_trials=2, executions_per_trial=2)
    async with tuner.start() as search:
        assert search.status().ended is None
        await next_of(search, Reported, count=2)
        status = search.status()
        assert status.running == ("0000",)
        assert status.counts == {"RUNNING": 1}
        assert status.best is None
        search.request_stop()
        await search.result()
        assert search.status().ended is EndReason.STOPPED
        assert search.status().running == ()


async def test_a_trial_that_finds_no_device_waits_with_its_reason(tmp_path: Path) -> None:
    tuner = make(
        tuned.Patient,
        tmp_path,
        max_trials=1,
        executions_per_trial=2,
        max_concurrent_trials=1,
        resources=Resources(cpus=1),
    )
    async with tuner.start() as search:
        await next_of(search, Reported)
        waiting = search.status().waiting
        search.request_stop()
    assert list(waiting) == ["0000"]
    assert "no device is free" in waiting["0000"]


# Stopping


async def test_request_stop_ends_the_search_and_loses_no_trial(tmp_path: Path) -> None:
    tuner = make(tuned.Patient, tmp_path)
    async with tuner.start() as search:
        await next_of(search, Reported, count=2)
        search.request_stop()
        result = await search.result()
    assert result.reason is EndReason.STOPPED
    assert [trial.status for trial in result.trials] == ["QUEUED", "QUEUED"]
    assert {run.state for trial in result.trials for run in trial.runs} == {RunState.CANCELLED}
    assert len(await next_search(tmp_path, result)) == 4


async def next_search(directory: Path, stopped: aiotune.SearchResult) -> tuple[aiotune.Trial, ...]:
    """Finish a stopped search with trials that end; check that the stopped ones keep their points."""
    gate = directory / "gate"
    gate.touch()
    finished = await make(tuned.Latch, directory).search(str(gate))
    assert finished.reason is EndReason.MAX_TRIALS
    assert {trial.status for trial in finished.trials} == {"COMPLETED"}
    for before, after in zip(stopped.trials, finished.trials, strict=False):
        assert after.values == before.values
        assert after.runs[: len(before.runs)] == before.runs
    return finished.trials


async def test_request_stop_before_the_search_has_opened(tmp_path: Path) -> None:
    async with make(tuned.Parabola, tmp_path).start() as search:
        search.request_stop()
        result = await search.result()
    assert result.reason is EndReason.STOPPED
    assert result.trials == ()


async def test_a_child_that_ignores_the_request_is_ended_by_force(tmp_path: Path) -> None:
    async with make(tuned.Deaf, tmp_path, max_trials=1, grace_seconds=0.1).start() as search:
        (report,) = await next_of(search, Reported)
        search.request_stop()
        result = await search.result()
        assert is_gone(int(report.metrics["pid"]))
    assert result.trials[0].runs[0].state is RunState.CANCELLED


# Cancelling and leaving


async def test_cancelling_the_awaiting_task_ends_the_children_and_keeps_the_facts(
    tmp_path: Path,
) -> None:
    tuner = make(tuned.Deaf, tmp_path)
    pids: list[float] = []
    both = asyncio.Event()

    def watch(event: Event, history: object) -> None:
        if isinstance(event, Reported):
            pids.append(event.metrics["pid"])
            if len(pids) == 2:
                both.set()

    tuner = make(tuned.Deaf, tmp_path, observers=[watch])
    task = asyncio.create_task(tuner.search())
    async with asyncio.timeout(LONGEST_SECONDS):
        await both.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert all(is_gone(int(pid)) for pid in pids)
    facts = read_facts(tmp_path / "project" / "study.db")
    ends = [fact for fact in facts if isinstance(fact, RunEnded)]
    assert [end.state for end in ends] == [RunState.CANCELLED, RunState.CANCELLED]
    assert len([fact for fact in facts if isinstance(fact, Reported)]) == 2
    assert [trial.status for trial in tuner.trials] == ["QUEUED", "QUEUED"]


async def test_a_timeout_around_the_search_is_a_timeout(tmp_path: Path) -> None:
    tuner = make(tuned.Deaf, tmp_path, max_trials=1)

    async def search_until_a_report() -> None:
        async with asyncio.timeout(None) as timeout, tuner.start() as search:
            await next_of(search, Reported)
            timeout.reschedule(asyncio.get_running_loop().time())
            await search.result()

    with pytest.raises(TimeoutError):
        await search_until_a_report()
    assert tuner.trials[0].runs[0].state is RunState.CANCELLED


async def test_another_task_may_leave_the_block_than_entered_it(tmp_path: Path) -> None:
    search = make(tuned.Deaf, tmp_path).start()
    await asyncio.create_task(search.__aenter__())
    reports = await next_of(search, Reported, count=2)
    await asyncio.create_task(search.__aexit__(None, None, None))
    assert all(is_gone(int(report.metrics["pid"])) for report in reports)
    with pytest.raises(aiotune.errors.FatalRuntimeError, match="cancelled"):
        await search.result()


async def test_leaving_the_block_early_cancels_the_search(tmp_path: Path) -> None:
    tuner = make(tuned.Deaf, tmp_path)
    async with tuner.start() as search:
        reports = await next_of(search, Reported, count=2)
    assert all(is_gone(int(report.metrics["pid"])) for report in reports)
    assert {run.state for trial in tuner.trials for run in trial.runs} == {RunState.CANCELLED}
    with pytest.raises(aiotune.errors.FatalRuntimeError, match="cancelled"):
        await search.result()
    assert isinstance([event async for event in search.events()][-1], RunEnded)


async def test_an_error_in_the_block_arrives_bare(tmp_path: Path) -> None:
    tuner = make(tuned.Deaf, tmp_path)
    reports: list[Reported] = []

    async def fail_in_the_block() -> None:
        async with tuner.start() as search:
            reports.extend(await next_of(search, Reported))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        await fail_in_the_block()
    assert caught.value.__context__ is None
    assert is_gone(int(reports[0].metrics["pid"]))


async def test_an_error_of_the_search_arrives_bare(tmp_path: Path) -> None:
    tuner = make(tuned.Clumsy, tmp_path, max_trials=30)
    with pytest.raises(SearchFailed):
        await tuner.search("error")
    with pytest.raises(SearchFailed):
        async with tuner.start("error") as search:
            await search.result()
    async with tuner.start("error") as search:
        pass  # whoever does not ask for the result, is not told


async def test_a_search_can_be_started_only_once(tmp_path: Path) -> None:
    search = make(tuned.Parabola, tmp_path, max_trials=1).start()
    async with search:
        await search.result()
    with pytest.raises(aiotune.errors.FatalRuntimeError, match=r"tuner\.start"):
        async with search:
            pass


async def test_the_result_outside_of_the_block_says_what_to_do(tmp_path: Path) -> None:
    search = make(tuned.Parabola, tmp_path, max_trials=1).start()
    with pytest.raises(aiotune.errors.FatalRuntimeError, match="async with"):
        await search.result()


# Several searches, other loops


async def test_two_searches_run_in_one_loop(tmp_path: Path) -> None:
    one = make(tuned.Parabola, tmp_path, project_name="one")
    two = make(tuned.Tree, tmp_path, project_name="two")
    first, second = await asyncio.gather(one.search(), two.search())
    assert len(first.trials) == len(second.trials) == 4
    assert first.trials == one.trials
    assert second.trials == two.trials


async def test_two_searches_of_one_project_exclude_each_other(tmp_path: Path) -> None:
    async with make(tuned.Patient, tmp_path).start() as search:
        await next_of(search, Reported)
        with pytest.raises(aiotune.errors.StoreLocked, match="this process") as caught:
            await make(tuned.Patient, tmp_path).search()
        assert caught.value.pid == os.getpid()
        with pytest.raises(aiotune.errors.StoreLocked):
            make(tuned.Patient, tmp_path, overwrite=True)
        search.request_stop()
        assert (await search.result()).reason is EndReason.STOPPED


def test_a_search_in_the_loop_of_another_thread(tmp_path: Path) -> None:
    tuner = make(tuned.Parabola, tmp_path)
    results: list[aiotune.SearchResult] = []
    thread = threading.Thread(target=lambda: results.append(asyncio.run(tuner.search())))
    thread.start()
    thread.join(LONGEST_SECONDS)
    assert [trial.status for trial in results[0].trials] == ["COMPLETED"] * 4
    assert threading.active_count() >= 1
    assert thread not in threading.enumerate()


# Where trials run


async def test_an_async_trial_runs_in_the_loop(tmp_path: Path) -> None:
    pids: list[int] = []
    all_three = asyncio.Barrier(3)  # neither of the arguments could travel to a child and back
    tuner = make(tuned.InTheLoop, tmp_path, max_trials=6, max_concurrent_trials=3)
    async with asyncio.timeout(LONGEST_SECONDS):
        result = await tuner.search(pids, all_three)
    assert pids == [os.getpid()] * 6
    assert {trial.status for trial in result.trials} == {"COMPLETED"}


async def test_an_async_trial_is_cancelled_with_the_search(tmp_path: Path) -> None:
    endings: list[str] = []
    tuner = make(tuned.Endless, tmp_path)
    async with tuner.start(endings) as search:
        await next_of(search, Reported, count=2)
    assert endings == ["cancelled", "cancelled"]


async def test_inline_runs_a_plain_trial_here(tmp_path: Path) -> None:
    tuner = make(
        tuned.Parabola, tmp_path, max_trials=2, executor="inline", max_concurrent_trials=None
    )
    result = await tuner.search()
    assert {trial.metrics["pid"] for trial in result.trials} == {os.getpid()}


async def test_a_child_has_the_users_attributes_and_a_view_of_the_oracle(tmp_path: Path) -> None:
    tuner = make(tuned.Curious, tmp_path, max_trials=2)
    tuner.favourite = 7
    tuner.caller = os.getpid()
    tuner.project_dir_seen = str(tmp_path)
    result = await tuner.search()
    for trial in result.trials:
        seen = dict(trial.metrics)
        assert seen.pop("favourite") == 8
        assert seen.pop("max_trials") == 2
        assert seen.pop("loss") == 0
        assert set(seen.values()) == {1.0}, seen
    assert tuner.favourite == 7


# Repeats and failures


async def test_executions_per_trial_are_runs_whose_mean_counts(tmp_path: Path) -> None:
    result = await make(tuned.Dice, tmp_path, max_trials=3, executions_per_trial=3).search()
    for trial in result.trials:
        scores = [run.metrics["loss"] for run in trial.runs]
        assert sorted(run.repeat for run in trial.runs) == [0, 1, 2]
        assert len(set(scores)) == 3
        assert trial.score == pytest.approx(sum(scores) / 3)


async def test_a_failed_run_is_retried(tmp_path: Path) -> None:
    result = await make(tuned.Once, tmp_path, max_retries_per_trial=1).search()
    for trial in result.trials:
        assert trial.status == "COMPLETED"
        assert [run.state for run in trial.runs] == [RunState.FAILED, RunState.FINISHED]
        assert "not yet" in (trial.runs[0].message or "")


@pytest.mark.parametrize("killer", [signal.SIGSEGV, signal.SIGKILL])
async def test_a_killed_child_costs_one_failed_run(tmp_path: Path, killer: signal.Signals) -> None:
    result = await make(tuned.Mortal, tmp_path).search(1, int(killer))
    assert result.reason is EndReason.MAX_TRIALS
    statuses = [trial.status for trial in result.trials]
    assert statuses == ["COMPLETED", "FAILED", "COMPLETED", "COMPLETED"]
    dead = result.trials[1]
    assert dead.failure is FailureKind.CRASH
    assert killer.name in (dead.message or "")
    assert str(dead.runs[0].log) in (dead.message or "")


async def test_a_killed_child_is_retried(tmp_path: Path) -> None:
    tuner = make(tuned.Mortal, tmp_path, max_retries_per_trial=1)
    result = await tuner.search(1, int(signal.SIGKILL))
    assert {trial.status for trial in result.trials} == {"COMPLETED"}
    assert len(result.trials[1].runs) == 2


async def test_the_death_of_the_fork_server_costs_nothing(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with make(tuned.Latch, tmp_path).start(str(gate)) as search:
        reports = await next_of(search, Reported, count=2)
        server = psutil.Process(int(reports[0].metrics["pid"])).parent()
        assert server is not None
        assert psutil.Process() in server.parents()[:2]  # the guardian stands between
        server.kill()
        await next_of(search, RunEnded, count=2)
        gate.touch()
        result = await search.result()
    assert [trial.status for trial in result.trials] == ["COMPLETED"] * 4
    states = [run.state for run in result.trials[0].runs]
    assert states == [RunState.LOST, RunState.FINISHED]
    assert all(is_gone(int(report.metrics["pid"])) for report in reports)


async def test_infeasible_points_and_failures_that_do_not_count_go_on(tmp_path: Path) -> None:
    for how, status in (("infeasible", "INFEASIBLE"), ("memory", "FAILED"), ("nan", "FAILED")):
        tuner = make(tuned.Clumsy, tmp_path, project_name=how, max_trials=5)
        result = await tuner.search(how)
        assert result.reason is EndReason.MAX_TRIALS
        assert [trial.status for trial in result.trials] == [status] * 5
        assert result.best_trial is None
        assert "no score" in str(result)


# Limits


async def test_the_target_ends_the_search(tmp_path: Path) -> None:
    limits = Limits(target=0.25)
    result = await make(tuned.Parabola, tmp_path, max_trials=100, limits=limits).search()
    assert result.reason is EndReason.TARGET
    assert (result.best_score or 1.0) <= 0.25
    assert "target" in (result.message or "")


async def test_a_trial_timeout_fails_the_run_and_the_search_goes_on(tmp_path: Path) -> None:
    limits = Limits(trial_timeout=0.05)
    tuner = make(tuned.Deaf, tmp_path, max_trials=2, limits=limits, grace_seconds=0.05)
    result = await tuner.search()
    assert result.reason is EndReason.MAX_TRIALS
    assert {trial.failure for trial in result.trials} == {FailureKind.TIMEOUT}


async def test_max_epochs_and_max_time_end_the_search(tmp_path: Path) -> None:
    spent = await make(tuned.Parabola, tmp_path, limits=Limits(max_epochs=4)).search()
    assert spent.reason is EndReason.EPOCHS
    patient = make(tuned.Patient, tmp_path, project_name="time", limits=Limits(max_time=0.5))
    late = await patient.search()
    assert late.reason is EndReason.TIME


# What the user may have called


async def test_hooks_are_called_in_the_callers_process(tmp_path: Path) -> None:
    for kind in (tuned.Hooked, tuned.AsyncHooked):
        name = kind.__name__
        tuner = make(kind, tmp_path, max_trials=2, max_concurrent_trials=1, project_name=name)
        result = await tuner.search()
        ends = [("trial ends", (t.trial_id, "COMPLETED", t.score)) for t in result.trials]
        assert tuner.calls == [
            ("search begins", None),
            ("before a trial", 0),
            ("trial begins", "0000"),
            ends[0],
            ("before a trial", 1),
            ("trial begins", "0001"),
            ends[1],
            ("search ends", 2),
        ]


async def test_an_error_in_a_hook_ends_the_search_with_it(tmp_path: Path) -> None:
    tuner = make(tuned.BadHook, tmp_path)
    with pytest.raises(RuntimeError, match="the hook is broken"):
        await tuner.search()
    assert ("search ends", None) not in [(what, None) for what, _ in tuner.calls]
    assert any(trial.status == "COMPLETED" for trial in tuner.trials)


async def test_observers_see_every_fact_and_cannot_harm(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Event] = []

    def watch(event: Event, history: object) -> None:
        seen.append(event)
        if isinstance(event, SpaceGrew):
            raise RuntimeError("the observer is broken")

    result = await make(tuned.Parabola, tmp_path, observers=[watch]).search()
    assert result.reason is EndReason.MAX_TRIALS
    assert seen == read_facts(tmp_path / "project" / "study.db")
    assert "the observer is broken" in caplog.text


async def test_a_rule_can_stop_a_trial(tmp_path: Path) -> None:
    result = await make(tuned.Pruned, tmp_path, max_trials=2).search()
    assert {trial.status for trial in result.trials} == {"PRUNED"}
    for trial in result.trials:
        assert trial.score == trial.values["x"]
    facts = read_facts(tmp_path / "project" / "study.db")
    assert len([fact for fact in facts if isinstance(fact, StopRequested)]) == 2


async def test_a_range_that_is_narrowed_on_purpose_is_no_contradiction(tmp_path: Path) -> None:
    narrow = HyperParameters()
    narrow.Int("x", 2, 4)
    tuner = make(tuned.Misspelt, tmp_path, max_trials=None, hyperparameters=narrow)
    async with tuner.start("0-9") as search:
        grown = [event async for event in search.events() if isinstance(event, SpaceGrew)]
        result = await search.result()
    assert sorted(trial.values["x"] for trial in result.trials) == [2, 3, 4]
    assert [event.redeclared for event in grown] == [()]
