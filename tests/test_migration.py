"""What a program that was written for KerasTuner meets here. The table is docs/migration.md."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError
from functools import cache
from pathlib import Path
from typing import Any

import anyio
import pytest

import aiotune
from aiotune import HyperModel, HyperParameters, Objective, Oracle, RandomSearch, Tuner, oracles
from aiotune.errors import FatalRuntimeError, FatalTypeError, FatalValueError
from aiotune.executors.context import RunContext
from aiotune.executors.launch import Server, acquire_server, release_server
from aiotune.hypermodel import as_hypermodel
from aiotune.metrics import MetricObservation, TrialMetrics
from aiotune.objective import create_objective
from aiotune.oracles.random_search import RandomSearchOracle
from aiotune.outcome import outcome_of
from aiotune.processes import OWN_MODULES
from aiotune.space import Boolean, Choice, Condition, Fixed, Float, HyperParameter, Int, deserialize
from aiotune.trial import Observation, RunState, TrialState
from tests.support import keras_search, ported, records
from tests.support.programs import run_program
from tests.support.tuned import make

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "migration.md"
DATA = ROOT / "tests" / "data" / "ported"


@pytest.fixture(scope="module", autouse=True)
def fork_server() -> Iterator[None]:
    """Keep one fork server alive, so that the searches need not launch one each."""
    server = acquire_server(OWN_MODULES)
    yield
    release_server(server)


# The page


def rows() -> list[list[str]]:
    """Return the cells of every row of the page's tables: name, verdict, what differs, tests."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [row for row in cells if len(row) == 4 and row[1] not in ("here", "---")]


@cache
def names_of_tests(module: str) -> set[str]:
    """Return the names of a module's tests."""
    tree = ast.parse((ROOT / "tests" / f"{module}.py").read_text(encoding="utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, functions)}


def test_the_page_says_of_each_name_what_became_of_it() -> None:
    assert len(rows()) > 140
    assert {row[1] for row in rows()} == {"same", "better", "left out"}


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:40])
def test_a_row_names_tests_that_exist_or_says_what_to_write_instead(row: list[str]) -> None:
    name, verdict, difference, shown = row
    named = re.findall(r"(test_\w+)::(test_\w+)", shown)
    if verdict == "left out":
        assert difference, f"{name}: why, and what to write instead?"
    else:
        assert named, f"{name}: no test shows it"
    for module, test in named:
        assert test in names_of_tests(module), f"{name}: there is no {module}::{test}"


# Names


KERASTUNER = {
    "aiotune": "HyperParameters HyperModel Objective Oracle synchronized Tuner RandomSearch "
    "BayesianOptimization Hyperband GridSearch SklearnTuner __version__",
    "aiotune.oracles": "RandomSearchOracle BayesianOptimizationOracle GridSearchOracle HyperbandOracle",
    "aiotune.tuners": "Tuner RandomSearch BayesianOptimization GridSearch Hyperband SklearnTuner",
    "aiotune.applications": "HyperResNet HyperXception HyperEfficientNet HyperImageAugment",
    "aiotune.errors": "FailedTrialError FatalError FatalValueError FatalTypeError FatalRuntimeError",
}


@pytest.mark.parametrize(
    ("module", "name"),
    [(module, name) for module, names in KERASTUNER.items() for name in names.split()],
)
def test_every_public_name_is_at_its_place(module: str, name: str) -> None:
    assert getattr(importlib.import_module(module), name) is not None


@pytest.mark.parametrize("path", ["oracles", "tuners", "applications", "errors"])
def test_the_modules_are_attributes_too(path: str) -> None:
    assert getattr(aiotune, path) is importlib.import_module(f"aiotune.{path}")


@pytest.mark.parametrize(
    "statement",
    [
        "import aiotune.engine",
        "import aiotune.engine.hyperparameters",
        "from aiotune.engine import trial",
        "from aiotune.engine.tuner import Tuner",
        "import aiotune.src",
        "from aiotune.src.engine import base_tuner",
    ],
)
def test_an_import_of_an_inner_module_says_what_to_write(statement: str) -> None:
    with pytest.raises(
        ImportError, match=r"(?s)aiotune\.tuners.*aiotune\.space.*docs/migration\.md"
    ):
        exec(statement)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("engine", "aiotune.space"),
        ("src", "aiotune.space"),
        ("BaseTuner", "aiotune.Tuner"),
        ("MultiExecutionTuner", "aiotune.Tuner"),
        ("FailedTrialError", "aiotune.errors.FailedTrialError"),
        ("TrialStatus", "aiotune.trial.TrialState"),
        ("distribute", "no workers"),
        ("protos", "get_config"),
    ],
)
def test_a_name_that_is_left_out_says_what_to_write(name: str, says: str) -> None:
    with pytest.raises(AttributeError, match=rf"(?s){says}.*docs/migration\.md"):
        getattr(aiotune, name)


def parameters(function: Callable[..., Any]) -> dict[str, object]:
    """Return the parameters with their defaults, `...` for none, and no `self`, *args or **kwargs."""
    listed = inspect.signature(function).parameters.values()
    usual = [each for each in listed if each.kind is each.POSITIONAL_OR_KEYWORD]
    return {
        each.name: ... if each.default is each.empty else each.default
        for each in usual
        if each.name != "self"
    }


ENTRIES = "hyperparameters=None, tune_new_entries=True, allow_new_entries=True"
ORACLE_ENTRIES = "hyperparameters=None, allow_new_entries=True, tune_new_entries=True"
FAILURES = "max_retries_per_trial=0, max_consecutive_failed_trials=3"
TUNER = "hypermodel=None, objective=None"
PARENT = "parent_name=None, parent_values=None"
NUMBER = f"step=None, sampling='linear', default=None, {PARENT}"
SIGNATURES = {
    "RandomSearch": f"{TUNER}, max_trials=10, seed=None, {ENTRIES}, {FAILURES}",
    "GridSearch": f"{TUNER}, max_trials=None, seed=None, {ENTRIES}, {FAILURES}",
    "BayesianOptimization": f"{TUNER}, max_trials=10, num_initial_points=None, alpha=1e-6, beta=None, "
    f"seed=None, {ENTRIES}, {FAILURES}",
    "Hyperband": f"{TUNER}, max_epochs=100, factor=3, hyperband_iterations=1, seed=None, {ENTRIES}, "
    f"{FAILURES}",
    "SklearnTuner": "oracle, hypermodel, scoring=None, metrics=None, cv=None",
    "SklearnTuner.search": "X, y=None, sample_weight=None, groups=None",  # y: for clustering
    "Tuner": "oracle, hypermodel=None, max_model_size=None, optimizer=None, loss=None, metrics=None, "
    "distribution_strategy=None, directory=None, project_name=None, logger=None, tuner_id=None, "
    "overwrite=False, executions_per_trial=1",
    "Tuner.save_model": "trial_id, model, step=0",
    "Tuner.load_model": "trial",
    "Tuner.get_best_models": "num_models=1",
    "Tuner.get_best_hyperparameters": "num_trials=1",
    "Tuner.search_space_summary": "extended=False",
    "Tuner.results_summary": "num_trials=10",
    "Tuner.get_trial_dir": "trial_id",
    "Tuner.on_epoch_begin": "trial, model, epoch, logs=None",
    "Tuner.on_epoch_end": "trial, model, epoch, logs=None",
    "Tuner.on_batch_begin": "trial, model, batch, logs=None",
    "Tuner.on_batch_end": "trial, model, batch, logs=None",
    "Tuner.on_trial_begin": "trial",
    "Tuner.on_trial_end": "trial",
    "Tuner.on_search_begin": "",
    "Tuner.on_search_end": "",
    "Tuner.pre_create_trial": "",
    "Tuner.run_trial": "trial",
    "Tuner.get_state": "",
    "Tuner.set_state": "state",
    "Tuner.save": "",
    "Tuner.reload": "",
    "Oracle": f"objective=None, max_trials=None, {ORACLE_ENTRIES}, seed=None, {FAILURES}",
    "Oracle.get_trial": "trial_id",
    "Oracle.get_best_trials": "num_trials=1",
    "Oracle.populate_space": "trial_id",
    "Oracle.get_space": "",
    "Oracle.remaining_trials": "",
    "oracles.RandomSearchOracle": f"objective=None, max_trials=10, seed=None, {ORACLE_ENTRIES}, {FAILURES}",
    "oracles.GridSearchOracle": f"objective=None, max_trials=None, seed=None, {ORACLE_ENTRIES}, {FAILURES}",
    "oracles.BayesianOptimizationOracle": "objective=None, max_trials=10, num_initial_points=None, "
    f"alpha=1e-6, beta=None, seed=None, {ORACLE_ENTRIES}, {FAILURES}",
    "oracles.HyperbandOracle": "objective=None, max_epochs=100, factor=3, hyperband_iterations=1, seed=None, "
    f"{ORACLE_ENTRIES}, {FAILURES}",
    "HyperModel": "name=None, tunable=True",
    "HyperModel.build": "hp",
    "HyperModel.fit": "hp, model",
    "HyperModel.declare_hyperparameters": "hp",
    "Objective": "name, direction",
    "HyperParameters.Int": f"name, min_value, max_value, {NUMBER}",
    "HyperParameters.Float": f"name, min_value, max_value, {NUMBER}",
    "HyperParameters.Choice": f"name, values, ordered=None, default=None, {PARENT}",
    "HyperParameters.Boolean": f"name, default=False, {PARENT}",
    "HyperParameters.Fixed": f"name, value, {PARENT}",
    "HyperParameters.name_scope": "name",
    "HyperParameters.conditional_scope": "parent_name, parent_values",
    "HyperParameters.get": "name",
    "HyperParameters.copy": "",
    "HyperParameters.merge": "hps, overwrite=True",
    "HyperParameters.ensure_active_values": "",
    "HyperParameters.get_config": "",
    "HyperParameters.from_config": "config",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_arguments_have_kerastuners_names_order_and_defaults(name: str) -> None:
    thing: Any = aiotune
    for part in name.split("."):
        thing = getattr(thing, part)
    expected = parameters(eval(f"lambda {SIGNATURES[name]}: None"))
    assert list(parameters(thing).items())[: len(expected)] == list(expected.items())


# Hyperparameters


def test_kinds_answer_under_kerastuners_names() -> None:
    assert list(Int("a", 1, 7, step=2).values) == [1, 3, 5, 7]
    assert list(Int("a", 1, 8, step=2, sampling="log").values) == [1, 2, 4, 8]
    assert len(Int("a", 0, 10**12).values) == 10**12 + 1
    assert list(Float("a", 0.0, 0.3, step=0.1).values) == [0.0, 0.1, 0.2, 0.3]
    assert Float("a", 0.0, 1.0).values == pytest.approx([0.05 + each / 10 for each in range(10)])
    assert list(Boolean("a").values) == [False, True]
    assert list(Fixed("a", "x").values) == ["x"]
    assert list(Choice("a", ["x", "y"]).values) == ["x", "y"]
    assert Int("a", 1, 3, conditions=(Condition("b", (2,)),)).conditions[0].values == (2,)


@pytest.mark.parametrize(
    ("hyperparameter", "value", "prob"),
    [
        (Float("a", 0.0, 2.0), 0.5, 0.25),
        (Float("a", 1.0, 100.0, sampling="log"), 10.0, 0.5),
        (Float("a", 1.0, 100.0, sampling="reverse_log"), 91.0, 0.5),
        (Float("a", 0.0, 1.0, step=0.25), 0.5, 0.5),
        (Int("a", 1, 4), 3, 0.625),
        (Choice("a", ["x", "y"]), "y", 0.75),
        (Boolean("a"), True, 0.75),
        (Fixed("a", 9), 9, 0.5),
    ],
)
def test_values_and_probabilities_are_mapped_as_in_kerastuner(
    hyperparameter: HyperParameter, value: object, prob: float
) -> None:
    assert hyperparameter.prob_to_value(prob) == pytest.approx(value)
    assert hyperparameter.value_to_prob(value) == pytest.approx(prob)
    assert hyperparameter.random_sample(3) == hyperparameter.random_sample(3)
    assert hyperparameter.contains(hyperparameter.random_sample())


def test_the_end_of_the_unit_interval_stays_in_the_range() -> None:
    assert Int("a", 1, 100, sampling="log").prob_to_value(1.0) == 100
    assert Int("a", 1, 100, sampling="reverse_log").prob_to_value(1.0) == 100


def test_a_choice_of_objects_is_sampled_as_objects() -> None:
    kind = Choice("a", [len, max])
    assert kind.random_sample(1) in (len, max)
    assert kind.value_to_prob(max) == 0.75


def test_hyperparameters_keep_their_open_attributes() -> None:
    hp = HyperParameters()
    hp.Choice("kind", ["a", "b"])
    for value in ("a", "b"):
        with hp.conditional_scope("kind", value):
            hp.Boolean(value)
    assert type(hp.values) is dict
    assert [each.name for each in hp.space] == ["kind", "a", "b"]
    assert [[each.values for each in scope] for scope in hp.active_scopes] == [[("a",)]]
    assert [[each.values for each in scope] for scope in hp.inactive_scopes] == [[("b",)]]
    assert "a" in hp
    assert "b" not in hp
    assert hp.is_active("a")
    assert hp["kind"] == hp.get("kind") == "a"


def test_two_names_alike_in_two_scopes_keep_their_values() -> None:
    hp = HyperParameters()
    ported.two_scopes(hp)
    for kind, value in (("sgd", 2), ("adam", 20), ("sgd", 1)):
        point = HyperParameters(hp.space, {"kind": kind, "rate": value})
        point.ensure_active_values()
        assert point.values == {"kind": kind, "rate": value}
        assert ported.two_scopes(point)[kind] == value


def test_merging_what_is_known_does_not_double_it() -> None:
    hp, other = HyperParameters(), HyperParameters()
    hp.Int("a", 1, 5)
    other.Int("a", 1, 9)
    other.values["a"] = 7
    hp.merge(other)
    hp.merge([Int("a", 1, 9)], overwrite=False)
    assert len(hp.space) == 1
    assert hp.get("a") == 7


def test_reading_a_config_leaves_it_as_it_was() -> None:
    config = Int("a", 1, 5, conditions=(Condition("b", (2,)),)).get_config()
    kept = repr(config)
    Int.from_config(config)
    assert repr(config) == kept
    del config["conditions"]
    assert Int.from_config(config).conditions == ()


def test_what_differs_in_type_is_no_duplicate() -> None:
    from aiotune.space import point_key

    assert point_key({"a": "1b=2"}) != point_key({"a": 1, "b": 2})
    assert point_key({"a": 1}) != point_key({"a": "1"})


# Trials


def searched_trial() -> aiotune.Trial:
    runs = [
        records.run(0, repeat=0, scores=(9.0,), state=RunState.FAILED),
        records.run(1, repeat=0, scores=(3.0, 1.0, 2.0), score=1.0, best_step=1),
        records.run(2, repeat=1, scores=(5.0, 3.0), score=3.0, best_step=1),
    ]
    from dataclasses import replace

    return replace(
        records.trial(*runs, state=TrialState.COMPLETED, score=2.0, values={"units": 3}),
        final_metrics={"score": 2.0, "val_accuracy": 0.5},
        best_step=1,
        objective=Objective("score", "min"),
    )


def test_the_metrics_of_a_trial_are_a_mapping_that_answers_kerastuners_questions() -> None:
    metrics = searched_trial().metrics
    assert metrics == {"score": 2.0, "val_accuracy": 0.5}
    assert str(metrics) == "{'score': 2.0, 'val_accuracy': 0.5}"
    assert metrics.exists("score")
    assert not metrics.exists("loss")
    assert metrics.get_history("score") == [
        MetricObservation([3.0, 5.0], 0),
        MetricObservation([1.0, 3.0], 1),
        MetricObservation([2.0], 2),
    ]
    assert (metrics.get_best_value("score"), metrics.get_best_step("score")) == (2.0, 1)
    assert metrics.get_last_value("score") == 2.0
    assert metrics.get_statistics("score") == pytest.approx(
        {"min": 2.0, "max": 4.0, "mean": 8 / 3, "median": 2.0, "var": 8 / 9, "std": (8 / 9) ** 0.5}
    )
    assert metrics.get_history("val_accuracy") == [MetricObservation([0.5], 1)]
    assert metrics.get_direction("val_accuracy") == "max"
    assert metrics.get_direction("score") == "min"


def test_a_metric_without_a_number_has_no_best() -> None:
    metrics = TrialMetrics({"score": 1.0}, [[Observation(0, {"loss": float("nan")})]])
    assert metrics.get_best_value("loss") is None
    assert metrics.get_best_step("loss") is None
    assert metrics.get_statistics("loss") == {}


def test_an_objective_of_ones_own_keeps_its_direction() -> None:
    metrics = TrialMetrics(
        {},
        [[Observation(0, {"gain": 1.0}), Observation(1, {"gain": 3.0})]],
        1,
        Objective("gain", "max"),
    )
    assert metrics.get_best_value("gain") == 3.0


def test_metrics_cannot_be_written() -> None:
    with pytest.raises(AttributeError, match=r"trial\.report"):
        searched_trial().metrics.update("score", 1.0)


def test_a_trial_prints_itself(capsys: pytest.CaptureFixture[str]) -> None:
    trial = searched_trial()
    trial.summary()
    trial.display_hyperparameters()
    assert capsys.readouterr().out.splitlines() == [
        "Trial 0000 summary",
        "Hyperparameters:",
        "units: 3",
        "Score: 2.0",
        "Standard error: 1 (2 runs)",
        "units: 3",
    ]


def test_the_state_of_a_trial_is_laid_out_as_kerastuners() -> None:
    state = searched_trial().get_state()
    assert list(state) == [
        "trial_id",
        "hyperparameters",
        "metrics",
        "score",
        "best_step",
        "status",
        "message",
    ]
    assert state["metrics"]["metrics"]["val_accuracy"] == {
        "direction": "max",
        "observations": [{"value": [0.5], "step": 1}],
    }
    assert state["hyperparameters"]["values"] == {"units": 3}
    assert (state["status"], state["score"], state["best_step"]) == ("COMPLETED", 2.0, 1)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("status", "FailedTrialError"),
        ("score", r"trial\.report"),
        ("hyperparameters", "in run_trial"),
        ("metrics", r"trial\.report"),
    ],
)
def test_a_trial_that_is_written_to_says_what_to_do(name: str, says: str) -> None:
    with pytest.raises(FrozenInstanceError, match=says):
        setattr(searched_trial(), name, None)
    with pytest.raises(FrozenInstanceError, match="record of what happened"):
        delattr(searched_trial(), name)


def test_the_statuses_are_kerastuners_words() -> None:
    assert TrialState.RUNNING == "RUNNING"
    assert TrialState.COMPLETED == "COMPLETED"
    assert TrialState.FAILED == "FAILED"


# Oracles


def test_synchronized_changes_nothing() -> None:
    def method(self: object) -> int:
        return 3

    assert aiotune.synchronized(method) is method


@pytest.mark.parametrize(
    "name",
    ["create_trial", "end_trial", "update_trial", "score_trial", "_score_trial", "_populate_space"],
)
def test_an_oracle_method_that_nobody_would_call_is_refused(name: str) -> None:
    with pytest.raises(FatalTypeError, match=rf"Mine\.{name} would never be called"):
        type("Mine", (Oracle,), {name: lambda self: None})


@pytest.mark.parametrize("name", ["get_state", "set_state"])
def test_an_oracle_with_a_state_of_its_own_is_warned(name: str) -> None:
    with pytest.warns(UserWarning, match=rf"{name} is not called.*self\.trials"):
        type("Mine", (Oracle,), {name: lambda self: {}})


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("create_trial", r"await tuner\.search"),
        ("end_trial", r"tell\(trial\)"),
        ("update_trial", r"trial\.report"),
        ("score_trial", "objective's name"),
        ("update_space", "hyperparameters="),
        ("ongoing_trials", "status is RUNNING"),
        ("multi_worker", "no workers"),
        ("verbose", r"search\(\)"),
        ("save", "stored"),
        ("reload", r"tuner\.reload"),
        ("colour", "has no attribute 'colour'"),
    ],
)
def test_what_an_oracle_lacks_says_what_to_do(name: str, says: str) -> None:
    with pytest.raises(AttributeError, match=says):
        getattr(RandomSearchOracle(), name)


async def test_an_oracle_knows_the_order_of_its_trials(tmp_path: Path) -> None:
    tuner = make(ported.Returning, tmp_path)
    await tuner.search("float")
    oracle = tuner.oracle
    assert oracle.start_order == list(oracle.trials) == ["0000", "0001", "0002", "0003"]
    assert sorted(oracle.end_order) == oracle.start_order
    assert oracle.get_state() == {}
    oracle.set_state({})
    assert oracle.remaining_trials() == tuner.remaining_trials == 0
    assert oracle.trials["0000"].metrics.get_direction("loss") == "min"


# Tuners


def test_save_and_state_do_nothing(tmp_path: Path) -> None:
    tuner = make(ported.Returning, tmp_path)
    tuner.save()
    tuner.set_state(tuner.get_state())
    assert tuner.get_state() == {}
    assert list(tmp_path.iterdir()) == []


async def test_reload_reads_what_another_search_has_done(tmp_path: Path) -> None:
    one, other = make(ported.Returning, tmp_path), make(ported.Returning, tmp_path)
    assert one.trials == ()
    await other.search("float")
    assert one.trials == ()
    one.reload()
    assert one.trials == other.trials
    await make(ported.Returning, tmp_path, max_trials=5).search("float")
    other.reload()
    assert len(other.trials) == 5


async def test_reload_during_a_search_forgets_nothing(tmp_path: Path) -> None:
    class Reloading(ported.Returning):
        def on_trial_end(self, trial: aiotune.Trial) -> None:
            self.reload()
            seen.append(len(self.trials))

    seen: list[int] = []
    tuner = make(Reloading, tmp_path, max_concurrent_trials=1, executor="inline")
    tuner = make(Reloading, tmp_path, max_concurrent_trials=None, executor="inline")
    await tuner.search("float")
    assert seen == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("what", "score"), [("float", 0.0), ("dict", 0.0), ("list", 0.0), ("floats", 0.0)]
)
async def test_run_trial_returns_what_it_may_in_kerastuner(
    tmp_path: Path, what: str, score: float
) -> None:
    tuner = make(ported.Returning, tmp_path, objective=Objective("score", "min"), max_trials=1)
    (trial,) = (await tuner.search(what)).trials
    assert trial.score == pytest.approx(trial.values["x"])
    if what in ("dict", "list"):
        assert trial.metrics["other"] == 2.0


async def test_run_trial_may_write_to_its_hyperparameters(tmp_path: Path) -> None:
    (trial,) = (await make(ported.Writing, tmp_path, max_trials=1).search()).trials
    assert trial.values == {"batch": 32, "units": 4}
    assert trial.score == 4.0


async def test_metrics_told_to_the_oracle_count_and_a_note_says_what_to_write(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tuner = make(ported.Updating, tmp_path, objective=Objective("score", "min"))
    result = await tuner.search()
    assert [trial.score for trial in result.trials] == [each.values["x"] for each in result.trials]
    assert {trial.best_step for trial in result.trials} == {1}
    notes = [line for line in caplog.messages if "update_trial" in line]
    assert len(notes) == 1
    assert "trial.report" in notes[0]


async def test_a_retry_after_a_nan_score_succeeds(tmp_path: Path) -> None:
    tuner = make(
        ported.NanAtFirst, tmp_path, objective=Objective("score", "min"), max_retries_per_trial=1
    )
    for trial in (await tuner.search()).trials:
        assert (trial.status, trial.score, len(trial.runs)) == ("COMPLETED", trial.values["x"], 2)
        assert trial.metrics.get_best_value("score") == trial.score


@pytest.mark.parametrize(
    "kind", ["RandomSearch", "GridSearch", "BayesianOptimization", "Hyperband"]
)
async def test_two_names_alike_in_two_scopes_are_searched(tmp_path: Path, kind: str) -> None:
    class Search(getattr(aiotune, kind)):  # type: ignore[misc]
        run_trial = ported.Twins.run_trial

    limit = {"max_epochs": 3} if kind == "Hyperband" else {"max_trials": 20}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tuner = Search(objective="loss", seed=1, directory=tmp_path, gpus=0, **limit)
        result = await tuner.search(verbose=0)
    points = [(each.values["kind"], each.values["rate"]) for each in result.trials if each.score]
    scores = [each.score for each in result.trials if each.score]
    assert scores == [float(rate) for _, rate in points]
    assert len(set(points)) == len(points)
    known = {*(("sgd", each) for each in (1, 2, 3)), *(("adam", each) for each in (10, 20, 30))}
    assert set(points) == known if kind != "Hyperband" else set(points) <= known


async def test_a_hypermodel_that_run_trial_uses_tells_its_names_before_the_first_trial(
    tmp_path: Path,
) -> None:
    tuner = make(ported.BrokenEarly, tmp_path, hypermodel=ported.Looped(), preload=(), seed=3)
    space = await tuner.discover()
    assert sorted(each.name for each in space) == ["kind", "rate", "seed", "times"]
    assert tuner.trials == ()


def test_arguments_without_effect_are_refused() -> None:
    for name in ("logger", "tuner_id"):
        given: dict[str, Any] = {name: "mine"}
        with pytest.raises(FatalValueError, match=f"{name} has no effect: drop it"):
            RandomSearch(lambda hp: None, "loss", **given)


# Keras


def keras_tuner(directory: Path, kind: type[RandomSearch] = RandomSearch, **changes: Any) -> Any:
    options: dict[str, Any] = {
        "hypermodel": ported.dense,
        "objective": "val_accuracy",
        "max_trials": 1,
        "seed": 1,
        "directory": directory,
        "gpus": 0,
    }
    return kind(**options | changes)


def fit_arguments(**changes: Any) -> dict[str, Any]:
    x, y, xv, yv = keras_search.data()
    return {"x": x, "y": y, "validation_data": (xv, yv), "epochs": 2, "verbose": 0} | changes


async def test_super_run_trial_takes_further_arguments(
    keras_server: Server, tmp_path: Path
) -> None:
    tuner = keras_tuner(tmp_path, ported.Batches)
    arguments = fit_arguments(validation_data=None, validation_split=0.25)
    (trial,) = (await tuner.search(**arguments)).trials
    assert trial.status == "COMPLETED"
    assert "val_accuracy" in trial.metrics
    assert set(trial.values) == {"units", "batch_size"}


async def test_a_loop_of_ones_own_builds_saves_and_writes_into_its_directory(
    keras_server: Server, tmp_path: Path
) -> None:
    tuner = keras_tuner(tmp_path, ported.OwnLoop, objective="loss")
    x, y, *_ = keras_search.data()
    (trial,) = (await tuner.search(x, y, epochs=2)).trials
    assert set(trial.values) == {"units", "batch"}
    own = anyio.Path(tuner.get_trial_dir(trial.trial_id), "own.txt")
    assert await own.read_text() == trial.trial_id
    again = await tuner.evaluate(trial, x, y, verbose=0)
    assert again["loss"] == pytest.approx(trial.score, abs=1e-6)


async def test_a_program_may_read_its_values_from_the_dict(tmp_path: Path) -> None:
    hp = HyperParameters()
    hp.Int("x", 0, 2)
    hp.Choice("y", [5, 9])
    tuner = make(ported.Reading, tmp_path, max_trials=5, hyperparameters=hp)
    result = await tuner.search(verbose=0)
    points = [dict(trial.values) for trial in result.trials]
    assert len({(each["x"], each["y"]) for each in points}) == 5
    assert [trial.score for trial in result.trials] == [each["x"] + each["y"] for each in points]


async def test_what_failed_trials_in_kerastuner_fails_none_here(
    keras_server: Server, tmp_path: Path
) -> None:
    arguments = fit_arguments(validation_freq=2, callbacks=None, epochs=4)
    (trial,) = (await keras_tuner(tmp_path).search(**arguments)).trials
    assert trial.status == "COMPLETED"
    assert trial.best_step in (1, 3)
    assert [each.step for each in trial.metrics.get_history("val_accuracy")] == [1, 3]


async def test_a_distribution_strategy_is_made_in_the_child(
    keras_server: Server, tmp_path: Path
) -> None:
    tuner = keras_tuner(
        tmp_path, hypermodel=ported.Distributed(), distribution_strategy=ported.make_strategy
    )
    *_, xv, yv = keras_search.data()
    (trial,) = (await tuner.search(**fit_arguments())).trials
    assert trial.status == "COMPLETED", trial.message
    assert (trial.metrics["built"], trial.metrics["trained"]) == (1.0, 1.0)
    again = await tuner.evaluate(trial, xv, yv, verbose=0)
    assert again["accuracy"] == pytest.approx(trial.score, abs=1e-6)


def test_a_strategy_that_cannot_travel_is_refused_with_the_remedy() -> None:
    class MirroredStrategy:
        pass

    with pytest.raises(FatalTypeError, match=r"lambda: tf\.distribute\.MirroredStrategy\(\)"):
        RandomSearch(lambda hp: None, "loss", distribution_strategy=MirroredStrategy())


@pytest.mark.slow
def test_a_program_ports_by_changing_the_import_and_adding_await(tmp_path: Path) -> None:
    """The program ran under KerasTuner 1.4.8; what it printed there is kept beside it."""
    program = (DATA / "program.py.txt").read_text(encoding="utf-8")
    for old, new in (
        ("import keras_tuner as kt", "import aiotune as kt"),
        ("tuner.search(", "await tuner.search("),
        ("def main", "async def main"),
        ("    main()\n", "    asyncio.run(main())\n"),
        ("import sys\n", "import asyncio\nimport sys\n"),
    ):
        assert old in program
        program = program.replace(old, new)
    printed = run_program(_as_script(program, tmp_path / "program.py"), tmp_path)
    expected = (DATA / "expected.txt").read_text(encoding="utf-8")
    assert printed.splitlines() == expected.replace("DIRECTORY", str(tmp_path)).splitlines()


def _as_script(program: str, path: Path) -> str:
    path.write_text(program, encoding="utf-8")
    return f"import runpy; runpy.run_path({str(path)!r}, run_name='__main__')"


# Every ValueError and TypeError of KerasTuner


def declared(**arguments: Any) -> HyperParameters:
    hp = HyperParameters()
    for kind, given in arguments.items():
        getattr(hp, kind)("x", **given)
    return hp


class Silent(Tuner):
    def run_trial(self, trial: RunContext) -> float:
        return 0.0


VALUE_ERRORS: dict[str, tuple[Callable[[], object], str]] = {
    "unknown parent": (
        lambda: HyperParameters().conditional_scope("kind", 1).__enter__(),
        "Declare a parent before its children",
    ),
    "inactive name": (
        lambda: HyperParameters([Int("x", 1, 2, conditions=(Condition("k", (1,)),))]).get("x"),
        "x is currently inactive",
    ),
    "own parent": (
        lambda: Int("x", 1, 2, conditions=(Condition("x", (1,)),)),
        "cannot be its own parent",
    ),
    "unknown kind": (lambda: deserialize({"class_name": "Text", "config": {}}), "use Int, Float"),
    "Int of fractions": (
        lambda: declared(Int={"min_value": 0.5, "max_value": 2}),
        "for fractions use Float",
    ),
    "min above max": (
        lambda: declared(Int={"min_value": 2, "max_value": 1}),
        "min_value=2 is above max_value=1",
    ),
    "unknown sampling": (
        lambda: declared(Float={"min_value": 1, "max_value": 2, "sampling": "cubic"}),
        "use 'linear', 'log', 'reverse_log'",
    ),
    "log of nothing": (
        lambda: declared(Float={"min_value": 0, "max_value": 2, "sampling": "log"}),
        "needs min_value above 0",
    ),
    "log in steps of 1": (
        lambda: declared(Int={"min_value": 1, "max_value": 2, "step": 1, "sampling": "log"}),
        "must be above 1 with sampling='log'",
    ),
    "step 0": (
        lambda: declared(Int={"min_value": 1, "max_value": 2, "step": 0}),
        "step=0 must be above 0",
    ),
    "default outside": (
        lambda: declared(Int={"min_value": 1, "max_value": 2, "default": 3}),
        "outside of 1 to 2",
    ),
    "empty Choice": (lambda: declared(Choice={"values": []}), "at least one value"),
    "default of a Choice": (
        lambda: declared(Choice={"values": ["a"], "default": "b"}),
        "'b' is not in Choice",
    ),
    "ordered texts": (
        lambda: declared(Choice={"values": ["a"], "ordered": True}),
        "ordered=True needs numbers",
    ),
    "default of a Boolean": (
        lambda: declared(Boolean={"default": "yes"}),
        "'yes' is not in Boolean",
    ),
    "direction unknown": (lambda: create_objective("quality"), 'direction="max"'),
    "direction wrong": (lambda: Objective("quality", "up"), '"min" or "max"'),  # type: ignore[arg-type]
    "restricted to nothing": (
        lambda: Oracle(tune_new_entries=False),
        "pass them with hyperparameters=",
    ),
    "allowed nothing": (lambda: Oracle(allow_new_entries=False), "pass them with hyperparameters="),
    "no hypermodel": (lambda: RandomSearch(objective="loss"), "or override run_trial"),
    "no objective in a dict": (
        lambda: outcome_of({"acc": 1.0}, Objective("val_acc", "max")),
        "'val_acc' is not among the metrics: acc",
    ),
    "empty list": (lambda: outcome_of([], Objective("loss", "min")), "one result per execution"),
    "unknown metric": (
        lambda: TrialMetrics({"loss": 1.0}).get_best_value("acc"),
        "The trial has loss",
    ),
    "unknown status": (lambda: TrialState("DONE"), "is not a valid TrialState"),
    "factor below 2": (lambda: oracles.HyperbandOracle("loss", factor=1), "factor=1"),
}
TYPE_ERRORS: dict[str, tuple[Callable[[], object], str]] = {
    "condition on an object": (lambda: Condition("k", (len,)), "give its label"),  # type: ignore[arg-type]
    "text as values": (lambda: declared(Choice={"values": "abc"}), "must be a list"),
    "objective of another kind": (lambda: create_objective(3), "give a metric's name"),
    "oracle of another kind": (lambda: Silent("random"), "must be an aiotune Oracle"),  # type: ignore[arg-type]
    "unknown argument": (
        lambda: Silent(RandomSearchOracle("loss"), directori="x"),
        "did you mean directory",
    ),
    "hypermodel of another kind": (lambda: as_hypermodel(3), "function of the hyperparameters"),
    "nothing returned": (
        lambda: outcome_of(None, Objective("loss", "min")),
        "Did you forget to return the metrics",
    ),
    "a history without objective": (
        lambda: outcome_of(type("History", (), {"history": {}})(), create_objective(None)),
        "no objective is given",
    ),
    "another result": (
        lambda: outcome_of(object(), Objective("loss", "min")),
        "Return a number, a dict",
    ),
}


@pytest.mark.parametrize("name", VALUE_ERRORS)
def test_a_value_error_of_kerastuner_says_what_to_do(name: str) -> None:
    act, says = VALUE_ERRORS[name]
    with pytest.raises(ValueError, match=re.escape(says)):
        act()


@pytest.mark.parametrize("name", TYPE_ERRORS)
def test_a_type_error_of_kerastuner_says_what_to_do(name: str) -> None:
    act, says = TYPE_ERRORS[name]
    with pytest.raises(TypeError, match=re.escape(says)):
        act()


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda: HyperParameters().get("x"), "x does not exist"),
        (lambda: RandomSearchOracle("loss").get_trial("0007"), "there is no trial '0007'"),
    ],
)
def test_a_key_error_of_kerastuner_names_what_there_is(
    act: Callable[[], object], says: str
) -> None:
    with pytest.raises(KeyError, match=says):
        act()


def test_what_must_be_overridden_says_so() -> None:
    with pytest.raises(NotImplementedError, match="must define build"):
        HyperModel().build(HyperParameters())


# What KerasTuner refuses, or takes wrongly, and this does not


def test_values_that_kerastuner_refuses_are_taken() -> None:
    hp = HyperParameters()
    assert hp.Choice("mixed", [1, "a", None, (2, 3)]) is None
    assert hp.Choice("truth", [True, False]) is True
    assert hp.Fixed("shape", (3, 3)) == (3, 3)


def test_seed_0_is_a_seed_of_its_own() -> None:
    assert RandomSearchOracle("loss", seed=0).seed == 0


def test_the_given_hyperparameters_are_not_changed() -> None:
    hp = HyperParameters()
    hp.Int("a", 1, 5)
    tuner = Silent(RandomSearchOracle("loss", hyperparameters=hp))
    tuner.oracle.hyperparameters.Int("b", 1, 5)
    assert [each.name for each in hp.space] == ["a"]


async def test_an_error_of_a_name_that_is_not_allowed_is_a_runtime_error(tmp_path: Path) -> None:
    hp = HyperParameters()
    hp.Int("a", 1, 5)
    tuner = make(ported.Returning, tmp_path, hyperparameters=hp, allow_new_entries=False)
    with pytest.raises(FatalRuntimeError, match="allow_new_entries=True"):
        await tuner.search("float")
