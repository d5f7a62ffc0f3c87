from __future__ import annotations

import os
import threading
from pathlib import Path

from aiotune.store.turns import turn_to_read


def is_free(path: Path) -> bool:
    """Tell whether a thread that wants to read now need not wait."""
    turn = turn_to_read(path)
    if isinstance(turn, type(threading.Lock())):
        return not turn.locked()
    return True


def test_without_a_log_threads_read_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    with turn_to_read(path):
        assert not is_free(path)
    assert is_free(path)


def test_with_a_log_nobody_waits(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    (tmp_path / "study.db-wal").touch()
    with turn_to_read(path):
        assert is_free(path)


def test_a_fork_waits_for_no_thread_of_its_parent(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    with turn_to_read(path):
        child = os.fork()
        if child == 0:
            os._exit(0 if is_free(path) else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
