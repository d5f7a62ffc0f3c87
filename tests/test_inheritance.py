from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from aiotune.errors import FatalRuntimeError
from aiotune.history import History
from aiotune.inheritance import inherit
from aiotune.layout import Layout
from aiotune.objective import Objective
from aiotune.oracles.base import Answer, Exhausted, Oracle, Suggest
from aiotune.trial import Budget
from tests.support.fake_executor import FakeExecutor, declaring
from tests.support.searches import SearchOfFakes


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path, "project")
    for repeat in (0, 1):
        checkpoints = made.repeat("0003", repeat)
        for name, text in (("", "weights"), ("own", "own"), ("before-2", "earlier")):
            (checkpoints / name).mkdir(parents=True, exist_ok=True)
            (checkpoints / name / "weights").write_text(f"{text} {repeat}")
    made.run_log("0003", 0).write_text("log")
    return made


def test_each_repeat_begins_with_the_files_of_its_own(layout: Layout) -> None:
    """But for those of the epoch at which its parent's budget began."""
    inherit(layout, "0003", "0007")
    assert {
        str(path.relative_to(layout.trial("0007"))): path.read_text()
        for path in layout.trial("0007").rglob("weights")
    } == {
        "repeat-0/weights": "weights 0",
        "repeat-0/own/weights": "own 0",
        "repeat-1/weights": "weights 1",
        "repeat-1/own/weights": "own 1",
    }
    assert not layout.run_log("0007", 0).exists()


def test_it_is_a_copy(layout: Layout) -> None:
    inherit(layout, "0003", "0007")
    (layout.repeat("0007", 0) / "weights").write_text("changed in place")
    assert (layout.repeat("0003", 0) / "weights").read_text() == "weights 0"


def test_what_an_interrupted_call_left_is_replaced(layout: Layout) -> None:
    layout.repeat("0007", 0).mkdir(parents=True)
    (layout.repeat("0007", 0) / "half").touch()
    (layout.repeat("0007", 5)).mkdir()
    inherit(layout, "0003", "0007")
    assert sorted(path.name for path in layout.trial("0007").iterdir()) == ["repeat-0", "repeat-1"]
    assert not (layout.repeat("0007", 0) / "half").exists()


def test_a_parent_without_files_leaves_none(layout: Layout) -> None:
    shutil.rmtree(layout.trial("0003"))
    inherit(layout, "0003", "0007")
    assert not layout.trial("0007").exists()


def test_a_disk_that_refuses_says_what_to_do(layout: Layout) -> None:
    layout.trial("0007").touch()
    with pytest.raises(FatalRuntimeError, match=r"of trial 0003 cannot be copied .* Make room"):
        inherit(layout, "0003", "0007")


class Deriving(Oracle):
    """Proposes a trial, and then one that goes on from it."""

    def __init__(self, first: Budget, second: Budget | None) -> None:
        super().__init__(objective=Objective("score", "min"), seed=1)
        self.answers: list[Answer] = [
            Suggest({}, 0, first),
            Suggest({}, 1, second, parent="0000"),
            Exhausted(),
        ]

    def ask(self, history: History, number: int) -> Answer:
        return self.answers[number]


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (Budget(2), Budget(4, 2), "derives a trial from trial 0000, which is COMPLETED"),
        (Budget(2, is_last=False), Budget(4, 3), "is paused after epoch 2: its budget must begin"),
        (Budget(2, is_last=False), None, "derives a trial with None from trial 0000"),
    ],
)
async def test_a_trial_begins_only_where_its_parent_waits(
    tmp_path: Path, first: Budget, second: Budget | None, message: str
) -> None:
    executor = FakeExecutor(declaring(lambda hp: None, lambda values: 1.0))
    with pytest.raises(FatalRuntimeError, match=message):
        await SearchOfFakes(Deriving(first, second), executor, tmp_path).run()
