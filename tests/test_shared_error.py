from __future__ import annotations

from dataclasses import replace

import pytest

from aiotune.shared_error import error_line, shared_error
from aiotune.trial import Trial
from tests.support.records import run, trial


def failed(*messages: str) -> list[Trial]:
    """Return trials that failed, the newest first."""
    return [
        trial(
            replace(run(), log=f"/project/trial_{number:04d}/run-0.log"),
            number=number,
            message=f"{message}\nIts log: /project/trial_{number:04d}/run-0.log",
        )
        for number, message in reversed(list(enumerate(messages)))
    ]


TRACEBACK = 'Traceback (most recent call last):\n  File "a.py", line 3, in build\n    f()\n'


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        (["ValueError: x"] * 3, "They share one error: ValueError: x\n"),
        (
            [f"{TRACEBACK}ValueError: x", f"Traceback:\n  {TRACEBACK}ValueError: x"],
            "They share one error: ValueError: x\n",
        ),
        (
            ["shape (3, 17) at 0x7f00", "shape (12, 4) at 0x7faa"],
            "They share one error, but for its numbers: shape (12, 4) at 0x7faa\n",
        ),
        (["a", "b", "a", "c"], "2 of them share one error: a\nThe last one:\nc"),
        (["killed by SIGSEGV", "ValueError"], "Their errors differ; the last one:\nValueError"),
    ],
)
def test_what_failures_share(messages: list[str], told: str) -> None:
    assert shared_error(failed(*messages)).startswith(told)


def test_the_newest_is_told_in_full_and_the_logs_of_the_others_are_named() -> None:
    text = shared_error(failed("a", "b", f"{TRACEBACK}ValueError: x"))
    assert f"{TRACEBACK}ValueError: x\nIts log: /project/trial_0002/run-0.log" in text
    assert text.endswith(
        "The logs of those before: /project/trial_0001/run-0.log, /project/trial_0000/run-0.log"
    )


def test_trials_without_logs_name_none() -> None:
    assert "log" not in shared_error([trial(message="a"), trial(message="a")])


def test_the_line_that_names_the_error() -> None:
    assert error_line(failed(f"{TRACEBACK}ValueError: x\n  more of it")[0]) == "ValueError: x"
    assert error_line(trial()) == ""
