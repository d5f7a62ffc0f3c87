"""PopulationBasedTraining and Replay as users call them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import aiotune
from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.executors.launch import Server
from aiotune.trial import Trial
from tests.support import keras_search
from tests.support.evolved import Diary, Walk, Widening

DISTANCE = aiotune.Objective("distance", "min")


def walk(root: Path, **options: Any) -> Walk:
    given: dict[str, Any] = {
        "population_size": 6,
        "max_epochs": 6,
        "interval": 2,
        "seed": 1,
        "project_name": "walk",
    }
    return Walk(objective=DISTANCE, directory=root, **given | options)


class Replayed(aiotune.Replay):
    run_trial = Walk.run_trial


def places(tuner: aiotune.Tuner, trial: Trial) -> float:
    return float((Path(tuner.get_trial_dir(trial.trial_id)) / "repeat-0" / "place").read_text())


async def test_a_run_trial_of_the_users_own_goes_on_from_its_parents_file(tmp_path: Path) -> None:
    tuner = walk(tmp_path, max_concurrent_trials=3, keep_checkpoints="all")
    result = await tuner.search(verbose=0)
    assert result.message == "the population was trained for 6 epochs"
    children = [trial for trial in result.trials if trial.parent is not None]
    assert len(children) == 2
    for trial in result.trials:
        stages = tuner.best_schedule(trial).stages
        walked = sum(
            (each.to_epoch - each.from_epoch) * float(each.values["step"])  # type: ignore[arg-type]
            for each in stages
        )
        assert places(tuner, trial) == pytest.approx(walked)


async def test_the_best_schedule_is_replayed_to_the_same_end(tmp_path: Path) -> None:
    tuner = walk(tmp_path, seed=None)
    await tuner.search(verbose=0)
    again = walk(tmp_path, seed=None)  # another program that opens the project
    schedule = again.best_schedule()
    assert schedule == tuner.best_schedule()
    schedule.save(tmp_path / "schedule.json")
    child = next(trial for trial in again.trials if trial.parent and trial.status == "COMPLETED")
    line = again.best_schedule(child)
    assert len(line) == 2
    replay = Replayed(None, line, DISTANCE, directory=tmp_path, project_name="replay")
    result = await replay.search(verbose=0)
    last = result.trials[-1]
    assert len(result.trials) == 2
    assert replay.oracle.seed == tuner.oracle.seed
    assert places(replay, last) == places(tuner, child)
    assert last.parent == result.trials[0].trial_id


async def test_without_a_score_there_is_no_schedule(tmp_path: Path) -> None:
    with pytest.raises(FatalValueError, match="no trial has a score yet"):
        walk(tmp_path).best_schedule()


def test_bad_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FatalTypeError, match="takes no max_trials: population_size"):
        walk(tmp_path, max_trials=10)
    with pytest.raises(FatalValueError, match="schedule is missing"):
        Replayed(objective=DISTANCE, directory=tmp_path)


# --- with Keras ---


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_a_model_goes_on_from_its_parents_weights_with_its_own_learning_rate(
    keras_server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    x, y, xv, yv = keras_search.data()
    diary = tmp_path / "diary"
    tuner = aiotune.PopulationBasedTraining(
        Diary(diary),
        "val_loss",
        population_size=4,
        max_epochs=2,
        interval=1,
        seed=2,
        directory=tmp_path,
        gpus=0,
        max_concurrent_trials=2,
    )
    result = await tuner.search(x, y, epochs=9, validation_data=(xv, yv), verbose=0)
    assert "epochs=9 has no effect: PopulationBasedTraining sets" in caplog.text
    assert [trial.status for trial in result.trials] == ["COMPLETED"] * 5
    child = result.trials[-1]
    assert child.parent is not None
    parent = tuner.oracle.get_trial(child.parent)
    runs = [(each["values"], each) for each in lines_of(diary)]
    (before,) = [
        run
        for values, run in runs
        if values["rate"] == parent.values["rate"] and values["tuner/epochs"] == 1
    ]
    (after,) = [run for values, run in runs if values["rate"] == child.values["rate"]]
    assert after["begun"]["weights"] == before["ended"]["weights"]
    assert after["begun"]["iterations"] == before["ended"]["iterations"] == 2
    assert after["begun"]["rate"] == pytest.approx(child.values["rate"])
    assert child.values["rate"] != parent.values["rate"]
    assert [each.step for each in child.runs[0].observations] == [1]
    metrics = await tuner.evaluate(child, xv, yv)
    assert metrics["loss"] == pytest.approx(child.score, abs=1e-6)
    replay = aiotune.Replay(
        Diary(tmp_path / "second"),
        tuner.best_schedule(child),
        "val_loss",
        directory=tmp_path,
        project_name="replay",
        gpus=0,
    )
    replayed = await replay.search(x, y, validation_data=(xv, yv), verbose=0)
    assert lines_of(tmp_path / "second")[-1]["ended"] == after["ended"]
    assert replayed.trials[-1].score == child.score


async def test_a_value_that_changes_the_shape_of_the_model_is_explained(
    keras_server: Server, tmp_path: Path
) -> None:
    x, y, xv, yv = keras_search.data()
    tuner = aiotune.PopulationBasedTraining(
        Widening(tmp_path / "diary"),
        "val_loss",
        population_size=2,
        max_epochs=2,
        interval=1,
        resample_probability=0.0,
        seed=2,
        directory=tmp_path,
        gpus=0,
    )
    with pytest.raises(FatalValueError, match=r"change the shape of the model .* explore=\["):
        await tuner.search(x, y, validation_data=(xv, yv), verbose=0)
