from __future__ import annotations

import asyncio
import math
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import pytest
from anyio.abc import TaskGroup
from hypothesis import given, settings
from hypothesis import strategies as st

import aiotune
from aiotune.checkpoints import Checkpoint, Keep
from aiotune.errors import FatalValueError
from aiotune.events import (
    CheckpointsDropped,
    CheckpointsKept,
    Event,
    Reported,
    RunEnded,
    RunStarted,
    TrialCreated,
    TrialEnded,
    TrialPaused,
    TrialPromoted,
)
from aiotune.history import History
from aiotune.layout import Layout, reports_of
from aiotune.objective import MultiObjective, Objective
from aiotune.recorder import Recorder
from aiotune.retention import Janitor
from aiotune.settlement import Work
from aiotune.store.memory import MemoryStore
from aiotune.trial import Budget, RunState, Trial, TrialState
from tests.support.virtual_clock import VirtualClock

SCORE = Objective("score", "max")
TRADE_OFF = MultiObjective([Objective("error", "min"), Objective("size", "min")])
SIZE = 100  # bytes of each file


class Project:
    """A project on disk whose trials have a checkpoint each, with the facts that a scheduler would record."""

    def __init__(
        self,
        root: Path,
        keep: object,
        objective: Objective = SCORE,
        most: int | None = None,
        store: MemoryStore | None = None,
    ) -> None:
        self.layout = Layout(root, "project")
        self.store = store or MemoryStore()
        self.history = History(self.store.facts)
        self.clock = VirtualClock()
        self.janitor = Janitor(self.layout, objective, Keep.of(keep), self.clock, most)
        self.recorder = Recorder(self.store, self.history, [self.janitor])

    def again(self, keep: object = 1, most: int | None = None) -> Project:
        """Return the same project as the next process finds it."""
        return Project(self.layout.directory, keep, most=most, store=self.store)

    async def record(self, *facts: Event) -> None:
        await self.recorder.record(*facts)

    async def begin(self, number: int, *, is_continued: bool = False) -> str:
        """Let a trial run once and write its files; its run is in progress."""
        name = f"{number:04d}"
        await self.record(TrialCreated(0.0, name, number, number, {}, 0))
        await self.record(RunStarted(0.0, name, 0, 0, 0, (), None))
        checkpoints = self.layout.repeat(name, 0)
        checkpoints.mkdir(parents=True)
        for file in ("best.state", "last.state", "writing.last.state"):
            (checkpoints / file).write_bytes(bytes(SIZE))
        if is_continued:
            (checkpoints / "before-3").mkdir()
            (checkpoints / "before-3" / "last.state").write_bytes(bytes(SIZE))
            (checkpoints / "writing.before-5").mkdir()
        self.layout.run_log(name, 0).write_text("log")
        return name

    async def end_run(self, number: int) -> None:
        name = f"{number:04d}"
        last = len(self.history.trial(name).runs) - 1
        await self.record(RunEnded(0.0, name, last, RunState.FINISHED, {}))

    async def end(self, number: int, score: float | None, **metrics: float) -> None:
        status = TrialState.FAILED if score is None else TrialState.COMPLETED
        if not self.history.trial(f"{number:04d}").runs[-1].is_over:
            await self.end_run(number)
        await self.record(TrialEnded(0.0, f"{number:04d}", status, score, metrics=metrics))

    async def pause(self, number: int, score: float | None) -> None:
        await self.end_run(number)
        await self.record(TrialPaused(0.0, f"{number:04d}", score, 0))

    async def run(self, number: int, score: float | None, **metrics: float) -> None:
        await self.begin(number)
        await self.end(number, score, **metrics)

    async def cleaned(self) -> set[int]:
        """Let the janitor work until it is settled, and return the trials that have a checkpoint."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.janitor.work, self.recorder)
            await self.janitor.wait_settled()
            tasks.cancel_scope.cancel()
        return self.on_disk

    @property
    def on_disk(self) -> set[int]:
        return {int(path.parent.name[-4:]) for path in self.layout.root.glob("trial_*/repeat-0")}

    def files(self, number: int) -> set[str]:
        return set(os.listdir(self.layout.repeat(f"{number:04d}", 0)))

    def facts(self, kind: type[Event]) -> list[Event]:
        return [fact for fact in self.store.facts if isinstance(fact, kind)]


async def test_only_the_best_trials_keep_their_checkpoints(tmp_path: Path) -> None:
    project = Project(tmp_path, keep=2)
    for number, score in enumerate([0.1, 0.5, 0.3, None, 0.4]):
        await project.run(number, score)
    assert await project.cleaned() == {1, 4}
    assert len(list(project.layout.root.glob("trial_*/run-0.log"))) == 5


@pytest.mark.parametrize("keep", ["none", "promotable"])
async def test_none_of_those_that_are_over_may_stay(tmp_path: Path, keep: str) -> None:
    """Not even the front; a paused trial goes on from its own."""
    project = Project(tmp_path, keep=keep, objective=TRADE_OFF)
    for number in range(2):
        await project.run(number, 3.0, error=1.0, size=2.0)
    await project.begin(2)
    await project.pause(2, 0.1)
    assert await project.cleaned() == {2}


def test_a_model_that_was_not_to_be_kept_is_missed_in_words(tmp_path: Path) -> None:
    for keep in ("none", "promotable"):
        tuner = aiotune.RandomSearch(
            lambda hp: None, "val_loss", keep_checkpoints=keep, directory=tmp_path
        )
        with pytest.raises(FatalValueError, match=f'keep_checkpoints="{keep}" lets those of'):
            tuner.load_model(Trial("0000", 0, 0, {}, 0, 0.0, state=TrialState.COMPLETED))


async def test_all_stay_but_for_what_was_not_finished(tmp_path: Path) -> None:
    project = Project(tmp_path, keep="all")
    for number in range(2):
        await project.run(number, 0.5)
    assert await project.cleaned() == {0, 1}
    assert project.files(0) == {"best.state", "last.state"}


async def test_of_a_trial_that_is_over_the_best_epoch_stays_alone(tmp_path: Path) -> None:
    project = Project(tmp_path, keep=2)
    for number in range(2):
        await project.begin(number, is_continued=True)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(project.janitor.work, project.recorder)
        await project.janitor.wait_settled()
        (project.layout.repeat("0001", 0) / "writing.last.state").touch()  # by its run, just now
        await project.end(0, 0.5)
        await project.janitor.wait_settled()
        tasks.cancel_scope.cancel()
    assert project.files(0) == {"best.state"}
    assert project.files(1) == {"best.state", "last.state", "before-3", "writing.last.state"}


async def test_what_a_budget_began_with_goes_when_it_is_used_up(tmp_path: Path) -> None:
    project = Project(tmp_path, keep=1)
    await project.begin(0, is_continued=True)
    await project.pause(0, 0.5)
    await project.cleaned()
    assert project.files(0) == {"best.state", "last.state"}


async def test_the_trials_of_the_front_keep_their_checkpoints(tmp_path: Path) -> None:
    """Each as long as it is on the front, and beside them the best by the sum."""
    project = Project(tmp_path, keep=1, objective=TRADE_OFF)
    for number, (error, size) in enumerate([(5, 5), (1, 9), (9, 1), (4, 4), (6, 6), (3, 3)]):
        await project.run(number, error + size, error=error, size=size)
    assert await project.cleaned() == {1, 2, 5}


async def test_a_list_of_objectives_keeps_the_best_sums_only(tmp_path: Path) -> None:
    names = [Objective("error", "min"), Objective("size", "min")]
    project = Project(tmp_path, keep=1, objective=MultiObjective(names, by="sum"))
    for number, (error, size) in enumerate([(1, 9), (9, 1), (3, 3)]):
        await project.run(number, error + size, error=error, size=size)
    assert await project.cleaned() == {2}


async def test_a_trial_that_is_not_over_keeps_its_checkpoint(tmp_path: Path) -> None:
    project = Project(tmp_path, keep=1)
    await project.begin(0)
    for number in (1, 2):
        await project.run(number, 0.5)
    assert await project.cleaned() == {0, 1}


async def test_what_an_earlier_session_left_is_cleaned_up(tmp_path: Path) -> None:
    project = Project(tmp_path, keep=1)
    for number, score in enumerate([0.1, 0.9]):
        await project.run(number, score)
    assert project.on_disk == {0, 1}  # killed before it came to it
    assert await project.again().cleaned() == {1}


async def test_what_is_dropped_is_recorded_before_it_goes(tmp_path: Path) -> None:
    """And what stays, with its bytes; both once."""
    project = Project(tmp_path, keep=1)
    await project.run(0, 0.5)
    await project.run(1, 0.4)
    await project.cleaned()
    assert await project.again().cleaned() == {0}
    now = project.clock.now()
    assert project.facts(CheckpointsKept) == [
        CheckpointsKept(now, "0000", (Checkpoint(0, "best", SIZE, 1),))
    ]
    parts = (Checkpoint(0, "best", SIZE), Checkpoint(0, "last", SIZE))
    assert project.facts(CheckpointsDropped) == [
        CheckpointsDropped(now, "0000", parts[1:]),
        CheckpointsDropped(now, "0001", parts),
    ]


async def test_what_was_dropped_and_not_deleted_goes_with_the_next_search(tmp_path: Path) -> None:
    """Whatever that one keeps: nobody refers to it any more."""
    project = Project(tmp_path, keep=2)
    await project.run(0, 0.5)
    dropped = CheckpointsDropped(0.0, "0000", (Checkpoint(0, "best", SIZE),))
    await project.record(dropped)
    assert await project.again(keep=2).cleaned() == set()
    assert project.facts(CheckpointsDropped)[0] == dropped


async def test_nothing_is_deleted_that_could_not_be_recorded(tmp_path: Path) -> None:
    project = Project(tmp_path, keep=1)
    for number in range(2):
        await project.run(number, 0.5)
    project.store.fail_with = aiotune.errors.StoreUnwritable("the disk is full")
    assert await project.cleaned() == {0, 1}
    assert project.files(1) == {"best.state", "last.state"}


async def test_a_disk_that_refuses_to_delete_does_not_end_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    project = Project(tmp_path, keep=1)
    for number in range(2):
        await project.run(number, 0.5)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        assert await project.cleaned() == {0, 1}
    assert "0001 could not be deleted" in caplog.text
    assert await project.again().cleaned() == {0}


async def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "repeat-0").mkdir(parents=True)
    (outside / "repeat-0" / "best.state").write_text("mine")
    project = Project(tmp_path, keep="none")
    await project.run(0, 0.5)
    own = project.layout.repeat("0000", 0) / "own"
    own.symlink_to(outside)
    await project.run(1, 0.5)
    project.layout.trial("0001").rename(tmp_path / "elsewhere")
    project.layout.trial("0001").symlink_to(outside)
    await project.cleaned()
    assert not own.is_symlink()
    assert (outside / "repeat-0" / "best.state").read_text() == "mine"


async def test_of_equal_ones_the_older_stays(tmp_path: Path) -> None:
    project = Project(tmp_path, keep=1)
    for number in range(2):
        await project.begin(number)
    await project.end(1, 0.5)
    await project.end(0, 0.5)
    assert await project.cleaned() == {0}


async def test_what_a_trial_inherited_that_was_never_born_goes(tmp_path: Path) -> None:
    """The process died between the copy and the fact. Other directories are none of ours."""
    project = Project(tmp_path, keep=1)
    await project.run(0, 0.5)
    for number in (1, 5):
        project.layout.repeat(f"{number:04d}", 0).mkdir(parents=True)
        (project.layout.repeat(f"{number:04d}", 0) / "last.state").touch()
    assert await project.again().cleaned() == {0, 5}


async def test_a_paused_trial_takes_no_place_among_the_best(tmp_path: Path) -> None:
    """It may yet break; its own checkpoint stays anyway."""
    project = Project(tmp_path, keep=1)
    await project.begin(0)
    await project.pause(0, 0.9)
    for number, score in ((1, 0.5), (2, 0.4)):
        await project.run(number, score)
    assert await project.cleaned() == {0, 1}


# --- against a naive model ---

FILES = frozenset({"best.state", "own", "last.state", "before-3"})
SCORES = st.none() | st.sampled_from([0.1, 0.2, 0.2, 0.3, 0.9, math.nan])
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "begin", "end", "end", "end", "pause", "promote", "die"]),
        st.integers(0, 9),
        SCORES,
        st.booleans(),  # whether to look then
    ),
    min_size=6,
    max_size=30,
)


@dataclass
class Model:
    """Which files should be there: worked out anew from all that has happened."""

    keep: int | None  # None: all
    states: dict[int, tuple[str, float | None]] = field(default_factory=dict)  # state and score

    def expected(self) -> dict[int, frozenset[str]]:
        scored = [
            (-score, number)
            for number, (state, score) in self.states.items()
            if state == "over" and score is not None and not math.isnan(score)
        ]
        best = {number for _, number in sorted(scored)[: self.keep or 0]}
        found = {}
        for number, (state, _) in self.states.items():
            files = FILES if self.keep is None or state == "open" else frozenset()
            if state == "paused" and self.keep is not None:
                files = FILES - {"before-3"}
            if number in best:
                files = frozenset({"best.state", "own"})
            if files:
                found[number] = files
        return found


class Walk:
    """Takes steps on a project, beside its janitor, and on the model; impossible steps are left out."""

    def __init__(self, root: Path, keep: int | None, tasks: TaskGroup) -> None:
        self.model = Model(keep)
        self.keep = "all" if keep is None else keep or "none"
        self.tasks = tasks
        self.open(Project(root, self.keep))

    def open(self, project: Project) -> None:
        self.project = project
        self.scope = anyio.CancelScope()
        self.has_ended = anyio.Event()
        self.tasks.start_soon(self.work)

    async def work(self) -> None:
        with self.scope:
            await self.project.janitor.work(self.project.recorder)
        self.has_ended.set()

    async def die(self) -> None:
        """Let the process die wherever it is, and another one open the project."""
        self.scope.cancel()
        await self.has_ended.wait()
        self.open(self.project.again(self.keep))

    async def check(self) -> None:
        await self.project.janitor.wait_settled()
        assert self.found() == self.model.expected() == self.told()

    async def take(self, step: str, number: int, score: float | None) -> None:
        number %= len(self.model.states) or 1
        state, _ = self.model.states.get(number, (None, None))
        match step, state:
            case "begin", _:
                number = len(self.model.states)
                name = f"{number:04d}"
                await self.project.record(TrialCreated(0.0, name, number, number, {}, 0))
                await self.start(number, 0)
            case "end", "open":
                await self.project.end(number, score)
                self.model.states[number] = ("over", score)
            case "end", "paused":
                await self.project.end(number, score or 0.5)
                self.model.states[number] = ("over", score or 0.5)
            case "pause", "open":
                await self.project.pause(number, score)
                self.model.states[number] = ("paused", score)
            case "promote", "paused":
                runs = self.project.history.trial(f"{number:04d}").runs
                budget = Budget(9 + len(runs), 3)
                await self.project.record(TrialPromoted(0.0, f"{number:04d}", budget))
                await self.start(number, len(runs), budget)
            case "die", _:
                await self.die()

    async def start(self, number: int, run: int, budget: Budget | None = None) -> None:
        await self.project.janitor.wait_settled()  # as a scheduler does
        await self.project.record(RunStarted(0.0, f"{number:04d}", run, 0, 0, (), None, budget))
        directory = self.project.layout.repeat(f"{number:04d}", 0)
        directory.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (directory / name).write_text(name)
        self.model.states[number] = ("open", None)

    def found(self) -> dict[int, frozenset[str]]:
        return {number: frozenset(self.project.files(number)) for number in self.project.on_disk}

    def told(self) -> dict[int, frozenset[str]]:
        """Return the same as the facts tell it; of a trial in progress what is to come."""
        names = {"best": "best.state", "last": "last.state"}
        found = {}
        for trial_id in self.project.history.trials:
            parts = {each.part for each in self.project.history.checkpoints(trial_id)}
            is_open = self.model.states[int(trial_id)][0] == "open"
            if parts or is_open:
                files = frozenset(names.get(each, each) for each in parts)
                found[int(trial_id)] = FILES if is_open else files
        return found


@pytest.mark.parametrize("keep", [None, 0, 1, 2])
@given(steps=STEPS)
@settings(max_examples=25)
def test_what_stays_is_what_a_naive_model_says(
    keep: int | None, steps: list[tuple[str, int, float | None, bool]]
) -> None:
    """Whatever happens, wherever the janitor gets to work, and wherever a process dies."""

    async def main(root: Path) -> None:
        async with anyio.create_task_group() as tasks:
            walk = Walk(root, keep, tasks)
            for *step, is_looked_at in steps:
                await walk.take(*step)
                if is_looked_at:
                    await walk.check()
            await walk.check()
            await walk.die()
            await walk.check()
            tasks.cancel_scope.cancel()

    with TemporaryDirectory() as root:
        asyncio.run(main(Path(root)))


# --- max_disk ---


def queued(number: int) -> Work:
    return Work(f"{number:04d}", 0, 0, 0)


async def test_beyond_the_limit_the_worst_go_first_and_never_the_best(tmp_path: Path) -> None:
    project = Project(tmp_path, keep="all", most=4 * SIZE)
    for number, score in enumerate([0.9, 0.1, None, 0.5]):  # two files each
        await project.run(number, score)
    assert await project.cleaned() == {0, 3}
    assert await project.again("all", most=SIZE).cleaned() == {0}
    reasons = {fact.reason for fact in project.facts(CheckpointsDropped)}  # type: ignore[union-attr]
    assert reasons == {"max_disk=400 bytes", "max_disk=100 bytes"}


async def test_next_go_those_that_wait_for_a_promotion(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    project = Project(tmp_path, keep=1, most=4 * SIZE)
    await project.run(0, 0.9)
    for number, score in ((1, 0.2), (2, 0.5), (3, 0.1)):
        await project.begin(number)
        await project.pause(number, score)
    with project.janitor.pinned("0003"):
        assert await project.cleaned() == {0, 3}
    assert [record.message for record in caplog.records if "begins anew" in record.message] == [
        "max_disk=400 bytes has no room for all trials that wait for a promotion: the checkpoints of the worst "
        "of them are deleted, trial 0001 the first; one that is promoted all the same begins anew"
    ]
    lost = project.history.trial("0001")
    budget = Budget(9, 3)
    await project.record(TrialPromoted(0.0, "0001", budget))
    await project.record(RunStarted(0.0, "0001", 1, 0, 0, (), None, budget, 0))
    assert lost.state is TrialState.PAUSED
    trial = project.history.trial("0001")
    assert project.history.has_lost_state(trial, trial.runs[1])


async def test_what_runs_in_progress_have_written_counts(tmp_path: Path) -> None:
    """As they report, but not more than once a second."""
    project = Project(tmp_path, keep=2, most=5 * SIZE)
    for number in range(2):
        await project.run(number, 0.5 - number)
    await project.begin(2)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(project.janitor.work, project.recorder)
        await project.janitor.wait_settled()
        assert project.on_disk == {0, 1, 2}
        (project.layout.repeat("0002", 0) / "own").write_bytes(bytes(2 * SIZE))
        await project.record(Reported(0.0, "0002", 0, 0, {"score": 1.0}))
        await anyio.wait_all_tasks_blocked()
        assert project.on_disk == {0, 1, 2}
        looked = anyio.Event()
        project.janitor.subscribe(looked.set)
        project.clock.advance(1.0)
        await project.record(Reported(0.0, "0002", 0, 1, {"score": 1.0}))
        await looked.wait()
        assert project.on_disk == {0, 2}
        tasks.cancel_scope.cancel()


async def test_a_disk_that_is_smaller_than_the_limit_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    project = Project(tmp_path, keep=1, most=2**60)
    await project.run(0, 0.5)
    await project.cleaned()
    assert "max_disk=1.15e+06 TB, but the disk of" in caplog.text


async def test_what_runs_in_progress_use_stays(tmp_path: Path) -> None:
    project = Project(tmp_path, keep=1, most=SIZE)
    await project.begin(0)
    await project.run(1, 0.5)
    assert await project.cleaned() == {0, 1}


async def test_a_run_is_admitted_if_it_has_room_for_what_the_largest_took(tmp_path: Path) -> None:
    """And for a second copy of its largest file."""
    project = Project(tmp_path, keep=1, most=4 * SIZE)
    await project.run(0, 0.5)
    await project.record(TrialCreated(0.0, "0001", 1, 1, {}, 0))
    assert await project.cleaned() == {0}
    assert project.janitor.admits(queued(1))  # 1 file is there, 3 are expected
    (project.layout.repeat("0000", 0) / "own").write_bytes(bytes(SIZE))
    project = project.again(most=4 * SIZE)
    await project.cleaned()
    assert not project.janitor.admits(queued(1))
    assert project.janitor.is_settled  # nothing may go for it
    assert project.janitor.lack is not None
    assert "100 bytes are lacking" in project.janitor.lack


async def test_room_is_made_for_a_run_that_waits(tmp_path: Path) -> None:
    """Of those that would stay the worst goes, and whoever waits is woken."""
    project = Project(tmp_path, keep=2, most=9 * SIZE // 2)
    for number in range(2):
        await project.run(number, 0.5 - number)
    await project.record(TrialCreated(0.0, "0002", 2, 2, {}, 0))
    woken: list[bool] = []
    project.janitor.subscribe(lambda: woken.append(project.janitor.is_settled))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(project.janitor.work, project.recorder)
        await project.janitor.wait_settled()
        assert project.on_disk == {0, 1}
        assert not project.janitor.admits(queued(2))
        assert not project.janitor.is_settled
        await project.janitor.wait_settled()
        assert project.on_disk == {0}
        assert project.janitor.admits(queued(2))
        tasks.cancel_scope.cancel()
    assert woken == [True, True]


async def test_room_that_the_store_refuses_to_make_ends_the_search(tmp_path: Path) -> None:
    """Else it would be asked for ever, with nothing in progress that could tell."""
    project = Project(tmp_path, keep=2, most=9 * SIZE // 2)
    for number in range(2):
        await project.run(number, 0.5 - number)
    await project.record(TrialCreated(0.0, "0002", 2, 2, {}, 0))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(project.janitor.work, project.recorder)
        await project.janitor.wait_settled()
        project.store.fail_with = aiotune.errors.StoreUnwritable("the disk is full")
        assert not project.janitor.admits(queued(2))
        await project.janitor.wait_settled()
        with pytest.raises(aiotune.errors.StoreUnwritable, match="the disk is full"):
            project.janitor.admits(queued(2))
        tasks.cancel_scope.cancel()
    assert project.on_disk == {0, 1}


async def test_what_cannot_be_deleted_is_no_room_and_is_dropped_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path, keep=2, most=9 * SIZE // 2)
    for number in range(2):
        await project.run(number, 0.5 - number)
    await project.record(TrialCreated(0.0, "0002", 2, 2, {}, 0))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(project.janitor.work, project.recorder)
        await project.janitor.wait_settled()
        monkeypatch.setattr(Path, "unlink", refuse)
        before = len(project.facts(CheckpointsDropped))
        for _ in range(3):
            assert not project.janitor.admits(queued(2))
            await project.janitor.wait_settled()
        assert len(project.facts(CheckpointsDropped)) == before + 1
        assert not project.janitor.admits(queued(2))
        assert project.janitor.is_settled  # so the scheduler ends the search: DiskFull
        tasks.cancel_scope.cancel()


async def test_directories_a_thousand_deep_harm_no_other_trial(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    project = Project(tmp_path, keep=1)
    for number, score in enumerate([0.1, 0.2, 0.9]):
        await project.run(number, score)
    nest(project.layout.repeat("0000", 0))
    try:
        assert await project.cleaned() == {0, 2}
    finally:
        with deep_recursion():
            shutil.rmtree(project.layout.repeat("0000", 0))
    assert "trial 0000 cannot be looked at" in caplog.text


def nest(directory: Path) -> None:
    """Make directories in one another, as user code can."""
    fd = os.open(directory, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("a", dir_fd=fd)
        below = os.open("a", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)


@contextmanager
def deep_recursion() -> Iterator[None]:
    former = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        yield
    finally:
        sys.setrecursionlimit(former)


async def test_runs_in_progress_are_reckoned_with_what_they_will_take(tmp_path: Path) -> None:
    project = Project(tmp_path, keep=1, most=6 * SIZE)
    await project.run(0, 0.5)
    await project.record(TrialCreated(0.0, "0001", 1, 1, {}, 0))
    await project.cleaned()
    assert project.janitor.admits(queued(2))
    await project.record(RunStarted(0.0, "0001", 0, 0, 0, (), None))
    assert not project.janitor.admits(queued(2))  # 1 is there, and each of the two may take 3


# --- reports that runs have kept ---


def reports_left(project: Project, number: int = 0) -> set[str]:
    return {path.name for path in project.layout.trial(f"{number:04d}").glob("*.reports")}


async def begin_with_reports(project: Project, run: int, continues: int | None = None) -> None:
    """Let trial 0 run, as often as it is called, and keep its reports."""
    if run == 0:
        await project.begin(0)
    else:
        await project.record(RunStarted(0.0, "0000", run, 0, 0, (), None, None, continues))
    reports_of(project.layout.trial("0000"), run).touch()


async def test_reports_stay_until_no_run_can_ask_for_them(tmp_path: Path) -> None:
    project = Project(tmp_path, keep="all")
    await begin_with_reports(project, 0)
    await project.record(RunEnded(0.0, "0000", 0, RunState.LOST, {}))
    await project.cleaned()
    assert reports_left(project) == {"run-0.reports"}

    await begin_with_reports(project, 1, continues=0)
    await project.cleaned()
    assert reports_left(project) == {"run-0.reports", "run-1.reports"}

    await project.end_run(0)
    await project.cleaned()
    assert reports_left(project) == set()


async def test_reports_of_a_trial_that_is_over_go(tmp_path: Path) -> None:
    project = Project(tmp_path, keep="all")
    await begin_with_reports(project, 0)
    await project.record(RunEnded(0.0, "0000", 0, RunState.FAILED, {}))
    await project.end(0, None)
    assert reports_left(project) == {"run-0.reports"}  # killed before it came to it

    await project.again().cleaned()
    assert reports_left(project) == set()


async def test_no_reports_are_deleted_through_a_link(tmp_path: Path) -> None:
    project = Project(tmp_path, keep="all")
    await begin_with_reports(project, 0)
    project.layout.trial("0000").rename(tmp_path / "elsewhere")
    project.layout.trial("0000").symlink_to(tmp_path / "elsewhere")
    await project.end_run(0)
    await project.cleaned()
    assert (tmp_path / "elsewhere" / "run-0.reports").exists()
