from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from aiotune.executors.base import Failed, Finished
from aiotune.executors.endings import unsaid_ending
from aiotune.trial import FailureKind

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the numbers are Linux's")


def ending(
    outcome: dict[str, Any], log: Path = Path("no.log"), *, is_stop_requested: bool = False
) -> Finished | Failed:
    return unsaid_ending(outcome, is_stop_requested=is_stop_requested, log=log, server_log=None)


def failed(outcome: dict[str, Any], log: Path = Path("no.log")) -> Failed:
    last = ending(outcome, log)
    assert isinstance(last, Failed)
    return last


@linux_only
@pytest.mark.parametrize(
    ("number", "name"),
    [
        (11, "SIGSEGV (segmentation fault)"),
        (6, "SIGABRT (aborted)"),
        (15, "SIGTERM"),
        (37, "signal 37 (SIGRTMIN+3)"),
        (33, "signal 33"),
    ],
)
def test_signals_have_names(number: int, name: str) -> None:
    last = failed({"signal": number})
    assert (last.kind, last.message) == (FailureKind.CRASH, f"killed by {name}")
    assert last.traceback is None


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ({"signal": 9}, "(by the kernel, if memory ran out)"),
        ({"signal": 9, "is_counted": True}, "which another process sent: memory had not run out"),
        ({"exit": 3}, "exited with code 3 before the run was over"),
        ({"exit": 0}, "exited with code 0 before the run was over: something called os._exit()"),
        ({"is_stuck": True}, "its process does not end"),
    ],
)
def test_the_rest_is_a_crash(outcome: dict[str, Any], words: str) -> None:
    last = failed(outcome)
    assert last.kind is FailureKind.CRASH
    assert not last.is_lost
    assert words in last.message


@pytest.mark.parametrize("may_retry", [True, False])
def test_want_of_memory_is_told_by_the_server(may_retry: bool) -> None:
    last = failed({"signal": 9, "memory": "the run held 6 GiB", "may_retry": may_retry})
    assert last == Failed(
        FailureKind.OUT_OF_MEMORY,
        "killed by SIGKILL: the run held 6 GiB",
        may_retry=may_retry,
        is_of_host=True,
    )


def test_lost_run_is_told_from_a_crash() -> None:
    assert failed({"is_lost": True}).is_lost


@pytest.mark.parametrize("outcome", [{"signal": 15}, {"signal": 9}, {"exit": 1}])
def test_run_that_was_asked_to_stop_has_stopped(outcome: dict[str, Any]) -> None:
    assert ending(outcome, is_stop_requested=True) == Finished(is_stopped=True)


def test_run_that_broke_on_a_request_to_stop_is_a_crash() -> None:
    last = ending({"signal": signal.SIGSEGV.value}, is_stop_requested=True)
    assert isinstance(last, Failed)


def test_end_of_the_log_is_shown_without_what_a_terminal_obeys(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    log.write_bytes(b"x" * 10_000 + b"\n\x1b]0;title\x07\xff\0 last words\n")
    last = failed({"signal": 11}, log)
    assert last.traceback is not None
    assert last.traceback.startswith(f"The end of {log}:\n")
    assert last.traceback.endswith("\\x1b]0;title\\x07\ufffd\\x00 last words")
    assert len(last.traceback) < 4300


def test_abort_for_want_of_memory_is_no_crash(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    log.write_text("terminate called after throwing an instance of 'std::bad_alloc'\n")
    assert failed({"signal": 6}, log).kind is FailureKind.OUT_OF_MEMORY
    assert failed({"signal": 11}, log).kind is FailureKind.CRASH
