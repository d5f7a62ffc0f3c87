"""Reports that were lost with the search's process, and are made again by the run that goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiotune.executors.base import Finished, Observed
from aiotune.executors.context import RunContext, perform
from aiotune.layout import reports_of
from tests.support.runs import assign, of_kind
from tests.test_context import ListChannel


def reported(directory: Path, steps: list[int], *, saves: bool = True, **changes: object) -> list:  # type: ignore[type-arg]
    """Report each step in a run, which saves its state if it `saves`; return what arrives, less the end."""
    channel = ListChannel()
    run = RunContext(assign(directory, keeps_reports=True, **changes), channel)

    def program(run: RunContext) -> Finished:
        for step in steps:
            run.report(step, loss=step / 2)
            if saves:
                assert run.checkpoint_dir.is_dir()
        return Finished({"loss": 0.0})

    perform(program, run)
    return [(each.step, each.metrics) for each in of_kind(channel.events, Observed)]


def test_what_the_search_lacks_is_reported_before_the_next_step(tmp_path: Path) -> None:
    reported(tmp_path, [0, 1, 2, 3])
    again = reported(tmp_path, [4], run=1, continues=True, interrupted=(0,), last_report=1)
    assert again == [(2, {"loss": 1.0}), (3, {"loss": 1.5}), (4, {"loss": 2.0})]


def test_a_run_that_has_nothing_left_to_train_reports_what_is_lacking(tmp_path: Path) -> None:
    reported(tmp_path, [0, 1])
    again = reported(tmp_path, [], run=1, continues=True, interrupted=(0,), last_report=None)
    assert [step for step, _ in again] == [0, 1]


def test_steps_that_are_trained_again_are_not_repeated(tmp_path: Path) -> None:
    reported(tmp_path, [0, 1, 2, 3])
    again = reported(tmp_path, [1, 2], run=1, continues=True, interrupted=(0,), last_report=0)
    assert [step for step, _ in again] == [1, 2]


def test_what_two_runs_have_lost_comes_back_as_the_later_one_had_it(tmp_path: Path) -> None:
    reported(tmp_path, [0, 1, 2])
    reported(tmp_path, [2, 3], run=1, continues=True, interrupted=(0,), last_report=1)
    again = reported(tmp_path, [4], run=2, continues=True, interrupted=(0, 1), last_report=1)
    assert [step for step, _ in again] == [2, 3, 4]


def test_a_program_without_checkpoints_leaves_no_file(tmp_path: Path) -> None:
    reported(tmp_path, [0, 1], saves=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[1]",
        b'[1, {"loss": "high"}]',
        b'[1, "x"]',
        b"[-1, {}]",
        b"[1e400, {}]",
        b"\xff",
        b"7",
    ],
)
def test_lines_that_are_no_reports_are_passed_over(tmp_path: Path, line: bytes) -> None:
    reported(tmp_path, [0])
    with reports_of(tmp_path, 0).open("ab") as file:
        file.write(line + b'\n[2, {"loss": "nan"}]\n')
    again = reported(tmp_path, [3], run=1, continues=True, interrupted=(0,), last_report=0)
    assert [step for step, _ in again] == [2, 3]


def test_a_link_in_the_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.touch()
    reports_of(tmp_path, 0).symlink_to(other)
    assert [step for step, _ in reported(tmp_path, [0, 1])] == [0, 1]
    assert other.read_bytes() == b""
