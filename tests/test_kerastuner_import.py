"""Projects that KerasTuner wrote: nothing of them is lost, and the search goes on."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiotune
from aiotune.errors import FatalValueError, StoreMismatch
from aiotune.events import EndReason
from aiotune.executors.launch import Server
from aiotune.history import History
from aiotune.kerastuner_import import import_project, report_text
from aiotune.objective import DefaultObjective, MultiObjective, Objective
from aiotune.store.reader import read_facts
from aiotune.trial import RunState, TrialState
from tests.support.kerastuner import (
    DATA,
    EXPECTED,
    PROJECTS,
    Bayesian,
    Grid,
    Random,
    Retried,
    build,
    change,
    copy_of,
    hyperband,
    imported,
    read,
    states,
    tuner,
)

KEPT_AS = {"COMPLETED": "COMPLETED", "FAILED": "FAILED", "RUNNING": "QUEUED", "INVALID": "QUEUED"}
PLAIN = [name for name in PROJECTS if not name.startswith("hyperband")]


def assert_same(kept: Any, stored: Any) -> None:
    """Numbers may differ by rounding: 0.30000000000000004 on a step of 0.1 is kept as 0.3."""
    assert type(kept) is type(stored)
    if isinstance(stored, dict):
        assert kept.keys() == stored.keys()
        for name, value in stored.items():
            assert_same(kept[name], value)
    elif isinstance(stored, list):
        assert len(kept) == len(stored)
        for one, other in zip(kept, stored, strict=True):
            assert_same(one, other)
    elif isinstance(stored, float):
        assert kept == pytest.approx(stored, rel=1e-12, nan_ok=True)
    else:
        assert kept == stored


def digest(directory: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


# Nothing is lost


@pytest.mark.parametrize("name", PLAIN)
async def test_every_field_of_every_trial_is_kept(name: str, tmp_path: Path) -> None:
    _, history = await imported(name, tmp_path)
    stored = states(DATA / name)
    assert len(history.trials) == len(stored)
    for trial, state in zip(history.trials.values(), stored.values(), strict=True):
        assert int(trial.trial_id) == int(state["trial_id"])
        assert trial.status == KEPT_AS[state["status"]]
        assert_same(trial.hyperparameters.values, state["hyperparameters"]["values"])
        if trial.is_over:
            assert_same(trial.score, state["score"])
            assert trial.best_step == state["best_step"]
            assert trial.message == state["message"]
        if state["status"] == "COMPLETED":
            assert_same(trial.metrics.get_config(), state["metrics"])


@pytest.mark.parametrize("name", PLAIN)
async def test_the_space_is_kept(name: str, tmp_path: Path) -> None:
    _, history = await imported(name, tmp_path)
    [opened] = [
        fact for fact in read_facts(tmp_path / "imported" / "study.db") if hasattr(fact, "seed")
    ]
    oracle = read(DATA / name / "oracle.json")
    assert opened.seed == oracle["seed"]
    known = {(each.name, each.conditions): each for each in history.space}
    assert len(known) == len(oracle["hyperparameters"]["space"])
    for each, stored in zip(history.space, oracle["hyperparameters"]["space"], strict=True):
        config = stored["config"]
        if config.get("default", 0) is None:  # KerasTuner's way to say the least value
            config["default"] = config["min_value"]
        assert type(each).__name__ == stored["class_name"]
        assert_same(each.get_config(), config)


@pytest.mark.parametrize("name", PLAIN)
async def test_the_best_are_the_same(name: str, tmp_path: Path) -> None:
    report, _ = await imported(name, tmp_path)
    reopened = tuner(Random, report, objective=report.objective)
    best = reopened.get_best_trials(100)
    assert [int(trial.trial_id) for trial in best] == [int(each) for each in EXPECTED[name]["best"]]
    assert [trial.score for trial in best] == EXPECTED[name]["scores"]
    for hp, values in zip(
        reopened.get_best_hyperparameters(100), EXPECTED[name]["values"], strict=True
    ):
        assert_same(hp.values, values)


async def test_failures_keep_their_kind(tmp_path: Path) -> None:
    _, history = await imported("random", tmp_path)
    broken, nan = history.trial("0002"), history.trial("0004")
    assert broken.failure == "user error"
    assert "out of luck" in str(broken.message)
    assert nan.failure == "nan"
    assert math.isnan(nan.metrics["val_loss"])
    assert (
        nan.metrics["accuracy"]
        == states(DATA / "random")["04"]["metrics"]["metrics"]["accuracy"]["observations"][0][
            "value"
        ][0]
    )


async def test_the_order_of_ends_is_kept(tmp_path: Path) -> None:
    source = copy_of("random", tmp_path)
    order = read(source / "oracle.json")["end_order"]
    change(source / "oracle.json", end_order=order[::-1])
    report = await import_project(source, tmp_path / "imported")
    history = History(read_facts(report.layout.store))
    ended = [trial.trial_id for trial in history.ended_trials()]
    assert [int(each) for each in ended] == [int(each) for each in reversed(order)]


async def test_inactive_names_are_no_part_of_a_trial(tmp_path: Path) -> None:
    _, history = await imported("random", tmp_path)
    for trial in history.trials.values():
        assert ("filters" in [each.name for each in trial.space]) == (
            trial.values["kind"] == "conv"
        )


async def test_several_values_at_a_step_are_several_executions(tmp_path: Path) -> None:
    _, history = await imported("steps", tmp_path)
    trial = history.trial("0000")
    assert [run.repeat for run in trial.runs] == [0, 1]
    assert trial.scores == (0.0, 0.1)
    assert trial.metrics.get_best_step("val_loss") == 1


async def test_the_source_is_not_changed(tmp_path: Path) -> None:
    source = copy_of("model", tmp_path)
    before = digest(source)
    report = await import_project(source, tmp_path / "imported")
    assert digest(source) == before
    weights = report.layout.repeat("0000", 0) / "best.weights.h5"
    weights.write_bytes(b"changed")
    assert digest(source) == before  # the copies are no links


# Hyperband: a point is one trial here


@pytest.mark.parametrize("name", ["hyperband", "hyperband_done"])
async def test_promotions_become_runs_of_one_trial(name: str, tmp_path: Path) -> None:
    report, history = await imported(name, tmp_path)
    stored = states(DATA / name)
    runs = {
        str(run.message).split()[5].rstrip(","): (trial, run)
        for trial in history.trials.values()
        for run in trial.runs
    }
    assert runs.keys() == stored.keys()
    for trial_id, state in stored.items():
        trial, run = runs[trial_id]
        values = state["hyperparameters"]["values"]
        parent = values.pop("tuner/trial_id", None)
        assert run.budget is not None
        assert {**trial.values, **run.budget.values} == values
        assert parent is None or runs[parent][0] is trial
        if state["status"] == "COMPLETED":
            assert run.metrics["val_accuracy"] == state["score"]
            assert (
                run.best_step == run.budget.initial_epoch
            )  # KerasTuner counts from the promotion on
    assert set(report.renamed) <= set(stored)


async def test_a_finished_hyperband_leaves_no_trial_open(tmp_path: Path) -> None:
    report, history = await imported("hyperband_done", tmp_path)
    assert {trial.state for trial in history.trials.values()} == {TrialState.COMPLETED}
    best = hyperband(report).get_best_trials(1)[0]
    assert best.score == EXPECTED["hyperband_done"]["scores"][0]
    assert best.values["x"] == EXPECTED["hyperband_done"]["values"][0]["x"]
    result = await hyperband(report).search()
    assert len(result.trials) == len(history.trials)
    assert result.reason is EndReason.EXHAUSTED


async def test_hyperband_goes_on_where_it_stopped(tmp_path: Path) -> None:
    report, history = await imported("hyperband", tmp_path)
    assert Counter(trial.status for trial in history.trials.values()) == {
        "COMPLETED": 4,
        "PAUSED": 2,
        "QUEUED": 1,
    }
    result = await hyperband(report).search()
    _, whole = await imported("hyperband_done", tmp_path / "whole")
    assert _budgets(result.trials) == _budgets(whole.trials.values())
    by_id = {trial.trial_id: trial for trial in result.trials}
    bracket = [by_id[each] for each in ("0004", "0005", "0006")]
    promoted = [trial for trial in bracket if trial.budget is not None and trial.budget.is_last]
    worst = min(bracket, key=lambda trial: trial.values["x"])
    assert worst not in promoted
    assert len(promoted) == 2


def _budgets(trials: Any) -> Counter[Any]:
    return Counter(
        run.budget for trial in trials for run in trial.runs if run.state is not RunState.LOST
    )


async def test_hyperband_without_its_plan_is_kept_as_it_is(tmp_path: Path) -> None:
    source = copy_of("hyperband", tmp_path)
    (source / "oracle.json").unlink()
    report = await import_project(source, tmp_path / "imported")
    history = History(read_facts(report.layout.store))
    stored = states(source)
    assert len(history.trials) == len(stored)
    for trial, state in zip(history.trials.values(), stored.values(), strict=True):
        assert_same(dict(trial.values), state["hyperparameters"]["values"])
    assert any("oracle.json is missing" in each for each in report.warnings)


# The search goes on


async def test_a_random_search_goes_on(tmp_path: Path) -> None:
    report, before = await imported("random", tmp_path)
    result = await tuner(Random, report, objective="val_loss", max_trials=12).search()
    assert len(result.trials) == 12
    assert result.reason is EndReason.MAX_TRIALS
    again = result.trials[7]  # it was interrupted
    assert again.status == "COMPLETED"
    assert again.values == before.trial("0007").values
    points = [json.dumps(dict(trial.values), sort_keys=True) for trial in result.trials]
    assert len(set(points)) == 12
    assert result.best_trial is not None
    assert result.best_trial.score == EXPECTED["random"]["scores"][0]


async def test_a_finite_space_is_exhausted_without_a_repeat(tmp_path: Path) -> None:
    report, _ = await imported("retried", tmp_path)
    result = await tuner(Retried, report, max_trials=None, max_retries_per_trial=1).search()
    assert sorted(trial.values["x"] for trial in result.trials) == list(range(10))  # type: ignore[type-var]


async def test_a_grid_goes_on_to_its_end(tmp_path: Path) -> None:
    report, before = await imported("grid", tmp_path)
    result = await tuner(Grid, report).search()
    points = [
        (trial.values["kind"], trial.values.get("x"), trial.values.get("extra"))
        for trial in result.trials
    ]
    assert result.reason is EndReason.EXHAUSTED
    assert len(points) == len(set(points)) == 11 + 2
    assert sum(kind == "a" for kind, _, _ in points) == 11
    assert {extra for kind, _, extra in points if kind == "b"} == {1, 2}
    assert points[:6] == [(t.values["kind"], t.values["x"], None) for t in before.trials.values()]


async def test_bayesian_optimization_goes_on(tmp_path: Path) -> None:
    report, _ = await imported("bayesian", tmp_path)
    result = await tuner(Bayesian, report, max_trials=10).search()
    assert len(result.trials) == 10
    assert {trial.status for trial in result.trials} == {"COMPLETED"}


async def test_a_trial_that_waited_for_a_retry_gets_it(tmp_path: Path) -> None:
    report, _ = await imported("retried", tmp_path)
    result = await tuner(Retried, report, max_trials=2, max_retries_per_trial=1).search()
    trial = result.trials[1]
    assert [run.state for run in trial.runs] == [RunState.FAILED, RunState.FINISHED]
    assert trial.score == trial.values["x"]


async def test_without_retries_it_has_failed(tmp_path: Path) -> None:
    report, _ = await imported("retried", tmp_path)
    result = await tuner(Retried, report, max_trials=2).search()
    assert result.trials[1].status == "FAILED"
    assert "no luck yet" in str(result.trials[1].message)


async def test_another_objective_is_refused(tmp_path: Path) -> None:
    report, _ = await imported("random", tmp_path)
    with pytest.raises(StoreMismatch, match="another objective"):
        await tuner(Random, report, objective="accuracy", max_trials=12).search()


async def test_the_best_weights_are_carried_over(tmp_path: Path, keras_server: Server) -> None:
    report, _ = await imported("model", tmp_path)
    assert report.weights == 3
    reopened = aiotune.RandomSearch(
        build,
        "val_loss",
        directory=report.layout.directory,
        project_name=report.layout.project_name,
    )
    x = np.arange(16, dtype="float32").reshape(8, 2) / 16
    metrics = await reopened.evaluate(reopened.get_best_trials()[0], x, x.sum(axis=1), verbose=0)
    assert metrics["loss"] == pytest.approx(EXPECTED["model"]["loss"], abs=1e-6)


async def test_weights_of_so_many_trials_are_copied(tmp_path: Path) -> None:
    report, history = await imported("model", tmp_path, keep_checkpoints=1)
    assert report.weights == 1
    best = min(history.trials.values(), key=lambda trial: trial.score or 0)
    record = read(report.layout.repeat(best.trial_id, 0) / "best.json")
    assert record == {"epoch": best.best_step, "score": best.score}


# The objective


@pytest.mark.parametrize(
    ("name", "objective"),
    [
        ("random", Objective("val_loss", "min")),
        ("hyperband", Objective("val_accuracy", "max")),
        ("bayesian", DefaultObjective()),
    ],
)
async def test_the_objective_is_what_the_scores_are_of(
    name: str, objective: Objective, tmp_path: Path
) -> None:
    report, history = await imported(name, tmp_path)
    assert report.objective == objective
    assert history.opened is not None
    assert history.opened.objective == objective.get_config()


async def test_another_metric_is_no_objective(tmp_path: Path) -> None:
    with pytest.raises(FatalValueError, match=r"not those of .*accuracy.*val_loss"):
        await imported("random", tmp_path, objective=["accuracy"])
    with pytest.raises(FatalValueError, match='direction "min" of val_loss'):
        await imported("random", tmp_path, objective=["val_loss"], direction="max")


async def test_what_cannot_be_told_is_asked_for(tmp_path: Path) -> None:
    source = copy_of("retried", tmp_path)
    change(source / "trial_0" / "trial.json", metrics={"metrics": {}}, score=None, status="RUNNING")
    with pytest.raises(FatalValueError, match="--objective NAME --direction"):
        await import_project(source, tmp_path / "imported")
    with pytest.raises(FatalValueError, match="--direction min"):
        await import_project(source, tmp_path / "imported", objective=["fitness"])
    report = await import_project(
        source, tmp_path / "imported", objective=["fitness"], direction="max"
    )
    assert report.objective == Objective("fitness", "max")


async def test_metrics_with_the_same_values_are_ambiguous(tmp_path: Path) -> None:
    source = copy_of("bayesian", tmp_path)
    for path in source.glob("trial_*/trial.json"):
        metrics = read(path)["metrics"]["metrics"]
        change(path, metrics={"metrics": {**metrics, "loss": metrics["default_objective"]}})
    with pytest.raises(FatalValueError, match="values: default_objective, loss"):
        await import_project(source, tmp_path / "imported")


async def test_several_objectives_are_named(tmp_path: Path) -> None:
    source = copy_of("random", tmp_path)
    for path in source.glob("trial_*/trial.json"):
        state = read(path)
        metrics = state["metrics"]["metrics"]
        if state["status"] == "COMPLETED":
            score = state["score"] - metrics["accuracy"]["observations"][0]["value"][0]
            metrics["multi_objective"] = {
                "direction": "min",
                "observations": [{"value": [score], "step": 0}],
            }
            change(path, metrics={"metrics": metrics}, score=score)
    with pytest.raises(FatalValueError, match="several objectives"):
        await import_project(source, tmp_path / "imported")
    names = ["val_loss", "accuracy"]
    report = await import_project(source, tmp_path / "imported", objective=names)
    assert isinstance(report.objective, MultiObjective)
    assert [each.direction for each in report.objective.objectives] == ["min", "max"]
    result = await tuner(Random, report, objective=names, max_trials=8).search()
    assert result.trials[7].status == "COMPLETED"
    assert result.best_score == min(trial.score for trial in result.trials if trial.has_score)  # type: ignore[type-var]


# Values that KerasTuner keeps otherwise


def make_boolean(source: Path, condition: object) -> None:
    """Let `kind` be what KerasTuner makes of `Choice("kind", [False, True])`, and `filters` depend on it."""
    paths = [source / "oracle.json", *source.glob("trial_*/trial.json")]
    for path in paths:
        state = read(path)["hyperparameters"]
        for each in state["space"]:
            if each["config"]["name"] == "kind":
                each["config"] |= {"values": [0, 1], "default": 0, "ordered": True}
            for one in each["config"]["conditions"]:
                one["config"]["values"] = [condition]
        if "kind" in state["values"]:
            state["values"]["kind"] = int(state["values"]["kind"] == "conv")
        change(path, hyperparameters=state)


async def test_a_choice_of_booleans_is_told_by_its_conditions(tmp_path: Path) -> None:
    source = copy_of("random", tmp_path)
    make_boolean(source, condition=True)
    report = await import_project(source, tmp_path / "imported")
    history = History(read_facts(report.layout.store))
    values = [trial.values["kind"] for trial in history.trials.values()]
    assert {type(value) for value in values} == {bool}
    for trial in history.trials.values():
        assert ("filters" in [each.name for each in trial.space]) == trial.values["kind"]
    assert not any("--boolean" in each for each in report.warnings)


async def test_a_choice_of_booleans_can_be_named(tmp_path: Path) -> None:
    source = copy_of("random", tmp_path)
    make_boolean(source, condition=1)
    report = await import_project(source, tmp_path / "numbers")
    assert any("--boolean kind" in each for each in report.warnings)
    report = await import_project(source, tmp_path / "imported", booleans=["kind"])
    history = History(read_facts(report.layout.store))
    assert {type(trial.values["kind"]) for trial in history.trials.values()} == {bool}
    assert all(len(trial.space) == len(trial.values) for trial in history.trials.values())
    with pytest.raises(FatalValueError, match="--boolean nothing"):
        await import_project(source, tmp_path / "third", booleans=["nothing"])


async def test_a_value_outside_of_its_range_is_kept(tmp_path: Path) -> None:
    source = copy_of("bayesian", tmp_path)
    path = next(source.glob("trial_*/trial.json"))
    config = read(path)["hyperparameters"]
    change(path, hyperparameters=config | {"values": config["values"] | {"n": 99}})
    report = await import_project(source, tmp_path / "imported")
    result = await tuner(Bayesian, report, max_trials=9).search()
    assert len(result.trials) == 9
    assert 99 in [trial.values["n"] for trial in result.trials]


# What is torn or missing


async def test_a_torn_trial_is_left_out_and_named(tmp_path: Path) -> None:
    source = copy_of("random", tmp_path)
    torn = source / "trial_01" / "trial.json"
    torn.write_text(torn.read_text()[:100])
    (source / "trial_03" / "trial.json").unlink()
    (source / "trial_99").symlink_to(source / "trial_02")
    report = await import_project(source, tmp_path / "imported")
    text = "\n".join(report_text(report))
    assert "trial_01 is left out" in text
    assert "trial 03 is left out" in text
    assert "trial_99 is left out" in text
    assert "a symbolic link" in text
    assert report.renamed["05"] == "0003"
    assert "Trial 05 of KerasTuner is in trial 0003 here" in text
    assert sum(report.statuses.values()) == 6


@pytest.mark.parametrize("content", ["", "{", "[1]"])
async def test_a_torn_oracle_costs_the_order_only(content: str, tmp_path: Path) -> None:
    source = copy_of("random", tmp_path)
    (source / "oracle.json").write_text(content)
    report = await import_project(source, tmp_path / "imported")
    history = History(read_facts(report.layout.store))
    assert len(history.trials) == 8
    assert len(history.space) == 10
    assert any("oracle.json cannot be read" in each for each in report.warnings)


async def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    source = copy_of("random", tmp_path)
    (source / "trial_01" / "trial.json").write_text("{}")
    with pytest.raises(
        FatalValueError, match=r"trial_01/trial\.json is not as KerasTuner writes it"
    ):
        await import_project(source, tmp_path / "imported")
    assert not (tmp_path / "imported").exists()


async def test_a_directory_without_a_project_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FatalValueError, match="no trial of KerasTuner"):
        await import_project(tmp_path / "empty", tmp_path / "imported")
    with pytest.raises(FatalValueError, match="is no directory"):
        await import_project(tmp_path / "absent", tmp_path / "imported")
    with pytest.raises(FatalValueError, match="import one of bayesian, grid"):
        await import_project(DATA, tmp_path / "imported")


async def test_nothing_is_written_over(tmp_path: Path) -> None:
    report, _ = await imported("random", tmp_path)
    before = digest(report.layout.root)
    with pytest.raises(FatalValueError, match="is a project of aiotune already"):
        await imported("grid", tmp_path)
    assert digest(report.layout.root) == before
    with pytest.raises(FatalValueError, match="choose another directory with --to"):
        await import_project(DATA / "random", DATA / "random")
    with pytest.raises(FatalValueError, match="choose another directory with --to"):
        await import_project(DATA / "random", DATA / "random" / "below")


# The report


async def test_the_report_says_how_to_go_on(tmp_path: Path) -> None:
    report, _ = await imported("hyperband", tmp_path)
    last = list(report_text(report))[-1]
    assert last.startswith("Go on with: aiotune.Hyperband(build_model, objective='val_accuracy', ")
    assert "max_epochs=4, factor=2" in last
    assert "project_name='imported'" in last
