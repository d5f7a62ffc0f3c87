"""How a scheduler treats the disk: what it asks of a `Room`, and what becomes of trials without their files."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from aiotune.checkpoints import Checkpoint
from aiotune.errors import DiskFull
from aiotune.events import CheckpointsDropped, EndReason, Event, SearchEnded, TrialCreated
from aiotune.executors.base import Finished, Observed, RunEvent
from aiotune.history import History
from aiotune.objective import Objective
from aiotune.oracles.base import Answer, Exhausted, Oracle, Promote, Suggest
from aiotune.oracles.random_search import RandomSearchOracle
from aiotune.settlement import Work
from aiotune.trial import Budget, TrialState
from tests.support.fake_executor import FakeExecutor, Script
from tests.support.searches import SearchOfFakes, all_wait

GOAL = Objective("score", "max")


class Narrow:
    """Room for so many runs at a time. Settled when it is told so."""

    def __init__(self, most: int, *, is_settled: bool = True) -> None:
        self.most = most
        self.is_settled = is_settled
        self.executor = FakeExecutor(play)
        self.refused = anyio.Event()  # set once a run was not admitted
        self.history = History()
        self.asked: list[Work] = []
        self.wake: Callable[[], None]
        self.waited = 0
        self.pins: list[str] = []

    @property
    def lack(self) -> str | None:
        trials = self.history.trials.values()
        running = sum(not run.is_over for trial in trials for run in trial.runs)
        return None if running < self.most else "the disk is narrow"

    def admits(self, work: Work) -> bool:
        self.asked.append(work)
        if self.lack is not None:
            self.refused.set()
        return self.lack is None

    def subscribe(self, wake: Callable[[], None]) -> None:
        self.wake = wake

    @contextmanager
    def pinned(self, trial_id: str) -> Iterator[None]:
        self.pins.append(trial_id)
        yield

    async def wait_settled(self) -> None:
        self.waited += 1


async def play(script: Script) -> AsyncIterator[RunEvent]:
    yield script.met(lambda hp: hp.Float("x", 0.0, 1.0))
    for step in range(3):
        yield Observed(step, {"score": 1.0})
        await anyio.lowlevel.checkpoint()
    yield Finished({"score": 1.0}, 0)


def searching(tmp_path: Path, room: Narrow, oracle: Oracle | None = None) -> SearchOfFakes:
    made = oracle or RandomSearchOracle(GOAL, max_trials=5, seed=1)
    search = SearchOfFakes(made, room.executor, tmp_path, slots=3, room=room)
    room.history = search.history
    return search


async def test_no_more_runs_start_than_the_room_admits(tmp_path: Path) -> None:
    room = Narrow(most=2)

    async def play_on(script: Script) -> AsyncIterator[RunEvent]:
        """Let no run end before one was refused: else each might end before the next begins."""
        await room.refused.wait()
        async for event in play(script):
            yield event

    room.executor = FakeExecutor(play_on)
    search = searching(tmp_path, room)
    assert (await search.run()).reason is EndReason.MAX_TRIALS
    assert room.executor.most == 2
    assert {work.trial_id for work in room.asked} == {f"{number:04d}" for number in range(5)}
    assert room.waited == 1  # before the end is recorded
    assert isinstance(search.store.facts[-1], SearchEnded)


async def test_without_room_and_with_nothing_in_progress_the_search_ends(tmp_path: Path) -> None:
    search = searching(tmp_path, Narrow(most=0))
    with pytest.raises(DiskFull, match=r"the disk is narrow\. Raise max_disk, or keep fewer"):
        await search.run()
    assert [trial.state for trial in search.history.trials.values()] == [TrialState.QUEUED]
    resumed = search.again(RandomSearchOracle(GOAL, max_trials=5, seed=1))
    assert (await resumed.run()).reason is EndReason.MAX_TRIALS
    assert len(resumed.history.trials) == 5


async def test_a_search_that_is_over_needs_no_room(tmp_path: Path) -> None:
    search = searching(tmp_path, Narrow(most=1))
    await search.run()
    room = Narrow(most=0)
    again = search.again(RandomSearchOracle(GOAL, max_trials=5, seed=1), room=room)
    assert (await again.run()).reason is EndReason.MAX_TRIALS


async def test_nothing_starts_before_the_room_is_settled(tmp_path: Path) -> None:
    room = Narrow(most=3, is_settled=False)
    search = searching(tmp_path, room)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(search.run)
        await all_wait()
        assert room.executor.assignments == []
        room.is_settled = True
        room.wake()
    assert len(room.executor.assignments) == 5


class Planned(Oracle):
    """Answers as it is told, one answer after the other, and then that there are no more."""

    def __init__(self, *answers: Answer) -> None:
        super().__init__(objective=GOAL, seed=1)
        self.answers = list(answers)

    def ask(self, history: object, number: int) -> Answer:
        return self.answers.pop(0) if self.answers else Exhausted()


FIRST, SECOND = Budget(2, is_last=False), Budget(4, 2)


async def cut_after_pause(tmp_path: Path, *lost: Checkpoint) -> list[Event]:
    """Return the facts of a search up to its first trial's pause, and of what that one lost."""
    search = searching(tmp_path, Narrow(most=1), Planned(Suggest({}, 0, FIRST)))
    await search.run()
    facts = search.store.facts
    ends = [type(fact).__name__ for fact in facts].index("TrialPaused")
    dropped = [CheckpointsDropped(5.0, "0000", lost, "max_disk")] if lost else []
    return [*facts[: ends + 1], *dropped]


@pytest.mark.parametrize(
    ("lost", "continues"),
    [
        ((), True),
        ((Checkpoint(0, "before-1", 1),), True),
        ((Checkpoint(0, "last", 1), Checkpoint(0, "best", 1)), False),
        ((Checkpoint(0, "own", 1),), False),
        ((Checkpoint(1, "own", 1),), True),  # of another repeat
    ],
)
async def test_a_promoted_trial_that_lost_its_files_begins_anew(
    tmp_path: Path, lost: tuple[Checkpoint, ...], continues: bool
) -> None:
    facts = await cut_after_pause(tmp_path / "first", *lost)
    room = Narrow(most=1)
    search = searching(tmp_path, room)
    resumed = search.again(Planned(Promote("0000", SECOND)), facts=facts)
    await resumed.run()
    [assignment] = room.executor.assignments
    assert assignment.continues is continues
    assert resumed.history.trial("0000").state is TrialState.COMPLETED


@pytest.mark.parametrize("is_lost", [False, True])
async def test_a_descendant_of_a_trial_that_lost_its_files_begins_anew(
    tmp_path: Path, is_lost: bool
) -> None:
    """The fact of that is recorded with its creation."""
    lost = (Checkpoint(0, "last", 1),) if is_lost else ()
    facts = await cut_after_pause(tmp_path / "first", *lost)
    room = Narrow(most=1)
    search = searching(tmp_path, room)
    oracle = Planned(Suggest({}, 1, SECOND, parent="0000"))
    resumed = search.again(oracle, facts=facts, room=room)
    await resumed.run()
    [assignment] = room.executor.assignments
    assert assignment.continues is not is_lost
    assert room.pins == ["0000"]
    after = [fact for fact in resumed.store.facts if getattr(fact, "trial_id", None) == "0001"]
    assert isinstance(after[0], TrialCreated)
    assert isinstance(after[1], CheckpointsDropped) is is_lost
