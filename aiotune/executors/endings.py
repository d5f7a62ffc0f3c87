"""How a run ended that sent no last event: by what the fork server tells of its process, and by its log."""

from __future__ import annotations

import signal
from pathlib import Path

from aiotune.executors.base import Failed, Finished
from aiotune.executors.out_of_memory import aborted_for_memory
from aiotune.executors.wire import Frame
from aiotune.printable import printable
from aiotune.private_files import open_to_read
from aiotune.trial import FailureKind

__all__ = ["unsaid_ending"]

_TAIL_BYTES = 4096
_FAULTS = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL})


def unsaid_ending(
    outcome: Frame, *, is_stop_requested: bool, log: Path, server_log: Path | None
) -> Finished | Failed:
    """Return how the run ended. It reads the end of the run's log: call it in a thread.

    outcome: the last frame of the status socket (forkserver.py), or `{"is_lost": True}`, `{"is_stuck": True}`.
    """
    match outcome:
        case {"signal": int(number), **more}:
            if is_stop_requested and number not in _FAULTS:
                return Finished(is_stopped=True)
            return _killed(number, more, log)
        case {"exit": int(code)}:
            return Finished(is_stopped=True) if is_stop_requested else _crash(_exited(code), log)
        case {"is_stuck": True}:
            return _crash("killed, but its process does not end", log)
        case _:
            where = "" if server_log is None else f"; see {server_log}"
            message = f"the fork server died, and the run with it{where}"
            return Failed(FailureKind.CRASH, message, is_lost=True)


def _killed(number: int, more: Frame, log: Path) -> Failed:
    name = f"killed by {_signal_name(number)}"
    match more:
        case {"memory": str(why), "may_retry": bool(may_retry)}:
            return Failed(
                FailureKind.OUT_OF_MEMORY,
                f"{name}: {why}",
                _end_of(log),
                may_retry=may_retry,
                is_of_host=True,
            )
        case {"is_counted": True}:
            return _crash(f"{name}, which another process sent: memory had not run out", log)
        case _ if number == signal.SIGKILL:
            return _crash(f"{name} (by the kernel, if memory ran out)", log)
    failed = _crash(name, log)
    if number == signal.SIGABRT and aborted_for_memory(failed.traceback or ""):
        return Failed(FailureKind.OUT_OF_MEMORY, f"{name}: memory ran out", failed.traceback)
    return failed


def _exited(code: int) -> str:
    message = f"exited with code {code} before the run was over"
    if code == 0:
        message += ": something called os._exit(), or closed the descriptors of the process"
    return message


def _crash(message: str, log: Path) -> Failed:
    return Failed(FailureKind.CRASH, message, _end_of(log))


def _end_of(log: Path) -> str | None:
    tail = _tail(log)
    return f"The end of {log}:\n{tail}" if tail else None


def _signal_name(number: int) -> str:
    """Return "SIGSEGV (segmentation fault)"."""
    try:
        name = signal.Signals(number).name
    except ValueError:
        real_time = number - signal.SIGRTMIN
        return f"signal {number} (SIGRTMIN+{real_time})" if real_time > 0 else f"signal {number}"
    words = signal.strsignal(number)
    return f"{name} ({words.lower()})" if words and number in _FAULTS else name


def _tail(log: Path) -> str:
    """Return the end of a log, as far as it can be shown; empty if there is none."""
    try:
        with open_to_read(log) as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    # A bar of progress is written over itself again and again: here each of its states is a line.
    return printable(text.replace("\b", "").replace("\r", "\n")).strip()
