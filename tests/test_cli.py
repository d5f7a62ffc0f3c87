"""The command line: what it prints, its exit codes, and that it loads no framework."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import aiotune
from aiotune.cli import main
from aiotune.events import to_json
from aiotune.executors.context import RunContext
from aiotune.results import results_text
from aiotune.store.database import connect_writer
from aiotune.store.schema import logged
from tests.support.facts import USAGE, every_kind
from tests.support.kerastuner import DATA, EXPECTED
from tests.support.programs import ROOT, run_module, run_program


class Line(aiotune.RandomSearch):
    """Trial 1 fails, and trial 2 has a label that is too long for a table."""

    def run_trial(self, trial: RunContext, *args: Any) -> dict[str, float]:
        x = trial.hyperparameters.Float("x", 0.0, 1.0)
        trial.hyperparameters.Fixed("label", "long " * 20)
        if trial.number == 1:
            raise aiotune.errors.FailedTrialError("out of luck")
        trial.report(0, loss=x)
        return {"loss": float("inf") if trial.number == 2 else x}


@pytest.fixture
async def project(tmp_path: Path) -> Path:
    tuner = Line(
        objective="loss",
        max_trials=4,
        seed=3,
        directory=tmp_path,
        project_name="line",
        executor="inline",
    )
    await tuner.search(verbose=0)
    return tmp_path / "line"


# show


def test_show_sums_up_a_project(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(project), "--top", "2"]) == 0
    text = capsys.readouterr().out
    assert "Search (RandomSearchOracle, seed 3) ended" in text
    assert "by max_trials" in text
    assert "Trials: 3 COMPLETED, 1 FAILED" in text
    tuner = Line(objective="loss", directory=project.parent, project_name="line")
    summary = results_text(tuner.trials, tuner.objective, str(project), 2)
    assert text.endswith("\n".join(summary) + "\n")


def test_show_as_json(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(project), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["trials"] == {"COMPLETED": 3, "FAILED": 1}
    assert shown["reason"] == "max_trials"
    assert shown["objective"] == {"name": "loss", "direction": "min"}
    scores = [each["score"] for each in shown["best"]]
    assert scores[2] == "inf"  # strict JSON has no number for it
    assert scores[:2] == sorted(scores[:2])
    assert shown["best"][0]["metrics"] == {"loss": scores[0]}


def test_show_tells_what_the_gpus_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "cards" / "study.db"
    with closing(
        connect_writer(store, durability="process", factory=sqlite3.Connection)
    ) as connection:
        for number, fact in enumerate(every_kind(), start=1):
            kind, data = to_json(fact)
            statement = logged(number, fact, kind=kind, text=json.dumps(data))
            connection.executemany(*statement)
    assert main(["show", str(store.parent)]) == 0
    told = "GPUs: 0.025 GPU seconds, peak 1 GiB, 0.00208 Wh (estimated)"
    assert told in capsys.readouterr().out.splitlines()
    assert main(["show", str(store.parent), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["usage"] == asdict(USAGE)
    assert main(["trials", str(store.parent), "--json"]) == 0
    first, last = json.loads(capsys.readouterr().out)["runs"]
    assert (first["usage"], last["usage"]) == (None, asdict(USAGE))
    assert (last["gpu_memory"], last["gpu_fraction"]) == (2**31, 0.25)


async def test_a_search_in_progress_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []

    class Looking(aiotune.RandomSearch):
        async def run_trial(self, trial: RunContext) -> float:
            seen.append(main(["show", str(tmp_path / "now")]))
            seen.append(main(["trials", str(tmp_path / "now")]))
            return trial.hyperparameters.Float("x", 0.0, 1.0)

    tuner = Looking(max_trials=1, directory=tmp_path, project_name="now")
    result = await tuner.search(verbose=0)
    assert result.trials[0].status == "COMPLETED"
    assert seen == [0, 0]
    text = capsys.readouterr().out
    assert "not ended: in progress, or its process died" in text
    assert "Trials: 1 RUNNING" in text


# trials


def test_trials_are_listed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trials", str(project)]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["trial", "status", "score", "step", "runs", "values"]
    assert [line.split()[0] for line in lines] == ["0000", "0001", "0002", "0003"]
    assert lines[1].split()[1:5] == ["FAILED", "-", "-", "1"]
    assert lines[2].split()[2] == "inf"
    assert "label=long long long long l..." in lines[0]


def test_trials_are_chosen(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trials", str(project), "--status", "failed"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == ["0001"]
    assert main(["trials", str(project), "--best"]) == 0
    scores = [float(line.split()[2]) for line in capsys.readouterr().out.splitlines()[1:]]
    assert len(scores) == 3
    assert scores == sorted(scores)


def test_trials_as_json_have_everything(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trials", str(project), "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    first, broken = records[:2]
    x = first["hyperparameters"]["values"]["x"]
    assert first["score"] == x
    assert first["metrics"]["metrics"]["loss"]["observations"] == [{"value": [x], "step": 0}]
    assert first["runs"][0]["state"] == "FINISHED"
    assert first["hyperparameters"]["space"][0]["class_name"] == "Float"
    assert "out of luck" in broken["message"]


# import


def test_import_goes_beside_the_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = Path(shutil.copytree(DATA / "random", tmp_path / "random"))
    assert main(["import", str(source)]) == 0
    text = capsys.readouterr().out
    assert "Imported 8 trials of KerasTuner" in text
    assert 'Objective(name="val_loss", direction="min")' in text
    assert main(["show", str(tmp_path / "random_aiotune"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [each["score"] for each in shown["best"]] == EXPECTED["random"]["scores"]
    assert main(["import", str(source)]) == 1
    assert "--to" in capsys.readouterr().err


def test_import_takes_what_the_files_do_not_tell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = str(tmp_path / "here")
    wrong = ["import", str(DATA / "random"), "--to", target, "--objective", "accuracy"]
    assert main(wrong) == 1
    assert "not those of" in capsys.readouterr().err
    assert main([*wrong[:-1], "val_loss", "--direction", "min", "--checkpoints", "all"]) == 0
    assert main(["trials", target, "--status", "QUEUED"]) == 0
    assert "0007" in capsys.readouterr().out


# errors


def test_an_error_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(tmp_path / "absent")]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"aiotune: {tmp_path / 'absent'} is no directory\n"


def test_the_right_directory_is_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trials", str(project.parent)]) == 1
    assert "has some: line" in capsys.readouterr().err
    assert main(["trials", str(project / "trial_0000")]) == 1
    assert "has no study.db" in capsys.readouterr().err
    assert main(["show", str(DATA / "grid")]) == 1
    assert f"`aiotune import {DATA / 'grid'}`" in capsys.readouterr().err


def test_a_damaged_store_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "study.db").write_bytes(b"no database" * 100)
    assert main(["show", str(tmp_path)]) == 1
    assert "is no database" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [[], ["show"], ["trials", "x", "--status", "odd"], ["show", "x", "--top", "-1"]]
)
def test_a_wrong_command_line_is_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    assert "usage: aiotune" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error(project: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "aiotune", "trials", str(project)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 0


# what it costs


def test_python_m_aiotune_says_what_there_is() -> None:
    text = run_module("aiotune", "--help")
    for command in ("show", "trials", "import", "gpus"):
        assert f"\n    {command} " in text
    assert run_module("aiotune", "--version") == f"aiotune {aiotune.__version__}\n"


def test_looking_into_a_project_loads_no_framework(project: Path) -> None:
    loaded = run_program(
        """
        import sys
        from aiotune.cli import main
        main(["trials", sys.argv[1]])
        print("loaded:", *sys.modules)
        """,
        project,
    )
    heavy = {
        "numpy",
        "scipy",
        "keras",
        "tensorflow",
        "jax",
        "torch",
        "sklearn",
        "rich",
        "aiosqlite",
    }
    assert not heavy & set(loaded.split("loaded:")[1].split())


def test_importing_loads_no_framework(tmp_path: Path) -> None:
    loaded = run_program(
        """
        import sys
        from aiotune.cli import main
        assert main(["import", sys.argv[1], "--to", sys.argv[2]]) == 0
        print("loaded:", *sys.modules)
        """,
        DATA / "model",
        tmp_path / "here",
    )
    assert not {"keras", "tensorflow", "jax", "torch"} & set(loaded.split("loaded:")[1].split())
