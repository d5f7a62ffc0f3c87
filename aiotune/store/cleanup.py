"""Starting over: deletes a project's files, and nothing that aiotune did not write."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from aiotune.errors import StoreUnreadable, StoreUnwritable
from aiotune.layout import Layout, Retrained, unfinished
from aiotune.private_files import open_to_read
from aiotune.store.lock import hold_lock
from aiotune.store.schema import APPLICATION_ID

__all__ = ["remove_project"]

_MAGIC = b"SQLite format 3\0"
_APPLICATION_ID_AT = 68  # bytes into the file; sqlite.org/fileformat.html, section 1.3


def remove_project(layout: Layout) -> None:
    """Delete the project's store, logs and checkpoints, and its directories if they are then empty.

    Files of other names stay, and so do symbolic links. StoreLocked if a search is running there,
    StoreUnreadable if its database is another program's, StoreUnwritable if a file cannot be
    deleted.
    """
    if not layout.root.is_dir():
        return
    try:
        with hold_lock(layout.lock):
            _check_database(layout.store)
            for trial in _directories(layout.root, "trial_*"):
                _remove_trial(trial)
            for retrained in _directories(layout.root, "retrained_*"):
                _remove_retrained(Retrained(retrained))
            for path in _project_files(layout):
                path.unlink(missing_ok=True)
        _remove_if_empty(layout.root)
    except OSError as error:
        raise StoreUnwritable(
            f"{error.filename or layout.root} cannot be deleted ({error.strerror}): check "
            f"the rights, or choose another project_name"
        ) from error


def _project_files(layout: Layout) -> Iterator[Path]:
    yield layout.server_log
    yield layout.evaluation_log
    for log in layout.root.glob("evaluate-*.log"):
        if re.fullmatch(r"evaluate-\d+\.log", log.name):
            yield log
    for suffix in ("-wal", "-shm", "-journal", ""):
        yield layout.store.with_name(layout.store.name + suffix)
    # Last, while it is held: whoever opened it meanwhile finds it gone, and makes a new one.
    yield layout.lock


def _check_database(path: Path) -> None:
    """Raise unless the file is missing, empty or aiotune's by the mark in its header."""
    try:
        # No connection of this process has it open, for the lock is held: SQLite's own locks are
        # safe.
        with open_to_read(path) as file:
            header = file.read(100)
    except FileNotFoundError:
        return
    mark = header[_APPLICATION_ID_AT : _APPLICATION_ID_AT + 4]
    is_ours = header.startswith(_MAGIC) and int.from_bytes(mark) == APPLICATION_ID
    if header and not is_ours:
        raise StoreUnreadable(
            f"{path} was not written by aiotune, so overwrite=True does not delete it: choose "
            f"another project_name, or delete the file yourself"
        )


def _remove_trial(trial: Path) -> None:
    for path in trial.glob("run-*"):
        is_ours = re.fullmatch(r"run-\d+\.(log|reports)", path.name)
        if is_ours and not path.is_symlink() and path.is_file():
            path.unlink()
    for repeat in _directories(trial, "repeat-*"):
        if re.fullmatch(r"repeat-\d+", repeat.name):
            shutil.rmtree(repeat)
    _remove_if_empty(trial)


def _remove_retrained(retrained: Retrained) -> None:
    if not re.fullmatch(r"retrained_\d+", retrained.directory.name):
        return
    for path in retrained.files:
        for each in (path, unfinished(path)):
            each.unlink(missing_ok=True)
    _remove_if_empty(retrained.directory)


def _directories(parent: Path, pattern: str) -> list[Path]:
    return [path for path in parent.glob(pattern) if path.is_dir() and not path.is_symlink()]


def _remove_if_empty(directory: Path) -> None:
    with suppress(OSError):  # somebody else's files are in it
        directory.rmdir()
