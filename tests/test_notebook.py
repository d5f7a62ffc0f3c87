"""Searches in a Jupyter notebook: awaited, beside other cells, and interrupted."""

from __future__ import annotations

import asyncio
import sys
import uuid
from pathlib import Path

import pytest

from aiotune.notebook import is_in_kernel
from tests.support.marked import MARK, marked
from tests.support.notebook import CellExecutionError, notebook

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere hosts are best effort")

SETUP = """
import os
from tests.support import tuned

def tell(event, history):
    print(type(event).__name__)

class Loud(tuned.RandomSearch):
    def run_trial(self, trial):
        print("from the child")
        os.system("echo from a child of the child")
        return trial.hyperparameters.Float("x", 0, 1)

options = {"objective": "loss", "max_trials": 3, "gpus": 0, "directory": "results"}
"""


@pytest.fixture
def mark() -> str:
    return str(uuid.uuid4())


def test_this_is_no_kernel() -> None:
    assert not is_in_kernel()


async def test_a_notebook_awaits_a_search(tmp_path: Path, mark: str) -> None:
    async with notebook(tmp_path, **{MARK: mark}) as book:
        await book.run(SETUP)
        shown = await book.run("result = await Loud(**options).search()")
        assert "search for loss (min), 3 trials" in shown
        assert "search ended: max_trials is reached" in shown
        assert "from" not in shown.replace("output of the trials", "")
        assert "in trial 000" in await book.run("print(result)")
        (kernel,) = marked(mark)
        assert await book.run("print(os.getpid())") == f"{kernel}\n"
        assert (
            await book.run("from aiotune import notebook; print(notebook.is_in_kernel())")
            == "True\n"
        )
    log = tmp_path / "results" / "untitled_project" / "trial_0000" / "run-0.log"
    assert log.read_text() == "from the child\nfrom a child of the child\n"
    assert str(log).replace("0000", "<id>").replace("run-0", "run-<n>") in shown


async def test_an_interrupted_cell_leaves_a_kernel_that_can_go_on(
    tmp_path: Path, mark: str
) -> None:
    async with notebook(tmp_path, **{MARK: mark}) as book:
        await book.run(SETUP)
        await book.run(
            "tuner = tuned.Latch(**options, observers=[tell], max_concurrent_trials=2, seed=1)"
        )
        cell = asyncio.create_task(book.run("await tuner.search('gate', verbose=0)"))
        await book.wait_for("Reported")
        await book.wait_for("Reported")
        assert len(marked(mark)) >= 4  # the kernel, the fork server, two runs
        await book.interrupt()
        with pytest.raises(CellExecutionError, match=r"KeyboardInterrupt|CancelledError"):
            await cell
        (kernel,) = marked(mark)
        assert await book.run("print(os.getpid())") == f"{kernel}\n"
        states = await book.run("print(*[t.runs[0].state.name for t in tuner.trials])")
        assert states == "CANCELLED CANCELLED\n"
        (tmp_path / "gate").touch()
        await book.run("result = await tuner.search('gate', verbose=0)")
        told = await book.run("print(result.reason.value, *[t.status for t in result.trials])")
        assert told == "max_trials COMPLETED COMPLETED COMPLETED\n"
        assert marked(mark) == [kernel]


async def test_cells_run_beside_a_search(tmp_path: Path) -> None:
    async with notebook(tmp_path) as book:
        await book.run(SETUP)
        await book.run("import asyncio; tuner = tuned.Latch(**options, observers=[tell])")
        await book.run("searching = asyncio.ensure_future(tuner.search('gate', verbose=0))")
        await book.run("while not tuner.trials or not tuner.trials[0].runs: await asyncio.sleep(0)")
        assert (
            await book.run("print(tuner.trials[0].status, searching.done())") == "RUNNING False\n"
        )
        (tmp_path / "gate").touch()
        assert "3 trials" in await book.run("print(await searching)")
