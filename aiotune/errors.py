"""Every exception of aiotune, in one tree.

    AiotuneError
    ├── FatalError                     ends the whole search (raise it in user code, too)
    │   ├── FatalValueError            · also a ValueError: a bad argument
    │   ├── FatalTypeError             · also a TypeError: an argument of the wrong kind
    │   └── FatalRuntimeError          · also a RuntimeError
    │       ├── SearchFailed             too many failures in a row; names what they share
    │       ├── SearchNotAwaited         `search()` was called, its coroutine never awaited
    │       ├── StoreError               the project's database
    │       │   ├── StoreLocked            another process owns the search: its pid and host
    │       │   ├── StoreMismatch          stored objective or range differs from the program's
    │       │   ├── StoreUnreadable        not a database of aiotune, or of a newer version
    │       │   └── StoreUnwritable        the directory or the disk refuses the write
    │       ├── DiskFull                 max_disk has no room for another run
    │       ├── DeviceError              no device can ever serve a request
    │       ├── ExecutorError            a child process could not be started
    │       │   └── PayloadError           an argument cannot travel to the child; it is named
    │       └── MissingFramework         also an ImportError: names the extra to install
    ├── FailedTrialError               raised by user code: this trial failed, do not retry it
    └── InfeasibleTrialError           raised by user code: this point is impossible

Errors of other libraries are translated where they enter, with `from`. A message says what to do next.
"""

from __future__ import annotations

from aiotune.printable import printable

__all__ = [
    "AiotuneError",
    "DeviceError",
    "DiskFull",
    "ExecutorError",
    "FailedTrialError",
    "FatalError",
    "FatalRuntimeError",
    "FatalTypeError",
    "FatalValueError",
    "InfeasibleTrialError",
    "MissingFramework",
    "PayloadError",
    "SearchFailed",
    "SearchNotAwaited",
    "StoreError",
    "StoreLocked",
    "StoreMismatch",
    "StoreUnreadable",
    "StoreUnwritable",
]


class AiotuneError(Exception):
    """Base of every error that aiotune raises on purpose.

    A message may quote names that a file or a child gave; shown in a terminal, nothing in it is obeyed.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class FatalError(AiotuneError):
    """Ends the whole search. Raise it in user code when no further trial makes sense."""


class FatalValueError(FatalError, ValueError):
    """An argument has an impossible value."""


class FatalTypeError(FatalError, TypeError):
    """An argument is of the wrong kind."""


class FatalRuntimeError(FatalError, RuntimeError):
    """The search cannot go on."""


class SearchFailed(FatalRuntimeError):
    """Too many trials failed in a row. The message gives the error that they share."""


class SearchNotAwaited(FatalRuntimeError):
    """`search()` was called, but the coroutine that it returned was never awaited."""


class StoreError(FatalRuntimeError):
    """The project's database cannot be used as asked."""


class StoreLocked(StoreError):
    """Another search owns the project: `pid` on `host`."""

    def __init__(self, message: str, *, pid: int | None = None, host: str | None = None) -> None:
        super().__init__(message)
        self.pid = pid
        self.host = host


class StoreMismatch(StoreError):
    """What is stored contradicts the program: another objective, or another range of a name."""


class StoreUnreadable(StoreError):
    """The file is no database of aiotune, is damaged, or was written by a newer version."""


class StoreUnwritable(StoreError):
    """The directory or the disk refuses the write: missing rights, no space, read-only."""


class DiskFull(FatalRuntimeError):
    """The checkpoints that have to stay leave no room for another run below `max_disk`."""


class DeviceError(FatalRuntimeError):
    """No device of this machine can ever serve the request."""


class ExecutorError(FatalRuntimeError):
    """A child process could not be started."""


class PayloadError(ExecutorError, TypeError):
    """An argument of the search cannot be sent to a child process. The message names it."""


class MissingFramework(FatalRuntimeError, ImportError):
    """A framework is needed that is not installed. The message names the extra."""


class FailedTrialError(AiotuneError):
    """Raise it in user code to fail the trial without a retry."""


class InfeasibleTrialError(AiotuneError):
    """Raise it in user code when this point of the space is impossible: it is not tried again."""
