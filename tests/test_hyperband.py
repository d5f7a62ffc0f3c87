"""HyperbandOracle through the real scheduler, with runs that are scripts; two searches with Keras."""

from __future__ import annotations

import functools
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import aiotune
from aiotune.errors import FatalTypeError, FatalValueError, SearchFailed, StoreMismatch
from aiotune.events import EndReason, StopRequested, TrialPromoted
from aiotune.executors.base import Assignment, Failed, Finished, Observed, RunEvent
from aiotune.executors.launch import Server
from aiotune.history import History
from aiotune.hyperparameters import HyperParameters
from aiotune.objective import Objective
from aiotune.oracles.brackets import brackets_of
from aiotune.oracles.hyperband import HyperbandOracle
from aiotune.plan import Hooks
from aiotune.ranking import best_trials
from aiotune.resources import Limits
from aiotune.settlement import Policy
from aiotune.space import point_key, unit_draw
from aiotune.trial import Budget, FailureKind, RunState, Trial, TrialState
from tests.support import budgeted, keras_search
from tests.support.fake_executor import FakeExecutor, Play, Script
from tests.support.searches import SearchOfFakes

SCORE = Objective("score", "min")
NEVER_ENDING = 1000  # failures in a row that a search bears

Rungs = Mapping[
    tuple[int, int, int], list[Trial]
]  # (iteration, bracket, rung) -> who trained there


def one_name(hp: HyperParameters) -> None:
    hp.Float("x", 0, 1)


def oracle(max_epochs: int = 9, factor: int = 3, **options: Any) -> HyperbandOracle:
    given: dict[str, Any] = {
        "objective": SCORE,
        "seed": 3,
        "max_consecutive_failed_trials": NEVER_ENDING,
    }
    return HyperbandOracle(max_epochs=max_epochs, factor=factor, **given | options)


def noise(assignment: Assignment, epoch: int) -> float:
    """A score that depends on the point and the epoch alone: who leads in one rung may not in the next."""
    return unit_draw(assignment.seed, "score", assignment.stream, epoch)


def training(
    declare: Callable[[HyperParameters], object] = one_name,
    *,
    score: Callable[[Assignment, int], float] = noise,
    fails: Callable[[Assignment], bool] = lambda assignment: False,
    turns: Callable[[Assignment], int] = lambda assignment: 0,
) -> Play:
    """Return a script that trains up to its budget and then returns the score of its last epoch.

    It takes `turns` turns of the loop, before and after it has met its names.
    """

    async def play(script: Script) -> AsyncIterator[RunEvent]:
        assignment = script.assignment
        budget = assignment.budget
        assert budget is not None
        for _ in range(turns(assignment)):
            await anyio.lowlevel.checkpoint()
        yield script.met(declare)
        for _ in range(turns(assignment)):
            await anyio.lowlevel.checkpoint()
        if script.stop.is_set():
            yield Finished(is_stopped=True)
        elif fails(assignment):
            yield Failed(FailureKind.USER_ERROR, "ValueError: no")
        else:
            for epoch in range(budget.initial_epoch, budget.epochs):
                yield Observed(epoch, {"score": score(assignment, epoch)})
            last = budget.epochs - 1
            yield Finished({"score": score(assignment, last)}, last)

    return play


async def searched(
    root: Path, play: Play | None = None, *, asked: HyperbandOracle | None = None, **options: Any
) -> SearchOfFakes:
    search = SearchOfFakes(asked or oracle(), FakeExecutor(play or training()), root, **options)
    await search.run()
    return search


def rungs_of(history: History) -> Rungs:
    """Return who trained where, in the order of asking."""
    rungs: dict[tuple[int, int, int], list[Trial]] = defaultdict(list)
    for trial in history.trials.values():
        for budget in dict.fromkeys(run.budget for run in trial.runs):
            if trial.state is not TrialState.DUPLICATE:
                assert budget is not None
                assert budget.bracket is not None
                assert budget.rung is not None
                rungs[budget.iteration, budget.bracket, budget.rung].append(trial)
    return rungs


def sizes(history: History) -> dict[int, list[int]]:
    """Return how many trials each rung of each bracket had, in one iteration."""
    found: dict[int, list[int]] = defaultdict(list)
    for (_, bracket, _), trials in sorted(rungs_of(history).items()):
        found[bracket].append(len(trials))
    return dict(found)


def score_at(trial: Trial, rung: int) -> float | None:
    """Return the trial's score in a rung; None if it failed there."""
    for run in trial.runs:
        assert run.budget is not None
        if run.budget.rung == rung and run.state is RunState.FINISHED:
            return run.metrics["score"]
    return None


def table(history: History) -> list[tuple[object, ...]]:
    """Return what does not depend on time: each trial's point, rungs, end and score."""
    return sorted(
        (trial.stream, dict(trial.values)["x"], trial.budget, trial.status, trial.score)
        for trial in history.trials.values()
    )


# --- brackets ---


async def test_nine_epochs_by_three_are_17_trials_and_75_epochs(tmp_path: Path) -> None:
    search = await searched(tmp_path)
    history = search.history
    assert sizes(history) == {2: [9, 3, 1], 1: [5, 2], 0: [3]}
    assert len(history.trials) == 17  # 23 in KerasTuner, where each promotion is a trial of its own
    runs = [run for trial in history.trials.values() for run in trial.runs]
    assert sum(len(run.observations) for run in runs) == 75  # as many as there: none is repeated
    assert history.ended is not None
    assert (history.ended.reason, history.ended.message) == (
        EndReason.EXHAUSTED,
        "all brackets are done",
    )


async def test_a_promoted_trial_goes_on_and_keeps_its_best_score(tmp_path: Path) -> None:
    search = await searched(tmp_path)
    trial = next(t for t in search.history.trials.values() if len(t.runs) == 3)
    assert [run.budget for run in trial.runs] == [
        Budget(1, 0, bracket=2, rung=0, is_last=False),
        Budget(3, 1, bracket=2, rung=1, is_last=False),
        Budget(9, 3, bracket=2, rung=2),
    ]
    steps = [[each.step for each in run.observations] for run in trial.runs]
    assert steps == [[0], [1, 2], [3, 4, 5, 6, 7, 8]]
    best = min(trial.runs, key=lambda run: run.metrics["score"])
    assert (trial.status, trial.score, trial.best_step) == (
        "COMPLETED",
        best.metrics["score"],
        best.best_step,
    )


async def test_a_run_ends_by_itself_and_its_trial_waits(tmp_path: Path) -> None:
    """No request to stop races with the end of a run: that its trial is paused is in its budget."""
    states: list[str] = []

    async def before_asking() -> None:
        states.extend(trial.status for trial in search.history.trials.values())

    search = SearchOfFakes(
        oracle(),
        FakeExecutor(training()),
        tmp_path,
        hooks=Hooks(pre_create_trial=before_asking),
    )
    await search.run()
    assert "PAUSED" in states
    assert not any(isinstance(fact, StopRequested) for fact in search.store.facts)
    assert {trial.status for trial in search.history.trials.values()} == {"COMPLETED"}


@pytest.mark.parametrize("slots", [1, 2, 17])
async def test_the_same_points_are_promoted_on_any_number_of_slots(
    tmp_path: Path, slots: int
) -> None:
    alone = await searched(tmp_path)
    many = await searched(
        tmp_path, training(turns=lambda run: run.number * 7 % 5 + run.run), slots=slots
    )
    assert table(many.history) == table(alone.history)


async def test_iterations_repeat_all_brackets(tmp_path: Path) -> None:
    search = await searched(tmp_path, asked=oracle(3, 3, hyperband_iterations=2), slots=3)
    found = {where: len(trials) for where, trials in sorted(rungs_of(search.history).items())}
    assert found == {
        (0, 0, 0): 2,
        (0, 1, 0): 3,
        (0, 1, 1): 1,
        (1, 0, 0): 2,
        (1, 1, 0): 3,
        (1, 1, 1): 1,
    }


@settings(max_examples=10, deadline=None)
@given(
    max_epochs=st.integers(1, 20),
    factor=st.integers(2, 4),
    iterations=st.integers(1, 2),
    slots=st.integers(1, 9),
    broken=st.frozensets(st.tuples(st.integers(0, 60), st.integers(0, 3)), max_size=40),
    delays=st.lists(st.integers(0, 6), min_size=1, max_size=7),
)
def test_every_rung_is_filled_with_the_best_survivors(
    tmp_path_factory: pytest.TempPathFactory,
    max_epochs: int,
    factor: int,
    iterations: int,
    slots: int,
    broken: frozenset[tuple[int, int]],
    delays: list[int],
) -> None:
    """Whatever fails, however many slots there are, and in whatever order the runs end.

    Here through the scheduler; test_multifidelity_contract has more cases, without an event loop.
    """

    def fails(assignment: Assignment) -> bool:
        assert assignment.budget is not None
        return (assignment.stream, assignment.budget.rung) in broken

    async def search() -> History:
        asked = oracle(max_epochs, factor, hyperband_iterations=iterations)
        play = training(fails=fails, turns=lambda run: delays[(run.number + run.run) % len(delays)])
        found = await searched(tmp_path_factory.mktemp("search"), play, asked=asked, slots=slots)
        assert found.pool.free == found.pool.total
        return found.history

    history = anyio.run(search)
    assert history.ended is not None
    assert history.ended.reason is EndReason.EXHAUSTED
    assert not history.open_trials()
    rungs = rungs_of(history)
    for iteration, bracket in itertools.product(range(iterations), brackets_of(max_epochs, factor)):
        here = [rungs.get((iteration, bracket.number, r), []) for r in range(len(bracket.rungs))]
        assert len(here[0]) == bracket.size
        for rung, (planned, trials, above) in enumerate(
            zip(bracket.rungs[1:], here, here[1:], strict=False)
        ):
            scores = [(score_at(trial, rung), trial.number) for trial in trials]
            survivors = sorted((score, number) for score, number in scores if score is not None)
            promoted = sorted(number for _, number in survivors[: planned.size])
            assert [trial.number for trial in above] == promoted


# --- no slot idles, no bracket stalls ---


async def test_the_next_bracket_starts_while_one_waits(tmp_path: Path) -> None:
    """A run of the first bracket goes on until one of the last bracket has begun."""
    has_begun = anyio.Event()

    async def play(script: Script) -> AsyncIterator[RunEvent]:
        budget = script.assignment.budget
        assert budget is not None
        if budget.bracket == 0:
            has_begun.set()
        if script.assignment.number == 8:
            await has_begun.wait()
        async for event in training()(script):
            yield event

    search = await searched(tmp_path, play, slots=2)
    assert sizes(search.history) == {2: [9, 3, 1], 1: [5, 2], 0: [3]}


async def test_a_trial_is_promoted_before_its_rung_is_over_if_its_place_is_certain(
    tmp_path: Path,
) -> None:
    """Of nine, three go on: with seven results the best of them is one of these, whatever the others reach."""
    has_promoted = anyio.Event()

    async def play(script: Script) -> AsyncIterator[RunEvent]:
        budget = script.assignment.budget
        assert budget is not None
        if budget.rung == 1:
            has_promoted.set()
        elif script.assignment.number in (0, 1):
            await has_promoted.wait()
        async for event in training()(script):
            yield event

    with anyio.fail_after(30):
        search = await searched(tmp_path, play, slots=3)
    at = [i for i, fact in enumerate(search.store.facts) if isinstance(fact, TrialPromoted)]
    has_result = {TrialState.PAUSED, TrialState.COMPLETED}  # some are out of it already
    then = _then(search, at[0]).trials.values()
    assert sum(trial.state in has_result for trial in then) == 7
    alone = await searched(tmp_path)
    assert table(search.history) == table(alone.history)


def _then(search: SearchOfFakes, count: int) -> History:
    """Return the history as it was after so many facts."""
    return History(search.store.facts[:count])


async def test_failures_leave_no_rung_out(tmp_path: Path) -> None:
    """All but one of the first rung break, and that one goes up to the top."""

    def fails(assignment: Assignment) -> bool:
        return assignment.number != 4 and assignment.number < 9

    search = await searched(tmp_path, training(fails=fails), slots=2)
    assert sizes(search.history) == {2: [9, 1, 1], 1: [5, 2], 0: [3]}
    assert len(search.history.trial("0004").runs) == 3


async def test_a_trial_that_breaks_after_a_promotion_keeps_what_it_had(tmp_path: Path) -> None:
    def fails(assignment: Assignment) -> bool:
        return assignment.run > 0 and assignment.budget is not None and assignment.budget.rung == 2

    search = await searched(tmp_path, training(fails=fails))
    broken = next(t for t in search.history.trials.values() if len(t.runs) == 3)
    before = min(run.metrics["score"] for run in broken.runs[:2])
    assert (broken.status, broken.score) == ("FAILED", before)
    assert broken in best_trials(search.history.trials.values(), SCORE, 17)


async def test_a_nan_score_is_no_candidate(tmp_path: Path) -> None:
    def score(assignment: Assignment, epoch: int) -> float:
        return float("nan") if assignment.number % 2 else noise(assignment, epoch)

    search = await searched(tmp_path, training(score=score))
    failed = [t for t in search.history.trials.values() if t.failure is FailureKind.NAN]
    assert len(failed) == 8
    assert all(len(trial.runs) == 1 for trial in failed)
    assert sizes(search.history) == {2: [9, 3, 1], 1: [5, 2], 0: [3]}


async def test_paused_trials_break_a_series_of_failures(tmp_path: Path) -> None:
    def every_second(assignment: Assignment) -> bool:
        return assignment.run == 0 and assignment.number % 2 == 1

    asked = oracle(max_consecutive_failed_trials=2)
    search = await searched(tmp_path, training(fails=every_second), asked=asked)
    assert len(search.history.trials) == 17
    with pytest.raises(SearchFailed, match="2 trials failed in a row"):
        await searched(
            tmp_path,
            training(fails=lambda run: run.number > 5),
            asked=oracle(max_consecutive_failed_trials=2),
        )


# --- small spaces, unknown spaces ---


@pytest.mark.parametrize("slots", [1, 3, 9])
@pytest.mark.parametrize(
    ("points", "expected"),
    [
        (1, {2: [1, 1, 1]}),
        (2, {2: [2, 1, 1]}),
        (6, {2: [6, 2, 1]}),
        (11, {2: [9, 3, 1], 1: [2, 1]}),
    ],
)
async def test_a_small_space_is_halved_too(
    tmp_path: Path, points: int, expected: dict[int, list[int]], slots: int
) -> None:
    def declare(hp: HyperParameters) -> None:
        hp.Int("x", 1, points)

    search = await searched(tmp_path, training(declare), slots=slots)
    assert sizes(search.history) == expected
    counted = [t for t in search.history.trials.values() if t.state is not TrialState.DUPLICATE]
    assert len({t.values["x"] for t in counted}) == len(counted) == points
    ended = search.history.ended
    assert ended is not None
    assert (ended.reason, ended.message) == (EndReason.EXHAUSTED, None)


@settings(max_examples=15, deadline=None)
@given(
    points=st.integers(1, 20),
    slots=st.integers(1, 7),
    delays=st.lists(st.integers(0, 5), min_size=1, max_size=6),
    broken=st.frozensets(st.integers(0, 20), max_size=8),
)
def test_a_small_space_never_stalls(
    tmp_path_factory: pytest.TempPathFactory,
    points: int,
    slots: int,
    delays: list[int],
    broken: frozenset[int],
) -> None:
    def declare(hp: HyperParameters) -> None:
        hp.Int("x", 1, points)

    async def search() -> History:
        play = training(
            declare,
            fails=lambda run: run.stream in broken,
            turns=lambda run: delays[(run.number + run.run) % len(delays)],
        )
        return (await searched(tmp_path_factory.mktemp("s"), play, slots=slots)).history

    history = anyio.run(search)
    counted = [t for t in history.trials.values() if t.state is not TrialState.DUPLICATE]
    assert len(counted) == min(points, 17)
    first = [t for t in counted if t.budget is not None and t.budget.bracket == 2]
    survivors = [t for t in first if t.state is not TrialState.FAILED]
    assert bool(survivors) == any(t.budget == Budget(9, 3, 2, 2) for t in first)


async def test_the_space_may_be_unknown_before_the_first_run(tmp_path: Path) -> None:
    """As with names that are declared in `run_trial` alone. KerasTuner makes no trial at all there."""

    def grown(hp: HyperParameters) -> None:
        if hp.Choice("kind", ["plain", "deep"]) == "plain":
            hp.Boolean("bias")
        else:
            for layer in range(hp.Int("layers", 1, 2)):
                hp.Int(f"units_{layer}", 1, 3)

    play = training(grown, turns=lambda run: run.number % 3)
    search = await searched(tmp_path, play, slots=4)
    points = [
        point_key(dict(trial.values))
        for trial in search.history.trials.values()
        if trial.state is TrialState.COMPLETED
    ]
    assert len(points) == len(set(points)) == 2 + 3 + 9
    assert sizes(search.history) == {2: [9, 3, 1], 1: [5, 2]}


# --- resuming ---


@pytest.mark.parametrize("slots", [1, 3])
async def test_every_cut_resumes_to_the_same_table(tmp_path: Path, slots: int) -> None:
    def fails(assignment: Assignment) -> bool:
        return assignment.stream in (2, 10)

    make = functools.partial(oracle, 3, 3, hyperband_iterations=2)
    play = training(fails=fails, turns=lambda run: run.number % 3)
    search = await searched(tmp_path, play, asked=make(), slots=slots)
    async for cut, history in search.resumed_at_every_cut(make):
        assert table(history) == table(search.history), f"after fact {cut}"


async def test_further_iterations_continue_a_project(tmp_path: Path) -> None:
    first = await searched(tmp_path, asked=oracle(3, 3))
    again = first.again(oracle(3, 3, hyperband_iterations=2))
    await again.run()
    whole = await searched(tmp_path, asked=oracle(3, 3, hyperband_iterations=2))
    assert table(again.history) == table(whole.history)


@pytest.mark.parametrize(("max_epochs", "factor"), [(27, 3), (9, 2), (8, 3)])
async def test_a_project_of_another_plan_is_refused(
    tmp_path: Path, max_epochs: int, factor: int
) -> None:
    first = await searched(tmp_path)
    with pytest.raises(StoreMismatch, match="another max_epochs or factor"):
        await first.again(oracle(max_epochs, factor)).run()


async def test_paused_trials_are_results_of_a_search_that_was_ended(tmp_path: Path) -> None:
    """A resumed search promotes them."""
    search = await searched(tmp_path, limits=Limits(max_epochs=8))
    best = best_trials(search.history.trials.values(), SCORE, 3)
    assert {trial.status for trial in best} <= {"PAUSED", "PRUNED"}
    assert len(best) == 3
    assert any(trial.state is TrialState.PAUSED for trial in best)
    again = search.again(oracle(), limits=Limits())
    await again.run()
    assert sizes(again.history) == {2: [9, 3, 1], 1: [5, 2], 0: [3]}


# --- what a run sees ---


async def test_the_values_carry_the_last_budget_and_the_point_does_not(tmp_path: Path) -> None:
    search = await searched(tmp_path)
    promoted = next(t for t in search.history.trials.values() if len(t.runs) == 3)
    assert promoted.hyperparameters.values == {
        "x": promoted.values["x"],
        "tuner/epochs": 9,
        "tuner/initial_epoch": 3,
        "tuner/bracket": 2,
        "tuner/round": 2,
    }
    assert set(promoted.values) == {"x"}
    assert promoted.hyperparameters.get("tuner/round") == 2
    assert "tuner/epochs" in promoted.hyperparameters


async def test_a_run_that_ends_early_has_reached_its_rung(tmp_path: Path) -> None:
    """As with EarlyStopping: the best trial stops after its first epoch each time, and is promoted."""

    async def play(script: Script) -> AsyncIterator[RunEvent]:
        budget = script.assignment.budget
        assert budget is not None
        yield script.met(one_name)
        score = float(script.assignment.number)
        yield Observed(budget.initial_epoch, {"score": score})
        yield Finished({"score": score}, budget.initial_epoch)

    search = await searched(tmp_path, play)
    assert sizes(search.history) == {2: [9, 3, 1], 1: [5, 2], 0: [3]}
    assert [len(search.history.numbered(number).runs) for number in range(4)] == [3, 2, 2, 1]


async def test_repeats_are_promoted_together(tmp_path: Path) -> None:
    search = await searched(tmp_path, asked=oracle(3, 3), policy=Policy(repeats=2), slots=2)
    promoted = next(t for t in search.history.trials.values() if t.budget == Budget(3, 1, 1, 1))
    assert [(run.repeat, run.budget) for run in promoted.runs] == [
        (0, Budget(1, 0, 1, 0, is_last=False)),
        (1, Budget(1, 0, 1, 0, is_last=False)),
        (0, Budget(3, 1, 1, 1)),
        (1, Budget(3, 1, 1, 1)),
    ]


# --- arguments ---


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"factor": 1}, FatalValueError, "factor=1: it must be 2 or more"),
        ({"factor": 2.5}, FatalTypeError, "factor=2.5: a whole number is needed"),
        ({"max_epochs": 0}, FatalValueError, "max_epochs=0: it must be 1 or more"),
        ({"max_epochs": "9"}, FatalTypeError, "max_epochs='9': a whole number is needed"),
        ({"hyperband_iterations": 0}, FatalValueError, "hyperband_iterations=0"),
        ({"hyperband_iterations": None}, FatalTypeError, "hyperband_iterations=None"),
        ({"max_trials": 10}, FatalTypeError, "Hyperband takes no max_trials: max_epochs"),
    ],
)
def test_bad_arguments_are_refused(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        aiotune.Hyperband(lambda hp: None, "val_loss", directory=tmp_path, **options)


def test_a_fit_that_takes_no_epochs_is_refused(tmp_path: Path) -> None:
    class Narrow(aiotune.HyperModel):
        def fit(self, hp: HyperParameters, model: Any, x: Any, callbacks: Any) -> Any:
            return model.fit(x, callbacks=callbacks)

    tuner = aiotune.Hyperband(Narrow(), "val_loss", directory=tmp_path)
    with pytest.raises(FatalTypeError, match=r"adds epochs and initial_epoch.*Narrow\.fit"):
        _ = tuner.search([1.0])


def test_arguments_stand_in_keras_tuners_order(tmp_path: Path) -> None:
    tuner = aiotune.Hyperband(lambda hp: None, "val_loss", 27, 2, 4, 0, directory=tmp_path)
    assert isinstance(tuner.oracle, HyperbandOracle)
    assert (tuner.oracle.max_epochs, tuner.oracle.factor) == (27, 2)
    assert (tuner.oracle.hyperband_iterations, tuner.oracle.seed) == (4, 0)
    assert tuner.oracle.max_trials is None
    given = HyperbandOracle("val_loss", 27, 2, 4, 0, HyperParameters(), False, True)
    assert (given.allow_new_entries, given.tune_new_entries) == (False, True)


# --- in processes ---


def small(kind: type[aiotune.Hyperband], root: Path, *given: Any, **options: Any) -> Any:
    """Return a tuner of 5 trials: a bracket of three, of which one goes on, and one of two."""
    fixed = {"max_epochs": 3, "seed": 1, "gpus": 0, "max_concurrent_trials": 2}
    return kind(*given, directory=root, **fixed | options)


async def test_run_trial_reads_its_budget_as_in_keras_tuner(tmp_path: Path) -> None:
    tuner = small(budgeted.Budgeted, tmp_path, objective="loss")
    result = await tuner.search()
    runs = [run for trial in result.trials for run in trial.runs]
    seen = [(run.metrics["bracket"], run.metrics["round"]) for run in runs]
    assert sorted(seen) == [(0, 0), (0, 0), (1, 0), (1, 0), (1, 0), (1, 1)]
    assert sum(len(run.observations) for run in runs) == 3 * 1 + 1 * 2 + 2 * 3
    best = tuner.get_best_hyperparameters()[0]
    assert best.values["tuner/epochs"] == 3


async def test_a_keras_search_with_epochs_and_early_stopping(
    keras_server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As TensorFlow's own tutorial calls it. The best model is the one whose score is reported."""
    x, y, xv, yv = keras_search.data()
    tuner = small(aiotune.Hyperband, tmp_path, budgeted.build, "val_loss")
    result = await tuner.search(
        x, y, epochs=50, validation_data=(xv, yv), callbacks=stop_early, batch_size=16
    )
    told = [each.getMessage() for each in caplog.records if "epochs=50" in each.getMessage()]
    assert len(told) == 1
    assert "up to max_epochs=3" in told[0]
    assert {trial.status for trial in result.trials} == {"COMPLETED"}
    assert len(result.trials) == 5
    promoted = next(trial for trial in result.trials if len(trial.runs) == 2)
    # It waits one epoch without a gain: each run has one epoch at least, none has more than its budget.
    assert [run.observations[0].step for run in promoted.runs] == [0, 1]
    assert max(each.step for t in result.trials for r in t.runs for each in r.observations) <= 2
    metrics = await tuner.evaluate(promoted, xv, yv)
    assert metrics["loss"] == pytest.approx(promoted.score, abs=1e-6)


def stop_early() -> Any:
    import keras

    return [keras.callbacks.EarlyStopping("val_loss", min_delta=1.0, patience=1)]


async def test_a_fit_of_the_users_own_is_given_the_budget(
    keras_server: Server, tmp_path: Path
) -> None:
    x, y, xv, yv = keras_search.data()
    tuner = small(aiotune.Hyperband, tmp_path, budgeted.Fitting(), executions_per_trial=2)
    result = await tuner.search(x, y, validation_data=(xv, yv))
    assert {trial.status for trial in result.trials} == {"COMPLETED"}, result.trials[0].message
    promoted = next(trial for trial in result.trials if len(trial.runs) == 4)
    steps = [[each.step for each in run.observations] for run in promoted.runs]
    assert sorted(steps) == [[0], [0], [1, 2], [1, 2]]
