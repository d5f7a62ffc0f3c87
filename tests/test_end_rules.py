from __future__ import annotations

import pytest

from aiotune.end_rules import EndRules
from aiotune.errors import SearchFailed
from aiotune.events import (
    EndReason,
    Event,
    Reported,
    RunEnded,
    RunStarted,
    SearchEnded,
    TrialCreated,
    TrialEnded,
    TrialPaused,
)
from aiotune.history import History
from aiotune.objective import Objective
from aiotune.resources import Limits
from aiotune.settlement import FAILURES
from aiotune.trial import Budget, FailureKind, RunState, TrialState, Usage

SCORE = Objective("score", "max")


class Search:
    """A history and its rules, fed together."""

    def __init__(self, limits: Limits | None = None, most_failures: int = 3) -> None:
        self.history = History()
        self.limits = limits or Limits()
        self.most_failures = most_failures
        self.reopen()

    def reopen(self) -> None:
        self.rules = EndRules(self.history, SCORE, self.limits, self.most_failures)

    def trial(
        self,
        *scores: float,
        status: TrialState = TrialState.COMPLETED,
        failure: FailureKind | None = None,
        message: str | None = None,
        budget: Budget | None = None,
        pauses: bool = False,
        reports: bool = True,
        usage: Usage | None = None,
    ) -> EndReason | None:
        """Add a trial that reports each score and ends with the best; return the first reason to end."""
        number = self.history.next_number
        name = f"{number:04d}"
        best = max(scores) if scores and failure is None else None
        facts: list[Event] = [
            TrialCreated(0.0, name, number, number, {}, 0, budget),
            RunStarted(0.0, name, 0, 0, 0, (), None, budget),
            *(
                Reported(0.0, name, 0, step, {"score": each})
                for step, each in enumerate(scores)
                if reports
            ),
            RunEnded(0.0, name, 0, RunState.FINISHED, {}, usage=usage),
            *([TrialPaused(0.0, name, best)] if pauses else []),
            TrialEnded(0.0, name, status, best, failure=failure, message=message),
        ]
        endings = []
        for fact in facts:
            self.history.apply(fact)
            endings.append(self.rules.after(fact))
        self.endings = [ending for ending in endings if ending]
        return next((ending.reason for ending in self.endings), None)

    def failure(self, message: str = "E", kind: FailureKind = FailureKind.USER_ERROR) -> None:
        """Add a trial that failed; raise the error that ends the search, if it does."""
        self.trial(status=TrialState.FAILED, failure=kind, message=message)
        for ending in self.endings:
            if ending.error is not None:
                raise ending.error


def test_without_limits_nothing_ends() -> None:
    search = Search()
    assert [search.trial(0.1, 0.2) for _ in range(20)] == [None] * 20


def test_epochs_of_all_sessions_count() -> None:
    search = Search(Limits(max_epochs=5))
    assert search.trial(0.1, 0.2, 0.3) is None
    search.reopen()
    assert search.rules.already() is None
    assert search.trial(0.1, 0.2) is EndReason.EPOCHS
    search.reopen()
    ending = search.rules.already()
    assert ending is not None
    assert ending.reason is EndReason.EPOCHS


def test_gpu_hours_and_energy_of_all_sessions_count() -> None:
    half = Usage(1800, None, 1.8e6)
    for limits, reason in (
        (Limits(max_gpu_hours=1), EndReason.GPU_HOURS),
        (Limits(max_energy=1), EndReason.ENERGY),
    ):
        search = Search(limits)
        assert [search.trial(0.1), search.trial(0.1, usage=half)] == [None, None]
        search.reopen()
        assert search.rules.already() is None
        assert search.rules.spent([Usage(60, None, 60.0)]) is None
        assert search.trial(0.1, usage=half) is reason
        search.reopen()
        ending = search.rules.already()
        assert ending is not None
        assert ending.reason is reason


def test_gpu_hours_end_a_search_in_the_middle_of_a_run() -> None:
    ending = Search(Limits(max_gpu_hours=1)).rules.spent([Usage(1800), Usage(1800)])
    assert ending is not None
    assert (ending.reason, ending.error) == (EndReason.GPU_HOURS, None)


@pytest.mark.parametrize(("score", "ends"), [(0.89, False), (0.9, True), (0.95, True)])
def test_a_target_is_reached_by_an_equal_or_better_score(score: float, ends: bool) -> None:
    search = Search(Limits(target=0.9))
    assert (search.trial(0.1, score) is EndReason.TARGET) == ends
    search.reopen()
    assert (search.rules.already() is not None) == ends


def test_nan_reaches_no_target() -> None:
    assert Search(Limits(target=0.9)).trial(float("nan")) is None


def test_patience_counts_trials_since_the_best() -> None:
    search = Search(Limits(patience=2))
    assert [search.trial(each) for each in (0.5, 0.4, 0.6, 0.6, 0.6)] == [
        None,
        None,
        None,
        None,
        EndReason.PATIENCE,
    ]


def test_duplicates_cost_no_patience() -> None:
    search = Search(Limits(patience=1))
    search.trial(0.5)
    assert search.trial(status=TrialState.DUPLICATE) is None
    assert search.trial(0.1) is EndReason.PATIENCE


LOW, HIGH = Budget(1, is_last=False), Budget(3, 1)


def test_trials_that_were_not_promoted_cost_no_patience() -> None:
    search = Search(Limits(patience=2))
    search.trial(0.5, budget=HIGH)
    assert [search.trial(0.1, budget=LOW, pauses=True) for _ in range(5)] == [None] * 5
    search.reopen()
    assert search.rules.already() is None
    assert [search.trial(0.4, budget=HIGH) for _ in range(2)] == [None, EndReason.PATIENCE]
    search.reopen()
    assert search.rules.already() is not None


def test_a_better_score_counts_wherever_it_is_reached() -> None:
    search = Search(Limits(patience=2))
    search.trial(0.5)
    search.trial(0.4)
    search.trial(0.6, budget=LOW, pauses=True)
    search.reopen()
    assert [search.trial(0.55), search.trial(0.55)] == [None, EndReason.PATIENCE]


def test_a_trial_that_failed_or_was_pruned_on_a_low_rung_had_its_chance() -> None:
    search = Search(Limits(patience=2))
    search.trial(0.5)
    search.trial(0.4, budget=LOW, status=TrialState.PRUNED)
    assert search.trial(budget=LOW, status=TrialState.FAILED) is EndReason.PATIENCE


def test_a_score_that_is_reached_at_a_pause_is_a_target() -> None:
    search = Search(Limits(target=0.9))
    assert search.trial(0.95, budget=LOW, pauses=True, reports=False) is EndReason.TARGET


def test_so_many_failures_in_a_row_end_the_search() -> None:
    search = Search(most_failures=2)
    search.failure("one")
    search.trial(0.5)
    search.failure("two")
    with pytest.raises(SearchFailed, match=r"2 trials failed in a row.*Their errors differ"):
        search.failure("three")


def test_the_error_that_failures_share_is_named() -> None:
    search = Search(most_failures=2)
    search.failure("Traceback A\nValueError: x\nIts log: a")
    with pytest.raises(SearchFailed, match="They share one error: ValueError: x"):
        search.failure("Traceback B\nValueError: x\nIts log: b")


@pytest.mark.parametrize("kind", FailureKind)
def test_which_kinds_of_failure_count(kind: FailureKind) -> None:
    search = Search(most_failures=2)
    ends = False
    for _ in range(3):
        try:
            search.failure("one", kind)
        except SearchFailed:
            ends = True
            break
    assert ends == (kind in (FailureKind.USER_ERROR, FailureKind.CRASH)) == FAILURES[kind].counts


def test_the_error_that_most_failures_share_is_named() -> None:
    search = Search(most_failures=3)
    search.failure("ValueError: shape (3, 17)")
    search.failure("OSError: no space")
    with pytest.raises(
        SearchFailed, match=r"2 of them share one error: ValueError: shape \(9, 1\)"
    ):
        search.failure("ValueError: shape (9, 1)")


def test_other_failures_neither_count_nor_interrupt_the_count() -> None:
    search = Search(most_failures=2)
    search.failure("one")
    search.failure("big", FailureKind.OUT_OF_MEMORY)
    search.failure("slow", FailureKind.TIMEOUT)
    with pytest.raises(SearchFailed):
        search.failure("two")


def test_a_step_that_is_trained_again_after_a_kill_counts_once() -> None:
    search = Search(Limits(max_epochs=3))
    for fact in (
        TrialCreated(0.0, "0000", 0, 0, {}, 0),
        RunStarted(0.0, "0000", 0, 0, 0, (), None),
        Reported(0.0, "0000", 0, 0, {"score": 0.1}),
        Reported(0.0, "0000", 0, 1, {"score": 0.1}),
        RunEnded(0.0, "0000", 0, RunState.LOST, {}),
        RunStarted(0.0, "0000", 1, 0, 0, (), None, continues=0),
    ):
        search.history.apply(fact)
    search.reopen()
    endings = []
    for step in range(3):
        fact = Reported(0.0, "0000", 1, step, {"score": 0.1})
        search.history.apply(fact)
        endings.append(search.rules.after(fact) is not None)
    assert endings == [False, False, True]


def test_patience_goes_on_where_it_was_though_a_trial_has_improved_since_it_paused() -> None:
    budget = Budget(3)
    search = Search(Limits(patience=2))
    for fact in (
        TrialCreated(0.0, "0000", 0, 0, {}, 0, budget),
        RunStarted(0.0, "0000", 0, 0, 0, (), None, budget),
        TrialPaused(0.0, "0000", 0.1),
        TrialEnded(0.0, "0000", TrialState.COMPLETED, 0.2),
    ):
        search.history.apply(fact)
    search.reopen()
    assert search.trial(0.1) is None  # the first one without a gain
    assert search.trial(0.1) is EndReason.PATIENCE


def test_failures_in_a_row_count_on_after_a_kill_but_not_after_an_end() -> None:
    killed, ended = Search(), Search()
    for search in (killed, ended):
        search.failure()
        search.failure()
    ended.history.apply(SearchEnded(0.0, EndReason.STOPPED))
    for search in (killed, ended):
        search.reopen()
        assert search.rules.already() is None
    ended.failure()
    with pytest.raises(SearchFailed):
        killed.failure()
    killed.reopen()  # killed before its end was recorded
    ending = killed.rules.already()
    assert ending is not None
    assert isinstance(ending.error, SearchFailed)


def test_a_target_that_a_run_had_reached_when_it_was_killed_ends_the_resumed_search() -> None:
    search = Search(Limits(target=0.9))
    for fact in (
        TrialCreated(0.0, "0000", 0, 0, {}, 0),
        RunStarted(0.0, "0000", 0, 0, 0, (), None),
        Reported(0.0, "0000", 0, 0, {"score": 0.95}),
    ):
        search.history.apply(fact)
    search.reopen()
    ending = search.rules.already()
    assert ending is not None
    assert ending.reason is EndReason.TARGET
