"""The scheduler over fakes: every order of events, without a process, a file, or a second of waiting."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest

from aiotune.errors import (
    FatalRuntimeError,
    FatalTypeError,
    SearchFailed,
    StoreMismatch,
    StoreUnwritable,
)
from aiotune.events import (
    EndReason,
    RunEnded,
    RunStarted,
    SearchEnded,
    SpaceGrew,
    TrialCreated,
    TrialEnded,
)
from aiotune.executors.base import Failed, Finished, Met, Observed, RunEvent
from aiotune.history import History
from aiotune.hyperparameters import HyperParameters
from aiotune.objective import Objective
from aiotune.oracles.base import (
    Answer,
    Exhausted,
    Oracle,
    Promote,
    Retire,
    Suggest,
    Verdict,
    Wait,
)
from aiotune.oracles.random_search import RandomSearchOracle
from aiotune.plan import Hooks
from aiotune.resources import Limits, Resources
from aiotune.settlement import Policy
from aiotune.space import Int
from aiotune.trial import Budget, FailureKind, Observation, RunState, Trial, TrialState
from tests.support.fake_executor import (
    FakeExecutor,
    Script,
    declaring,
    endless,
    failing,
    hanging,
)
from tests.support.searches import SearchOfFakes

SCORE = Objective("score", "min")


def one_name(hp: HyperParameters) -> None:
    hp.Float("x", 0, 1)


def by_x(values: dict[str, object]) -> float:
    return float(str(values["x"]))


def random_oracle(max_trials: int | None = 4, **options: int) -> RandomSearchOracle:
    return RandomSearchOracle(objective=SCORE, max_trials=max_trials, seed=1, **options)


def states(history: History) -> list[str]:
    return [trial.status for trial in history.trials.values()]


@dataclass
class ListOracle(Oracle):
    """Answers from a list, then `Exhausted`; rules by a function."""

    answers: list[Answer] = field(default_factory=list)
    verdict: Verdict = Verdict.CONTINUE
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(objective=SCORE, seed=1)

    def ask(self, history: History, number: int) -> Answer:
        return self.answers.pop(0) if self.answers else Exhausted()

    def judge(self, trial: Trial, observation: Observation) -> Verdict:
        return self.verdict if observation.step >= 2 else Verdict.CONTINUE

    def tell(self, trial: Trial) -> None:
        self.told.append(f"{trial.trial_id} {trial.status}")


# --- trials and slots ---


@pytest.mark.parametrize("slots", [1, 2, 5])
async def test_it_runs_exactly_max_trials_on_all_slots(tmp_path: Path, slots: int) -> None:
    async def play(script: Script) -> AsyncIterator[RunEvent]:
        yield script.met(one_name)
        while executor.most < slots:
            await anyio.lowlevel.checkpoint()
        yield Finished({"score": 0.0}, 0)

    executor = FakeExecutor(play)
    search = SearchOfFakes(random_oracle(max_trials=12), executor, tmp_path, slots=slots)
    end = await search.run()
    assert end.reason is EndReason.MAX_TRIALS
    assert states(search.history) == ["COMPLETED"] * 12
    assert executor.most == slots
    assert search.pool.free == search.pool.total


async def test_every_fact_is_in_the_store_and_folds_to_the_same_history(tmp_path: Path) -> None:
    search = SearchOfFakes(random_oracle(), FakeExecutor(declaring(one_name, by_x)), tmp_path)
    await search.run()
    folded = History(search.store.facts)
    assert list(folded.trials.values()) == list(search.history.trials.values())
    assert folded.length == search.history.length == len(search.store.facts)


async def test_a_trial_is_recorded_before_it_starts(tmp_path: Path) -> None:
    search: SearchOfFakes

    async def play(script: Script) -> AsyncIterator[RunEvent]:
        created = [fact for fact in search.store.facts if isinstance(fact, TrialCreated)]
        assert script.assignment.trial_id in {fact.trial_id for fact in created}
        yield Finished({"score": 0.0}, 0)

    search = SearchOfFakes(random_oracle(max_trials=1), FakeExecutor(play), tmp_path)
    assert (await search.run()).reason is EndReason.MAX_TRIALS


async def test_an_oracle_that_waits_with_nothing_in_flight_is_a_defect(tmp_path: Path) -> None:
    search = SearchOfFakes(ListOracle([Wait()]), FakeExecutor(hanging), tmp_path)
    with pytest.raises(FatalRuntimeError, match="waits with nothing in flight"):
        await search.run()
    assert search.history.ended is not None
    assert search.history.ended.reason is EndReason.FAILED


async def test_an_oracle_that_waits_is_asked_again_when_a_trial_ends(tmp_path: Path) -> None:
    oracle = ListOracle([Suggest({}, 0), Wait(), Suggest({}, 1)])
    executor = FakeExecutor(declaring(lambda hp: None, lambda _: 0.5))
    search = SearchOfFakes(oracle, executor, tmp_path, slots=2)
    end = await search.run()
    assert end.reason is EndReason.EXHAUSTED
    assert states(search.history) == ["COMPLETED", "COMPLETED"]
    assert executor.most == 1


async def test_an_error_of_the_oracle_ends_the_search_and_reaches_the_caller(
    tmp_path: Path,
) -> None:
    class Broken(ListOracle):
        def ask(self, history: History, number: int) -> Answer:
            if number == 1:
                raise ZeroDivisionError("oracle")
            return Suggest({}, number)

    executor = FakeExecutor(hanging)
    search = SearchOfFakes(Broken(), executor, tmp_path, slots=2)
    with pytest.raises(ZeroDivisionError, match="oracle"):
        await search.run()
    assert executor.running == []
    assert search.pool.free == search.pool.total
    assert [run.state for run in search.history.numbered(0).runs] == [RunState.CANCELLED]


# --- repeats, retries, failures ---


async def test_repeats_are_runs_of_one_trial_and_their_mean_counts(tmp_path: Path) -> None:
    async def play(script: Script) -> AsyncIterator[RunEvent]:
        while executor.most < 3:
            await anyio.lowlevel.checkpoint()
        yield Finished({"score": float(script.assignment.repeat), "other": 2.0}, 4)

    executor = FakeExecutor(play)
    search = SearchOfFakes(
        ListOracle([Suggest({}, 0)]), executor, tmp_path, slots=3, policy=Policy(repeats=3)
    )
    await search.run()
    trial = search.history.numbered(0)
    assert trial.score == 1.0
    assert trial.metrics == {"score": 1.0, "other": 2.0}
    assert trial.best_step == 4
    assert executor.most == 3
    assert sorted((run.repeat, run.attempt) for run in trial.runs) == [(0, 0), (1, 0), (2, 0)]


async def test_a_failed_run_is_retried_with_the_next_attempt(tmp_path: Path) -> None:
    async def play(script: Script) -> AsyncIterator[RunEvent]:
        if script.assignment.attempt < 2:
            yield Failed(FailureKind.USER_ERROR, "ValueError: unlucky")
        else:
            yield Finished({"score": 0.25}, 0)

    search = SearchOfFakes(
        ListOracle([Suggest({}, 0)]), FakeExecutor(play), tmp_path, policy=Policy(retries=2)
    )
    await search.run()
    trial = search.history.numbered(0)
    assert [run.state for run in trial.runs] == ["FAILED", "FAILED", "FINISHED"]
    assert (trial.status, trial.score) == ("COMPLETED", 0.25)


@pytest.mark.parametrize(
    ("failed", "status"),
    [
        (Failed(FailureKind.USER_ERROR, "E", may_retry=False), "FAILED"),
        (Failed(FailureKind.INFEASIBLE, "E", may_retry=False), "INFEASIBLE"),
        (Failed(FailureKind.TIMEOUT, "E"), "FAILED"),
    ],
)
async def test_what_a_retry_cannot_mend_is_not_retried(
    tmp_path: Path, failed: Failed, status: str
) -> None:
    async def play(script: Script) -> AsyncIterator[RunEvent]:
        yield failed

    executor = FakeExecutor(play)
    search = SearchOfFakes(
        ListOracle([Suggest({}, 0)]), executor, tmp_path, policy=Policy(retries=3)
    )
    await search.run()
    assert states(search.history) == [status]
    assert len(executor.assignments) == 1


async def test_a_nan_score_can_be_retried_and_then_succeed(tmp_path: Path) -> None:
    async def play(script: Script) -> AsyncIterator[RunEvent]:
        yield Finished({"score": float("nan") if script.assignment.attempt == 0 else 0.5}, 0)

    search = SearchOfFakes(
        ListOracle([Suggest({}, 0)]), FakeExecutor(play), tmp_path, policy=Policy(retries=1)
    )
    await search.run()
    trial = search.history.numbered(0)
    assert (trial.status, trial.score) == ("COMPLETED", 0.5)
    assert trial.runs[0].failure is FailureKind.NAN


async def test_one_broken_repeat_ends_the_trial_and_stops_its_siblings(tmp_path: Path) -> None:
    async def play(script: Script) -> AsyncIterator[RunEvent]:
        if script.assignment.repeat == 1:
            yield Failed(FailureKind.CRASH, "killed by SIGSEGV")
        else:
            await script.stop.wait()
            yield Finished(is_stopped=True)

    search = SearchOfFakes(
        ListOracle([Suggest({}, 0)]),
        FakeExecutor(play),
        tmp_path,
        slots=2,
        policy=Policy(repeats=2),
    )
    await search.run()
    trial = search.history.numbered(0)
    assert (trial.status, trial.failure) == ("FAILED", FailureKind.CRASH)
    assert {run.repeat: run.state for run in trial.runs} == {0: "CANCELLED", 1: "FAILED"}


async def test_failures_in_a_row_end_the_search_with_the_error_they_share(tmp_path: Path) -> None:
    executor = FakeExecutor(failing("ValueError: bad layer"))
    search = SearchOfFakes(random_oracle(max_trials=10), executor, tmp_path)
    with pytest.raises(SearchFailed, match="They share one error: ValueError: bad layer"):
        await search.run()
    assert states(search.history) == ["FAILED"] * 3


@pytest.mark.parametrize("kind", [FailureKind.OUT_OF_MEMORY, FailureKind.INFEASIBLE])
async def test_failures_that_say_nothing_of_the_program_do_not_end_it(
    tmp_path: Path, kind: FailureKind
) -> None:
    oracle = ListOracle([Suggest({"x": n}, n) for n in range(6)])
    search = SearchOfFakes(oracle, FakeExecutor(failing("too big", kind)), tmp_path)
    assert (await search.run()).reason is EndReason.EXHAUSTED
    assert len(search.history.trials) == 6


async def test_failures_of_an_earlier_session_do_not_count(tmp_path: Path) -> None:
    search = SearchOfFakes(
        random_oracle(max_trials=9), FakeExecutor(failing("ValueError: typo")), tmp_path
    )
    with pytest.raises(SearchFailed):
        await search.run()
    mended = search.again(
        random_oracle(max_trials=5), executor=FakeExecutor(declaring(one_name, by_x))
    )
    await mended.run()
    assert states(mended.history) == ["FAILED"] * 3 + ["COMPLETED"] * 2


async def test_a_fatal_error_of_user_code_ends_the_search_and_its_trial_can_be_resumed(
    tmp_path: Path,
) -> None:
    fatal = failing("aiotune.errors.FatalTypeError: no model", is_fatal=True)
    search = SearchOfFakes(random_oracle(), FakeExecutor(fatal), tmp_path)
    with pytest.raises(FatalTypeError, match="no model"):
        await search.run()
    resumed = search.again(random_oracle(), executor=FakeExecutor(declaring(one_name, by_x)))
    await resumed.run()
    assert states(resumed.history) == ["COMPLETED"] * 4


async def test_a_lost_run_is_run_again_as_the_same_attempt(tmp_path: Path) -> None:
    async def play(script: Script) -> AsyncIterator[RunEvent]:
        if script.assignment.run == 0:
            yield Failed(FailureKind.CRASH, "the fork server died", is_lost=True)
        else:
            yield Finished({"score": 0.0}, 0)

    executor = FakeExecutor(play)
    search = SearchOfFakes(ListOracle([Suggest({}, 0)]), executor, tmp_path)
    await search.run()
    assert [run.state for run in search.history.numbered(0).runs] == ["LOST", "FINISHED"]
    assert [each.attempt for each in executor.assignments] == [0, 0]


async def test_a_run_that_keeps_losing_its_process_fails(tmp_path: Path) -> None:
    lost = failing("the fork server died", FailureKind.CRASH, is_lost=True)
    executor = FakeExecutor(lost)
    search = SearchOfFakes(ListOracle([Suggest({}, 0)]), executor, tmp_path)
    await search.run()
    assert states(search.history) == ["FAILED"]
    assert len(executor.assignments) == 3


# --- verdicts ---


async def test_a_verdict_to_stop_prunes_the_trial_with_its_best_score(tmp_path: Path) -> None:
    oracle = ListOracle([Suggest({}, 0)], verdict=Verdict.STOP)
    search = SearchOfFakes(oracle, FakeExecutor(endless), tmp_path)
    await search.run()
    trial = search.history.numbered(0)
    best = min(each.metrics["score"] for each in trial.runs[0].observations)
    assert (trial.status, trial.score) == ("PRUNED", best)
    assert len(trial.runs[0].observations) >= 3
    assert oracle.told == ["0000 PRUNED"]


async def test_a_paused_trial_frees_its_device_and_is_promoted(tmp_path: Path) -> None:
    async def play(script: Script) -> AsyncIterator[RunEvent]:
        budget = script.assignment.budget
        assert budget is not None
        for step in range(budget.initial_epoch, budget.epochs + 1):
            yield Observed(step, {"score": 1.0 / (1 + step)})
            await anyio.lowlevel.checkpoint()
            if script.stop.is_set():
                yield Finished(is_stopped=True)
                return
        yield Finished({"score": 0.0}, budget.epochs)

    oracle = ListOracle(
        [Suggest({}, 0, Budget(3)), Promote("0000", Budget(5, initial_epoch=3))],
        verdict=Verdict.PAUSE,
    )
    search = SearchOfFakes(oracle, FakeExecutor(play), tmp_path)
    await search.run()
    trial = search.history.numbered(0)
    assert oracle.told[0] == "0000 PAUSED"
    assert [run.budget for run in trial.runs] == [Budget(3), Budget(5, 3)]
    assert trial.status == "COMPLETED"  # the list has no further promotion
    assert trial.score == 1 / 4  # paused at the first report of its last rung
    assert oracle.told[-1] == "0000 COMPLETED"


async def halving(script: Script) -> AsyncIterator[RunEvent]:
    """A run that reports up to its budget, and is paused there by the oracle."""
    budget = script.assignment.budget
    assert budget is not None
    for step in range(budget.initial_epoch, budget.epochs):
        yield Observed(step, {"score": 1.0 / (1 + step)})
    await script.stop.wait()
    yield Finished(is_stopped=True)


class Halving(ListOracle):
    """Pauses each trial at the end of its budget, and promotes the first one."""

    def __init__(self) -> None:
        super().__init__([])

    def ask(self, history: History, number: int) -> Answer:
        paused = [t for t in history.trials.values() if t.state is TrialState.PAUSED]
        if number < 2:
            return Suggest({"x": number}, number, Budget(2))
        if history.trials_in_flight():
            return Wait()
        if len(paused) == 2 and paused[0].budget == Budget(2):
            return Promote("0000", Budget(4, initial_epoch=2))
        return Exhausted()

    def judge(self, trial: Trial, observation: Observation) -> Verdict:
        assert trial.budget is not None
        is_last = observation.step == trial.budget.epochs - 1
        return Verdict.PAUSE if is_last else Verdict.CONTINUE


async def test_a_promotion_comes_after_max_trials_trials_exist(tmp_path: Path) -> None:
    oracle = Halving()
    oracle.max_trials = 2
    search = SearchOfFakes(oracle, FakeExecutor(halving), tmp_path)
    end = await search.run()
    assert end.reason is EndReason.EXHAUSTED
    first, second = search.history.trials.values()
    assert [run.budget for run in first.runs] == [Budget(2), Budget(4, 2)]
    assert (first.status, first.score) == ("COMPLETED", 1 / 4)
    assert (second.status, second.score) == ("COMPLETED", 1 / 2)


async def test_every_cut_of_a_search_with_pauses_resumes_to_the_same_table(tmp_path: Path) -> None:
    search = SearchOfFakes(Halving(), FakeExecutor(halving), tmp_path)
    await search.run()
    whole = [(trial.status, trial.score) for trial in search.history.trials.values()]
    async for cut, history in search.resumed_at_every_cut(Halving):
        found = [(trial.status, trial.score) for trial in history.trials.values()]
        assert found == whole, f"after fact {cut}"


async def test_only_a_paused_trial_can_be_promoted(tmp_path: Path) -> None:
    oracle = ListOracle([Suggest({}, 0), Promote("0000", Budget(9))])
    executor = FakeExecutor(declaring(lambda hp: None, lambda _: 0.5))
    search = SearchOfFakes(oracle, executor, tmp_path)
    with pytest.raises(FatalRuntimeError, match="promotes trial 0000, which is COMPLETED"):
        await search.run()


class Retiring(Halving):
    """Retires the second trial as soon as it is paused."""

    def ask(self, history: History, number: int) -> Answer:
        if number == 2 and history.trial("0001").state is TrialState.PAUSED:
            return Retire("0001")
        return super().ask(history, number)


async def test_a_retired_trial_ends_while_the_search_goes_on(tmp_path: Path) -> None:
    search = SearchOfFakes(Retiring(), FakeExecutor(halving), tmp_path)
    end = await search.run()
    assert end.reason is EndReason.EXHAUSTED
    first, second = search.history.trials.values()
    assert (second.status, second.score) == ("COMPLETED", 1 / 2)
    assert first.ended_after is not None
    assert second.ended_after is not None
    assert second.ended_after < first.ended_after


async def test_only_a_paused_trial_can_be_retired(tmp_path: Path) -> None:
    oracle = ListOracle([Suggest({}, 0), Retire("0000")])
    executor = FakeExecutor(declaring(lambda hp: None, lambda _: 0.5))
    search = SearchOfFakes(oracle, executor, tmp_path)
    with pytest.raises(FatalRuntimeError, match="retires trial 0000, which is COMPLETED"):
        await search.run()


# --- limits and stops ---


async def test_a_stop_ends_a_discovery_that_hangs(tmp_path: Path) -> None:
    executor = FakeExecutor(hanging)
    search = SearchOfFakes(random_oracle(), executor, tmp_path, has_discovery=True)
    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            assert (await search.run()).reason is EndReason.STOPPED

        tasks.start_soon(run)
        while not executor.running:
            await anyio.lowlevel.checkpoint()
        search.scheduler.request_stop()
    assert executor.running == []
    assert not search.history.trials


async def test_a_discovery_beyond_trial_timeout_ends_the_search(tmp_path: Path) -> None:
    search = SearchOfFakes(
        random_oracle(),
        FakeExecutor(hanging),
        tmp_path,
        has_discovery=True,
        limits=Limits(trial_timeout=5),
    )
    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            with pytest.raises(FatalRuntimeError, match="trial_timeout=5"):
                await search.run()

        tasks.start_soon(run)
        await search.clock.wait_sleeping()
        search.clock.advance(5)


async def test_a_store_that_fails_while_a_timer_acts_reaches_the_caller_bare(
    tmp_path: Path,
) -> None:
    search = SearchOfFakes(
        random_oracle(), FakeExecutor(hanging), tmp_path, limits=Limits(trial_timeout=5)
    )
    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            with pytest.raises(StoreUnwritable, match="full"):
                await search.run()

        tasks.start_soon(run)
        await search.clock.wait_sleeping()
        search.store.fail_with = StoreUnwritable("full")
        search.clock.advance(5)


async def test_a_run_that_a_limit_ends_by_force_keeps_its_score(tmp_path: Path) -> None:
    async def play(script: Script) -> AsyncIterator[RunEvent]:
        yield Observed(0, {"score": 0.1})
        await script.stop.wait()
        yield Failed(FailureKind.CRASH, "killed by SIGKILL")

    search = SearchOfFakes(random_oracle(), FakeExecutor(play), tmp_path, limits=Limits(target=0.2))
    assert (await search.run()).reason is EndReason.TARGET
    trial = search.history.numbered(0)
    assert (trial.status, trial.score) == ("PRUNED", 0.1)


async def test_no_trial_is_created_after_a_stop_during_a_hook(tmp_path: Path) -> None:
    search: SearchOfFakes

    async def stop() -> None:
        search.scheduler.request_stop()

    search = SearchOfFakes(
        random_oracle(), FakeExecutor(hanging), tmp_path, hooks=Hooks(pre_create_trial=stop)
    )
    assert (await search.run()).reason is EndReason.STOPPED
    assert not search.history.trials


async def test_a_stop_request_ends_runs_and_leaves_their_trials_to_a_resumed_search(
    tmp_path: Path,
) -> None:
    executor = FakeExecutor(hanging)
    search = SearchOfFakes(random_oracle(), executor, tmp_path, slots=2)
    async with anyio.create_task_group() as tasks:
        ends: list[SearchEnded] = []

        async def run() -> None:
            ends.append(await search.run())

        tasks.start_soon(run)
        while len(executor.running) < 2:
            await anyio.lowlevel.checkpoint()
        search.scheduler.request_stop()
    assert ends[0].reason is EndReason.STOPPED
    assert states(search.history) == ["QUEUED", "QUEUED"]
    resumed = search.again(random_oracle(), executor=FakeExecutor(declaring(one_name, by_x)))
    await resumed.run()
    assert states(resumed.history) == ["COMPLETED"] * 4


async def test_max_time_stops_runs_and_keeps_their_scores(tmp_path: Path) -> None:
    search = SearchOfFakes(
        random_oracle(), FakeExecutor(endless), tmp_path, limits=Limits(max_time=60)
    )
    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            assert (await search.run()).reason is EndReason.TIME

        tasks.start_soon(run)
        await search.clock.wait_sleeping()
        while not (search.history.trials and search.history.numbered(0).runs):
            await anyio.lowlevel.checkpoint()
        while not search.history.numbered(0).runs[0].observations:
            await anyio.lowlevel.checkpoint()
        search.clock.advance(60)
    assert states(search.history) == ["PRUNED"]
    assert search.history.numbered(0).score is not None


async def test_a_run_beyond_trial_timeout_fails_and_the_search_goes_on(tmp_path: Path) -> None:
    search = SearchOfFakes(
        ListOracle([Suggest({}, 0)]),
        FakeExecutor(hanging),
        tmp_path,
        limits=Limits(trial_timeout=5),
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(search.run)
        await search.clock.wait_sleeping()
        search.clock.advance(5)
    trial = search.history.numbered(0)
    assert (trial.status, trial.failure) == ("FAILED", FailureKind.TIMEOUT)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(max_epochs=7), EndReason.EPOCHS),
        (Limits(target=0.2), EndReason.TARGET),
    ],
)
async def test_a_limit_on_reports_ends_the_search(
    tmp_path: Path, limits: Limits, reason: EndReason
) -> None:
    search = SearchOfFakes(random_oracle(), FakeExecutor(endless), tmp_path, limits=limits)
    assert (await search.run()).reason is reason
    assert states(search.history) == ["PRUNED"]


async def test_patience_ends_a_search_without_gain(tmp_path: Path) -> None:
    executor = FakeExecutor(declaring(one_name, lambda _: 1.0))
    search = SearchOfFakes(
        random_oracle(max_trials=50), executor, tmp_path, limits=Limits(patience=4)
    )
    assert (await search.run()).reason is EndReason.PATIENCE
    assert len(search.history.trials) == 5


async def test_cancelling_records_the_runs_and_frees_the_devices(tmp_path: Path) -> None:
    executor = FakeExecutor(hanging)
    search = SearchOfFakes(random_oracle(), executor, tmp_path, slots=2)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(search.run)
        while len(executor.running) < 2:
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert executor.running == []
    assert search.pool.free == search.pool.total
    ends = [fact for fact in search.store.facts if isinstance(fact, RunEnded)]
    assert [fact.state for fact in ends] == [RunState.CANCELLED] * 2


# --- resume ---


async def test_runs_that_an_earlier_process_left_are_lost_and_run_again(tmp_path: Path) -> None:
    search = SearchOfFakes(random_oracle(), FakeExecutor(declaring(one_name, by_x)), tmp_path)
    await search.run()
    facts = search.store.facts
    cut = next(n for n, fact in enumerate(facts) if isinstance(fact, RunEnded))
    resumed = SearchOfFakes(
        random_oracle(), FakeExecutor(declaring(one_name, by_x)), tmp_path, earlier=facts[:cut]
    )
    await resumed.run()
    assert [run.state for run in resumed.history.numbered(0).runs] == ["LOST", "FINISHED"]
    assert states(resumed.history) == ["COMPLETED"] * 4


async def test_a_trial_whose_end_was_not_recorded_ends_without_a_further_run(
    tmp_path: Path,
) -> None:
    search = SearchOfFakes(random_oracle(), FakeExecutor(declaring(one_name, by_x)), tmp_path)
    await search.run()
    facts = search.store.facts
    cut = next(n for n, fact in enumerate(facts) if isinstance(fact, TrialEnded))
    resumed = SearchOfFakes(
        random_oracle(), FakeExecutor(declaring(one_name, by_x)), tmp_path, earlier=facts[:cut]
    )
    await resumed.run()
    assert len(resumed.history.numbered(0).runs) == 1
    assert resumed.history.numbered(0).score == search.history.numbered(0).score


async def test_every_cut_of_the_log_resumes_to_the_same_table(tmp_path: Path) -> None:
    search = SearchOfFakes(random_oracle(), FakeExecutor(declaring(one_name, by_x)), tmp_path)
    await search.run()
    whole = [(trial.values, trial.score) for trial in search.history.trials.values()]
    async for cut, history in search.resumed_at_every_cut(random_oracle):
        found = [(trial.values, trial.score) for trial in history.trials.values()]
        assert found == whole, f"after fact {cut}"


async def test_a_caller_that_dies_again_and_again_costs_no_trial(tmp_path: Path) -> None:
    search = SearchOfFakes(random_oracle(1), FakeExecutor(declaring(one_name, by_x)), tmp_path)
    await search.run()
    facts = search.store.facts
    cut = facts[: 1 + next(n for n, fact in enumerate(facts) if isinstance(fact, RunStarted))]
    for run in range(1, 6):
        lost = RunEnded(0.0, "0000", run - 1, RunState.LOST, {}, message="the process is gone")
        cut += [lost, RunStarted(0.0, "0000", run, 0, 0, (), None)]
    resumed = SearchOfFakes(
        random_oracle(1), FakeExecutor(declaring(one_name, by_x)), tmp_path, earlier=cut
    )
    await resumed.run()
    assert states(resumed.history) == ["COMPLETED"]


async def test_every_cut_of_a_search_with_duplicates_resumes_to_distinct_points(
    tmp_path: Path,
) -> None:
    def few(hp: HyperParameters) -> None:
        if hp.Choice("kind", ["a", "b"]) == "a":
            hp.Int("n", 0, 2)

    async def play(script: Script) -> AsyncIterator[RunEvent]:
        for _ in range(script.assignment.number % 3):
            await anyio.lowlevel.checkpoint()
        yield script.met(few)
        yield Finished({"score": 0.0}, 0)

    search = SearchOfFakes(random_oracle(None), FakeExecutor(play), tmp_path, slots=3)
    await search.run()
    async for cut, history in search.resumed_at_every_cut(lambda: random_oracle(None)):
        done = [t for t in history.trials.values() if t.state is TrialState.COMPLETED]
        points = [tuple(trial.values.items()) for trial in done]
        assert len(points) == len(set(points)) == 4, f"after fact {cut}"


# --- the space ---


async def test_names_met_after_the_path_seemed_complete_belong_to_the_point(
    tmp_path: Path,
) -> None:
    def build(hp: HyperParameters) -> None:
        hp.Int("units", 1, 9)

    def fit(hp: HyperParameters) -> None:
        build(hp)
        hp.Int("batch", 1, 9)

    async def play(script: Script) -> AsyncIterator[RunEvent]:
        yield script.met(build)
        yield script.met(fit)
        yield Finished({"score": 0.0}, 0)

    search = SearchOfFakes(random_oracle(3), FakeExecutor(play), tmp_path)
    await search.run()
    assert [sorted(trial.values) for trial in search.history.trials.values()] == [
        ["batch", "units"]
    ] * 3


async def test_a_program_with_two_ranges_of_a_name_resumes_after_discovery(tmp_path: Path) -> None:
    def twice(hp: HyperParameters) -> None:
        hp.Float("x", 0, 1)
        hp.Float("x", 0, 2)

    play = declaring(twice, by_x)
    search = SearchOfFakes(random_oracle(2), FakeExecutor(play), tmp_path, has_discovery=True)
    with pytest.warns(UserWarning, match="x"):
        await search.run()
    facts = search.store.facts
    cut = 1 + next(n for n, fact in enumerate(facts) if isinstance(fact, SpaceGrew))
    resumed = SearchOfFakes(
        random_oracle(2), FakeExecutor(play), tmp_path, has_discovery=True, earlier=facts[:cut]
    )
    with pytest.warns(UserWarning, match="x"):
        await resumed.run()
    assert states(resumed.history) == ["COMPLETED"] * 2


async def test_discovery_comes_first_and_is_no_trial(tmp_path: Path) -> None:
    executor = FakeExecutor(declaring(one_name, by_x))
    search = SearchOfFakes(random_oracle(), executor, tmp_path, has_discovery=True)
    await search.run()
    assert [each.is_discovery for each in executor.assignments] == [True] + [False] * 4
    grown = next(fact for fact in search.store.facts if isinstance(fact, SpaceGrew))
    assert (grown.trial_id, [each.name for each in grown.added]) == (None, ["x"])


async def test_an_error_in_discovery_comes_before_the_first_trial(tmp_path: Path) -> None:
    broken = failing("aiotune.errors.FatalTypeError: build returned NoneType")
    search = SearchOfFakes(random_oracle(), FakeExecutor(broken), tmp_path, has_discovery=True)
    with pytest.raises(FatalTypeError, match="build returned NoneType"):
        await search.run()
    assert not search.history.trials


@pytest.mark.filterwarnings("ignore::UserWarning")  # the child's own, about the first declaration
async def test_a_stored_range_that_differs_is_shown(tmp_path: Path) -> None:
    def wider(hp: HyperParameters) -> None:
        hp.Float("x", 0, 2)

    search = SearchOfFakes(
        random_oracle(2), FakeExecutor(declaring(one_name, by_x)), tmp_path, has_discovery=True
    )
    await search.run()
    for has_discovery in (True, False):  # seen in discovery, or by the first trial
        changed = search.again(
            random_oracle(4),
            executor=FakeExecutor(declaring(wider, by_x)),
            has_discovery=has_discovery,
        )
        with pytest.raises(StoreMismatch, match="x"):
            await changed.run()


async def test_new_names_are_refused_where_the_user_forbids_them(tmp_path: Path) -> None:
    oracle = RandomSearchOracle(
        objective=SCORE, hyperparameters=HyperParameters(), allow_new_entries=False, seed=1
    )
    search = SearchOfFakes(oracle, FakeExecutor(declaring(one_name, by_x)), tmp_path)
    with pytest.raises(FatalRuntimeError, match="allow_new_entries"):
        await search.run()


async def test_a_duplicate_that_shows_late_is_stopped_and_does_not_count(tmp_path: Path) -> None:
    async def play(script: Script) -> AsyncIterator[RunEvent]:
        yield Met((Int("a", 1, 1),), {"a": 1}, (Int("a", 1, 1),), (), True)
        yield Finished({"score": 0.0}, 0)

    executor = FakeExecutor(play)
    search = SearchOfFakes(random_oracle(max_trials=3), executor, tmp_path, slots=2)
    end = await search.run()
    assert end.reason is EndReason.EXHAUSTED
    assert states(search.history).count("COMPLETED") == 1
    assert set(states(search.history)) <= {"COMPLETED", "DUPLICATE"}


# --- resources and hooks ---


async def test_a_trial_that_does_not_fit_holds_no_other_up_and_says_why(tmp_path: Path) -> None:
    started: list[int] = []

    def resources(hp: HyperParameters) -> Resources:
        return Resources(cpus=int(hp.get("cpus")))

    async def play(script: Script) -> AsyncIterator[RunEvent]:
        started.append(script.assignment.number)
        if script.assignment.number == 0:
            while not search.scheduler.waiting:
                await anyio.lowlevel.checkpoint()
            assert "0001" in search.scheduler.waiting
        yield Finished({"score": 0.0}, 0)

    oracle = ListOracle([Suggest({"cpus": 1}, 0), Suggest({"cpus": 2}, 1), Suggest({"cpus": 1}, 2)])
    search = SearchOfFakes(oracle, FakeExecutor(play), tmp_path, slots=2, resources=resources)  # type: ignore[arg-type]
    await search.run()
    assert states(search.history) == ["COMPLETED"] * 3
    assert sorted(started) == [0, 1, 2]


async def test_resources_that_need_an_unknown_name_say_so(tmp_path: Path) -> None:
    search = SearchOfFakes(
        random_oracle(),
        FakeExecutor(hanging),
        tmp_path,
        resources=lambda hp: Resources(cpus=hp.get("units")),  # type: ignore[arg-type]
    )
    with pytest.raises(FatalRuntimeError, match=r"resources\(\) failed for trial 0000"):
        await search.run()


async def test_the_trial_that_ends_a_search_by_its_failure_is_told_of(tmp_path: Path) -> None:
    ended: list[str] = []

    async def end(trial: Trial) -> None:
        ended.append(trial.trial_id)

    oracle = ListOracle([Suggest({"x": n}, n) for n in range(5)])
    search = SearchOfFakes(
        oracle, FakeExecutor(failing("E")), tmp_path, hooks=Hooks(on_trial_end=end)
    )
    with pytest.raises(SearchFailed):
        await search.run()
    assert ended == ["0000", "0001", "0002"]
    assert oracle.told == ["0000 FAILED", "0001 FAILED", "0002 FAILED"]


async def test_hooks_are_called_in_order(tmp_path: Path) -> None:
    calls: list[str] = []

    async def pre_create() -> None:
        calls.append("create")

    async def begin(trial: Trial) -> None:
        calls.append(f"begin {trial.trial_id}")

    async def end(trial: Trial) -> None:
        calls.append(f"end {trial.trial_id} {trial.status}")

    search = SearchOfFakes(
        random_oracle(2),
        FakeExecutor(declaring(one_name, by_x)),
        tmp_path,
        hooks=Hooks(begin, end, pre_create),
    )
    await search.run()
    assert calls == [
        "create",
        "begin 0000",
        "end 0000 COMPLETED",
        "create",
        "begin 0001",
        "end 0001 COMPLETED",
    ]
    assert search.history.numbered(1).state is TrialState.COMPLETED
