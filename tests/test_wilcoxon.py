"""The rule that compares trials fold by fold."""

from __future__ import annotations

import math

import pytest

from aiotune import MultiObjective, Objective, WilcoxonPruner
from aiotune.errors import FatalValueError
from aiotune.events import Event, RunEnded, RunStarted, TrialCreated, TrialEnded, TrialPaused
from aiotune.history import History
from aiotune.objective import DefaultObjective
from aiotune.trial import Budget, RunState, TrialState, trial_id_of
from tests.support.pruned import SCORE, opened

FRONT = MultiObjective(["loss", Objective("size", "min")])


class Folds:
    """Trials whose repeats end with given losses."""

    def __init__(self, pruner: WilcoxonPruner, objective: Objective = SCORE) -> None:
        self.pruner = pruner
        self.objective = objective
        self.history = History([opened(objective)])

    def begin(self, *scores: float | tuple[float, float], budget: Budget | None = None) -> str:
        """Add a trial with so many repeats, and return its id."""
        number = self.history.next_number
        name = trial_id_of(number)
        facts: list[Event] = [TrialCreated(0.0, name, number, number, {}, 0, budget)]
        for repeat, each in enumerate(scores):
            loss, size = each if isinstance(each, tuple) else (each, 0.0)
            metrics = {"loss": loss, "size": size}
            facts.append(RunStarted(0.0, name, repeat, repeat, 0, (), None, budget))
            facts.append(RunEnded(0.0, name, repeat, RunState.FINISHED, metrics))
        self.apply(facts)
        return name

    def complete(self, *scores: float | tuple[float, float], pauses: bool = False) -> None:
        budget = Budget(1, is_last=False) if pauses else None
        name = self.begin(*scores, budget=budget)
        if pauses:
            self.apply([TrialPaused(0.0, name, 0.0)])
        else:
            self.apply([TrialEnded(0.0, name, TrialState.COMPLETED, 0.0)])

    def apply(self, facts: list[Event]) -> None:
        for fact in facts:
            self.history.apply(fact)

    def verdict(
        self, *scores: float | tuple[float, float], budget: Budget | None = None
    ) -> str | None:
        """Return what the rule says to a new trial after these repeats."""
        name = self.begin(*scores, budget=budget)
        return self.pruner.judge_repeats(self.history, self.history.trial(name))


def test_a_trial_that_is_worse_in_every_fold_is_ended_once_that_is_no_chance() -> None:
    folds = Folds(WilcoxonPruner())
    folds.complete(1.0, 2.0, 3.0, 4.0, 5.0)
    assert folds.verdict(1.1, 2.2, 3.3) is None
    reason = folds.verdict(1.1, 2.2, 3.3, 4.4)
    assert reason == "after 4 repeats it is worse than trial 0000 (p = 0.062)"
    assert folds.verdict(1.1, 2.2, 3.3, 3.9) is None  # better in one of them


def test_differences_are_those_of_the_same_fold() -> None:
    """Folds differ more than trials: only pairs show which one is worse."""
    folds = Folds(WilcoxonPruner(p_threshold=0.2))
    folds.complete(1.0, 20.0, 300.0, 4000.0)
    assert folds.verdict(1.1, 20.1, 300.1) is not None
    assert folds.verdict(4000.0, 300.0, 20.0) is None


def test_the_best_trial_is_what_counts() -> None:
    folds = Folds(WilcoxonPruner(p_threshold=0.2))
    folds.complete(5.0, 5.0, 5.0)
    assert folds.verdict(4.0, 4.0, 4.0) is None
    folds.complete(3.0, 3.0, 3.0)
    assert folds.verdict(4.0, 4.0, 4.0) is not None


def test_a_trial_is_not_compared_with_itself_nor_with_unfinished_ones() -> None:
    folds = Folds(WilcoxonPruner(p_threshold=0.2))
    folds.begin(1.0, 1.0, 1.0)  # in progress
    assert folds.verdict(2.0, 2.0, 2.0) is None


def test_so_many_repeats_are_always_run() -> None:
    folds = Folds(WilcoxonPruner(p_threshold=0.6, n_startup_steps=3))
    folds.complete(1.0, 1.0, 1.0, 1.0)
    assert folds.verdict(9.0, 9.0) is None
    assert folds.verdict(9.0, 9.0, 9.0) is not None


def test_a_score_that_is_not_finite_is_no_pair() -> None:
    folds = Folds(WilcoxonPruner(p_threshold=0.2))
    folds.complete(1.0, 1.0, 1.0)
    assert folds.verdict(2.0, math.inf, 2.0) is None
    assert folds.verdict(2.0, 2.0, 2.0) is not None


def test_trials_of_other_rungs_are_not_compared() -> None:
    folds = Folds(WilcoxonPruner(p_threshold=0.2))
    folds.complete(1.0, 1.0, 1.0)
    low = Budget(1, is_last=False)
    assert folds.verdict(2.0, 2.0, 2.0, budget=low) is None
    folds.complete(1.5, 1.5, 1.5, pauses=True)
    assert folds.verdict(2.0, 2.0, 2.0, budget=low) is not None


def test_larger_can_be_better() -> None:
    folds = Folds(WilcoxonPruner(p_threshold=0.2), Objective("loss", "max"))
    folds.complete(1.0, 1.0, 1.0)
    assert folds.verdict(0.5, 0.5, 0.5) is not None
    assert folds.verdict(2.0, 2.0, 2.0) is None


def test_of_a_front_one_trial_must_be_better_in_everything() -> None:
    folds = Folds(WilcoxonPruner(p_threshold=0.2), FRONT)
    folds.complete((1.0, 9.0), (1.0, 9.0), (1.0, 9.0))
    folds.complete((9.0, 1.0), (9.0, 1.0), (9.0, 1.0))
    assert folds.verdict((5.0, 5.0), (5.0, 5.0), (5.0, 5.0)) is None
    assert folds.verdict((5.0, 10.0), (5.0, 10.0), (5.0, 10.0)) is not None


@pytest.mark.parametrize(
    ("p_threshold", "repeats", "match"),
    [
        (0.1, 1, "without repeats"),
        (0.1, 4, "no probability is below 0.125"),
        (0.3, 2, "Pass a larger p_threshold"),
    ],
)
def test_what_can_have_no_effect_is_refused(p_threshold: float, repeats: int, match: str) -> None:
    with pytest.raises(FatalValueError, match=match):
        WilcoxonPruner(p_threshold).check(SCORE, repeats)


@pytest.mark.parametrize(("p_threshold", "repeats"), [(0.1, 5), (0.2, 4), (0.3, 3)])
def test_what_has_an_effect_is_taken(p_threshold: float, repeats: int) -> None:
    WilcoxonPruner(p_threshold).check(DefaultObjective(), repeats)
    folds = Folds(WilcoxonPruner(p_threshold))
    folds.complete(*[1.0] * repeats)
    assert folds.verdict(*[2.0] * (repeats - 1)) is not None
