"""Hyperband over growing shares of the training data: which rows, and what becomes of a trial."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.tree import DecisionTreeClassifier

import aiotune
from aiotune import Lazy, SklearnTuner
from aiotune.errors import FatalError, FatalTypeError, FatalValueError
from aiotune.executors.base import Assignment
from aiotune.executors.context import RunContext
from aiotune.folds import Sample, ShuffledFolds
from aiotune.frameworks.keras_folds import with_fold_held_out
from aiotune.frameworks.shares import rows_of_share, with_share
from aiotune.oracles import HyperbandOracle
from aiotune.trial import Budget, Observation, Run, RunState, Trial, TrialState
from tests.support import keras_search, records, shared_data

# Which rows

SHARES = st.fractions(min_value="1/100", max_value=1)


@given(st.integers(1, 60), SHARES, SHARES, st.integers(-(2**40), 2**40), st.integers(0, 3))
def test_a_larger_share_has_the_rows_of_a_smaller_one(
    count: int, some: Any, other: Any, seed: int, classes: int
) -> None:
    y = np.arange(count) % classes if classes else None
    small, large = sorted([some, other])
    few, many = (rows_of_share(count, float(each), seed, y).tolist() for each in (small, large))
    assert set(few) <= set(many) <= set(range(count))
    assert few == sorted(set(few))
    assert len(few) == -(-small.numerator * count // small.denominator)  # rounded up


def test_the_seed_decides_and_nothing_else() -> None:
    rows = rows_of_share(100, 0.3, 1)
    assert rows.tolist() == rows_of_share(100, 0.3, 1).tolist()
    assert rows.tolist() != rows_of_share(100, 0.3, 2).tolist()


LABELS = np.repeat([0, 1, 2], [120, 60, 20])


@pytest.mark.parametrize(
    "y",
    [
        LABELS,
        LABELS[:, None],
        np.eye(3)[LABELS],
        LABELS.astype(str),
        pd.Series(LABELS),
        list(LABELS),
    ],
    ids=["vector", "column", "one-hot", "text", "series", "list"],
)
@pytest.mark.parametrize("count", [3, 10, 20, 50, 110])
def test_each_class_has_its_part_of_the_share(y: Any, count: int) -> None:
    rows = rows_of_share(200, count / 200, 1, y)
    found = np.bincount(LABELS[rows], minlength=3)
    assert found.sum() == count
    assert found.min() >= 1
    assert np.abs(found - count * np.array([0.6, 0.3, 0.1])).max() <= 2


def test_what_are_no_classes_is_drawn_as_it_is() -> None:
    for y in (np.linspace(0, 1, 50), np.repeat(np.arange(25), 2), np.zeros((50, 3)), [None] * 50):
        assert rows_of_share(50, 0.2, 1, y).tolist() == rows_of_share(50, 0.2, 1).tolist()


# The arguments of fit

X = np.arange(40.0).reshape(20, 2)
Y = np.linspace(0, 1, 20)


def run_of(share: float | None = 0.25) -> RunContext:
    budget = Budget(1, share=share)
    assignment = Assignment(
        "0000", 0, 0, 1, 0, 0, 1, {}, (), True, True, ".", "", budget=budget, folds=2
    )
    return RunContext(assignment, None)  # type: ignore[arg-type]


def fit(*args: Any, **kwargs: Any) -> None:
    """Take anything."""


ROWS = rows_of_share(20, 0.25, 1)


def test_arrays_and_weights_are_cut_alike() -> None:
    given = {"sample_weight": Y * 2, "epochs": 3, "validation_data": (X, Y)}
    args, kwargs = with_share(run_of(), fit, (X, Y), given)
    assert [each.tolist() for each in args] == [X[ROWS].tolist(), Y[ROWS].tolist()]
    assert kwargs.pop("sample_weight").tolist() == (Y[ROWS] * 2).tolist()
    assert len(kwargs.pop("validation_data")[0]) == 20
    assert kwargs == {"epochs": 3}


def test_arrays_in_lists_and_dicts_are_cut_alike() -> None:
    inputs = {"left": X, "right": pd.DataFrame(X)}
    args, kwargs = with_share(run_of(), fit, (inputs,), {"y": [Y, (Y, X)], "steps_per_epoch": 10})
    assert (args[0]["left"] == X[ROWS]).all()
    assert (np.array(args[0]["right"]) == X[ROWS]).all()
    assert [len(kwargs["y"][0]), len(kwargs["y"][1][1])] == [5, 5]
    assert kwargs["steps_per_epoch"] == 3


def test_what_is_split_off_is_split_off_whole() -> None:
    """As Keras does it: the last rows. So the validation is the same for every share."""
    for share in (0.25, 0.5, 1.0):
        args, kwargs = with_share(run_of(share), fit, (X, Y), {"validation_split": 0.2})
        assert args[0].tolist() == X[rows_of_share(16, share, 1)].tolist()
        x, y = kwargs["validation_data"]
        assert (x.tolist(), y.tolist()) == (X[16:].tolist(), Y[16:].tolist())
        assert not kwargs["validation_split"]


def test_with_folds_the_rows_to_train_with_are_cut() -> None:
    folds, run = ShuffledFolds(2), run_of()
    train, test = folds.split(Sample(20, X, Y), 1, 1)
    held_out = with_fold_held_out(folds, (X, Y), {}, run)
    args, kwargs = with_share(run, fit, *held_out)
    assert args[0].tolist() == X[train][rows_of_share(10, 0.25, 1)].tolist()
    assert kwargs["validation_data"][0].tolist() == X[test].tolist()


@pytest.mark.parametrize("share", [None, 1.0])
def test_all_of_the_data_is_left_as_it_is(share: float | None) -> None:
    given = {} if share else {"validation_split": 0.2}
    args, kwargs = with_share(run_of(share), fit, (X, Y), given)
    assert args[0] is X
    assert kwargs == given


def test_without_data_it_is_left_to_the_fit() -> None:
    assert with_share(run_of(), fit, (), {"epochs": 2}) == ((), {"epochs": 2})


@pytest.mark.parametrize(
    ("args", "kwargs", "kind", "message"),
    [
        ((X, Y, Y), {}, FatalTypeError, "name all that comes after y"),
        ((X, Y[:5]), {}, FatalValueError, "x has 20, y has 5"),
        (
            (iter([X]),),
            {},
            FatalTypeError,
            "x of search.. is of type list_iterator: .* trial.share",
        ),
        (({"a": 3}, Y), {}, FatalTypeError, "x, key 'a' of search.. is of type int"),
        (([],), {}, FatalValueError, "there are none"),
    ],
    ids=["weights", "lengths", "iterator", "number", "nothing"],
)
def test_what_cannot_be_cut_says_so(
    args: Any, kwargs: Any, kind: type[FatalError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        with_share(run_of(), fit, args, kwargs)


def test_a_fit_that_takes_no_validation_data_cannot_have_it_split_off() -> None:
    def narrow(x: Any, y: Any, validation_split: float) -> None: ...

    with pytest.raises(FatalTypeError, match="let your fit take validation_data"):
        with_share(run_of(), narrow, (X, Y), {"validation_split": 0.2})


# The steps of a trial


def run(index: int, share: float | None, reports: int, **changes: Any) -> Run:
    made = records.run(index, scores=(0.5,) * reports)
    budget = Budget(1 if share is None else round(share * 9), share=share)
    return Run(
        **{each: getattr(made, each) for each in made.__slots__} | {"budget": budget} | changes
    )


def test_the_steps_of_a_trial_count_on_over_its_shares() -> None:
    later = [Observation(step + 2, {"score": 0.5}) for step in range(3)]
    trial = records.trial(
        run(0, 1 / 9, 2),
        run(1, 1 / 9, 4, repeat=1),
        run(2, 3 / 9, 1, state=RunState.FAILED),
        run(3, 3 / 9, 0, observations=later),
        run(4, 1.0, 0, state=RunState.RUNNING),
    )
    assert [trial.first_step(each) for each in trial.runs] == [0, 0, 2, 2, 5]
    assert trial.first_step(run(0, None, 2)) == 0


# Searches


def check_promotions(trials: Any, sizes: list[int]) -> None:
    """Check that each rung has its size and that the best of it went on, to train anew."""
    rungs: dict[tuple[int, int], list[Trial]] = defaultdict(list)
    for trial in trials:
        assert trial.status == "COMPLETED"
        for each in trial.runs:
            assert each.budget.initial_epoch == 0
            rungs[each.budget.bracket, each.budget.rung].append(trial)
    assert [len(rungs[key]) for key in sorted(rungs)] == sizes
    best = min(rungs[1, 0], key=lambda trial: trial.runs[0].metrics["val_loss"])
    assert rungs[1, 1] == [best]
    assert best.score == min(each.metrics["val_loss"] for each in best.runs)


def tuner_in(directory: Path, kind: Any = aiotune.Hyperband, **changes: Any) -> Any:
    options: dict[str, Any] = {
        "hypermodel": shared_data.build,
        "objective": "val_loss",
        "max_epochs": 2,
        "factor": 2,
        "resource": "data",
        "seed": 1,
        "directory": directory,
        "gpus": 0,
        "max_concurrent_trials": 2,
    }
    return kind(**options | changes)


DATA, TARGETS, HELD_OUT, HELD_OUT_TARGETS = keras_search.data()


@pytest.mark.usefixtures("keras_server")
@pytest.mark.parametrize("kind", ["arrays", "dataset"])
async def test_a_search_over_shares_of_the_data(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    tuner = tuner_in(tmp_path)
    data = (DATA, TARGETS) if kind == "arrays" else (Lazy(shared_data.in_batches),)
    size = {"batch_size": 12} if kind == "arrays" else {}
    batches = 4 if kind == "arrays" else 12
    held_out = (HELD_OUT, HELD_OUT_TARGETS)
    result = await tuner.search(
        *data, epochs=2, validation_data=held_out, callbacks=shared_data.counting, verbose=0, **size
    )
    check_promotions(result.trials, [2, 2, 1])
    for trial in result.trials:
        for each in trial.runs:
            share = each.budget.share
            assert share == (0.5 if (each.budget.bracket, each.budget.rung) == (1, 0) else 1.0)
            assert {o.metrics["batches"] for o in each.observations} == {batches * share}
            assert len(each.observations) == 2  # the user's own epochs
        steps = [o.step for each in trial.runs for o in each.observations]
        assert steps == list(range(len(steps)))
        assert trial.hyperparameters["tuner/share"] == trial.budget.share
    promoted = next(trial for trial in result.trials if len(trial.runs) == 2)
    metrics = await tuner.evaluate(promoted, *held_out)
    assert metrics["loss"] == pytest.approx(promoted.score, abs=1e-5)
    assert "has no effect" not in caplog.text


@pytest.mark.usefixtures("keras_server")
async def test_a_fit_of_ones_own_gets_the_share(tmp_path: Path) -> None:
    tuner = tuner_in(tmp_path, hypermodel=shared_data.Dense())
    result = await tuner.search(DATA, TARGETS, validation_split=0.25, epochs=1, verbose=0)
    for trial in result.trials:
        for each in trial.runs:
            share, metrics = each.budget.share, each.metrics
            assert (metrics["rows"], metrics["share"]) == (36 * share, share)
            assert metrics["validation"] == 12
            assert metrics["positive"] == pytest.approx(np.mean(TARGETS[:36]), abs=0.06)


@pytest.mark.usefixtures("keras_server")
async def test_datasets_of_all_kinds(tmp_path: Path) -> None:
    tuner = tuner_in(tmp_path, shared_data.Cutting)
    result = await tuner.search(verbose=0)
    found = [each.metrics for t in result.trials for each in t.runs if each.metrics["share"] < 1]
    assert len(found) == 2
    assert found[0] == {
        "val_loss": 0.0,
        "share": 0.5,
        "known": 6,
        "endless": 1,
        "distinct": 3,
        "steps": 3,
        "batches": 6,
        "is_same": 1,
        "ended": 1,
        "unknown is refused": 1,
        "generator is refused": 1,
    }


def build_tree(hp: Any) -> Any:
    return DecisionTreeClassifier(max_depth=hp.Int("depth", 1, 20))


def rows_fitted(estimator: Any, x: Any, y: Any) -> dict[str, float]:
    right = float((estimator.predict(x) == y).mean())
    return {"score": right, "rows": float(estimator.tree_.n_node_samples[0]), "tested": len(x)}


async def test_estimators_over_shares_of_the_data(tmp_path: Path) -> None:
    oracle = HyperbandOracle(max_epochs=2, factor=2, seed=1, resource="data")
    settings: dict[str, Any] = {"directory": tmp_path, "executor": "inline", "gpus": 0}
    tuner = SklearnTuner(oracle, build_tree, scoring=rows_fitted, cv=2, **settings)
    x = np.random.default_rng(0).normal(size=(80, 4))
    result = await tuner.search(x, (x[:, 0] > 0).astype(int), verbose=0)
    assert {trial.state for trial in result.trials} == {TrialState.COMPLETED}
    runs = [each for trial in result.trials for each in trial.runs]
    assert {each.budget.share for each in runs if each.budget} == {0.5, 1.0}
    for each in runs:
        assert each.budget is not None
        assert each.metrics["rows"] == 40 * (each.budget.share or 0)
        assert each.metrics["tested"] == 40
