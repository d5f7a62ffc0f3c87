from __future__ import annotations

from dataclasses import replace

import pytest

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.events import EndReason
from aiotune.hyperparameters import HyperParameters
from aiotune.objective import MultiObjective, Objective
from aiotune.results import SearchResult, results_text, space_text
from aiotune.space import Space
from aiotune.trial import TrialState, Usage
from tests.support.records import run, trial

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


def test_a_result_knows_what_it_took() -> None:
    runs = [run(usage=Usage(1800, 2**30)), run(1, usage=Usage(1800, 2**31, 3.6e5, True))]
    trials = (replace(TRIALS[0], runs=tuple(runs)), TRIALS[1])
    result = SearchResult(EndReason.GPU_HOURS, None, trials, ACCURACY)
    assert result.usage == Usage(3600, 2**31, 3.6e5, True)
    assert str(result).endswith(
        "; ended by max_gpu_hours; 1 GPU hour, peak 2 GiB, 0.1 kWh (estimated)"
    )
    assert SearchResult(EndReason.STOPPED, None, TRIALS, ACCURACY).usage is None


def test_a_result_without_a_score_says_so() -> None:
    result = SearchResult(EndReason.STOPPED, None, (), ACCURACY)
    assert (result.best_trial, result.best_score, result.best_hyperparameters) == (None, None, None)
    assert str(result) == "0 trials, no score; ended by stopped"


SPEED = Objective("speed", "max")
ERROR = Objective("error", "min")
MEASURED = tuple(
    replace(
        trial(number=number, state=TrialState.COMPLETED, score=error - speed),
        final_metrics={"error": error, "speed": speed},
    )
    for number, (error, speed) in enumerate([(0.5, 2.0), (0.25, 1.0), (0.75, 1.0)])
)


def result_for(objective: Objective) -> SearchResult:
    return SearchResult(EndReason.MAX_TRIALS, None, MEASURED, objective)


def test_a_result_knows_its_front() -> None:
    result = result_for(MultiObjective([ERROR, SPEED]))
    assert [each.number for each in result.pareto_front] == [1, 0]
    assert str(result) == "3 trials, 2 on the Pareto front; ended by max_trials"
    assert result.hypervolume((1.0, 0.0)) == 0.75 * 1.0 + 0.5 * 1.0
    assert result.hypervolume((0.5, 0.0)) == 0.25
    # A tenth beyond the worst of the front: an error of 0.525, a speed of 0.9.
    assert result.hypervolume() == pytest.approx(0.275 * 0.1 + 0.025 * 1.0)


def test_the_reference_of_the_objective_is_the_one_that_volumes_have() -> None:
    result = result_for(MultiObjective([ERROR, SPEED], reference=(1.0, 0.5)))
    assert result.hypervolume() == result.hypervolume((1.0, 0.5)) == 0.75 * 0.5 + 0.5 * 1.0


def test_a_single_objective_has_a_front_of_one() -> None:
    result = SearchResult(EndReason.MAX_TRIALS, None, TRIALS, ACCURACY)
    assert result.pareto_front == [result.best_trial]
    assert result.hypervolume([0.5]) == pytest.approx(0.4)


def test_without_a_front_there_is_no_volume() -> None:
    result = SearchResult(EndReason.STOPPED, None, (), MultiObjective([ERROR, SPEED]))
    assert (result.pareto_front, result.hypervolume(), result.hypervolume((1, 1))) == ([], 0.0, 0.0)
    assert str(result) == "0 trials, no score; ended by stopped"


def test_a_reference_needs_a_number_for_each_objective() -> None:
    result = result_for(MultiObjective([ERROR, SPEED]))
    with pytest.raises(FatalValueError, match="reference has 1 values for 2 objectives"):
        result.hypervolume([1.0])
    with pytest.raises(FatalTypeError, match="a list of numbers is needed"):
        result.hypervolume(1.0)  # type: ignore[arg-type]


def test_the_summary_shows_the_front_before_the_best() -> None:
    both = MultiObjective([ERROR, SPEED])
    assert list(results_text(MEASURED, both, "/results/digits", 1)) == [
        "Results summary",
        "Results in /results/digits",
        "Pareto front: 2 trials",
        "  0001: error 0.25, speed 1",
        "  0000: error 0.5, speed 2",
        "Showing 1 best trials",
        str(both),
        "",
        "Trial 0000 summary",
        "Hyperparameters:",
        "default configuration",
        "Score: -1.5",
    ]


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
