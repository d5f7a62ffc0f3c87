from __future__ import annotations

from pathlib import Path

import anyio
import pytest

import aiotune
from aiotune.errors import FatalValueError
from aiotune.events import Event, RunStarted, TrialCreated, TrialEnded, TrialPaused
from aiotune.history import History
from aiotune.layout import Layout
from aiotune.objective import MultiObjective, Objective
from aiotune.retention import Janitor
from aiotune.trial import Trial, TrialState

SCORE = Objective("score", "max")


class Project:
    """A project on disk whose trials have a checkpoint each."""

    def __init__(self, root: Path, keep: int, objective: Objective = SCORE) -> None:
        self.layout = Layout(root, "project")
        self.history = History()
        self.janitor = Janitor(self.layout, objective, keep)

    def apply(self, event: Event) -> None:
        self.history.apply(event)
        self.janitor(event, self.history)

    def begin(self, number: int) -> str:
        name = f"{number:04d}"
        self.apply(TrialCreated(0.0, name, number, number, {}, 0))
        self.apply(RunStarted(0.0, name, 0, 0, 0, (), None))
        checkpoints = self.layout.repeat(name, 0)
        checkpoints.mkdir(parents=True)
        (checkpoints / "best.state").write_bytes(b"weights")
        (checkpoints / "last.state").write_bytes(b"weights")
        (checkpoints / "before-3").mkdir()
        (checkpoints / "before-3" / "last.state").write_bytes(b"weights")
        (checkpoints / "writing.last.state").write_bytes(b"weig")
        (checkpoints / "writing.before-5").mkdir()
        self.layout.run_log(name, 0).write_text("log")
        return name

    def end(self, number: int, score: float | None, **metrics: float) -> None:
        status = TrialState.FAILED if score is None else TrialState.COMPLETED
        self.apply(TrialEnded(0.0, f"{number:04d}", status, score, metrics=metrics))

    async def cleaned(self) -> set[int]:
        """Let the janitor work until it is idle, and return the trials that have a checkpoint."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.janitor.work)
            await self.janitor.wait_idle()
            tasks.cancel_scope.cancel()
        return {int(path.parent.name[-4:]) for path in self.layout.root.glob("trial_*/repeat-0")}


async def test_only_the_best_trials_keep_their_checkpoints(tmp_path: Path) -> None:
    project = Project(tmp_path, keep=2)
    for number, score in enumerate([0.1, 0.5, 0.3, None, 0.4]):
        project.begin(number)
        project.end(number, score)
    assert await project.cleaned() == {1, 4}
    assert len(list(project.layout.root.glob("trial_*/run-0.log"))) == 5


async def test_none_of_those_that_are_over_may_stay(tmp_path: Path) -> None:
    """Not even the front; a paused trial goes on from its own."""
    objective = MultiObjective([Objective("error", "min"), Objective("size", "min")])
    project = Project(tmp_path, keep=0, objective=objective)
    for number in range(2):
        project.begin(number)
        project.end(number, 3.0, error=1.0, size=2.0)
    project.apply(TrialPaused(0.0, project.begin(2), 0.1, 0))
    assert await project.cleaned() == {2}


def test_a_model_that_was_not_to_be_kept_is_missed_in_words(tmp_path: Path) -> None:
    tuner = aiotune.RandomSearch(
        lambda hp: None, "val_loss", keep_checkpoints="none", directory=tmp_path
    )
    with pytest.raises(FatalValueError, match='keep_checkpoints="none" lets those of trials'):
        tuner.load_model(Trial("0000", 0, 0, {}, 0, 0.0, state=TrialState.COMPLETED))


async def test_of_a_trial_that_is_over_the_best_epoch_stays_alone(tmp_path: Path) -> None:
    project = Project(tmp_path, keep=2)
    for number in range(2):
        project.begin(number)
    project.end(0, 0.5)
    assert await project.cleaned() == {0, 1}
    over, under_way = (project.layout.repeat(f"{number:04d}", 0) for number in range(2))
    assert {path.name for path in over.iterdir()} == {"best.state"}
    assert {path.name for path in under_way.iterdir()} > {"best.state", "last.state", "before-3"}


async def test_the_trials_of_the_front_keep_their_checkpoints(tmp_path: Path) -> None:
    """Each as long as it is on the front, and beside them the best by the sum."""
    objective = MultiObjective([Objective("error", "min"), Objective("size", "min")])
    project = Project(tmp_path, keep=1, objective=objective)
    for number, (error, size) in enumerate([(5, 5), (1, 9), (9, 1), (4, 4), (6, 6), (3, 3)]):
        project.begin(number)
        project.end(number, error + size, error=error, size=size)
    assert await project.cleaned() == {1, 2, 5}


async def test_a_list_of_objectives_keeps_the_best_sums_only(tmp_path: Path) -> None:
    names = [Objective("error", "min"), Objective("size", "min")]
    project = Project(tmp_path, keep=1, objective=MultiObjective(names, by="sum"))
    for number, (error, size) in enumerate([(1, 9), (9, 1), (3, 3)]):
        project.begin(number)
        project.end(number, error + size, error=error, size=size)
    assert await project.cleaned() == {2}


async def test_a_trial_that_is_not_over_keeps_its_checkpoint(tmp_path: Path) -> None:
    project = Project(tmp_path, keep=1)
    project.begin(0)
    for number in (1, 2):
        project.begin(number)
        project.end(number, 0.5)
    assert await project.cleaned() == {0, 1}


async def test_what_an_earlier_session_left_is_cleaned_up(tmp_path: Path) -> None:
    project = Project(tmp_path, keep=1)
    for number, score in enumerate([0.1, 0.9]):
        project.begin(number)
        project.history.apply(TrialEnded(0.0, f"{number:04d}", TrialState.COMPLETED, score))
    project.begin(2)
    project.end(2, 0.2)
    assert await project.cleaned() == {1}


async def test_a_disk_that_refuses_to_delete_does_not_end_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    project = Project(tmp_path, keep=1)
    for number in range(2):
        project.begin(number)
        project.end(number, 0.5)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr("shutil.rmtree", refuse)
    assert await project.cleaned() == {0, 1}
    assert "0001 could not be deleted" in caplog.text


async def test_a_paused_trial_takes_no_place_among_the_best(tmp_path: Path) -> None:
    """It may yet break; its own checkpoint stays anyway."""
    project = Project(tmp_path, keep=1)
    project.begin(0)
    project.apply(TrialPaused(0.0, "0000", 0.9, 0))
    for number, score in ((1, 0.5), (2, 0.4)):
        project.begin(number)
        project.end(number, score)
    assert await project.cleaned() == {0, 1}
