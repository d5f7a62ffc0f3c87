from __future__ import annotations

from aiotune.events import EndReason
from aiotune.hyperparameters import HyperParameters
from aiotune.objective import Objective
from aiotune.results import SearchResult, results_text, space_text
from aiotune.space import Space
from aiotune.trial import TrialState
from tests.support.records import trial

ACCURACY = Objective("accuracy", "max")
TRIALS = (
    trial(number=0, state=TrialState.COMPLETED, score=0.5, values={"units": 8}),
    trial(number=1, state=TrialState.FAILED, message="ValueError"),
    trial(number=2, state=TrialState.PRUNED, score=0.9),
    trial(number=3, state=TrialState.COMPLETED, score=0.9, values={"units": 32}),
    trial(number=4, state=TrialState.COMPLETED, score=float("nan")),
    trial(number=5, state=TrialState.RUNNING),
)


def test_a_result_knows_its_best() -> None:
    result = SearchResult(EndReason.MAX_TRIALS, None, TRIALS, ACCURACY)
    assert result.best_trial is TRIALS[2]
    assert result.best_score == 0.9
    assert result.best_hyperparameters is not None
    assert str(result) == "6 trials, best accuracy 0.9 in trial 0002; ended by max_trials"


def test_a_result_without_a_score_says_so() -> None:
    result = SearchResult(EndReason.STOPPED, None, (), ACCURACY)
    assert (result.best_trial, result.best_score, result.best_hyperparameters) == (None, None, None)
    assert str(result) == "0 trials, no score; ended by stopped"


def test_the_summary_of_results() -> None:
    assert list(results_text(TRIALS, ACCURACY, "/results/digits", 2)) == [
        "Results summary",
        "Results in /results/digits",
        "Showing 2 best trials",
        'Objective(name="accuracy", direction="max")',
        "",
        "Trial 0002 summary",
        "Hyperparameters:",
        "default configuration",
        "Score: 0.9",
        "",
        "Trial 0003 summary",
        "Hyperparameters:",
        "units: 32",
        "Score: 0.9",
    ]


def test_the_summary_of_the_space() -> None:
    hp = HyperParameters()
    hp.Int("units", 8, 32, step=8)
    lines = list(space_text(Space(hp.space)))
    assert lines[:3] == ["Search space summary", "Default search space size: 1", "units (Int)"]
    assert "'max_value': 32" in lines[3]
    assert "'name'" not in lines[3]
