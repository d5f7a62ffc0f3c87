"""The rules on running trials: what each of them ends, and how they are joined."""

from __future__ import annotations

import math
from typing import Any

import pytest

from aiotune import (
    CurvePruner,
    MedianPruner,
    PatientPruner,
    PercentilePruner,
    Pruner,
    SuccessiveHalvingPruner,
    ThresholdPruner,
    WilcoxonPruner,
)
from aiotune.errors import FatalError
from aiotune.history import History
from aiotune.trial import Run, Trial
from tests.contracts.pruner_contract import PrunerContract
from tests.support.pruned import PrunedSearch, losses


class TestMedian(PrunerContract):
    def make(self) -> Pruner:
        return MedianPruner()


class TestPercentile(PrunerContract):
    def make(self) -> Pruner:
        return PercentilePruner(25.0, n_startup_trials=3, n_warmup_steps=1, interval_steps=2)


class TestSuccessiveHalving(PrunerContract):
    def make(self) -> Pruner:
        return SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)


class TestCurve(PrunerContract):
    def make(self) -> Pruner:
        return CurvePruner(n_startup_trials=4)


class TestPatientMedian(PrunerContract):
    def make(self) -> Pruner:
        return PatientPruner(MedianPruner(), patience=1)


class TestEither(PrunerContract):
    def make(self) -> Pruner:
        return MedianPruner(n_startup_trials=3) | CurvePruner()


class TestBoth(PrunerContract):
    def make(self) -> Pruner:
        return MedianPruner(n_startup_trials=3) & SuccessiveHalvingPruner(reduction_factor=2)


class TestThreshold(PrunerContract):
    compares = False
    fronts = False

    def make(self) -> Pruner:
        return ThresholdPruner(upper=5.0)


class TestPatience(PrunerContract):
    compares = False

    def make(self) -> Pruner:
        return PatientPruner(None, patience=3)


# --- which of the trials ---


def test_half_of_the_others_must_have_been_better() -> None:
    search = PrunedSearch(MedianPruner(n_startup_trials=4))
    assert search.run(*(losses(each, 0.0) for each in (1.0, 2.0, 3.0, 4.0))) == [2] * 4
    assert search.run(losses(2.5, 0.0)) == [2]  # two of four are better: not more than half
    assert search.run(losses(2.6, 0.0)) == [1]  # three of five
    assert search.answers[5, 0] == "at step 0, 3 of 5 other trials had been better"


def test_the_bar_rises_what_a_rule_has_ended_is_compared_no_more() -> None:
    search = PrunedSearch(MedianPruner(n_startup_trials=4))
    search.run(*(losses(each, 0.0) for each in (1.0, 2.0, 3.0, 4.0)))
    assert search.run(losses(9.0, 0.0), losses(9.0, 0.0)) == [1, 1]
    assert search.run(losses(2.5, 0.0)) == [2]  # two of four, not two of six
    assert search.run(losses(2.6, 0.0)) == [1]
    resumed = PrunedSearch(MedianPruner(n_startup_trials=4), facts=search.facts)
    assert resumed.run(losses(2.55, 0.0)) == [1]  # three of five, not of eight
    assert resumed.answers[8, 0] == "at step 0, 3 of 5 other trials had been better"


def test_in_a_rung_all_that_entered_it_count() -> None:
    search = PrunedSearch(SuccessiveHalvingPruner(reduction_factor=2))
    assert search.run(*(losses(each, 0.0) for each in (1.0, 2.0, 3.0))) == [2, 1, 1]
    assert search.run(losses(1.5, 0.0)) == [2]  # among the best two of four


def test_a_share_can_be_asked_for() -> None:
    scores = [losses(float(each), 0.0) for each in range(1, 9)]
    kept = {}
    for percentile in (0.0, 25.0, 75.0):
        search = PrunedSearch(PercentilePruner(percentile, n_startup_trials=8))
        search.run(*scores)
        tried = [0.5, 1.5, 2.5, 4.5, 6.5, 7.5, 8.5]
        # Each is a trial of a search of its own, so that it meets the same others.
        kept[percentile] = [
            each
            for each in tried
            if PrunedSearch(search.pruner, facts=search.facts).run(losses(each, 0.0)) == [2]
        ]
    assert kept == {0.0: [0.5], 25.0: [0.5, 1.5, 2.5], 75.0: [0.5, 1.5, 2.5, 4.5, 6.5]}


def test_what_a_trial_had_reached_counts_not_where_it_is() -> None:
    search = PrunedSearch(MedianPruner(n_startup_trials=2, n_warmup_steps=1))
    search.run(losses(1.0, 3.0), losses(1.0, 3.0))
    assert search.run(losses(2.0, 2.0, 2.0)) == [2]  # they had 1.0
    assert search.run(losses(1.0, 9.0, 9.0)) == [3]


def test_the_first_trials_run_in_full() -> None:
    search = PrunedSearch(MedianPruner(n_startup_trials=3))
    assert search.run(*(losses(each, each) for each in (1.0, 2.0, 3.0, 9.0))) == [2, 2, 2, 1]


def test_trials_in_progress_are_compared_too() -> None:
    search = PrunedSearch(MedianPruner(n_startup_trials=2), slots=3)
    assert search.run(losses(1.0, 1.0), losses(1.0, 1.0), losses(9.0, 9.0)) == [2, 2, 1]


@pytest.mark.parametrize(
    ("warmup", "interval", "ended_after"), [(0, 1, 1), (2, 1, 3), (0, 3, 1), (1, 3, 2)]
)
def test_when_a_trial_is_judged(warmup: int, interval: int, ended_after: int) -> None:
    search = PrunedSearch(MedianPruner(2, warmup, interval))
    search.run(losses(*[1.0] * 8), losses(*[1.0] * 8))
    assert search.run(losses(*[2.0] * 8)) == [ended_after]


def test_one_look_in_each_interval() -> None:
    search = PrunedSearch(MedianPruner(2, n_warmup_steps=1, interval_steps=3))
    search.run(losses(*[1.0] * 9), losses(*[1.0] * 9))
    # Good whenever it is looked at: at steps 1 and 4; in between it is overtaken.
    overtaken = PrunedSearch(search.pruner, facts=search.facts)
    assert overtaken.run(losses(2.0, 1.0, 2.0, 2.0, 1.0, 2.0, 2.0, 1.0, 2.0)) == [9]


def test_a_look_waits_for_the_objective() -> None:
    """With validation_freq=2 the objective is there at steps 1, 3, 5."""
    nothing: list[Any] = [{"acc": 1.0}]
    good = [*nothing, *losses(1.0), *nothing, *losses(1.0), *nothing, *losses(1.0)]
    bad = [*nothing, *losses(2.0), *nothing, *losses(2.0)]
    search = PrunedSearch(MedianPruner(2, n_warmup_steps=2, interval_steps=4))
    search.run(good, good)
    assert search.run(bad) == [4]


# --- successive halving ---


def test_rungs_end_at_powers_of_the_factor() -> None:
    search = PrunedSearch(SuccessiveHalvingPruner(min_resource=2, reduction_factor=2))
    search.run(losses(*[1.0] * 9))
    # Worse all along: let go on at steps where no rung ends, ended after 2 steps.
    assert search.run(losses(*[2.0] * 9)) == [2]
    # Good at 2 steps, but not good enough at 4 any more.
    search = PrunedSearch(SuccessiveHalvingPruner(min_resource=2, reduction_factor=2))
    search.run(losses(1.0, 1.0, 1.0, 0.5))
    assert search.run(losses(1.0, 1.0, 1.0, 1.0, 0.0)) == [4]


def test_the_best_of_so_many_go_on() -> None:
    search = PrunedSearch(SuccessiveHalvingPruner(reduction_factor=3))
    scores = (5.0, 4.0, 6.0, 4.5, 3.0, 4.2)
    assert search.run(*(losses(each, 0.0) for each in scores)) == [2, 2, 1, 1, 2, 1]


def test_brackets_begin_at_different_rungs_and_are_not_compared() -> None:
    rule = SuccessiveHalvingPruner(reduction_factor=2, n_brackets=3)
    search = PrunedSearch(rule)
    search.run(*[losses(*[1.0] * 4)] * 64)
    brackets = [rule.bracket_of(each) for each in search.history.trials.values()]
    assert [brackets.count(each) for each in range(3)] == [26, 19, 19]  # as 4/3 : 2/2 : 1/1
    ended: dict[int, int] = {}
    while len(ended) < 3:
        (steps,) = search.run(losses(*[2.0] * 5))
        ended[rule.bracket_of(search.numbered(search.next - 1))] = steps
    assert ended == {0: 1, 1: 2, 2: 4}


# --- one trial alone ---


@pytest.mark.parametrize(
    ("limits", "steps"),
    [({"upper": 2.0}, 3), ({"lower": 0.9}, 2), ({"lower": 0.0, "upper": 9.0}, 4)],
)
def test_limits(limits: dict[str, Any], steps: int) -> None:
    search = PrunedSearch(ThresholdPruner(**limits))
    assert search.run(losses(1.0, 0.5, 3.0, 1.0)) == [steps]


def test_limits_of_any_metric() -> None:
    search = PrunedSearch(ThresholdPruner(upper=10.0, metric="memory"))
    reports = [{"loss": 1.0, "memory": 5.0}, {"loss": 1.0}, {"loss": 1.0, "memory": 50.0}]
    assert search.run([*reports, *reports]) == [3]
    assert search.answers[0, 2] == "at step 2, memory = 50 is above 10"


def test_patience_counts_reports_without_gain() -> None:
    search = PrunedSearch(PatientPruner(None, patience=2))
    assert search.run(losses(3.0, 2.0, 2.5, 1.5, 1.5, 1.6, 0.0)) == [6]
    assert search.run(losses(1.0, math.nan, math.nan, math.nan)) == [3]


def test_a_small_gain_is_none() -> None:
    curve = losses(3.0, 2.99, 2.98, 2.97)
    assert PrunedSearch(PatientPruner(None, patience=2)).run(curve) == [4]
    assert PrunedSearch(PatientPruner(None, patience=2, min_delta=0.1)).run(curve) == [3]


def test_patience_lets_another_rule_wait() -> None:
    search = PrunedSearch(PatientPruner(MedianPruner(n_startup_trials=2), patience=2))
    search.run(*[losses(*[1.0] * 6)] * 2)
    assert search.run(losses(9.0, 8.0, 7.0, 7.0, 7.0, 7.0)) == [5]


# --- joined ---


class Says(Pruner):
    """Says the same always, and counts the questions."""

    def __init__(
        self, reason: str | None, ends: str | None = None, judges_ends: bool = True
    ) -> None:
        self.reason, self.ends, self.judges_ends = reason, ends, judges_ends
        self.asked = 0

    def judge(self, history: History, trial: Trial, run: Run) -> str | None:
        self.asked += 1
        return self.reason

    def judge_repeats(self, history: History, trial: Trial) -> str | None:
        self.asked += 1
        return self.ends


@pytest.mark.parametrize(
    ("a", "b", "both", "either"),
    [
        (None, None, None, None),
        ("a", None, None, "a"),
        (None, "b", None, "b"),
        ("a", "b", "a; b", "a"),
    ],
)
def test_and_or(a: str | None, b: str | None, both: str | None, either: str | None) -> None:
    search = PrunedSearch(ThresholdPruner(upper=1.0))
    search.run(losses(0.5))
    trial = search.numbered(0)
    one, other = Says(a, a), Says(b, b)
    for joined, expected in ((one & other, both), (one | other, either)):
        assert joined.judge(search.history, trial, trial.runs[0]) == expected
        assert joined.judge_repeats(search.history, trial) == expected
    assert one.asked == other.asked == 4  # each keeps up with the search by what it is asked


def test_what_can_never_agree_is_not_joined() -> None:
    with pytest.raises(FatalError, match=r"join them with \|"):
        MedianPruner() & WilcoxonPruner()
    joined = MedianPruner() | WilcoxonPruner()
    assert (joined.judges_reports, joined.judges_ends) == (True, True)


# --- options ---


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: PercentilePruner(100), "percentile=100"),
        (lambda: PercentilePruner("half"), "a number is needed"),  # type: ignore[arg-type]
        (lambda: MedianPruner(n_startup_trials=0), "n_startup_trials=0"),
        (lambda: MedianPruner(n_warmup_steps=-1), "n_warmup_steps=-1"),
        (lambda: MedianPruner(interval_steps=0), "interval_steps=0"),
        (lambda: ThresholdPruner(), "ends no trial"),
        (lambda: ThresholdPruner(lower=2, upper=1), "every trial would be ended"),
        (lambda: ThresholdPruner(upper=math.nan), "finite"),
        (lambda: ThresholdPruner(upper=1, metric=3), "name of a metric"),  # type: ignore[arg-type]
        (lambda: PatientPruner(3, 1), "a pruner comes first"),  # type: ignore[arg-type]
        (lambda: PatientPruner(WilcoxonPruner(), 1), "means nothing"),
        (lambda: PatientPruner(None, 0), "patience=0"),
        (lambda: PatientPruner(None, 1, min_delta=-1), "min_delta=-1"),
        (lambda: SuccessiveHalvingPruner(reduction_factor=1), "reduction_factor=1"),
        (lambda: SuccessiveHalvingPruner(min_resource=0), "min_resource=0"),
        (lambda: SuccessiveHalvingPruner(n_brackets=0), "n_brackets=0"),
        (lambda: CurvePruner(min_chance=0), "min_chance=0"),
        (lambda: CurvePruner(steps=3), "has no effect"),
        (lambda: WilcoxonPruner(p_threshold=1.0), "p_threshold=1"),
        (lambda: MedianPruner() & 3, "needed on both sides"),  # type: ignore[operator]
    ],
)
def test_bad_options_are_refused(make: Any, match: str) -> None:
    with pytest.raises(FatalError, match=match):
        make()
