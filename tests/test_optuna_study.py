"""`to_optuna`: the trials of a search as a study of Optuna, in memory and in a storage."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState as OptunaState

import aiotune
from aiotune.errors import FatalError, MissingFramework
from aiotune.events import (
    EndReason,
    Event,
    Reported,
    RunEnded,
    RunStarted,
    SpaceGrew,
    TrialCreated,
    TrialEnded,
    TrialMet,
)
from aiotune.history import History
from aiotune.objective import MultiObjective, Objective
from aiotune.oracles import OptunaOracle, RandomSearchOracle
from aiotune.results import SearchResult
from aiotune.space import Boolean, Choice, Fixed, Float, HyperParameter, Int, Scalar
from aiotune.trial import FailureKind, RunState, Trial, TrialState
from tests.support.simulated import Simulation

SCORE = Objective("score", "min")
X = Float("x", 0.0, 1.0)


def result_of(trials: Sequence[Trial], objective: Objective = SCORE) -> SearchResult:
    return SearchResult(EndReason.STOPPED, None, tuple(trials), objective)


def begun(
    number: int,
    values: dict[str, Scalar],
    space: tuple[HyperParameter, ...] = (X,),
    at: float = 1000.0,
) -> list[Event]:
    """Return the facts of a trial that has met all its names."""
    trial_id = f"{number:04d}"
    return [
        TrialCreated(at, trial_id, number, number, values, 0),
        RunStarted(at + 1, trial_id, 0, 0, 0, (), None),
        TrialMet(at + 2, trial_id, space, values, is_complete=True),
    ]


def reported(number: int, step: int, score: float, run: int = 0) -> Reported:
    return Reported(1003.0, f"{number:04d}", run, step, {"score": score, "other": 1.0})


def ended(
    number: int,
    state: TrialState,
    score: float | None = None,
    metrics: dict[str, float] | None = None,
    failure: FailureKind | None = None,
    message: str | None = None,
) -> TrialEnded:
    return TrialEnded(1010.0, f"{number:04d}", state, score, 0, metrics, failure, message)


def trials_of(*facts: Event) -> list[Trial]:
    return list(History(facts).trials.values())


# --- values ---

VALUES: tuple[tuple[HyperParameter, Scalar, object, object], ...] = (
    (Int("a", 1, 10, step=4), 5, IntDistribution(1, 9, step=4), 5),
    (Int("a", 1, 10, step=4, default=4), 4, IntDistribution(1, 10), 4),
    (Int("a", 16, 512, step=2, sampling="log"), 64, IntDistribution(16, 512, log=True), 64),
    (Int("a", 1, 9, sampling="reverse_log"), 3, IntDistribution(1, 9), 3),
    (Float("a", 0.0, 1.0), 0.25, FloatDistribution(0.0, 1.0), 0.25),
    (Float("a", 1e-4, 1.0, sampling="log"), 0.01, FloatDistribution(1e-4, 1.0, log=True), 0.01),
    (Float("a", 0.0, 1.05, step=0.1), 0.3, FloatDistribution(0.0, 1.0, step=0.1), 0.3),
    (Float("a", 0.0, 1.05, step=0.1, default=0.25), 0.25, FloatDistribution(0.0, 1.05), 0.25),
    (Float("a", 1 / 3, 3.0, step=0.1), 1 / 3, FloatDistribution(1 / 3, 3.0), 1 / 3),
    (Choice("a", [64, 16]), 16, CategoricalDistribution((64, 16)), 16),
    (Choice("a", ["x", None]), None, CategoricalDistribution(("x", None)), None),
    (Choice("a", [1, True]), True, CategoricalDistribution(("1", "true")), "true"),
    (Boolean("a"), True, CategoricalDistribution((False, True)), True),
    (Fixed("a", "adam"), "adam", CategoricalDistribution(("adam",)), "adam"),
)


@pytest.mark.parametrize(("declared", "value", "distribution", "parameter"), VALUES)
def test_a_value_is_shown_as_it_is(
    declared: HyperParameter, value: Scalar, distribution: object, parameter: object
) -> None:
    facts = [*begun(0, {"a": value}, (declared,)), ended(0, TrialState.COMPLETED, 1.0)]
    (trial,) = result_of(trials_of(*facts)).to_optuna().trials
    assert trial.params == {"a": parameter}
    assert type(trial.params["a"]) is type(parameter)
    assert trial.distributions == {"a": distribution}


def program(hp: aiotune.HyperParameters) -> float:
    kind = hp.Choice("kind", ["a", "b"])
    with hp.conditional_scope("kind", ["a"]):
        hp.Int("units", 1, 9)
    with hp.conditional_scope("kind", ["b"]):
        hp.Choice("units", ["few", "many"])
    return hp.Float("x", 0, 1) + 3 * (kind == "a") + 0.1 * hp.Int("n", 1, 5)  # type: ignore[no-any-return]


def test_a_name_that_is_declared_twice_is_two_parameters() -> None:
    search = Simulation(RandomSearchOracle(SCORE, None, seed=1), program).run(8)
    study = result_of(search.trials).to_optuna()
    names = {tuple(sorted(trial.params)) for trial in study.trials}
    assert names == {
        ("kind", "n", "units", "x"),
        ("kind", "n", 'units (where kind in "b")', "x"),
    }


# --- what became of the trials ---


def test_each_trial_is_there_with_what_became_of_it() -> None:
    trials = trials_of(
        SpaceGrew(0.0, None, (X,)),
        *begun(0, {"x": 0.1}),
        reported(0, 0, 3.0),
        reported(0, 1, 2.0),
        ended(0, TrialState.COMPLETED, 2.0, {"score": 2.0, "other": 1.0}),
        *begun(1, {"x": 0.2}),
        ended(1, TrialState.FAILED, failure=FailureKind.CRASH, message="signal 9"),
        *begun(2, {"x": 0.3}),
        reported(2, 0, 5.0),
        ended(2, TrialState.PRUNED, 5.0),
        *begun(3, {"x": 0.4}),
        ended(3, TrialState.COMPLETED, math.nan),
        *begun(4, {"x": 0.1}),
        ended(4, TrialState.DUPLICATE),
        *begun(5, {"x": 0.5}),
        reported(5, 0, 1.0),
        TrialCreated(1005.0, "0006", 6, 6, {"x": 0.6}, 0),
    )
    study = result_of(trials).to_optuna("mine")
    assert study.study_name == "mine"
    assert study.metric_names == ["score"]
    assert [trial.state.name for trial in study.trials] == [
        *("COMPLETE", "FAIL", "PRUNED", "FAIL", "FAIL", "RUNNING", "RUNNING")
    ]
    assert [trial.values for trial in study.trials[:3]] == [[2.0], None, [5.0]]
    assert [trial.intermediate_values for trial in study.trials[:3]] == [
        {0: 3.0, 1: 2.0},
        {},
        {0: 5.0},
    ]
    assert study.trials[0].user_attrs == {
        "trial_id": "0000",
        "status": "COMPLETED",
        "metrics": {"score": 2.0, "other": 1.0},
    }
    assert study.trials[1].user_attrs["failure"] == "crash"
    assert study.trials[1].user_attrs["message"] == "signal 9"
    assert study.trials[0].datetime_start == datetime.fromtimestamp(1001.0)
    assert study.trials[0].datetime_complete == datetime.fromtimestamp(1010.0)
    assert study.trials[5].params == {"x": 0.5}
    assert study.trials[6].params == {}  # not known yet what it asks for
    assert study.best_trial.user_attrs["trial_id"] == "0000"


def test_a_curve_is_the_mean_over_the_repeats_and_a_retry_replaces_what_broke() -> None:
    trials = trials_of(
        *begun(0, {"x": 0.1}),
        reported(0, 0, 9.0),
        RunEnded(1004.0, "0000", 0, RunState.FAILED, {}, failure=FailureKind.CRASH),
        RunStarted(1005.0, "0000", 1, 0, 1, (), None),
        reported(0, 0, 3.0, run=1),
        RunStarted(1006.0, "0000", 2, 1, 0, (), None),
        reported(0, 0, 5.0, run=2),
        reported(0, 1, 4.0, run=2),
    )
    (trial,) = result_of(trials).to_optuna().trials
    assert trial.intermediate_values == {0: 4.0, 1: 4.0}


def test_a_front_has_a_value_for_each_objective() -> None:
    both = MultiObjective([Objective("loss", "min"), Objective("accuracy", "max")])
    metrics = {"loss": 0.3, "accuracy": 0.9}
    trials = trials_of(
        *begun(0, {"x": 0.1}),
        ended(0, TrialState.COMPLETED, both.get_value(metrics), metrics),
        *begun(1, {"x": 0.2}),
        ended(1, TrialState.COMPLETED, 0.2, {"loss": 0.1, "accuracy": math.nan}),
    )
    study = result_of(trials, both).to_optuna()
    assert [each.name for each in study.directions] == ["MINIMIZE", "MAXIMIZE"]
    assert study.metric_names == ["loss", "accuracy"]
    assert [trial.values for trial in study.trials] == [[0.3, 0.9], None]
    assert [trial.number for trial in study.best_trials] == [0]


def test_what_optuna_computes_of_it() -> None:
    search = Simulation(RandomSearchOracle(SCORE, None, seed=1), program).run(20)
    study = result_of(search.trials).to_optuna()
    best = result_of(search.trials).best_trial
    assert best is not None
    assert study.best_value == best.score
    assert study.best_params["x"] == best.values["x"]
    importances = optuna.importance.get_param_importances(study)
    assert set(importances) >= {"kind", "x", "n"}
    assert sum(importances.values()) == pytest.approx(1.0)
    frame = study.trials_dataframe()
    assert len(frame) == 20
    assert {"params_x", "params_kind", "user_attrs_trial_id"} < set(frame.columns)


# --- a storage ---


def url_of(directory: Path) -> str:
    return f"sqlite:///{directory / 'optuna.db'}"


def test_a_storage_gets_what_is_new(tmp_path: Path) -> None:
    facts: list[Event] = [
        *begun(0, {"x": 0.1}),
        reported(0, 0, 2.0),
        ended(0, TrialState.COMPLETED, 2.0, {"score": 2.0}),
        *begun(1, {"x": 0.2})[:2],
    ]
    first = result_of(trials_of(*facts)).to_optuna("search", url_of(tmp_path))
    assert [trial.state for trial in first.trials] == [OptunaState.COMPLETE, OptunaState.RUNNING]
    assert first.trials[1].params == {}
    facts += [
        *begun(1, {"x": 0.2})[2:],
        reported(1, 0, 4.0),
        ended(1, TrialState.COMPLETED, 1.0, {"score": 1.0}),
        *begun(2, {"x": 0.3}),
    ]
    trials = trials_of(*facts)
    result_of(trials).to_optuna("search", url_of(tmp_path))
    kept = optuna.load_study(study_name="search", storage=url_of(tmp_path)).trials
    made = result_of(trials).to_optuna().trials
    assert len(kept) == len(made) == 3
    for one, other in zip(kept, made, strict=True):
        assert (one.state, one.values, one.params) == (other.state, other.values, other.params)
        assert one.distributions == other.distributions
        assert one.user_attrs == other.user_attrs
        assert one.intermediate_values == other.intermediate_values


def test_a_storage_of_optunas_is_taken_as_it_is() -> None:
    storage = optuna.storages.InMemoryStorage()
    trials = trials_of(*begun(0, {"x": 0.1}), ended(0, TrialState.COMPLETED, 2.0))
    for _ in range(2):
        result_of(trials).to_optuna("search", storage)
    assert len(optuna.load_study(study_name="search", storage=storage).trials) == 1


def test_a_study_of_another_search_is_refused() -> None:
    storage = optuna.storages.InMemoryStorage()
    result_of(trials_of(*begun(0, {"x": 0.1}))).to_optuna("search", storage)
    other = result_of(trials_of(*begun(0, {"x": 0.1}, at=5000.0)))
    with pytest.raises(FatalError, match="'search' has trials that are not of this search"):
        other.to_optuna("search", storage)
    higher = result_of(other.trials, Objective("score", "max"))
    with pytest.raises(FatalError, match="'search' has other directions than"):
        higher.to_optuna("search", storage)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"storage": "sqlite:///study.db"}, "study_name is missing"),
        ({"study_name": "a", "storage": 3}, 'a URL such as "sqlite:///study.db" is needed'),
        ({"study_name": "a", "storage": "study.db"}, 'write storage="sqlite:///study.db"'),
    ],
)
def test_bad_arguments_say_what_to_write(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(FatalError, match=message):
        result_of([]).to_optuna(**arguments)


def test_without_optuna_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingFramework, match=r"pip install 'aiotune\[optuna\]'"):
        result_of([]).to_optuna()


# --- from a tuner, and from a search in progress ---


class Waiting(aiotune.Tuner):
    """Runs in the caller's loop."""

    async def run_trial(self, trial: Any) -> float:
        x: float = trial.hyperparameters.Float("x", 0.0, 1.0)
        trial.report(0, loss=2 * x)
        return x


async def test_a_search_in_progress_and_its_tuner_give_it(tmp_path: Path) -> None:
    def tuner() -> Waiting:
        oracle = OptunaOracle(objective="loss", max_trials=4, seed=1)
        return Waiting(oracle, directory=tmp_path, project_name="waiting", gpus=0)

    searching = tuner()
    async with searching.start() as search:
        async for event in search.events():
            if isinstance(event, TrialEnded):
                break
        early = search.to_optuna()
        result = await search.result()
    assert early.study_name == "waiting"
    assert any(trial.state is OptunaState.COMPLETE for trial in early.trials)
    study = result.to_optuna()
    assert [trial.value for trial in study.trials] == [trial.score for trial in result.trials]
    stored = tuner().to_optuna()  # another process would do the same
    assert [trial.params for trial in stored.trials] == [
        dict(each.values) for each in result.trials
    ]
    assert stored.trials[0].intermediate_values == {0: 2 * stored.trials[0].params["x"]}
