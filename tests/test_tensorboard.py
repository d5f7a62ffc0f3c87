"""What TensorBoard shows of a search, read back from its event files as TensorBoard reads them."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")

ROOT = Path(__file__).parents[1]
RunProgram = Callable[[str], Any]

on_every_backend = pytest.mark.parametrize("run", ["tensorflow", "torch"], indirect=True)


@pytest.fixture(scope="module", params=["tensorflow"])
def run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunProgram]:
    """Call it with a program's name to get the program's result; each program runs once."""
    directory = tmp_path_factory.mktemp(request.param)
    variables = {
        "KERAS_BACKEND": request.param,
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    with (
        (directory / "host.log").open("w") as errors,
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.support.keras_host",
                "tests.support.tensorboard_programs",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=ROOT,
            env=os.environ | variables,
        ) as host,
    ):
        yield functools.cache(functools.partial(_answer, host, directory))
        assert host.stdin is not None
        host.stdin.close()


def _answer(host: subprocess.Popen[str], directory: Path, program: str) -> Any:
    assert host.stdin is not None
    assert host.stdout is not None
    place = directory / program
    place.mkdir()
    host.stdin.write(json.dumps([program, str(place)]) + "\n")
    host.stdin.flush()
    answer = json.loads(host.stdout.readline() or '{"error": "the host died"}')
    assert "error" not in answer, answer["error"]
    return answer["result"]


def domains(got: Any) -> dict[str, Any]:
    return {
        each["name"]: each.get("domain_discrete") or each.get("domain_interval")
        for each in got["plugin"]["experiment"]["hparam_infos"]
    }


@on_every_backend
def test_the_values_of_a_run_are_shown(run: RunProgram) -> None:
    start = run("searched")["plugin"]["session_start_info"]
    values = start["hparams"]
    assert start["group_name"] == "0007"  # the executions of a trial form a group
    assert values["fixed"] == 7
    assert values["deep"] is False
    assert isinstance(values["mixed"], str)  # of a Choice of text, None and a number
    assert 2 <= values["units"] <= 8
    assert values["batch"] in (16, 32)  # declared in `fit`


@on_every_backend
def test_inactive_names_have_no_value(run: RunProgram) -> None:
    got = run("searched")
    assert "depth" not in got["plugin"]["session_start_info"]["hparams"]
    assert "depth" in domains(got)


def test_each_name_has_its_domain(run: RunProgram) -> None:
    found = domains(run("searched"))
    assert found["units"] == {"min_value": 2, "max_value": 8}
    assert found["width"] == [8, 16, 24, 32]
    assert found["rate"] == {"min_value": 1e-4, "max_value": 0.1}
    assert found["drop"] == [0, 0.25, 0.5]
    assert found["mixed"] == ["relu", "None", "3"]
    assert found["fixed"] == [7]
    assert found["deep"] == [False, True]
    assert found["one name"] is None  # declared with two ranges


@on_every_backend
def test_the_metrics_of_the_best_epoch_are_shown(run: RunProgram) -> None:
    got = run("searched")
    best = min((metrics for _, metrics in got["observed"]), key=lambda each: each["val_loss"])
    assert got["scalars"] == {name: [pytest.approx(value)] for name, value in best.items()}
    shown = [each["name"]["tag"] for each in got["plugin"]["experiment"]["metric_infos"]]
    assert shown[0] == "val_loss"  # the objective comes first
    assert set(shown) == set(best)
    assert got["plugin"]["session_end_info"]["status"] == "STATUS_SUCCESS"


@on_every_backend
def test_keras_writes_its_epochs_beside_them(run: RunProgram) -> None:
    got = run("searched")
    assert got["epochs"] == ["train", "validation"]
    assert got["notes"] == []


def test_the_experiment_has_the_names_of_all_runs(run: RunProgram) -> None:
    experiment = run("two_trials")
    assert {each["name"] for each in experiment["hparam_infos"]} == {"a", "b"}
    assert [each["name"]["tag"] for each in experiment["metric_infos"]] == ["loss"]


def test_a_stopped_run_is_no_failure(run: RunProgram) -> None:
    assert run("stopped") == "STATUS_SUCCESS"


def test_a_broken_run_is_a_failure(run: RunProgram) -> None:
    assert run("broken") == "STATUS_FAILURE"


def test_without_tensorboard_a_trial_does_not_fail(run: RunProgram) -> None:
    got = run("without_tensorboard")
    assert got["observed"] == 2
    assert not got["logs"]
    [note] = got["notes"]
    assert 'pip install "aiotune[tensorboard]"' in note


@pytest.mark.parametrize("run", ["torch"], indirect=True)
def test_without_tensorflow_the_hyperparameters_are_written(run: RunProgram) -> None:
    got = run("without_tensorflow")
    assert got["plugin"] == ["session_end_info", "session_start_info"]
    assert got["epochs"] == 2
    [note] = got["notes"]
    assert "needs tensorflow" in note


@pytest.mark.parametrize("run", ["torch"], indirect=True)
def test_what_cannot_be_written_is_noted(run: RunProgram) -> None:
    got = run("unwritable")
    assert got["observed"] == 2
    assert any("HParams" in note for note in got["notes"])
