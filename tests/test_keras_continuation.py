"""A training that is cut up is the same, bit for bit, as one in one piece; on each backend."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from aiotune import Hyperband, RandomSearch, SearchResult
from aiotune.executors.launch import Server
from aiotune.trial import FailureKind, RunState
from tests.support import keras_search
from tests.support.tuned import make
from tests.test_keras import RunProgram, keras_host, run_program

PROGRAMS = "tests.support.continuation_programs"
LAST_EPOCH = 6

on_every_backend = pytest.mark.parametrize("run", ["tensorflow", "torch", "jax"], indirect=True)
on_tensorflow = pytest.mark.parametrize("run", ["tensorflow"], indirect=True)


@pytest.fixture(scope="module")
def run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunProgram]:
    directory = tmp_path_factory.mktemp(request.param)
    with keras_host(request.param, directory / "host.log", PROGRAMS) as host:
        yield functools.cache(partial(run_program, host, directory))


def assert_same_training(whole: list[Any], cut: list[Any]) -> None:
    """Weights, seeds, optimizer, logs and the memory of callbacks are the same after each epoch."""
    assert [entry[0] for entry in cut] == [entry[0] for entry in whole]
    for one, other in zip(whole, cut, strict=True):
        assert other == one


@on_every_backend
def test_a_promoted_run_equals_an_uninterrupted_one(run: RunProgram) -> None:
    got = run("promoted_with_schedule")
    assert_same_training(got["whole"]["diary"], got["cut"]["diary"])
    assert got["cut"]["best"] == got["whole"]["best"]
    assert [epochs for epochs, _ in got["cut"]["results"]] == [[0, 1], [2, 3], [4, 5, 6]]
    assert got["cut"]["notes"] == []


@on_every_backend
def test_callbacks_know_what_they_knew(run: RunProgram) -> None:
    got = run("promoted_with_plateau")
    assert_same_training(got["whole"]["diary"], got["cut"]["diary"])
    assert [entry[4][1]["_seen"] for entry in got["cut"]["diary"]] == list("123456")
    epochs = [entry[0] for entry in got["cut"]["diary"]]
    assert epochs == list(range(6))  # patience began in the first of three rungs
    rates = {entry[3]["learning_rate"] for entry in got["cut"]["diary"]}
    assert len(rates) > 1


@on_tensorflow
def test_what_had_stopped_by_itself_trains_no_more(run: RunProgram) -> None:
    got = run("stopped_early")
    assert_same_training(got["whole"]["diary"], got["cut"]["diary"])
    first, *later = got["cut"]["results"]
    assert first[0] == [0, 1]
    assert later == [first, first]  # the score is as before
    assert got["cut"]["best"] == got["whole"]["best"]


@on_every_backend
def test_a_run_that_was_killed_goes_on_from_its_last_epoch(run: RunProgram) -> None:
    got = run("interrupted")
    whole, killed, continued = (got[name] for name in ("whole", "killed", "continued"))
    assert [entry[0] for entry in continued["diary"]] == [3, 4]
    assert_same_training(whole["diary"], killed["diary"] + continued["diary"])
    assert continued["result"] == whole["result"]
    assert got["begun_anew"] == whole  # it was killed before there was a state


@on_tensorflow
def test_a_broken_run_begins_where_its_budget_began(run: RunProgram) -> None:
    got = run("interrupted_in_a_budget")
    assert got["ends"] == ["Killed", "RuntimeError"]
    epochs = [entry[0] for entry in got["diary"]]
    assert epochs == [0, 1, 2, 3, 4, 2, 3, 4, 5]
    last = {entry[0]: entry for entry in got["diary"]}
    assert_same_training(got["whole"], [last[epoch] for epoch in range(6)])


@on_every_backend
def test_data_are_met_in_the_same_order(run: RunProgram) -> None:
    for name, (is_same, epochs, notes) in run("data_of_every_kind").items():
        assert (is_same, epochs, notes) == (True, 2, []), name


@on_tensorflow
def test_what_is_not_exact_is_named(run: RunProgram) -> None:
    got = run("data_left_to_keras")
    causes = {"batch": 'shuffle="batch"', "steps": "steps_per_epoch", "optimizers": "other"}
    for name, words in causes.items():
        epochs, notes = got[name]
        assert epochs == 2
        assert len(notes) == 1
        assert words in notes[0]
    assert got["unequal"].startswith("ValueError")


@on_tensorflow
def test_a_fit_of_ones_own_is_exact_too(run: RunProgram) -> None:
    got = run("fits_of_ones_own")
    assert_same_training(got["whole"]["diary"], got["cut"]["diary"])
    assert [entry[0] for entry in got["cut"]["diary"]] == [0, 1, 2, 3]  # its EarlyStopping


@on_tensorflow
def test_a_fit_that_ignores_where_to_begin_is_told(run: RunProgram) -> None:
    kind, message = run("fits_of_ones_own")["wrong"]
    assert kind == "FatalValueError"
    assert "its training began with epoch 0" in message
    assert "initial_epoch" in message


@on_tensorflow
def test_programs_that_cannot_go_on_begin_anew(run: RunProgram) -> None:
    got = run("fits_of_ones_own")
    assert got["zero"] == [0, 1, 2]
    assert got["phases"] == [2, 3, 4, 5, 6, 7, 8]  # steps count up
    notes, epochs = got["two"]
    assert len(notes) == 1
    assert "not exact" in notes[0]
    assert epochs == [0, 0, 1, 1]


@on_tensorflow
def test_a_score_that_is_no_number_leaves_no_state(run: RunProgram) -> None:
    assert run("nan_scores") is False


@on_tensorflow
def test_missing_files_are_told_of(run: RunProgram) -> None:
    got = run("missing_files")
    (note,), steps = got["state"]
    assert "not exact" in note
    assert steps == [2, 3]
    (note,), steps = got["all"]
    assert "trained from epoch 0" in note
    assert steps == [0, 1, 2, 3]


@on_tensorflow
def test_a_trial_goes_on_from_a_parent_with_its_own_rate(run: RunProgram) -> None:
    got = run("from_a_parent")
    assert got["rates"] == [0.1, 0.1, 0.5]
    assert got["counts"] == [0, 4, 8]
    assert got["epochs"] == [2]
    assert got["best"] == 2  # its own, not its parent's
    assert got["same"] is True
    kind, message = got["error"]
    assert kind == "FatalValueError"
    assert "trial 0000" in message


# In a search, on TensorFlow


def promoting(max_trials: int, **options: Any) -> Hyperband:
    """Return a tuner that is given as many trials as it wants."""
    return Hyperband(**options)


async def searched(directory: Path, kind: Any = RandomSearch, **changes: Any) -> SearchResult:
    x, y, *held_out = keras_search.data()
    fit: dict[str, Any] = {"epochs": 4, "validation_data": tuple(held_out), "verbose": 0}
    fit |= changes.pop("fit", {})
    options = {"hypermodel": keras_search.build, "objective": "val_loss"} | changes
    return await make(kind, directory, **options).search(x, y, **fit)


async def test_a_trial_that_is_killed_goes_on(keras_server: Server, tmp_path: Path) -> None:
    """Its score, its curve and the bytes of its best weights are those of a trial that was not."""
    results = {}
    for name in ("killed", "whole"):
        place = tmp_path / name
        marker = tmp_path / "marker"  # the second search finds it there
        results[name] = await searched(
            place,
            max_trials=1,
            max_retries_per_trial=1,
            checkpoint_every=0,
            fit={"callbacks": keras_search.killing_callbacks(str(marker))},
        )
    (killed,), (whole,) = (each.trials for each in results.values())
    first, second = killed.runs
    assert (first.state, first.failure) == (RunState.FAILED, FailureKind.CRASH)
    assert second.continues == 0
    assert [each.step for each in second.observations] == [2, 3]
    assert list(killed.curve(second)) == list(whole.runs[0].observations)
    assert (killed.score, killed.best_step) == (whole.score, whole.best_step)
    one, other = ((tmp_path / name / "project" / "trial_0000" / "repeat-0") for name in results)
    assert (one / "best.state").read_bytes() == (other / "best.state").read_bytes()
    assert {path.name for path in one.iterdir()} == {"best.json", "best.state"}


async def test_promoted_trials_of_hyperband_go_on(
    keras_server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = await searched(tmp_path, promoting, max_epochs=4, factor=2, min_epochs=2)
    promoted = [trial for trial in result.trials if len(trial.runs) > 1]
    assert promoted
    for trial in promoted:
        last = trial.runs[-1]
        assert last.continues is not None
        steps = [each.step for each in trial.curve(last)]
        assert steps == list(range(4))
    assert "exact" not in caplog.text
