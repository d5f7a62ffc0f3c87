"""Searches with a pruner: what is stopped, how trials end, and what stays of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random

import anyio
import pytest

from aiotune import (
    Curve,
    HyperParameters,
    MedianPruner,
    Pruner,
    RandomSearch,
    ThresholdPruner,
    Trial,
    WilcoxonPruner,
    simulate,
)
from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.events import EndReason, Event, RunEnded, RunStarted, StopRequested, TrialEnded
from aiotune.executors.base import Failed, Finished, Observed, RunEvent
from aiotune.executors.context import RunContext
from aiotune.executors.launch import acquire_server, release_server
from aiotune.history import History
from aiotune.objective import Objective
from aiotune.oracles.hyperband import HyperbandOracle
from aiotune.oracles.random_search import RandomSearchOracle
from aiotune.processes import OWN_MODULES
from aiotune.settings import Settings
from aiotune.settlement import Policy
from aiotune.store.memory import MemoryStore
from aiotune.trial import FailureKind, Run, RunState, StopCause, TrialState
from tests.support.fake_executor import FakeExecutor, Play, Script
from tests.support.folded import Fold
from tests.support.searches import SearchOfFakes
from tests.support.tuned import Patient, make

SCORE = Objective("score", "min")


def oracle(max_trials: int = 6) -> RandomSearchOracle:
    return RandomSearchOracle(objective=SCORE, max_trials=max_trials, seed=1)


def reporting(steps: int = 6, *, hears: bool = True) -> Play:
    """Return a script that reports x at each step, and stops when it is asked to, or returns in spite of it."""

    async def play(script: Script) -> AsyncIterator[RunEvent]:
        met = script.met(lambda hp: hp.Float("x", 0, 1))
        yield met
        x = float(str(met.values["x"]))
        for step in range(steps):
            yield Observed(step, {"score": x / (1 + step)})
            await anyio.lowlevel.checkpoint()
            if hears and script.stop.is_set():
                yield Finished(is_stopped=True)
                return
        yield Finished({"score": x / steps}, steps - 1)

    return play


async def repeating(script: Script) -> AsyncIterator[RunEvent]:
    """Score by trial and repeat: later trials are worse."""
    yield script.met(lambda hp: hp.Float("x", 0, 1))
    await anyio.lowlevel.checkpoint()
    yield Finished({"score": script.assignment.number + 10.0 * script.assignment.repeat}, 0)


def five_at_once() -> FakeExecutor:
    """Return an executor of two trials with five repeats: two of the second one's wait to be stopped."""

    async def play(script: Script) -> AsyncIterator[RunEvent]:
        if script.assignment.number == 1:
            while len(executor.assignments) < 10:
                await anyio.lowlevel.checkpoint()
            if script.assignment.repeat >= 3:
                await script.stop.wait()
                yield Finished(is_stopped=True)
                return
        async for event in repeating(script):
            yield event

    executor = FakeExecutor(play)
    return executor


def ends(history: History) -> dict[str, tuple[str, float | None, str | None]]:
    return {
        each.trial_id: (each.status, each.score, each.message) for each in history.trials.values()
    }


# --- reports ---


async def test_a_pruned_trial_keeps_what_it_had_and_says_why(tmp_path: Path) -> None:
    search = SearchOfFakes(
        oracle(), FakeExecutor(reporting()), tmp_path, pruner=ThresholdPruner(upper=0.5)
    )
    assert (await search.run()).reason is EndReason.MAX_TRIALS
    trials = list(search.history.trials.values())
    assert {each.state for each in trials} == {TrialState.PRUNED, TrialState.COMPLETED}
    for trial in trials:
        (run,) = trial.runs
        first = run.observations[0].metrics["score"]
        assert (trial.state is TrialState.PRUNED) == (first > 0.5)
        if trial.state is TrialState.PRUNED:
            assert (run.state, run.stop_cause) == (RunState.STOPPED, StopCause.RULE)
            assert trial.score == min(each.metrics["score"] for each in run.observations)
            assert trial.metrics == {"score": trial.score}
            assert trial.message == run.stop_reason == f"at step 0, score = {first:g} is above 0.5"
            assert len(run.observations) < 6


@pytest.mark.parametrize("slots", [1, 3])
async def test_no_further_repeat_of_a_pruned_trial_runs(tmp_path: Path, slots: int) -> None:
    policy = Policy(repeats=3)
    search = SearchOfFakes(
        oracle(),
        FakeExecutor(reporting()),
        tmp_path,
        slots=slots,
        policy=policy,
        pruner=ThresholdPruner(upper=0.5),
    )
    await search.run()
    for trial in search.history.trials.values():
        states = {run.state for run in trial.runs}
        if trial.state is TrialState.PRUNED:
            assert RunState.STOPPED in states
            assert len(trial.runs) < 3 if slots == 1 else True
        else:
            assert (len(trial.runs), states) == (3, {RunState.FINISHED})
    assert search.pool.free == search.pool.total


async def test_the_decision_counts_also_if_the_run_ends_before_it_hears_of_it(
    tmp_path: Path,
) -> None:
    search = SearchOfFakes(
        oracle(1),
        FakeExecutor(reporting(hears=False)),
        tmp_path,
        policy=Policy(repeats=2),
        pruner=ThresholdPruner(upper=0.0),
    )
    await search.run()
    trial = search.history.numbered(0)
    assert (trial.status, len(trial.runs)) == ("PRUNED", 1)
    assert trial.runs[0].state is RunState.FINISHED


async def test_a_child_that_breaks_when_it_is_asked_is_pruned_all_the_same(tmp_path: Path) -> None:
    async def play(script: Script) -> AsyncIterator[RunEvent]:
        yield Observed(0, {"score": 0.25})
        await script.stop.wait()
        yield Failed(FailureKind.CRASH, "killed", is_lost=script.assignment.number == 1)

    search = SearchOfFakes(
        oracle(2), FakeExecutor(play), tmp_path, pruner=ThresholdPruner(upper=0.0)
    )
    await search.run()
    assert [(each.status, each.score) for each in search.history.trials.values()] == [
        ("PRUNED", 0.25)
    ] * 2


async def test_a_search_that_is_cut_off_anywhere_ends_trials_alike(tmp_path: Path) -> None:
    """Also between the decision and the end of the run: what is pruned stays so, with its metrics."""
    search = SearchOfFakes(
        oracle(4),
        FakeExecutor(reporting(3)),
        tmp_path,
        policy=Policy(repeats=2),
        pruner=ThresholdPruner(upper=0.5),
    )
    await search.run()
    whole = {key: (status, reason) for key, (status, _, reason) in ends(search.history).items()}
    async for cut, history in search.resumed_at_every_cut(lambda: oracle(4)):
        found = {key: (status, reason) for key, (status, _, reason) in ends(history).items()}
        assert found == whole, cut
        assert all(each.has_score for each in history.trials.values())


async def test_a_cancelled_search_keeps_the_decision(tmp_path: Path) -> None:
    async def play(script: Script) -> AsyncIterator[RunEvent]:
        yield Observed(0, {"score": 0.25})
        await asyncio.Event().wait()

    search = SearchOfFakes(
        oracle(1), FakeExecutor(play), tmp_path, pruner=ThresholdPruner(upper=0.0)
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(search.run)
        while not any(isinstance(each, StopRequested) for each in search.store.facts):
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert search.history.numbered(0).runs[0].state is RunState.STOPPED
    resumed = search.again(oracle(1))
    await resumed.run()
    assert ends(resumed.history) == {"0000": ("PRUNED", 0.25, "at step 0, score = 0.25 is above 0")}


# --- repeats ---


async def test_folds_that_need_not_be_run_are_not(tmp_path: Path) -> None:
    search = SearchOfFakes(
        oracle(3),
        FakeExecutor(repeating),
        tmp_path,
        policy=Policy(repeats=5),
        pruner=WilcoxonPruner(),
    )
    await search.run()
    assert [len(each.runs) for each in search.history.trials.values()] == [5, 4, 4]
    assert ends(search.history) == {
        "0000": ("COMPLETED", 20.0, None),
        "0001": ("PRUNED", 16.0, "after 4 repeats it is worse than trial 0000 (p = 0.062)"),
        "0002": ("PRUNED", 17.0, "after 4 repeats it is worse than trial 0000 (p = 0.062)"),
    }


async def test_the_end_of_the_repeat_and_of_its_trial_are_one_transaction(tmp_path: Path) -> None:
    class Watched(MemoryStore):
        async def append(self, *facts: Event) -> int:
            together.append([type(each) for each in facts])
            return await super().append(*facts)

    together: list[list[type]] = []
    search = SearchOfFakes(
        oracle(2),
        FakeExecutor(repeating),
        tmp_path,
        policy=Policy(repeats=5),
        pruner=WilcoxonPruner(),
        store=Watched(),
    )
    await search.run()
    assert together.count([RunEnded, TrialEnded]) == 2


async def test_repeats_in_progress_are_stopped(tmp_path: Path) -> None:
    search = SearchOfFakes(
        oracle(2),
        five_at_once(),
        tmp_path,
        slots=5,
        policy=Policy(repeats=5),
        pruner=WilcoxonPruner(p_threshold=0.2),
    )
    await search.run()
    trial = search.history.numbered(1)
    assert (trial.status, trial.score) == ("PRUNED", 11.0)
    assert trial.message == "after 3 repeats it is worse than trial 0000 (p = 0.12)"
    assert [(run.state.value, run.stop_cause) for run in trial.runs] == [
        ("FINISHED", None),
        ("FINISHED", None),
        ("FINISHED", None),
        ("STOPPED", StopCause.RULE),
        ("STOPPED", StopCause.RULE),
    ]


async def test_repeats_that_were_to_be_stopped_are_not_run_again(tmp_path: Path) -> None:
    search = SearchOfFakes(
        oracle(2),
        five_at_once(),
        tmp_path,
        slots=5,
        policy=Policy(repeats=5),
        pruner=WilcoxonPruner(p_threshold=0.2),
    )
    await search.run()
    facts = search.store.facts
    asked = max(n for n, fact in enumerate(facts) if isinstance(fact, StopRequested)) + 1
    resumed = search.again(oracle(2), facts=facts[:asked])
    await resumed.run()
    trial = resumed.history.numbered(1)
    assert (trial.status, trial.score, len(trial.runs)) == ("PRUNED", 11.0, 5)


class Whim(Pruner):
    """Ends trials by chance, at reports and at the ends of repeats."""

    judges_ends = True

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)

    def judge(self, history: History, trial: Trial, run: Run) -> str | None:
        return "a whim" if self.chance.random() < 0.05 else None

    def judge_repeats(self, history: History, trial: Trial) -> str | None:
        return "a whim" if self.chance.random() < 0.1 else None


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_is_ended_whenever_the_search_goes_on(tmp_path: Path, seed: int) -> None:
    """Runs break, end and are stopped in any order, also while others of their trial are being started."""
    chance = Random(seed)

    async def play(script: Script) -> AsyncIterator[RunEvent]:
        for step in range(chance.randint(0, 4)):
            yield Observed(step, {"score": chance.random()})
            for _ in range(chance.randint(0, 3)):
                await anyio.lowlevel.checkpoint()
            if script.stop.is_set() and chance.random() < 0.8:
                yield Finished(is_stopped=True)
                return
        if chance.random() < 0.15:
            yield Failed(FailureKind.USER_ERROR, "unlucky")
        else:
            yield Finished({"score": chance.random()}, 0)

    store = SlowStore()
    search = SearchOfFakes(
        RandomSearchOracle(SCORE, 12, seed=1, max_consecutive_failed_trials=99),
        FakeExecutor(play),
        tmp_path,
        slots=chance.choice([2, 3, 4]),
        policy=Policy(repeats=3, retries=1),
        pruner=Whim(seed),
        store=store,
    )
    await search.run()
    over = {TrialState.COMPLETED, TrialState.PRUNED, TrialState.FAILED}
    for trial in search.history.trials.values():
        assert trial.state in over
        assert all(run.is_over for run in trial.runs)
        is_ruled = any(run.stop_cause is StopCause.RULE for run in trial.runs)
        assert trial.state is not TrialState.COMPLETED or not is_ruled
        begun = [n for n, each in enumerate(store.facts) if is_start(each, trial)]
        asked = [n for n, each in enumerate(store.facts) if is_rule(each, trial)]
        assert not asked or max(begun) < min(asked)  # nothing starts once a rule has decided
    assert search.pool.free == search.pool.total


class SlowStore(MemoryStore):
    """Takes some turns of the loop for each fact, in order."""

    def __init__(self) -> None:
        super().__init__()
        self._turn = anyio.Lock()

    async def append(self, *facts: Event) -> int:
        async with self._turn:
            for _ in range(5):
                await anyio.lowlevel.checkpoint()
            return await super().append(*facts)


def is_start(fact: Event, trial: Trial) -> bool:
    return isinstance(fact, RunStarted) and fact.trial_id == trial.trial_id


def is_rule(fact: Event, trial: Trial) -> bool:
    return (
        isinstance(fact, StopRequested)
        and fact.trial_id == trial.trial_id
        and fact.cause is StopCause.RULE
    )


# --- beside promotions ---


@pytest.mark.parametrize("devices", [1, 4])
def test_what_a_pruner_ends_is_not_promoted_and_the_brackets_go_on(devices: int) -> None:
    def curves(hp: HyperParameters) -> Curve:
        x = hp.Float("x", 0.0, 1.0)
        return Curve(lambda epoch: {"score": x / (1 + epoch)}, seconds=1.0 + x)

    search = HyperbandOracle(SCORE, max_epochs=9, factor=3)
    result = simulate(search, curves, devices, pruner=ThresholdPruner(upper=0.6))
    assert result.reason is EndReason.EXHAUSTED
    trials = result.trials
    assert {each.status for each in trials} == {"COMPLETED", "PRUNED"}
    for trial in trials:
        is_bad = trial.runs[0].observations[0].metrics["score"] > 0.6
        assert (trial.status == "PRUNED") == is_bad
        assert len(trial.runs) == 1 or not is_bad
    assert max(len(trial.curve(trial.runs[-1])) for trial in trials) == 9


# --- user code ---


def test_the_setting_takes_pruners_only() -> None:
    with pytest.raises(FatalTypeError, match=r"aiotune\.MedianPruner\(\)"):
        Settings.of({"pruner": "median"})
    assert isinstance(
        Settings.of({"pruner": MedianPruner() | ThresholdPruner(upper=1)}).pruner, Pruner
    )


@pytest.fixture(scope="module")
def fork_server() -> Iterator[None]:
    """Keep one fork server alive, so that the searches need not launch one each."""
    server = acquire_server(OWN_MODULES)
    yield
    release_server(server)


class AsyncLoop(RandomSearch):
    """Reports until it is asked to stop."""

    async def run_trial(self, trial: RunContext) -> float:
        x: float = trial.hyperparameters.Float("x", 0.0, 1.0)
        while not trial.should_stop:
            trial.report(loss=x)
            await anyio.lowlevel.checkpoint()
        return x


@pytest.mark.parametrize("kind", [AsyncLoop, Patient])
async def test_a_loop_of_ones_own_hears_that_it_is_ended(
    tmp_path: Path, kind: type[RandomSearch], fork_server: None
) -> None:
    """Each of these goes on until it is asked to stop: in the caller's loop, and in a child."""
    result = await make(kind, tmp_path, pruner=ThresholdPruner(upper=0.0), max_trials=3).search()
    for trial in result.trials:
        assert (trial.status, trial.score) == ("PRUNED", trial.values["x"])
        assert trial.message == f"at step 0, loss = {trial.score:g} is above 0"
    assert result.best_score == min(float(str(trial.values["x"])) for trial in result.trials)


async def test_folds_in_children_that_need_not_be_run_are_not(
    tmp_path: Path, fork_server: None
) -> None:
    """Every fold of every trial scores alike, but for the trial's number."""
    tuner = make(Fold, tmp_path, folds=5, pruner=WilcoxonPruner(), max_concurrent_trials=1)
    result = await tuner.search()
    assert [(each.status, len(each.runs)) for each in result.trials] == [
        ("COMPLETED", 5),
        *[("PRUNED", 4)] * 3,
    ]


def test_a_search_that_no_rule_can_serve_is_refused_before_it_begins(tmp_path: Path) -> None:
    for options, match in (
        ({"pruner": WilcoxonPruner()}, "without repeats"),
        ({"pruner": MedianPruner(), "objective": None}, 'objective="val_loss"'),
    ):
        tuner = make(AsyncLoop, tmp_path, **options)
        with pytest.raises(FatalValueError, match=match):
            tuner.start()
