"""Cross-validation: how data are split, a run for each fold, and the standard error of the mean."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import GroupKFold, KFold, LeaveOneOut, StratifiedKFold, TimeSeriesSplit

from aiotune import Lazy, Objective, RandomSearch
from aiotune.errors import FatalError, FatalTypeError, FatalValueError, StoreMismatch
from aiotune.events import RunEnded
from aiotune.executors.base import Assignment
from aiotune.executors.context import RunContext
from aiotune.executors.launch import acquire_server, release_server
from aiotune.folds import EvenFolds, Folds, Sample, ShuffledFolds, as_folds
from aiotune.frameworks.keras_folds import count_folds, with_fold_held_out
from aiotune.frameworks.rows import count_rows, take_rows
from aiotune.results import results_text
from aiotune.settlement import Policy, settle
from aiotune.trial import FailureKind, RunState, Trial, TrialState
from tests.support import folded, keras_search, records
from tests.support.folded import Folded
from tests.support.tuned import make

SCORE = Objective("score", "max")


# How rows are dealt


def held_out(folds: Folds, sample: Sample, seed: int = 1) -> list[list[int]]:
    """Return the rows that each fold holds out, after a look at those that it leaves."""
    parts = []
    for fold in range(folds.count(sample)):
        train, test = folds.split(sample, fold, seed)
        assert sample.length is not None
        assert sorted([*train, *test]) == list(range(sample.length))
        parts.append(list(map(int, test)))
    return parts


@given(st.integers(2, 9), st.integers(0, 40), st.integers(-(2**40), 2**40))
def test_every_row_is_held_out_once_by_folds_of_equal_size(
    count: int, more: int, seed: int
) -> None:
    parts = held_out(ShuffledFolds(count), Sample(count + more), seed)
    assert sorted(row for part in parts for row in part) == list(range(count + more))
    sizes = {len(part) for part in parts}
    assert max(sizes) - min(sizes) <= 1


def test_the_seed_decides_and_nothing_else() -> None:
    folds, sample = ShuffledFolds(3), Sample(30)
    np.random.seed(1)
    first = held_out(folds, sample, seed=5)
    np.random.seed(2)
    assert held_out(folds, sample, seed=5) == first
    assert held_out(folds, sample, seed=6) != first
    assert first[0] != list(range(10))


LABELS = np.repeat([0, 1, 2], [30, 12, 6])


@pytest.mark.parametrize(
    "y",
    [
        LABELS,
        list(LABELS),
        LABELS.astype("float32"),
        LABELS[:, np.newaxis],
        np.eye(3)[LABELS],
        pd.Series(LABELS, index=[f"row {each}" for each in range(48)]),
        pd.Categorical(np.array(["a", "b", "c"])[LABELS]),
        np.array(["a", "b", "c"], object)[LABELS],
    ],
    ids=["ints", "list", "floats", "column", "one-hot", "series", "categorical", "objects"],
)
def test_each_fold_has_its_share_of_each_class(y: Any) -> None:
    for part in held_out(ShuffledFolds(6), Sample(48, y=y)):
        assert [np.sum(LABELS[part] == each) for each in (0, 1, 2)] == [5, 2, 1]


@pytest.mark.parametrize(
    "y",
    [
        np.linspace(0, 1, 48),
        np.append(LABELS[:-1], 7),
        np.zeros((48, 2)),
        np.array([1, "a", None] * 16, object),
        [{"a": 1}] * 48,
    ],
    ids=["numbers", "a rare class", "two columns", "no order", "no values"],
)
def test_what_has_no_classes_is_shuffled_as_it_is(y: Any) -> None:
    plain = held_out(ShuffledFolds(6), Sample(48))
    assert held_out(ShuffledFolds(6), Sample(48, y=y)) == plain


@pytest.mark.parametrize("length", [5, 11, 50])
def test_the_default_of_kerastuner_is_that_of_scikit_learn(length: int) -> None:
    theirs = KFold(5, shuffle=True, random_state=1).split(np.zeros(length))
    assert held_out(EvenFolds(5, state=1), Sample(length)) == [list(test) for _, test in theirs]


# Splitters, and splits


def sample_of(length: int = 12, **changes: Any) -> Sample:
    return Sample(length, np.arange(length), np.arange(length) % 2, **changes)


@pytest.mark.parametrize(
    "splitter",
    [KFold(3, shuffle=True), KFold(3, shuffle=True, random_state=np.random.RandomState(4))],
    ids=["no state", "a state that moves"],
)
def test_a_splitter_gives_every_run_the_same_folds(splitter: KFold) -> None:
    folds = as_folds(splitter)
    assert folds is not None
    state = np.random.get_state()[1].copy()  # type: ignore[union-attr]
    first = held_out(folds, sample_of())
    assert first == held_out(folds, sample_of())
    assert sorted(row for part in first for row in part) == list(range(12))
    assert (np.random.get_state()[1] == state).all()  # type: ignore[index]


def test_splitters_of_every_kind() -> None:
    groups = np.repeat(["a", "b", "c"], 4)
    by_group = as_folds(GroupKFold(3))
    assert by_group is not None
    parts = held_out(by_group, sample_of(groups=groups))
    assert [len(set(groups[part])) for part in parts] == [1, 1, 1]
    each = as_folds(LeaveOneOut())
    assert each is not None
    assert each.count(sample_of()) == 12
    in_time = as_folds(TimeSeriesSplit(3))
    assert in_time is not None
    train, test = in_time.split(sample_of(), 2, 0)
    assert max(train) < min(test)


@pytest.mark.parametrize(
    ("splitter", "sample", "message"),
    [
        (GroupKFold(3), sample_of(), "GroupKFold.*'groups'.*pass the splits themselves"),
        (
            StratifiedKFold(3),
            Sample(9, np.arange(9), np.linspace(0, 1, 9)),
            "cannot split.*continuous",
        ),
        (LeaveOneOut(), Sample(), "cannot tell its number of folds"),
    ],
)
def test_what_a_splitter_refuses_is_told(splitter: Any, sample: Sample, message: str) -> None:
    folds = as_folds(splitter)
    assert folds is not None
    with pytest.raises(FatalValueError, match=message):
        folds.split(sample, 0, folds.count(sample))


def test_splits_as_they_are_given() -> None:
    def splits() -> Iterator[Any]:
        yield [0, 1, 2], [3]
        yield np.array([False, True, True, True]), np.array([True, False, False, False])

    folds = as_folds(splits())
    assert folds is not None
    assert held_out(folds, Sample(4)) == [[3], [0]]
    assert held_out(folds, Sample(4)) == [[3], [0]]  # the generator was kept
    with pytest.raises(
        FatalValueError, match=r"fold 0 has rows held out from 3 to 3, but .* have 3"
    ):
        folds.count(Sample(3))


@pytest.mark.parametrize(
    ("folds", "kind", "message"),
    [
        (1, FatalValueError, "folds=1: .* 2 or more"),
        (-3, FatalValueError, "2 or more"),
        (True, FatalTypeError, "no way to split"),
        ("5", FatalTypeError, "no way to split"),
        (2.5, FatalTypeError, "no way to split"),
        (KFold, FatalTypeError, r"is a class: pass an instance, KFold\(\)"),
        ([], FatalValueError, "is empty"),
        ([([0], [1], [2])], FatalTypeError, "fold 0 is no pair"),
        ([([0.5], [1])], FatalTypeError, "whole numbers are needed, not float64"),
        ([([[0]], [1])], FatalTypeError, "one dimension"),
        (object(), FatalTypeError, "no way to split"),
        (type("Half", (), {"split": print})(), FatalTypeError, "no get_n_splits"),
    ],
    ids=str,
)
def test_what_is_no_way_to_split(folds: Any, kind: type[FatalError], message: str) -> None:
    with pytest.raises(kind, match=message):
        RandomSearch(lambda hp: None, "val_loss", folds=folds)


# Rows


TABLE = pd.DataFrame({"a": [0, 1, 2, 3], "b": [4, 5, 6, 7]}, index=["r", "s", "t", "u"])
ROWS = np.array([1, 3])


@pytest.mark.parametrize(
    "thing",
    [
        np.array(TABLE),
        TABLE,
        TABLE["a"],
        scipy.sparse.csr_array(TABLE),
        scipy.sparse.coo_matrix(TABLE),
        [[0, 4], [1, 5], [2, 6], [3, 7]],
        ("w", "x", "y", "z"),
    ],
    ids=["array", "table", "series", "csr", "coo", "list", "tuple"],
)
def test_rows_of_whatever_holds_data(thing: Any) -> None:
    assert count_rows(thing) == 4
    taken = take_rows(thing, ROWS)
    assert count_rows(taken) == 2
    assert type(taken) is type(thing) or isinstance(taken, list | scipy.sparse.csr_matrix)
    expected = np.array(thing.todense() if hasattr(thing, "todense") else thing)[ROWS]
    assert (np.array(taken.todense() if hasattr(taken, "todense") else taken) == expected).all()


@pytest.mark.parametrize("thing", [3, np.float64(3), iter([1]), {"a": [1]}, object()], ids=repr)
def test_what_has_no_rows(thing: Any) -> None:
    assert count_rows(thing) is None


# The arguments of Keras's fit


def run_of(fold: int, folds: int = 3) -> RunContext:
    assignment = Assignment("0000", 0, 0, fold, 0, 0, 1, {}, (), True, True, ".", "", folds=folds)
    return RunContext(assignment, None)  # type: ignore[arg-type]


X = np.arange(12.0).reshape(6, 2)
Y = np.linspace(0, 1, 6)


def test_a_fold_becomes_the_validation_data() -> None:
    train, test = ShuffledFolds(3).split(Sample(6, X, Y), 1, 1)
    args, kwargs = with_fold_held_out(
        ShuffledFolds(3), (X, Y), {"epochs": 2, "sample_weight": Y * 2}, run_of(1)
    )
    assert [each.tolist() for each in args] == [X[train].tolist(), Y[train].tolist()]
    x, y, weight = kwargs.pop("validation_data")
    assert (x.tolist(), y.tolist(), weight.tolist()) == (
        X[test].tolist(),
        Y[test].tolist(),
        (Y[test] * 2).tolist(),
    )
    assert kwargs.pop("sample_weight").tolist() == (Y[train] * 2).tolist()
    assert kwargs == {"epochs": 2}


def test_arrays_in_lists_and_dicts_are_split_alike() -> None:
    inputs = {"left": X, "right": pd.DataFrame(X)}
    args, kwargs = with_fold_held_out(
        ShuffledFolds(3), (inputs,), {"y": [Y, (Y, X)], "validation_data": None}, run_of(2)
    )
    x, y = kwargs["validation_data"]
    assert {name: len(each) for name, each in args[0].items()} == {"left": 4, "right": 4}
    assert (x["left"] == np.array(x["right"])).all()
    assert [len(kwargs["y"][0]), len(kwargs["y"][1][1])] == [4, 4]
    assert [len(y[0]), len(y[1][0]), type(y[1])] == [2, 2, tuple]


def test_without_targets_the_inputs_alone_are_split() -> None:
    args, kwargs = with_fold_held_out(ShuffledFolds(3), (), {"x": X}, run_of(0))
    assert (args, len(kwargs["x"]), len(kwargs["validation_data"])) == ((), 4, 1)


def test_what_is_the_default_of_keras_contradicts_nothing() -> None:
    given = {"validation_split": 0.0, "validation_data": None}
    assert count_folds(ShuffledFolds(3), (X, Y), given) == 3
    _, kwargs = with_fold_held_out(ShuffledFolds(3), (X, Y), given, run_of(0))
    assert len(kwargs["validation_data"][0]) == 2


@pytest.mark.parametrize(
    ("args", "kwargs", "kind", "message"),
    [
        ((X, Y), {"validation_split": 0.1}, FatalValueError, "folds contradicts validation_split"),
        ((X, Y), {"validation_data": (X, Y)}, FatalValueError, "folds contradicts validation_data"),
        ((), {"epochs": 1}, FatalTypeError, "there is no x"),
        ((X, Y, 32), {}, FatalTypeError, "name all that comes after y"),
        ((X, Y[:5]), {}, FatalValueError, r"x of search\(\) has 6, y of search\(\) has 5"),
        ((X[:2], Y[:2]), {}, FatalValueError, "3 folds need as many rows, but the data have 2"),
        ((iter([X]),), {}, FatalTypeError, "folds splits arrays, and x .* list_iterator"),
        (({"a": X, "b": 3}, Y), {}, FatalTypeError, "x of search.., key 'b' is of type int"),
    ],
    ids=["split", "data", "no x", "batch size", "lengths", "few rows", "iterator", "number"],
)
def test_what_cannot_be_split_is_told_by_the_call(
    tmp_path: Path, args: Any, kwargs: Any, kind: type[FatalError], message: str
) -> None:
    tuner = make(RandomSearch, tmp_path, hypermodel=keras_search.build, folds=3)
    with pytest.raises(kind, match=message):
        tuner.search(*args, **kwargs)


def test_a_fit_that_takes_no_validation_data_is_refused(tmp_path: Path) -> None:
    class Narrow(keras_search.Dense):
        def fit(self, hp: Any, model: Any, x: Any, y: Any, callbacks: Any) -> Any:  # type: ignore[override]
            return model.fit(x, y, callbacks=callbacks)

    tuner = make(RandomSearch, tmp_path, hypermodel=Narrow(), folds=3)
    with pytest.raises(FatalTypeError, match="'validation_data'"):
        tuner.search(X, Y)


# Mean and standard error


def finished(scores: list[float], **changes: Any) -> Trial:
    runs = [records.run(at, repeat=at, score=score) for at, score in enumerate(scores)]
    known = {"score": statistics.fmean(scores), "state": TrialState.COMPLETED} | changes
    return replace(records.trial(*runs, **known), objective=SCORE)


def test_the_standard_error_is_that_of_the_mean() -> None:
    trial = finished([1.0, 2.0, 4.0])
    assert trial.scores == (1.0, 2.0, 4.0)
    assert trial.standard_error == pytest.approx(statistics.stdev([1, 2, 4]) / math.sqrt(3))


@pytest.mark.parametrize(
    "trial",
    [
        finished([1.0]),
        finished([1.0, math.inf]),
        finished([1.0, 2.0], state=TrialState.RUNNING),
        replace(finished([1.0, 2.0]), objective=None),
        records.trial(),
    ],
    ids=["one run", "infinite", "running", "unknown objective", "no run"],
)
def test_there_is_none_without_two_scores(trial: Trial) -> None:
    assert trial.standard_error is None


def test_the_scores_are_those_that_the_settlement_averages() -> None:
    """A failed attempt is none of them, and they stand in the order of the folds."""
    trial = records.trial(
        records.run(0, repeat=1, score=3.0),
        records.run(1, repeat=0, state=RunState.FAILED, failure=FailureKind.CRASH, score=9.0),
        records.run(2, repeat=0, attempt=1, score=5.0),
    )
    settled = settle(trial, Policy(repeats=2, retries=1, folds=2), SCORE)
    assert settled is not None
    ended = replace(trial, state=settled.status, score=settled.score, objective=SCORE)
    assert ended.scores == (5.0, 3.0)
    assert settled.score == 4.0


def test_the_summary_shows_it_below_the_score() -> None:
    trial = finished([0.5, 0.7])
    lines = list(results_text([trial, finished([0.4])], SCORE, "here", 2))
    assert "Standard error: 0.1 (2 runs)" in lines
    assert sum("Standard error" in line for line in lines) == 1


# Searches


@pytest.fixture(scope="module")
def plain_server() -> Iterator[None]:
    """Keep one fork server alive, so that the searches need not launch one each."""
    from aiotune.processes import modules_to_preload
    from aiotune.settings import Settings

    tuner = Folded(objective="loss")
    server = acquire_server(modules_to_preload(tuner, (), Settings()))
    yield
    release_server(server)


@pytest.mark.usefixtures("plain_server")
async def test_each_fold_is_a_run_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuner = make(Folded, tmp_path, folds=3, executions_per_trial=2, max_trials=2)
    result = await tuner.search(verbose=2)
    for trial in result.trials:
        assert sorted(run.repeat for run in trial.runs) == list(range(6))
        assert trial.scores == (0.0, 1.0, 2.0, 0.0, 1.0, 2.0)
        assert (trial.score, trial.metrics["folds"]) == (1.0, 3.0)
        assert len({run.metrics["pid"] for run in trial.runs}) == 6
    error = statistics.stdev([0, 1, 2, 0, 1, 2]) / math.sqrt(6)
    assert result.best_standard_error == pytest.approx(error)
    assert f"best loss 1 ± {error:.2g} in trial 0000" in str(result)
    assert f"trial 0000  loss 1.0000 ± {error:.4f} (best)" in capsys.readouterr().out


@pytest.mark.usefixtures("plain_server")
@pytest.mark.parametrize("how", ["once", "always", "nan"])
async def test_a_fold_that_fails(tmp_path: Path, how: str) -> None:
    """A retry repeats that fold alone; without success the trial has no score, and its siblings stop."""
    tuner = make(
        Folded,
        tmp_path,
        folds=3,
        max_trials=1,
        max_retries_per_trial=1,
        max_concurrent_trials=1,
    )
    (trial,) = (await tuner.search(broken=1, how=how)).trials
    attempts = [(run.repeat, run.attempt) for run in trial.runs]
    if how == "once":
        assert attempts == [(0, 0), (1, 0), (1, 1), (2, 0)]
        assert (trial.status, trial.score) == ("COMPLETED", 1.0)
    else:
        assert attempts == [(0, 0), (1, 0), (1, 1)]
        assert (trial.status, trial.score, trial.standard_error) == ("FAILED", None, None)
        assert trial.failure is (FailureKind.NAN if how == "nan" else FailureKind.USER_ERROR)


@pytest.mark.usefixtures("plain_server")
async def test_a_resumed_search_does_not_repeat_folds_that_are_done(tmp_path: Path) -> None:
    gate, diary = tmp_path / "gate", tmp_path / "diary"
    options = {"folds": 3, "max_trials": 2, "max_concurrent_trials": 3}
    tuner = make(folded.Gated, tmp_path, **options)
    async with tuner.start(str(gate), str(diary)) as search:
        async for event in search.events():
            if isinstance(event, RunEnded):
                search.request_stop()
                break
        await search.result()
    assert diary.read_text().split("\n") == ["0 0", ""]
    gate.touch()
    result = await make(folded.Gated, tmp_path, **options).search(str(gate), str(diary))
    done = diary.read_text().split("\n")[:-1]
    assert sorted(done) == [f"{trial} {fold}" for trial in (0, 1) for fold in (0, 1, 2)]
    assert [trial.status for trial in result.trials] == ["COMPLETED"] * 2


@pytest.mark.usefixtures("plain_server")
async def test_other_folds_do_not_continue_a_project(tmp_path: Path) -> None:
    await make(Folded, tmp_path, folds=3, max_trials=1).search()
    for changes in ({"folds": 4}, {}):
        with pytest.raises(StoreMismatch, match="was searched with 3 folds, now there are"):
            await make(Folded, tmp_path, max_trials=2, **changes).search()
    result = await make(Folded, tmp_path, folds=3, max_trials=2).search()
    assert len(result.trials) == 2


@pytest.mark.usefixtures("plain_server")
async def test_hyperband_promotes_by_the_mean_at_one_budget(tmp_path: Path) -> None:
    """In the end the best epochs of each fold count, whatever their budget."""
    tuner = folded.Band(
        objective="loss",
        max_epochs=3,
        factor=3,
        folds=2,
        seed=1,
        directory=tmp_path,
        gpus=0,
        max_concurrent_trials=2,
    )
    result = await tuner.search(verbose=0)
    promoted = [trial for trial in result.trials if len(trial.runs) > 2]
    assert promoted
    for trial in promoted:
        runs = [(run.budget.epochs, run.repeat) for run in trial.runs if run.budget]
        assert sorted(runs) == [(1, 0), (1, 1), (3, 0), (3, 1)]
        x = trial.values["x"]
        assert trial.scores == (x + 1, x - 30)
        assert trial.score == statistics.fmean(trial.scores)


DATA, TARGETS, _, _ = keras_search.data()


def keras_tuner(kind: Any, directory: Path, **changes: Any) -> Any:
    options = {"hypermodel": keras_search.build, "objective": "val_loss", "folds": 3}
    return make(kind, directory, **options | changes)


@pytest.mark.usefixtures("keras_server")
async def test_a_keras_model_is_validated_on_each_fold(tmp_path: Path) -> None:
    """The best model is that of the best fold."""
    tuner = keras_tuner(RandomSearch, tmp_path, max_trials=1)
    (trial,) = (await tuner.search(pd.DataFrame(DATA), TARGETS, epochs=2, batch_size=16)).trials
    assert sorted(run.repeat for run in trial.runs) == [0, 1, 2]
    assert len(set(trial.scores)) == 3
    assert trial.score == pytest.approx(statistics.fmean(trial.scores))
    assert trial.standard_error is not None
    fold = int(np.argmin(trial.scores))
    _, test = ShuffledFolds(3).split(Sample(48, DATA, TARGETS), fold, seed=1)
    metrics = await tuner.evaluate(trial, DATA[test], TARGETS[test])
    assert metrics["loss"] == pytest.approx(trial.scores[fold], abs=1e-6)


@pytest.mark.usefixtures("keras_server")
async def test_keras_data_may_be_lazy_and_fit_the_users_own(tmp_path: Path) -> None:
    model = keras_search.Dense()
    tuner = keras_tuner(
        RandomSearch, tmp_path, max_trials=1, hypermodel=model, folds=StratifiedKFold(2)
    )
    (trial,) = (await tuner.search(Lazy(lambda: DATA), Lazy(lambda: TARGETS))).trials
    assert len(set(trial.scores)) == 2


@pytest.mark.usefixtures("keras_server")
@pytest.mark.parametrize("splits", [False, True])
async def test_an_overridden_run_trial_may_split_itself(tmp_path: Path, splits: bool) -> None:
    tuner = keras_tuner(folded.Curious, tmp_path, max_trials=1)
    (trial,) = (await tuner.search(DATA, TARGETS, splits=splits)).trials
    assert len(set(trial.scores)) == 3
