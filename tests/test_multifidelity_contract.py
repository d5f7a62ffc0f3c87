"""What holds of Hyperband and ASHA whatever fails, on any number of slots, in any order of the ends.

Searches without an event loop: many of them in little time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiotune.errors import StoreMismatch
from aiotune.history import History
from aiotune.hyperparameters import HyperParameters
from aiotune.objective import Objective
from aiotune.oracles.asha import AshaOracle
from aiotune.oracles.base import Oracle, Promote, Retire
from aiotune.oracles.brackets import brackets_of
from aiotune.oracles.hyperband import HyperbandOracle
from aiotune.oracles.stopping import AshaStoppingOracle
from aiotune.oracles.tpe import TPEOracle
from aiotune.trial import Trial, TrialState
from tests.support.rungs import Rungs, noise, rungs_of, score_at

SCORE = Objective("score", "min")

Broken = frozenset[tuple[int, int]]  # streams and epochs

PLANS = st.tuples(st.integers(1, 30), st.integers(2, 5), st.integers(1, 4)).filter(
    lambda plan: plan[0] >= plan[2]
)
SLOTS = st.integers(1, 64)
BROKEN = st.frozensets(st.tuples(st.integers(0, 60), st.integers(0, 30)), max_size=60)
ORDERS = st.lists(st.integers(0, 63), min_size=1, max_size=9)


def hyperband(max_epochs: int = 9, factor: int = 3, min_epochs: int = 1, **given: Any) -> Oracle:
    options = {"seed": 3, "max_consecutive_failed_trials": 1000} | given
    return HyperbandOracle(SCORE, max_epochs, factor, min_epochs=min_epochs, **options)


def asha(max_epochs: int = 9, factor: int = 3, min_epochs: int = 1, **given: Any) -> Oracle:
    options = {"seed": 3, "max_trials": 40, "max_consecutive_failed_trials": 1000} | given
    return AshaOracle(SCORE, max_epochs, factor, min_epochs, **options)


def stopping(max_epochs: int = 9, factor: int = 3, min_epochs: int = 1, **given: Any) -> Oracle:
    options = {"seed": 3, "max_trials": 40, "max_consecutive_failed_trials": 1000} | given
    return AshaStoppingOracle(SCORE, max_epochs, factor, min_epochs, **options)


def fails_where(broken: Broken) -> Callable[[Trial], bool]:
    def fails(trial: Trial) -> bool:
        assert trial.budget is not None
        return (trial.stream, trial.budget.initial_epoch) in broken

    return fails


def nan_where(broken: Broken) -> Callable[[Trial, int], float]:
    def score(trial: Trial, epoch: int) -> float:
        return math.nan if (trial.stream, epoch) in broken else noise(trial, epoch)

    return score


def by_number(trial: Trial, epoch: int) -> float:
    return float(trial.number)


def in_order(order: list[int]) -> Callable[[list[str]], int]:
    turns = itertools.cycle(order)
    return lambda running: next(turns)


def table(history: History) -> list[tuple[object, ...]]:
    """Return what does not depend on time: each trial's point, last budget, end and score."""
    return sorted(
        (trial.stream, trial.values["x"], trial.budget, trial.status, trial.score)
        for trial in history.trials.values()
    )


# --- Hyperband ---


@settings(max_examples=100, deadline=None)
@given(plan=PLANS, slots=SLOTS, broken=BROKEN, order=ORDERS, iterations=st.integers(1, 2))
def test_hyperband_fills_every_rung_with_the_best_survivors(
    plan: tuple[int, int, int], slots: int, broken: Broken, order: list[int], iterations: int
) -> None:
    oracle = hyperband(*plan, hyperband_iterations=iterations)
    search = Rungs(oracle, slots, fails=fails_where(broken), pick=in_order(order)).run()
    rungs = rungs_of(search.history)
    for iteration, bracket in itertools.product(range(iterations), brackets_of(*plan)):
        here = [rungs.get((iteration, bracket.number, r), []) for r in range(len(bracket.rungs))]
        assert len(here[0]) == bracket.size
        for rung, (planned, trials, above) in enumerate(
            zip(bracket.rungs[1:], here, here[1:], strict=False)
        ):
            survivors = sorted(
                (score_at(trial, rung), trial.number)
                for trial in trials
                if not math.isnan(score_at(trial, rung))
            )
            promoted = sorted(number for _, number in survivors[: planned.size])
            assert [trial.number for trial in above] == promoted
    assert not search.history.open_trials()  # all of them were retired in time
    for trial in search.trials:
        for run in trial.runs:
            assert run.budget is not None
            assert (run.budget.iteration, run.budget.bracket) == (
                trial.runs[0].budget.iteration,  # type: ignore[union-attr]
                trial.runs[0].budget.bracket,  # type: ignore[union-attr]
            )


@settings(max_examples=60, deadline=None)
@given(plan=PLANS, slots=SLOTS, broken=BROKEN, order=ORDERS)
def test_the_promotions_of_hyperband_do_not_depend_on_time(
    plan: tuple[int, int, int], slots: int, broken: Broken, order: list[int]
) -> None:
    score = nan_where(broken)
    alone = Rungs(hyperband(*plan), score=score).run()
    many = Rungs(hyperband(*plan), slots, score=score, pick=in_order(order)).run()
    assert table(many.history) == table(alone.history)


def test_a_trial_is_retired_as_soon_as_it_cannot_be_promoted() -> None:
    """Of nine, three go on: with four results the worst of them is out."""
    search = Rungs(hyperband(), slots=9)
    search.run(steps=3)
    search.ask()
    assert not any(isinstance(each, Retire) for each in search.answers)
    search.run(steps=1)
    search.ask()
    retired = [each.trial_id for each in search.answers if isinstance(each, Retire)]
    trials = search.trials[:4]
    assert retired == [max(trials, key=lambda each: each.score or 0.0).trial_id]
    assert search.history.trial(retired[0]).state is TrialState.COMPLETED


# --- ASHA ---


@settings(max_examples=60, deadline=None)
@given(
    plan=PLANS,
    slots=SLOTS,
    broken=BROKEN,
    order=ORDERS,
    max_trials=st.integers(1, 60),
    brackets=st.integers(1, 3),
)
def test_asha_never_idles_and_ends(
    plan: tuple[int, int, int],
    slots: int,
    broken: Broken,
    order: list[int],
    max_trials: int,
    brackets: int,
) -> None:
    brackets = min(brackets, len(brackets_of(*plan)))
    oracle = asha(*plan, max_trials=max_trials, brackets=brackets)
    search = Rungs(oracle, slots, fails=fails_where(broken), pick=in_order(order))
    while search.exhausted is None:
        search.run(steps=1)
        search.ask()
        in_flight = len(search.history.trials_in_flight())
        assert in_flight == slots or search.history.counted() == max_trials
    search.run()
    assert search.history.counted() == max_trials
    assert not search.history.open_trials()
    rungs = rungs_of(search.history)
    for bracket in brackets_of(*plan)[:brackets]:
        for rung in range(len(bracket.rungs) - 1):
            scored = [
                (score_at(trial, rung), trial.number)
                for trial in rungs.get((0, bracket.number, rung), ())
                if not math.isnan(score_at(trial, rung))
            ]
            above = {trial.number for trial in rungs.get((0, bracket.number, rung + 1), ())}
            finished = len(rungs.get((0, bracket.number, rung), ()))
            least = max(finished // plan[1], 1)
            best = {number for _, number in sorted(scored)[:least]}
            assert best <= above  # perhaps more: those that were among the best at some time


def test_asha_promotes_as_soon_as_one_is_among_the_best() -> None:
    """Of three finished, one goes on at once, whatever is in flight."""
    search = Rungs(asha(), slots=8, score=by_number)
    search.run(steps=3)
    search.ask()
    promoted = [each for each in search.answers if isinstance(each, Promote)]
    assert [(each.trial_id, each.budget.epochs) for each in promoted] == [("0000", 3)]


def test_the_promotions_of_asha_depend_on_the_order_of_the_ends() -> None:
    """Better and better ones: each is the best so far. Worse and worse ones: the first stay the best."""

    def runs(pick: int) -> int:
        search = Rungs(asha(), 40, score=by_number, pick=lambda running: pick).run()
        return sum(len(trial.runs) for trial in search.trials)

    assert runs(-1) > runs(0)


@settings(max_examples=60, deadline=None)
@given(plan=PLANS, slots=SLOTS, broken=BROKEN, order=ORDERS, max_trials=st.integers(1, 40))
def test_stopped_trials_were_not_among_the_best(
    plan: tuple[int, int, int], slots: int, broken: Broken, order: list[int], max_trials: int
) -> None:
    oracle = stopping(*plan, max_trials=max_trials)
    search = Rungs(
        oracle, slots, score=nan_where(broken), pick=in_order(order), by_epoch=True
    ).run()
    assert search.history.counted() == max_trials
    ends = {rung.epochs for rung in brackets_of(*plan)[0].rungs}
    for trial in search.trials:
        (run,) = trial.runs
        assert len(run.observations) in ends
        if len(run.observations) < plan[0]:
            assert trial.state in (TrialState.PRUNED, TrialState.FAILED)
    reached = [max(len(trial.runs[0].observations) for trial in search.trials)]
    assert reached == [plan[0]]  # the best so far is never stopped


def test_stopping_compares_with_those_that_passed_before() -> None:
    """Worse and worse trials, one after the other: only the first goes beyond the first rung."""
    oracle = stopping(max_trials=6)
    search = Rungs(oracle, score=by_number, by_epoch=True).run()
    epochs = [len(trial.runs[0].observations) for trial in search.trials]
    assert epochs == [9, 1, 1, 1, 1, 1]
    assert [trial.status for trial in search.trials].count("COMPLETED") == 1


def test_brackets_get_their_share_of_the_trials() -> None:
    oracle = AshaOracle(SCORE, 9, 3, max_trials=400, brackets=3, seed=1)
    search = Rungs(oracle, slots=4).run()
    rungs = rungs_of(search.history)
    sizes = [len(rungs[0, number, 0]) for number in (2, 1, 0)]
    assert sum(sizes) == 400
    shares = [size / 400 for size in sizes]
    assert shares == pytest.approx([9 / 17, 5 / 17, 3 / 17], abs=0.08)


# --- both ---

MAKERS: dict[str, Callable[[], Oracle]] = {
    "hyperband": lambda: hyperband(9, 3, hyperband_iterations=2),
    "asha": lambda: asha(9, 3, max_trials=25, brackets=2),
    "stop": lambda: stopping(9, 3, max_trials=25),
    "tpe": lambda: hyperband(9, 3, hyperband_iterations=2, sampler=TPEOracle(num_initial_points=4)),
    "tpe stop": lambda: stopping(9, 3, max_trials=25, sampler="tpe"),
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("slots", [1, 5])
def test_a_resumed_search_goes_on_as_the_uninterrupted_one(kind: str, slots: int) -> None:
    """From any run's end on, with a new oracle, the same facts follow."""
    make = MAKERS[kind]
    by_epoch = "stop" in kind
    fails = fails_where(frozenset({(2, 0), (7, 0), (5, 1)}))
    options: dict[str, Any] = {"slots": slots, "by_epoch": by_epoch, "fails": fails}
    whole = Rungs(make(), **options).run()
    for steps in range(1, 60, 19 if "tpe" in kind else 3):
        first = Rungs(make(), **options)
        first.run(steps=steps)
        again = Rungs(make(), facts=first.facts, **options).run()
        assert again.facts == whole.facts, f"after {steps} steps"


@pytest.mark.parametrize("make", [hyperband, asha])
@pytest.mark.parametrize(
    "changed", [{"max_epochs": 27}, {"min_epochs": 2}, {"resource": "data"}], ids=str
)
def test_a_plan_that_would_leave_trials_behind_is_refused(
    make: Callable[..., Oracle], changed: dict[str, Any]
) -> None:
    facts = Rungs(make(), slots=2).run(steps=2).facts
    with pytest.raises(StoreMismatch, match="was trained with another max_epochs or factor"):
        Rungs(make(**changed), slots=9, facts=facts).ask()


def test_asha_goes_on_with_the_trials_of_a_plan_that_has_ended() -> None:
    """Their points count, and none of their places."""
    facts = Rungs(asha(max_trials=5)).run().facts
    search = Rungs(asha(27, max_trials=9), facts=facts).run()
    assert search.history.counted() == 9
    assert max(trial.budget.epochs for trial in search.trials[5:] if trial.budget) == 27


@settings(max_examples=30, deadline=None)
@given(points=st.integers(1, 20), slots=SLOTS, order=ORDERS, kind=st.sampled_from(["hb", "asha"]))
def test_a_small_space_is_tried_whole_and_halved(
    points: int, slots: int, order: list[int], kind: str
) -> None:
    def declare(hp: HyperParameters) -> None:
        hp.Int("x", 1, points)

    oracle = hyperband() if kind == "hb" else asha(max_trials=None)
    search = Rungs(oracle, slots, declare=declare, pick=in_order(order)).run()
    assert len({trial.values["x"] for trial in search.trials}) == len(search.trials)
    assert len(search.trials) == (min(points, 17) if kind == "hb" else points)
    assert any(trial.budget is not None and trial.budget.epochs == 9 for trial in search.trials)
    assert not [
        each for each in search.history.open_trials() if each.state is not TrialState.PAUSED
    ]


@pytest.mark.parametrize("make", [hyperband, asha])
def test_rungs_of_data_train_anew_on_larger_shares(make: Callable[..., Oracle]) -> None:
    search = Rungs(make(9, 3, resource="data"), slots=3).run()
    promoted = next(trial for trial in search.trials if len(trial.runs) == 3)
    budgets = [run.budget for run in promoted.runs]
    assert [each and (each.initial_epoch, each.epochs) for each in budgets] == [
        (0, 1),
        (0, 3),
        (0, 9),
    ]
    assert [each and each.share for each in budgets] == [1 / 9, 1 / 3, 1.0]
    values = promoted.hyperparameters.values
    assert {name for name in values if name.startswith("tuner/")} == {
        "tuner/share",
        "tuner/bracket",
        "tuner/round",
    }
