"""Files of arrays, and what callbacks remember, without a framework. Trainings: test_keras_continuation."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiotune.frameworks.array_file import ArrayFile, is_storable, write_arrays
from aiotune.frameworks.keras_callback_state import NotKept, decoded, encoded
from aiotune.frameworks.keras_checkpoint import Best, read_best, write_file, write_json

ARRAYS = [
    np.arange(6, dtype="int8").reshape(2, 3),
    np.array(1.5, dtype="float16"),
    np.zeros((0, 4), dtype="uint32"),
    np.array([True, False]),
    np.arange(8.0).reshape(2, 4).T,  # not contiguous
    np.array([np.nan, -0.0, np.inf], dtype="float32"),
]


def written(directory: Path) -> Path:
    path = directory / "file"
    write_arrays(path, {"epoch": 3, "best": math.inf}, iter(ARRAYS))
    return path


def test_arrays_come_back_bit_for_bit(tmp_path: Path) -> None:
    file = ArrayFile.open(written(tmp_path))
    assert file is not None
    assert file.record == {"epoch": 3, "best": math.inf}
    for array, again in zip(ARRAYS, file.arrays(), strict=True):
        assert (again.dtype, again.shape) == (array.dtype, array.shape)
        assert again.tobytes() == array.tobytes()


def test_small_floats_become_larger_ones(tmp_path: Path) -> None:
    kinds = pytest.importorskip("ml_dtypes")
    array = np.linspace(-3, 3, 50).astype(kinds.bfloat16)
    write_arrays(tmp_path / "file", {}, [array])
    file = ArrayFile.open(tmp_path / "file")
    assert file is not None
    (again,) = file.arrays()
    assert again.dtype == np.float32
    assert again.astype(kinds.bfloat16).tobytes() == array.tobytes()
    assert is_storable(array)
    assert not is_storable(np.array(["a"]))
    assert not is_storable(np.array([object()]))


@pytest.mark.parametrize("kept", [0, 5, 60, -1])
def test_a_file_that_is_not_whole_counts_as_absent(tmp_path: Path, kept: int) -> None:
    path = written(tmp_path)
    path.write_bytes(path.read_bytes()[:kept])
    assert ArrayFile.open(path) is None


@pytest.mark.parametrize(
    ("kind", "shape"), [("O", [0]), ("V4", [0]), ("<f4", [-1]), ("<f4", [1.5]), ("<f4", [2**62, 8])]
)
def test_a_record_that_no_file_has_is_refused(tmp_path: Path, kind: str, shape: Any) -> None:
    footer = json.dumps({"record": {}, "arrays": [[kind, shape]]}).encode()
    length = len(footer).to_bytes(8, "little")
    (tmp_path / "file").write_bytes(b"aiotune arrays 1\n" + footer + length)
    assert ArrayFile.open(tmp_path / "file") is None


def test_a_file_that_lost_its_middle_counts_as_absent(tmp_path: Path) -> None:
    path = written(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[:20] + content[28:])
    assert ArrayFile.open(path) is None
    path.write_bytes(content[:-8] + b"\xff" * 8)
    assert ArrayFile.open(path) is None


def test_a_best_epoch_whose_files_are_damaged_is_none(tmp_path: Path) -> None:
    write_arrays(tmp_path / "best.state", {}, ARRAYS)
    write_json(tmp_path / "best.json", {"epoch": 3, "score": 0.5})
    assert read_best(tmp_path) == Best(3, 0.5)
    (tmp_path / "best.state").write_bytes(b"")
    assert read_best(tmp_path) is None
    write_arrays(tmp_path / "best.state", {}, ARRAYS)
    for damaged in ("", "[]", "{}", '{"epoch": null, "score": 1}'):
        (tmp_path / "best.json").write_text(damaged)
        assert read_best(tmp_path) is None


def test_what_the_weights_say_of_themselves_holds(tmp_path: Path) -> None:
    """A run that was killed between the two files has left the record of an earlier epoch."""
    write_json(tmp_path / "best.json", {"epoch": 3, "score": 0.5})
    write_arrays(tmp_path / "best.state", {"record": {"epoch": 5, "score": "inf"}}, ARRAYS)
    assert read_best(tmp_path) == Best(5, math.inf)
    (tmp_path / "best.json").unlink()
    assert read_best(tmp_path) == Best(5, math.inf)


@pytest.mark.parametrize("is_durable", [False, True])
def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, is_durable: bool) -> None:
    path = tmp_path / "file"
    write_file(path, lambda draft: draft.write_text("old"), is_durable=is_durable)

    def write(draft: Path) -> None:
        draft.write_text("ne")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(draft))

    with pytest.raises(OSError, match="No space left"):
        write_file(path, write, is_durable=is_durable)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_a_link_that_was_left_behind_is_not_written_through(tmp_path: Path) -> None:
    """A run that was killed while it set a budget's files aside leaves one."""
    kept = tmp_path / "kept"
    kept.write_text("old")
    os.link(kept, tmp_path / "writing.file")
    write_file(tmp_path / "file", lambda draft: draft.write_text("new"))
    assert (kept.read_text(), (tmp_path / "file").read_text()) == ("old", "new")


def test_no_file_is_none(tmp_path: Path) -> None:
    assert ArrayFile.open(tmp_path / "nothing") is None


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(values)
def test_plain_values_come_back_as_they_were(value: Any) -> None:
    assert decoded(encoded(value, []), []) == value


def test_arrays_and_numbers_of_numpy_come_back_as_such() -> None:
    arrays: list[Any] = []
    value = {"weights": [np.arange(3), np.ones((2, 2))], "best": np.float32(0.1)}
    again = decoded(encoded(value, arrays), arrays)
    assert type(again["best"]) is np.float32
    assert again["best"] == value["best"]
    for one, other in zip(again["weights"], value["weights"], strict=True):
        np.testing.assert_array_equal(one, other)
        assert one is not other


@pytest.mark.parametrize("value", [print, {1: 2}, {1, 2}, object(), np.array(["text"]), [1, open]])
def test_what_has_no_form_on_disk_is_refused(value: Any) -> None:
    with pytest.raises(NotKept):
        encoded(value, [])
