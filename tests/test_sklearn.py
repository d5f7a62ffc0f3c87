"""SklearnTuner: what a trial is measured by, what it takes, what comes back, and what is refused."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    StratifiedKFold,
    TimeSeriesSplit,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.tree import DecisionTreeClassifier

from aiotune import Lazy, MedianPruner, Objective, SklearnTuner, WilcoxonPruner
from aiotune.errors import FatalError, FatalRuntimeError, FatalTypeError, FatalValueError
from aiotune.executors.launch import acquire_server, release_server
from aiotune.folds import Sample, ShuffledFolds
from aiotune.oracles import RandomSearchOracle
from aiotune.processes import modules_to_preload
from aiotune.settings import Settings
from aiotune.trial import FailureKind, Trial
from tests.support import estimators
from tests.support.estimators import Majority, build_majority, build_pipeline, build_tree

X, Y = load_iris(return_X_y=True)
SCORE = Objective("score", "max")


@pytest.fixture(scope="module", autouse=True)
def sklearn_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep one fork server with scikit-learn, so that the searches need not launch one each."""
    tuner = SklearnTuner(RandomSearchOracle(), build_tree)
    log = tmp_path_factory.mktemp("server") / "server.log"
    server = acquire_server(modules_to_preload(tuner, ["sklearn"], Settings()), log=log)
    yield
    release_server(server)


def tuner_in(directory: Path, build: Any = build_tree, **changes: Any) -> SklearnTuner:
    """Return a tuner of one trial and two folds."""
    asked = {"objective": SCORE, "max_trials": 1, "seed": 1, "max_retries_per_trial": 0}
    oracle = {name: changes.pop(name, given) for name, given in asked.items()}
    options = {"cv": 2, "directory": directory, "project_name": "project", "gpus": 0}
    return SklearnTuner(RandomSearchOracle(**oracle), build, **options | changes)


async def only_trial(tuner: SklearnTuner, *args: Any, **kwargs: Any) -> Trial:
    (trial,) = (await tuner.search(*args, verbose=0, **kwargs)).trials
    return trial


# Scores


async def test_the_default_is_kerastuners_cross_validation(tmp_path: Path) -> None:
    oracle = RandomSearchOracle(max_trials=3, seed=0)
    tuner = SklearnTuner(oracle, build_tree, directory=tmp_path, gpus=0, max_concurrent_trials=2)
    assert tuner.objective == SCORE
    result = await tuner.search(X, Y, verbose=0)
    for trial in result.trials:
        theirs = cross_val_score(
            build_tree(trial.hyperparameters), X, Y, cv=KFold(5, shuffle=True, random_state=1)
        )
        assert trial.scores == pytest.approx(tuple(theirs))
        assert trial.score == pytest.approx(theirs.mean())
        assert sorted(run.repeat for run in trial.runs) == [0, 1, 2, 3, 4]
        assert trial.standard_error == pytest.approx(statistics.stdev(theirs) / 5**0.5)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"scoring": "accuracy"}, ["score", "accuracy"]),
        (
            {"scoring": ["accuracy", "f1_macro"], "objective": Objective("accuracy", "max")},
            ["accuracy", "f1_macro"],
        ),
        (
            {
                "scoring": {"acc": "accuracy", "mine": estimators.by_kerastuner},
                "objective": Objective("mine", "max"),
            },
            ["acc", "mine"],
        ),
        ({"scoring": make_scorer(accuracy_score)}, ["score"]),
        ({"scoring": estimators.by_kerastuner}, ["score"]),
        ({"metrics": estimators.f1}, ["score", "f1"]),
        (
            {
                "metrics": [estimators.error_rate, partial(estimators.f1, sample_weight=None)],
                "objective": Objective("error_rate", "min"),
            },
            ["score", "error_rate", "f1"],
        ),
    ],
    ids=["name", "names", "dict", "scorer", "kerastuner", "metric", "metrics"],
)
async def test_what_measures(tmp_path: Path, options: dict[str, Any], names: list[str]) -> None:
    trial = await only_trial(tuner_in(tmp_path, **options), X, Y)
    assert list(trial.metrics) == names
    assert trial.score == trial.metrics[options.get("objective", SCORE).name]
    splits = [ShuffledFolds(2).split(Sample(150, X, Y), fold, seed=1) for fold in (0, 1)]
    for name in names:
        values = [measured(name, trial, *split) for split in splits]
        assert trial.metrics[name] == pytest.approx(statistics.fmean(values))


def measured(name: str, trial: Trial, train: Any, test: Any) -> float:
    """Return what the metric of that name is on these rows."""
    model = build_tree(trial.hyperparameters).fit(X[train], Y[train])
    if name in ("f1", "f1_macro"):
        return estimators.f1(Y[test], model.predict(X[test]))
    accuracy = float(model.score(X[test], Y[test]))
    return 1 - accuracy if name == "error_rate" else accuracy


async def test_a_function_may_return_several_and_no_run_imports_keras(tmp_path: Path) -> None:
    tuner = tuner_in(tmp_path, scoring=estimators.seen, cv=KFold(3))
    trial = await only_trial(tuner, X, Y)
    assert dict(trial.metrics) == {"score": trial.score, "keras": 0.0, "rows": 50.0}


async def test_the_space_and_fit_may_be_searched(tmp_path: Path) -> None:
    found = await tuner_in(tmp_path, build_pipeline, max_trials=4).search(X, Y, verbose=0)
    assert {tuple(trial.values) for trial in found.trials} == {("kind", "depth"), ("kind", "C")}
    tuner = tuner_in(tmp_path, estimators.Cut(), project_name="cut")
    assert {*(await only_trial(tuner, X, Y)).values} == {"depth", "rows"}
    assert {each.name for each in await tuner_in(tmp_path, build_pipeline).discover(X, Y)} == {
        "kind",
        "depth",
        "C",
    }


async def test_unsupervised(tmp_path: Path) -> None:
    tuner = tuner_in(tmp_path, lambda hp: KMeans(hp.Int("clusters", 2, 5), n_init=1))
    trial = await only_trial(tuner, X)
    assert trial.score is not None
    assert trial.score < 0  # less the distances from the centres


# Data


def in_a_table() -> tuple[Any, Any]:
    index = [f"row {number}" for number in range(len(X))]
    return pd.DataFrame(X, index=index), pd.Series(Y, index=index)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (X.tolist(), Y.tolist()),
        in_a_table(),
        (scipy.sparse.csr_matrix(X), Y),
        (scipy.sparse.coo_array(X), pd.Series(Y)),
        (Lazy(lambda: X), Lazy(lambda: Y)),
    ],
    ids=["lists", "table", "csr", "coo", "lazy"],
)
async def test_data_of_every_kind(tmp_path: Path, x: Any, y: Any) -> None:
    plain = await only_trial(tuner_in(tmp_path, project_name="plain"), X, Y)
    trial = await only_trial(tuner_in(tmp_path), x, y)
    assert trial.scores == plain.scores


async def test_splitters_and_groups(tmp_path: Path) -> None:
    groups = np.arange(len(X)) % 3
    expected = cross_val_score(
        DecisionTreeClassifier(max_depth=3, random_state=0), X, Y, cv=GroupKFold(3), groups=groups
    )
    for name, cv in {"groups": GroupKFold(3), "splits": GroupKFold(3).split(X, Y, groups)}.items():
        tuner = tuner_in(
            tmp_path,
            lambda hp: DecisionTreeClassifier(max_depth=hp.Fixed("depth", 3), random_state=0),
            cv=cv,
            project_name=name,
        )
        given = {"groups": groups} if name == "groups" else {}
        assert (await only_trial(tuner, X, Y, **given)).scores == pytest.approx(tuple(expected))
    in_time = tuner_in(tmp_path, cv=TimeSeriesSplit(4), scoring=estimators.seen)
    assert (await only_trial(in_time, X, Y)).metrics["rows"] == 30


@pytest.mark.parametrize("build", [build_majority, "pipeline"])
async def test_weights_count_in_fit_and_score(tmp_path: Path, build: Any) -> None:
    """With its weight the rarest class is the majority, and nearly all of the score."""
    if build == "pipeline":
        build = lambda hp: make_pipeline(FunctionTransformer(), build_majority(hp))  # noqa: E731
    y = np.repeat([0, 1], [20, 4])
    weight = np.where(y == 1, 100.0, 1.0)
    tuner = tuner_in(tmp_path, build, metrics=estimators.f1)
    trial = await only_trial(tuner, X[:24], y, sample_weight=weight)
    assert trial.scores == pytest.approx((200 / 210,) * 2)
    plain = await only_trial(tuner_in(tmp_path, build, project_name="plain"), X[:24], y)
    assert plain.scores == pytest.approx((20 / 24,) * 2)


async def test_weights_that_an_estimator_does_not_take_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tuner = tuner_in(tmp_path, estimators.build_neighbours, metrics=estimators.error_rate)
    with caplog.at_level("WARNING", "aiotune"):
        trial = await only_trial(tuner, X, Y, sample_weight=list(Y + 1))
    assert trial.score is not None
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "KNeighborsClassifier takes no sample_weight: it is fitted without",
        "the metric 'error_rate' takes no sample_weight: the rows held out count alike",
    ]


# Failures


async def test_a_fold_that_fails_fails_the_trial_with_its_error(tmp_path: Path) -> None:
    """The largest row is in one of the two folds: that one cannot be fitted."""
    rows = np.arange(20.0)[:, np.newaxis]
    tuner = tuner_in(tmp_path, lambda hp: Majority(hp.Fixed("broken_above", 19)), cv=KFold(2))
    trial = await only_trial(tuner, rows, np.arange(20) % 2)
    assert (trial.status, trial.failure, trial.score) == ("FAILED", FailureKind.USER_ERROR, None)
    assert "the largest row is held out" in (trial.message or "")
    assert tuner.get_best_trials() == []


async def test_a_score_that_is_not_a_number_is_tried_again(tmp_path: Path) -> None:
    tuner = tuner_in(
        tmp_path,
        scoring=lambda model, X, y: float("nan"),
        max_retries_per_trial=1,
        max_concurrent_trials=1,
    )
    trial = await only_trial(tuner, X, Y)
    assert (trial.failure, len(trial.runs)) == (FailureKind.NAN, 2)


# Estimators


async def test_the_best_is_fitted_on_all_data_and_no_file_of_it_stays(tmp_path: Path) -> None:
    tuner = tuner_in(tmp_path, max_trials=2)
    await tuner.search(X, Y, verbose=0)
    best, other = tuner.get_best_hyperparameters(2)
    model = await tuner.retrain(best, X[::2], Y[::2])
    assert (model.predict(X) == build_tree(best).fit(X[::2], Y[::2]).predict(X)).all()
    models = tuner.get_best_models(2)
    assert [each.max_depth for each in models] == [best["depth"], other["depth"]]
    assert (models[0].predict(X) == build_tree(best).fit(X, Y).predict(X)).all()
    assert tuner.load_model(tuner.get_best_trials()[0]).get_params() == models[0].get_params()
    kept = {path.suffix for path in (tmp_path / "project").rglob("*") if path.is_file()}
    assert kept == {".db", ".lock", ".log"}
    assert not list((tmp_path / "project").glob("retrained_*"))


async def test_what_comes_back_is_of_the_callers_own_classes(tmp_path: Path) -> None:
    tuner = tuner_in(
        tmp_path,
        lambda hp: make_pipeline(
            FunctionTransformer(lambda rows: rows * 2), Majority(note=lambda: "kept")
        ),
    )
    await tuner.search(X, Y, verbose=0)
    model = await tuner.retrain(tuner.get_best_hyperparameters()[0], X, Y, sample_weight=Y + 1.0)
    assert isinstance(model[-1], Majority)
    assert model[-1].counts_.tolist() == [50, 100, 150]
    assert model[-1].note() == "kept"
    assert model[0].transform(np.ones(2)).tolist() == [2, 2]


async def test_a_reopened_project_has_no_data_to_fit(tmp_path: Path) -> None:
    await tuner_in(tmp_path).search(X, Y, verbose=0)
    again = tuner_in(tmp_path)
    assert len(again.get_best_trials()) == 1
    with pytest.raises(FatalRuntimeError, match=r"await tuner\.retrain\("):
        again.get_best_models()
    model = await again.retrain(again.get_best_trials()[0], X, Y)
    assert model.score(X, Y) > 0.6


async def test_a_training_that_fails_leaves_its_log(tmp_path: Path) -> None:
    tuner = tuner_in(tmp_path, lambda hp: Majority(broken_above=10))
    with pytest.raises(FatalRuntimeError, match="the largest row is held out") as caught:
        await tuner.retrain(tuner_in(tmp_path).oracle.get_space(), X[:, :1], Y)
    assert "retrained_0" in str(caught.value)
    with pytest.raises(FatalTypeError, match=r"retrain\(\) takes X, y=None, sample_weight=None"):
        await tuner.retrain(tuner_in(tmp_path).oracle.get_space(), X, epochs=3)
    with pytest.raises(FatalTypeError, match=r"model = await tuner\.retrain"):
        await tuner.evaluate("path", X, Y)
    with pytest.raises(FatalTypeError, match=r"joblib\.dump"):
        tuner.save_model("0000", None)


async def test_an_overridden_run_trial_splits_itself(tmp_path: Path) -> None:
    class Halves(SklearnTuner):
        def run_trial(self, trial: Any, X: Any, y: Any) -> float:  # type: ignore[override]
            model = self.hypermodel.build(trial.hyperparameters)  # type: ignore[union-attr]
            rows = np.arange(len(X)) % trial.folds == trial.fold
            return float(model.fit(X[~rows], y[~rows]).score(X[rows], y[rows]))

    tuner = Halves(
        RandomSearchOracle(objective=SCORE, max_trials=1, seed=1),
        build_tree,
        cv=3,
        directory=tmp_path,
        gpus=0,
    )
    assert len(set((await only_trial(tuner, X, Y)).scores)) > 1


# What is refused


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"scoring": 3}, FatalTypeError, "scoring=3 is not understood"),
        ({"scoring": []}, FatalTypeError, "not understood"),
        ({"scoring": [3]}, FatalTypeError, "scoring: 3 is no name"),
        ({"scoring": {"a": 3}}, FatalTypeError, r"scoring\['a'\]=3"),
        ({"scoring": accuracy_score}, FatalTypeError, "make_scorer"),
        ({"scoring": DecisionTreeClassifier}, FatalTypeError, "is a class"),
        ({"metrics": "f1"}, FatalTypeError, "'f1' is no function"),
        (
            {"metrics": [estimators.f1, estimators.f1], "scoring": {"f1": "f1"}},
            FatalValueError,
            "f1",
        ),
        ({"cv": object()}, FatalTypeError, "cv=.* is no way to split"),
        ({"cv": 1}, FatalValueError, "cv=1: .* 2 or more"),
        ({"cv": KFold}, FatalTypeError, r"KFold\(\)"),
        ({"folds": 3}, FatalTypeError, "pass cv=... instead of folds"),
        ({"loss": "mse"}, FatalTypeError, "loss is for Keras models"),
        ({"max_model_size": 3}, FatalTypeError, "max_model_size"),
        ({"build": None}, FatalValueError, "hypermodel is missing"),
        (
            {"objective": Objective("acuracy", "max"), "scoring": "accuracy"},
            FatalValueError,
            "Did you mean 'accuracy'",
        ),
        ({"objective": SCORE, "scoring": ["accuracy"]}, FatalValueError, "'score' is not among"),
        ({"objective": ["val_loss", SCORE]}, FatalValueError, "'val_loss' is not among"),
    ],
    ids=str,
)
def test_options_that_cannot_be(
    tmp_path: Path, options: dict[str, Any], kind: type[FatalError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        tuner_in(tmp_path, **options)


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((X, Y[:-1]), {}, "X has 150, y has 149"),
        ((X, Y), {"sample_weight": [1.0]}, "sample_weight has 1"),
        ((X, Y), {"groups": [1.0]}, "groups has 1"),
        ((3, Y), {}, "X is of type int, which has no rows"),
        ((iter(X), Y), {}, "which has no rows"),
        (({"a": X}, Y), {}, "X is of type dict"),
        ((X[:1], Y[:1]), {}, "2 folds need as many rows"),
        ((X, Y), {"epochs": 3}, "epochs"),
    ],
    ids=["y", "weights", "groups", "number", "iterator", "dict", "rows", "epochs"],
)
def test_data_that_cannot_be(tmp_path: Path, args: Any, kwargs: Any, message: str) -> None:
    with pytest.raises(FatalError, match=message):
        tuner_in(tmp_path).search(*args, **kwargs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"build": estimators.build_forgetful}, "did you forget `return estimator`"),
        ({"build": estimators.build_class}, r"return an instance, DecisionTreeClassifier\(...\)"),
        ({"build": estimators.build_number}, "build returned int, which has no method fit"),
        ({"build": estimators.build_bare}, "Bare, which has no method score: pass scoring="),
        ({"scoring": "acuracy"}, "did you mean 'accuracy'"),
        ({"scoring": {"a": "zzz"}, "objective": Objective("a", "max")}, "get_scorer_names"),
        ({"cv": GroupKFold(2)}, "'groups' parameter should not be None"),
        ({"cv": StratifiedKFold(60)}, "n_splits=60"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_shows_before_the_first_trial(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    tuner = tuner_in(tmp_path, **options)
    with pytest.raises(FatalError, match=message):
        await tuner.search(X, Y, verbose=0)
    assert tuner.trials == ()


# Pruning


async def test_folds_of_an_estimator_that_is_worse_are_not_run(tmp_path: Path) -> None:
    """A tree of one level is worse in every fold than the deeper one that was tried before."""
    tuner = tuner_in(tmp_path, cv=5, max_trials=6, pruner=WilcoxonPruner(), max_concurrent_trials=1)
    tuner.enqueue({"depth": 5})
    result = await tuner.search(X, Y, verbose=0)
    assert result.trials[0].status == "COMPLETED"
    (stump,) = [trial for trial in result.trials if trial.values["depth"] == 1]
    assert (stump.status, len(stump.runs)) == ("PRUNED", 4)
    assert stump.score == pytest.approx(statistics.fmean(stump.scores))


def test_a_rule_on_reports_has_no_effect_on_estimators(tmp_path: Path) -> None:
    with pytest.raises(FatalValueError, match="WilcoxonPruner"):
        tuner_in(tmp_path, pruner=MedianPruner())
