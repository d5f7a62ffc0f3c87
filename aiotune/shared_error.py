"""What trials that failed have in common, in words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from aiotune.conclusion import LOG_MARK
from aiotune.trial import Trial

__all__ = ["error_line", "shared_error"]

_NUMBER = re.compile(r"0x[0-9a-fA-F]+|\d+(?:\.\d+)?")  # addresses, shapes, sizes: they vary
_TRACEBACK = "Traceback"
_MOST_LOGS = 5


def shared_error(failures: Sequence[Trial]) -> str:
    """Return which error the trials share, or most of them, the newest in full, and where their logs are.

    failures: the newest first, one at least.
    """
    newest = failures[0]
    lines = [error_line(each) for each in failures]
    return "\n".join([_shared(lines), newest.message or "", *_logs(failures)])


def _shared(lines: Sequence[str]) -> str:
    """Say it of the lines that name the errors, the newest first. Those alike but for numbers are one error."""
    kinds = Counter(map(_kind, lines))
    kind, count = kinds.most_common(1)[0]
    line = next(each for each in lines if _kind(each) == kind)
    if count == len(lines):
        but = "" if len(set(lines)) == 1 else ", but for its numbers"
        return f"They share one error{but}: {line}"
    if count > 1:
        return f"{count} of them share one error: {line}\nThe last one:"
    return "Their errors differ; the last one:"


def _kind(line: str) -> str:
    return _NUMBER.sub("#", line)


def _logs(failures: Sequence[Trial]) -> list[str]:
    """Return a line that names the logs of all but the newest trial, whose message names its own."""
    logs = [each.runs[-1].log for each in failures[1 : 1 + _MOST_LOGS] if each.runs]
    named = ", ".join(log for log in logs if log)
    return [f"The logs of those before: {named}"] if named else []


def error_line(trial: Trial) -> str:
    """Return the line that names the error: of tracebacks, the one after the indented calls of the last."""
    lines = [each for each in (trial.message or "").splitlines() if not each.startswith(LOG_MARK)]
    if not lines or not lines[0].startswith(_TRACEBACK):
        return next(iter(lines), "")
    last = max(number for number, line in enumerate(lines) if line.startswith(_TRACEBACK))
    return next((each for each in lines[last + 1 :] if each and not each[0].isspace()), lines[-1])
