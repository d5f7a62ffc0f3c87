"""What a run has reported, kept on disk until it is needed: by a run that goes on from it.

A report is on its way to the search while the program goes on, and may save a state that is further on. If the
search's process is killed just then, the report is lost, and a run that goes on from that state would never
make it again. So a report is written down before it is sent, beside the log of its run, and the next run sends
again what the search lacks. A program that keeps no checkpoints begins anew, and nothing is written for it.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from aiotune.executors.base import Assignment, Observed
from aiotune.executors.wire import MOST_STEPS
from aiotune.layout import reports_of
from aiotune.private_files import open_file, open_to_read

__all__ = ["KeptReports"]

_MOST_WAITING = (
    1000  # reports before the first checkpoint; the search has got older ones long since
)
_MOST_READ_BYTES = 2**20  # at the end of a file: what may be lost came last


class KeptReports:
    """The reports of one run, and of those that it goes on from."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._waiting: deque[bytes] | None = deque(maxlen=_MOST_WAITING)  # None: they are written
        self._lost: list[Observed] | None = None  # None: not read yet

    def keep(self, report: Observed) -> None:
        """Write the report down, or let it wait until there may be a checkpoint."""
        if self._assignment.keeps_reports:
            line = _line_of(report)
            if self._waiting is None:
                self._write([line])
            else:
                self._waiting.append(line)

    def begin(self) -> None:
        """Write what waits, and from now on each report: a checkpoint may follow."""
        if self._waiting is not None and self._assignment.keeps_reports:
            waiting, self._waiting = self._waiting, None
            self._write(waiting)

    @property
    def has_lost(self) -> bool:
        """Whether earlier runs reported what the search does not have, and this one has not sent yet."""
        return bool(self._found_lost())

    def lost_before(self, step: int | None) -> Iterable[Observed]:
        """Return, once, what the search does not have of earlier runs' reports, below a step; None: all."""
        found, self._lost = self._found_lost(), []
        return [each for each in found if step is None or each.step < step]

    def _found_lost(self) -> list[Observed]:
        if self._lost is None:
            self._lost = self._read_lost()
        return self._lost

    def _read_lost(self) -> list[Observed]:
        known = self._assignment.last_report
        reports: dict[int, Observed] = {}
        for run in self._assignment.interrupted:  # what a later one reports holds
            for each in _read(reports_of(self._directory, run)):
                reports[each.step] = each
        return [reports[step] for step in sorted(reports) if known is None or step > known]

    def _write(self, lines: Iterable[bytes]) -> None:
        path = reports_of(self._directory, self._assignment.run)
        text = b"".join(lines)
        if text:
            with suppress(OSError):  # then it is safe once the search has it, as for other programs
                fd = open_file(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                try:
                    os.write(fd, text)
                finally:
                    os.close(fd)

    @property
    def _directory(self) -> Path:
        return Path(self._assignment.trial_directory)


def _line_of(report: Observed) -> bytes:
    """Return a report as a line of strict JSON: numbers as text, for JSON has no infinity."""
    metrics = {name: repr(value) for name, value in report.metrics.items()}
    return json.dumps([report.step, metrics]).encode() + b"\n"


def _read(path: Path) -> list[Observed]:
    """Return the newest reports of a file, but for lines that are not whole; none if there is no such file."""
    try:
        with open_to_read(path) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _MOST_READ_BYTES))
            lines = file.read(_MOST_READ_BYTES).splitlines()
    except OSError:
        return []
    return [report for line in lines if (report := _report_of(line)) is not None]


def _report_of(line: bytes) -> Observed | None:
    try:
        step, metrics = json.loads(line)
        return Observed(int(step), _numbers(metrics)) if 0 <= step <= MOST_STEPS else None
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _numbers(metrics: Mapping[str, str]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}
