"""The writer of the progress display: lines, a live terminal, a stream that is stuck or gone."""

from __future__ import annotations

import io
import re
import sys
import threading
from pathlib import Path

import pytest

from aiotune.events import EndReason, Event, SearchEnded
from aiotune.history import History
from aiotune.objective import Objective
from aiotune.observers.progress import Progress, Verbose, make_progress
from tests.support import facts, tuned

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
OBJECTIVE = Objective("val_loss", "min")
LINE = "trial 0000  val_loss 0.2500 (best)  epoch 2  5.0 s  units=32 rate=0.01"
END = SearchEnded(10.0, EndReason.MAX_TRIALS)


class Terminal(io.StringIO):
    """A stream that says that it is a terminal; `is_live` once a live display has begun on it."""

    def __init__(self) -> None:
        super().__init__()
        self.is_live = threading.Event()

    def write(self, text: str) -> int:
        if HIDE_CURSOR in text:
            self.is_live.set()
        return super().write(text)

    def isatty(self) -> bool:
        return True

    def text(self) -> str:
        """Return what was written, without the codes that move and colour."""
        return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", self.getvalue())


class StuckStream(io.StringIO):
    """A stream that takes nothing until it is released, as a terminal after Ctrl-S."""

    def __init__(self) -> None:
        super().__init__()
        self.is_reached = threading.Event()
        self.is_released = threading.Event()

    def write(self, text: str) -> int:
        self.is_reached.set()
        self.is_released.wait()
        return super().write(text)


class BrokenStream(io.StringIO):
    """A pipe whose reader is gone."""

    attempts = 0

    def write(self, text: str) -> int:
        self.attempts += 1
        raise BrokenPipeError


def show(progress: Progress, *events: Event) -> None:
    history = History()
    for event in events:
        history.apply(event)
        progress(event, history)


def test_without_a_terminal_there_are_lines() -> None:
    stream = io.StringIO()
    progress = Progress(OBJECTIVE, 4, stream=stream)
    show(progress, facts.opened(), *facts.whole_trial(), END)
    progress.close()
    assert stream.getvalue().splitlines() == [
        "search for val_loss (min), 4 trials",
        LINE,
        "search ended: max_trials is reached; 1 trial done, 0:00",
        "best: val_loss 0.2500  trial 0000  units=32 rate=0.01",
    ]


def test_a_terminal_shows_what_runs_and_is_left_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    progress = Progress(OBJECTIVE, 4, stream=stream)
    standard = sys.stdout
    show(progress, facts.opened(), facts.created(), facts.started(), facts.reported(loss=0.4))
    progress.close()
    assert re.search(r"val_loss \(min\)  0/4 trials  \d:\d\d elapsed", stream.text())
    assert re.search(r"0000 +epoch 1 +0\.8000 +GPU-1 +units=32", stream.text())
    assert "search interrupted" in stream.text()
    assert stream.getvalue().rindex(SHOW_CURSOR) > stream.getvalue().rfind(HIDE_CURSOR)
    assert sys.stdout is standard


def test_a_terminal_keeps_the_lines_of_finished_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    progress = Progress(OBJECTIVE, 4, stream=stream)
    show(progress, facts.opened(), *facts.whole_trial(), END)
    progress.close()
    assert LINE in stream.text()


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_a_terminal_that_cannot_move_its_cursor_gets_lines(
    term: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    stream = Terminal()
    progress = Progress(OBJECTIVE, 4, stream=stream)
    show(progress, facts.opened(), END)
    progress.close()
    assert stream.getvalue() == stream.text()
    assert "search ended" in stream.text()


def test_the_second_display_of_a_terminal_is_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    live, lines = Terminal(), Terminal()
    first = Progress(OBJECTIVE, 4, stream=live)
    show(first, facts.opened())
    assert live.is_live.wait(10)
    second = Progress(OBJECTIVE, 4, stream=lines)
    show(second, facts.opened(), *facts.whole_trial())
    second.close()
    first.close()
    assert lines.getvalue() == lines.text()
    assert LINE in lines.text()


def test_a_stream_that_is_stuck_holds_nothing_up() -> None:
    stream = StuckStream()
    progress = Progress(OBJECTIVE, 4, stream=stream)
    show(progress, facts.opened())
    assert stream.is_reached.wait(10)
    show(
        progress, facts.opened(), *facts.whole_trial(), END
    )  # returns, although nothing is written
    assert stream.getvalue() == ""
    stream.is_released.set()
    progress.close()
    assert LINE in stream.getvalue()


def test_a_stream_that_is_gone_harms_nobody() -> None:
    stream = BrokenStream()
    progress = Progress(OBJECTIVE, 4, stream=stream)
    show(progress, facts.opened(), *facts.whole_trial(), END)
    progress.close()
    progress.close()
    assert stream.attempts > 0  # it was met, and nothing was raised


def test_a_character_that_the_stream_lacks_is_replaced() -> None:
    raw = io.BytesIO()
    progress = Progress(OBJECTIVE, 4, stream=io.TextIOWrapper(raw, encoding="ascii"))
    show(progress, facts.opened(), SearchEnded(2.0, EndReason.STOPPED, "genug für heute"))
    progress.close()
    assert b"search ended: genug f?r heute" in raw.getvalue()


def test_without_a_search_nothing_is_written() -> None:
    stream = io.StringIO()
    Progress(OBJECTIVE, 4, stream=stream).close()
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("verbose", "is_silent"), [(0, True), (False, True), (1, False), ("auto", False), (2, False)]
)
def test_verbose(verbose: Verbose, is_silent: bool) -> None:
    assert (make_progress(verbose, OBJECTIVE, 4) is None) == is_silent


def test_verbose_2_is_lines_in_a_terminal_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    progress = make_progress(2, OBJECTIVE, 4, starting="importing keras", output="results")
    assert progress is not None
    show(progress, facts.opened(), END)
    progress.close()
    assert stream.getvalue().splitlines()[1:3] == [
        "output of the trials: results",
        "starting: importing keras ...",
    ]


@pytest.mark.parametrize(("executor", "is_elsewhere"), [("process", True), ("inline", False)])
async def test_where_the_output_of_trials_goes_is_said_if_it_is_not_here(
    executor: str, is_elsewhere: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuner = tuned.make(
        tuned.Parabola, tmp_path, max_trials=1, executor=executor, max_concurrent_trials=None
    )
    await tuner.search(0.5, verbose=2)
    shown = capsys.readouterr().out
    told = f"output of the trials: {tmp_path}/project/trial_<id>/run-<n>.log\n"
    assert shown.count(told) == is_elsewhere
    assert ("x is" in shown) != is_elsewhere
