"""Arrays travel beside the pickle, whatever their layout, and come back equal, writable and private."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from aiotune.executors.payload import Payload, load
from aiotune.frameworks.data import REDUCERS

ROWS = 90_000  # so that one byte for each is more than stays in the pickle
MATRIX = np.arange(ROWS * 3, dtype="float64").reshape(ROWS, 3)
RECORDS = np.zeros(ROWS, dtype=[("a", "f4"), ("b", "i8")])
RECORDS["a"] = np.arange(ROWS)


def round_trip(thing: Any) -> tuple[Any, int]:
    """Return what a child would get, and the bytes of the pickle."""
    with Payload.create(lambda run: thing, reducers=REDUCERS) as payload:
        return load(payload.fd)(None), payload.pickle_bytes  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(MATRIX, id="plain"),
        pytest.param(MATRIX[::2], id="every second row"),
        pytest.param(MATRIX[::-1], id="backwards"),
        pytest.param(MATRIX.reshape(300, 300, 3).transpose(1, 0, 2), id="transposed"),
        pytest.param(np.asfortranarray(MATRIX), id="fortran"),
        pytest.param(np.broadcast_to(np.arange(3.0), (ROWS, 3)), id="broadcast"),
        pytest.param(np.arange(ROWS).astype("datetime64[s]"), id="dates"),
        pytest.param(np.arange(ROWS).astype("timedelta64[s]").reshape(3, -1).T, id="durations"),
        pytest.param(MATRIX.astype(">f8"), id="other byte order"),
        pytest.param(np.array(["a", "bc"] * ROWS), id="text"),
        pytest.param(RECORDS, id="records"),
        pytest.param(RECORDS.view(np.recarray), id="recarray"),
        pytest.param(np.asmatrix(MATRIX), id="matrix"),
        pytest.param(np.ma.masked_array(MATRIX, mask=MATRIX % 2 == 0), id="masked"),
        pytest.param(np.ma.masked_array(MATRIX, fill_value=7.0), id="masked nowhere"),
    ],
)
def test_large_arrays_come_back(array: np.ndarray[Any, Any]) -> None:
    back, pickle_bytes = round_trip(array)
    assert pickle_bytes < 2000
    assert type(back) is type(array)
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(back, array)
    assert back.flags.writeable


def test_a_mask_is_one_again() -> None:
    array = np.ma.masked_array(MATRIX, mask=MATRIX % 2 == 0, fill_value=5.0, hard_mask=True)
    back, _ = round_trip(array)
    np.testing.assert_array_equal(back.mask, array.mask)
    assert (back.fill_value, back.hardmask) == (5.0, True)
    assert round_trip(np.ma.masked_array(MATRIX))[0].mask is np.ma.nomask


def test_shared_arrays_stay_shared() -> None:
    array = MATRIX[::2]
    (first, second), _ = round_trip([array, array])
    assert first is second


@pytest.mark.parametrize(
    "make",
    [
        lambda: pd.DataFrame(MATRIX),
        lambda: pd.DataFrame(MATRIX)[::2],
        lambda: pd.Series(np.arange(ROWS) % 7).astype("category"),
        lambda: pd.Series(np.arange(ROWS)).astype("Int64"),
        lambda: pd.DataFrame({"t": pd.date_range("2020", periods=ROWS, freq="s"), "x": 1.5}),
    ],
    ids=["frame", "every second row", "categories", "nullable", "dates"],
)
def test_pandas_comes_back(make: Callable[[], Any]) -> None:
    table = make()
    back, pickle_bytes = round_trip(table)
    assert back.equals(table)
    assert pickle_bytes < 4000


def test_scipy_sparse_comes_back() -> None:
    matrix = scipy.sparse.random(1000, 1000, 0.1, format="csr", random_state=0)
    back, pickle_bytes = round_trip(matrix)
    assert (back != matrix).nnz == 0
    assert pickle_bytes < 10_000  # its 4 KB of row pointers are within


# A file that is mapped


@pytest.fixture
def mapped(tmp_path: Path) -> np.memmap[Any, Any]:
    np.save(tmp_path / "data.npy", MATRIX)
    return np.load(tmp_path / "data.npy", mmap_mode="r")  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "view",
    [
        lambda mapped: mapped,
        lambda mapped: mapped[100:20_000],
        lambda mapped: mapped.T,
        lambda mapped: np.asarray(mapped)[5000:],
    ],
    ids=["whole", "slice", "transposed", "plain"],
)
def test_a_mapped_file_travels_as_its_name(
    mapped: np.memmap[Any, Any], view: Callable[[Any], Any]
) -> None:
    array = view(mapped)
    with Payload.create(lambda run: array, reducers=REDUCERS) as payload:
        assert os.fstat(payload.fd).st_size < 2000
        back: Any = load(payload.fd)(None)  # type: ignore[arg-type]
    assert type(back) is type(array)
    np.testing.assert_array_equal(back, array)
    back[0] = -1.0  # private: the file keeps what it has
    assert mapped[0, 1] == 1.0
    assert array.flat[1] != -1.0


@pytest.mark.parametrize("change", ["gone", "shorter"])
def test_a_map_whose_file_has_changed_is_copied(mapped: np.memmap[Any, Any], change: str) -> None:
    path = Path(str(mapped.filename))
    held = np.array(mapped)
    path.unlink()
    if change == "shorter":
        path.write_bytes(b"other")
    np.testing.assert_array_equal(round_trip(mapped)[0], held)


def test_what_was_written_to_a_private_map_travels(mapped: np.memmap[Any, Any]) -> None:
    private = np.load(str(mapped.filename), mmap_mode="c")
    private[0] = 5.0
    back, _ = round_trip(private)
    assert back[0].tolist() == [5.0, 5.0, 5.0]
    np.testing.assert_array_equal(round_trip(mapped[::2])[0], mapped[::2])
