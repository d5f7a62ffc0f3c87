"""The progress of a search in a terminal, or in a log: one observer, which never holds the search up.

A thread of its own does all the writing, so that a terminal that is stopped (Ctrl-S) or a full pipe delays no
trial. `rich` is imported there, too, and only where there is a terminal.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, TextIO

from aiotune.clock import Clock, SystemClock
from aiotune.events import Event
from aiotune.history import History
from aiotune.objective import Objective
from aiotune.observers.board import Board, Row, Unit, View, number_text, time_text
from aiotune.printable import one_line, printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.table import Table

__all__ = ["Progress", "Verbose", "make_progress"]

_LOG = logging.getLogger("aiotune.progress")
_SHORTEST_REFRESH_SECONDS = 0.25
_LONGEST_REFRESH_SECONDS = 1.0  # the elapsed time moves on without events
_LONGEST_CLOSE_SECONDS = 2.0
# Two live displays would overwrite each other: the second search of a process prints lines.
_TERMINAL = threading.Lock()

Verbose = Literal["auto", 0, 1, 2] | bool


def make_progress(
    verbose: Verbose,
    objective: Objective,
    max_trials: int | None,
    *,
    starting: str | None = None,
    output: str | None = None,
    unit: Unit = "epoch",
) -> Progress | None:
    """Return the display for `verbose`: None for 0, lines for 2, else a live one where there is a terminal.

    starting: what happens before the first trial and may take long, "importing keras". output: where that of
    the trials goes, if not to this process's own. unit: what a step of a trial is called.
    """
    if not verbose:
        return None
    return Progress(
        objective, max_trials, starting=starting, output=output, unit=unit, is_live=verbose != 2
    )


class Progress:
    """An observer `(event, history)` that shows a search on `stream` (default: standard output).

    In a terminal: a live table of the running trials below a line for each that is over; elsewhere, or with
    `is_live=False`: the lines alone. It begins with the first event. `close()` must follow; it leaves the
    terminal clean, whatever happened before.
    """

    def __init__(
        self,
        objective: Objective,
        max_trials: int | None,
        *,
        stream: TextIO | None = None,
        starting: str | None = None,
        output: str | None = None,
        unit: Unit = "epoch",
        is_live: bool = True,
        clock: Clock | None = None,
    ) -> None:
        # Looked up now: later it may be the stand-in of another display.
        self._stream = sys.stdout if stream is None else stream
        self._is_live = is_live and _is_terminal(self._stream)
        self._lock = threading.Lock()  # guards the next two, for moments only: never while writing
        self._board = Board(
            objective,
            max_trials,
            clock or SystemClock(),
            starting=starting,
            output=output,
            unit=unit,
        )
        self._lines: list[str] = []
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._writer: threading.Thread | None = None

    def __call__(self, event: Event, history: History) -> None:
        """Take in the next fact and return at once."""
        with self._lock:
            self._lines += self._board.tell(event, history)
        if self._writer is None:
            self._writer = threading.Thread(
                target=self._write, name="aiotune progress", daemon=True
            )
            self._writer.start()
        self._wake.set()

    def close(self) -> None:
        """Write what is left and end the display. Blocks 2 s at most, if the terminal takes nothing."""
        if self._writer is None or self._closing.is_set():
            return
        with self._lock:
            self._lines += self._board.close()
        self._closing.set()
        self._wake.set()
        self._writer.join(_LONGEST_CLOSE_SECONDS)

    # --- in the writer's thread ---

    def _write(self) -> None:
        try:
            if self._is_live and _TERMINAL.acquire(blocking=False):
                try:
                    self._write_live()
                finally:
                    _TERMINAL.release()
            else:
                self._write_lines()
        except Exception:  # a closed pipe, a terminal that is gone: the search does not care
            _LOG.debug("the progress display ended early", exc_info=True)

    def _write_lines(self) -> None:
        while True:
            self._wake.clear()  # before looking, so that neither a line nor the end is missed
            is_last = self._closing.is_set()
            for line in self._take_lines():
                self._stream.write(f"{_encodable(line, self._stream)}\n")
            self._stream.flush()
            if is_last:
                return
            self._wake.wait()

    def _write_live(self) -> None:
        from rich.console import Console
        from rich.live import Live

        console = Console(file=self._stream, highlight=False, markup=False, emoji=False)
        with Live(console=console, auto_refresh=False, transient=True) as live:
            console.show_cursor(True)  # so that even `kill -9` leaves a cursor
            while True:
                self._wake.clear()
                is_last = self._closing.is_set()
                self._refresh(console, live)
                if is_last:
                    return
                self._closing.wait(_SHORTEST_REFRESH_SECONDS)
                self._wake.wait(_LONGEST_REFRESH_SECONDS)

    def _refresh(self, console: Console, live: Live) -> None:
        from rich.text import Text

        with self._lock:
            view = self._board.view()
        live.update(_picture(view))
        if lines := self._take_lines():
            console.print(Text("\n".join(lines)), soft_wrap=True)
        live.refresh()

    def _take_lines(self) -> list[str]:
        with self._lock:
            lines, self._lines = self._lines, []
        return [printable(line) for line in lines]


def _encodable(text: str, stream: TextIO) -> str:
    """Return the text with a question mark for each character that the stream's encoding lacks."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def _is_terminal(stream: TextIO | None) -> bool:
    """Tell whether the stream can show a picture that changes. Notebooks and CI logs cannot."""
    try:
        is_terminal = stream is not None and stream.isatty()
    except ValueError:  # closed
        return False
    return is_terminal and os.environ.get("TERM") not in ("dumb", "unknown")


def _picture(view: View) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [Text(one_line(_header(view)), style="bold", no_wrap=True)]
    if view.starting is not None:
        parts.append(Text(f"starting: {view.starting} ..."))
    if view.rows:
        parts.append(_table(view.rows, view.objective.name))
    if view.best is not None:
        parts.append(
            Text(one_line(f"best: {view.best}"), style="green", no_wrap=True, overflow="ellipsis")
        )
    return Group(*parts)


def _header(view: View) -> str:
    most = "" if view.most is None else f"/{view.most}"
    parts = [
        f"{view.objective.name} ({view.objective.direction})",
        f"{view.done}{most} trials",
        f"{view.failed} failed" if view.failed else "",
        f"{time_text(view.elapsed_seconds)} elapsed",
        "" if view.left_seconds is None else f"about {time_text(view.left_seconds)} left",
    ]
    return "  ".join(filter(None, parts))


def _table(rows: Iterable[Row], objective: str) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, expand=False)
    for name in ("trial", "at", objective, "device", "hyperparameters"):
        table.add_column(name, no_wrap=True, overflow="ellipsis", header_style="dim")
    for row in rows:
        score = "" if row.score is None else number_text(row.score)
        cells = (row.name, row.step, score, row.device, row.values)
        table.add_row(*(Text(one_line(cell)) for cell in cells))
    return table
