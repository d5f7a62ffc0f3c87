"""The programs that people bring from KerasTuner, in each place where they run them.

`support/guide/program.py` imports Keras and TensorFlow at its top, builds a model in the caller first, and
defines its classes itself: in `__main__`, unless it is imported. All of its searches run at once.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

import pytest

from tests.support import guide
from tests.support.notebook import notebook
from tests.support.programs import ROOT
from tests.support.service import serving
from tests.support.terminal import run_in_terminal

DEADLINE_SECONDS = 400.0  # far above what any of them takes; reaching it is a failure
VARIABLES = {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
METRICS = ["accuracy", "hits", "loss", "val_accuracy", "val_hits", "val_loss"]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Put the program's directory into the test's, and return the program."""
    directory = tmp_path / "programs"
    copytree(Path(guide.__file__).parent, directory, ignore=ignore_patterns("__*"))
    return directory / "program.py"


def run_python(directory: Path, *arguments: object) -> Any:
    """Run a program in the directory and return what it found."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=directory,
        env=os.environ | VARIABLES,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])


def check(found: Any) -> None:
    """Compare what each search found with what its style promises."""
    build, separate, tuned = found["build"], found["separate"], found["tuned"]
    assert build["steps"] == separate["steps"] == [METRICS, METRICS]
    assert set(build["values"]) == {"units", "features", "rate"}
    assert build["again"] == pytest.approx(build["score"])  # of the model that was loaded again
    assert build["rebuilt"] is True
    assert set(separate["values"]) == {"units", "activation", "rate"}
    assert separate["score"] < 1.0  # a loss less a share
    assert tuned["steps"] == [METRICS] * tuned["values"]["epochs"]
    assert set(tuned["values"]) == {"features", "batch_size", "epochs"}
    assert found["dict"] == tuned  # the same points, for they have the same seed
    assert found["loop"]["steps"] == found["tuner"]["steps"] == [["my_loss"], ["my_loss"]]
    assert "batch" in found["loop"]["values"]
    assert "own_rate" in found["tuner"]["values"]
    assert found["function"]["score"] == (found["function"]["values"]["x"] - 0.5) ** 2


def test_as_a_script(program: Path, tmp_path: Path) -> None:
    check(run_python(tmp_path, program))


def test_as_a_module_of_a_package(program: Path, tmp_path: Path) -> None:
    text = program.read_text()
    assert "from blocks import" in text
    program.write_text(text.replace("from blocks import", "from .blocks import"))
    check(run_python(tmp_path, "-m", "programs.program"))


def cells_of(program: Path) -> list[str]:
    """Return the program in pieces, without the last one, which runs it."""
    first, *others, _ = program.read_text().split("\n# %%")
    return [first, *(f"#{cell}" for cell in others)]  # the mark may be followed by words


async def test_in_a_notebook(program: Path) -> None:
    async with notebook(program.parent, **VARIABLES) as book:
        for cell in cells_of(program):
            await book.run(cell)
        shown = await book.run("told = await main()")
    assert len(shown.splitlines()) == 1  # no word of a child's
    check(json.loads(shown))


async def test_under_uvicorn(program: Path) -> None:
    with serving(program.parent, str(uuid.uuid4()), "service:app", **VARIABLES) as service:
        assert service.get("/status") == {"is_done": False}
        check(await asyncio.to_thread(service.get, "/result"))


def test_a_silent_search_shows_nothing_at_all(tmp_path: Path) -> None:
    """Not even what TensorFlow says when it is imported, or begins to compute."""
    code = """
        import asyncio
        import aiotune
        from tests.support import keras_search

        x, y, xv, yv = keras_search.data()
        tuner = aiotune.RandomSearch(keras_search.build, "val_loss", max_trials=2, gpus=0)
        result = asyncio.run(tuner.search(x, y, validation_data=(xv, yv), verbose=0))
        print(result.reason.value)
    """
    shown = run_in_terminal(
        ["-c", code.replace("\n        ", "\n")], tmp_path, PYTHONPATH=str(ROOT)
    )
    assert shown == "max_trials\n"
