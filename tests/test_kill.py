"""What is left when the caller is killed in mid-search: no process, and every result."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aiotune import EndReason, Trial
from aiotune.errors import StoreLocked
from tests.support import tuned
from tests.support.marked import MARK, marked, wait_until_gone
from tests.support.programs import ROOT, line_of
from tests.support.tuned import make

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a kill is best effort")

MAX_TRIALS = 8
LONGEST_LIFE_SECONDS = 5.0

PROGRAM = """
import asyncio, sys
from pathlib import Path
from tests.support import tuned

def tell(event, history):
    print(type(event).__name__, flush=True)

kind, directory, *arguments = sys.argv[1:]
tuner = tuned.make(getattr(tuned, kind), Path(directory), max_trials={max_trials}, observers=[tell])
print("began", flush=True)
asyncio.run(tuner.search(*arguments, verbose=0))
"""


@contextmanager
def searching(mark: str, kind: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run a search in a program whose processes all have the mark; at the end all of them are killed."""
    command = [sys.executable, "-c", PROGRAM.format(max_trials=MAX_TRIALS), kind]
    with subprocess.Popen(
        [*command, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {MARK: mark},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            for pid in [process.pid, *marked(mark)]:
                subprocess.run(["kill", "-9", str(pid)], check=False, capture_output=True)


def read_until(process: subprocess.Popen[str], line: str, count: int) -> None:
    """Return when the program has printed the line so many times."""
    while count:
        count -= line_of(process) == line


def ended(trials: tuple[Trial, ...]) -> dict[str, Trial]:
    return {trial.trial_id: trial for trial in trials if trial.is_over}


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("began", 1),  # the fork server imports
        ("SearchOpened", 1),
        ("TrialCreated", 1),
        ("RunStarted", 2),
        ("Reported", 3),
        ("RunEnded", 2),
        ("TrialEnded", 3),
        ("TrialEnded", MAX_TRIALS - 1),
    ],
)
def test_after_a_kill_nothing_lives_and_nothing_is_lost(
    tmp_path: Path, line: str, count: int
) -> None:
    mark = str(uuid.uuid4())
    with searching(mark, "Parabola", tmp_path, "0.5") as process:
        read_until(process, line, count)
        process.kill()
        process.wait()
        assert wait_until_gone(mark, LONGEST_LIFE_SECONDS) == []
    tuner = make(tuned.Parabola, tmp_path, max_trials=MAX_TRIALS)
    before = ended(tuner.trials)
    if line == "TrialEnded":
        assert len(before) >= count
    result = asyncio.run(tuner.search(0.5))
    assert result.reason is EndReason.MAX_TRIALS
    assert len(result.trials) == MAX_TRIALS
    assert {trial.status for trial in result.trials} == {"COMPLETED"}
    assert {key: ended(result.trials)[key] for key in before} == before


def test_a_killed_search_tries_the_points_that_it_would_have_tried(tmp_path: Path) -> None:
    mark = str(uuid.uuid4())
    with searching(mark, "Tree", tmp_path) as process:
        read_until(process, "TrialEnded", 3)
        process.kill()
        process.wait()
        assert wait_until_gone(mark, LONGEST_LIFE_SECONDS) == []
    resumed = make(tuned.Tree, tmp_path, max_trials=MAX_TRIALS)
    asyncio.run(resumed.search())
    whole = make(tuned.Tree, tmp_path, max_trials=MAX_TRIALS, project_name="whole")
    asyncio.run(whole.search())
    assert tuned.points(resumed.trials) == tuned.points(whole.trials)


def test_children_in_their_user_code_die_with_what_they_have_started(tmp_path: Path) -> None:
    mark = str(uuid.uuid4())
    with searching(mark, "Parent", tmp_path) as process:
        read_until(process, "Reported", 2)
        # The caller, the fork server, two children, and one process that each has left in its own session.
        assert len(marked(mark)) == 6
        process.kill()
        process.wait()
        assert wait_until_gone(mark, LONGEST_LIFE_SECONDS) == []


def test_children_that_ignore_everything_die(tmp_path: Path) -> None:
    mark = str(uuid.uuid4())
    with searching(mark, "Stubborn", tmp_path) as process:
        read_until(process, "Reported", 2)
        assert len(marked(mark)) == 4
        process.kill()
        process.wait()
        assert wait_until_gone(mark, LONGEST_LIFE_SECONDS) == []


def test_ctrl_c_ends_every_process_and_the_search_can_go_on(tmp_path: Path) -> None:
    mark = str(uuid.uuid4())
    with searching(mark, "Parent", tmp_path) as process:
        read_until(process, "Reported", 2)
        subprocess.run(["kill", "-INT", str(process.pid)], check=True)
        assert process.stdout is not None
        assert process.stdout.read().split().count("RunEnded") == 2
        assert process.wait() != 0
        assert wait_until_gone(mark, LONGEST_LIFE_SECONDS) == []
    tuner = make(tuned.Dice, tmp_path, max_trials=MAX_TRIALS)  # the same space, but its trials end
    assert [run.state for trial in tuner.trials for run in trial.runs] == ["CANCELLED"] * 2
    assert len(asyncio.run(tuner.search()).trials) == MAX_TRIALS


async def test_the_search_of_another_process_is_left_alone(tmp_path: Path) -> None:
    mark = str(uuid.uuid4())
    with searching(mark, "Patient", tmp_path) as process:
        read_until(process, "Reported", 2)
        tuner = make(tuned.Patient, tmp_path)
        with pytest.raises(StoreLocked, match=f"pid {process.pid} on ") as caught:
            await tuner.search()
        assert caught.value.pid == process.pid
        with pytest.raises(StoreLocked):
            make(tuned.Patient, tmp_path, overwrite=True)
        assert [trial.status for trial in tuner.trials] == ["RUNNING", "RUNNING"]
