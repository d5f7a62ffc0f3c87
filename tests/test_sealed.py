from __future__ import annotations

import pickle
import threading
from pathlib import Path

import pytest

from aiotune.errors import FatalRuntimeError
from aiotune.executors.sealed import make_key, read_sealed, write_sealed


class Trap:
    """Tells that it was loaded."""

    loaded = False

    def __reduce__(self) -> object:
        return (setattr, (Trap, "loaded", True))


def test_what_was_written_with_the_key_comes_back(tmp_path: Path) -> None:
    path, key = tmp_path / "file", make_key()
    write_sealed(path, {"a": [1, 2], "f": lambda: 3}, key)
    thing = read_sealed(path, key)
    assert (thing["a"], thing["f"]()) == ([1, 2], 3)
    assert make_key() != key


@pytest.mark.parametrize("forged", ["whole", "tail", "key", "nothing"])
def test_nothing_else_is_ever_loaded(tmp_path: Path, forged: str) -> None:
    path, key = tmp_path / "file", make_key()
    write_sealed(path, "harmless", key)
    content = pickle.dumps(Trap())
    match forged:
        case "whole":
            path.write_bytes(content)
        case "tail":
            path.write_bytes(path.read_bytes()[:32] + content)
        case "key":
            write_sealed(path, Trap(), make_key())
        case "nothing":
            path.write_bytes(b"")
    with pytest.raises(FatalRuntimeError, match="was changed after the run that wrote it"):
        read_sealed(path, key)
    assert not Trap.loaded


def test_what_cannot_be_pickled_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        FatalRuntimeError, match="a dict cannot come back from its process: TypeError"
    ):
        write_sealed(tmp_path / "file", {"lock": threading.Lock()}, make_key())
