from __future__ import annotations

from aiotune.objective import Objective
from aiotune.ranking import best_trials
from aiotune.trial import TrialState
from tests.support.records import trial

ACCURACY = Objective("accuracy", "max")
TRIALS = (
    trial(number=0, state=TrialState.COMPLETED, score=0.5),
    trial(number=1, state=TrialState.FAILED, message="ValueError"),
    trial(number=2, state=TrialState.PRUNED, score=0.9),
    trial(number=3, state=TrialState.COMPLETED, score=0.9),
    trial(number=4, state=TrialState.COMPLETED, score=float("nan")),
    trial(number=5, state=TrialState.RUNNING),
)


def test_the_best_come_first_and_of_equal_ones_the_older() -> None:
    best = best_trials(TRIALS, ACCURACY, 10)
    assert [each.number for each in best] == [2, 3, 0]
    assert [each.number for each in best_trials(TRIALS, Objective("a", "min"), 2)] == [0, 2]


def test_a_trial_keeps_the_score_of_a_budget_that_it_has_used_up() -> None:
    """While it is paused, goes on, and if it breaks then."""
    states = (TrialState.PAUSED, TrialState.QUEUED, TrialState.RUNNING, TrialState.FAILED)
    trials = [trial(number=n, state=state, score=float(n)) for n, state in enumerate(states)]
    assert [each.number for each in best_trials(trials, ACCURACY, 10)] == [3, 2, 1, 0]


def test_failed_and_unfinished_trials_never_pad_the_list() -> None:
    assert best_trials(TRIALS[1:2], ACCURACY, 3) == []
