"""A record of JSON values and many arrays in one file, without pickle: raw bytes, then what they are.

    "aiotune arrays 1" and a newline, the arrays' bytes one after another, the record as JSON, its length (8
    bytes, little-endian)

The record comes last, so that arrays can be written as they are made: no second copy of a model is in memory.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["ArrayFile", "is_storable", "write_arrays"]

Array = np.ndarray[Any, Any]

_MAGIC = b"aiotune arrays 1\n"
_LENGTH = struct.Struct("<Q")
_PLAIN_KINDS = "biufc"  # those whose bytes mean the same to every NumPy
_BUFFER_BYTES = 1 << 20


def is_storable(array: Array) -> bool:
    """Return whether it can be written: numbers and booleans, bfloat16 and its like among them."""
    return array.dtype.kind in _PLAIN_KINDS or _is_small_float(array.dtype)


def write_arrays(path: Path, record: dict[str, Any], arrays: Iterable[Array]) -> None:
    """Write the file. bfloat16, float8 and the like become float32, which holds each of their values."""
    entries = []
    with path.open("wb", buffering=_BUFFER_BYTES) as file:
        file.write(_MAGIC)
        for array in arrays:
            plain = _plain(array)
            file.write(plain.reshape(-1).view(np.uint8).data)
            entries.append([plain.dtype.str, list(plain.shape)])
        # Scores may be infinite or NaN, which Python's JSON writes and reads.
        footer = json.dumps({"record": record, "arrays": entries}).encode()
        file.write(footer)
        file.write(_LENGTH.pack(len(footer)))


@dataclass(frozen=True, slots=True)
class ArrayFile:
    """A file as it was read: the record, and where the arrays are."""

    path: Path
    record: dict[str, Any]
    entries: tuple[tuple[np.dtype[Any], tuple[int, ...]], ...]

    @classmethod
    def open(cls, path: Path) -> ArrayFile | None:
        """Read the record. None if there is no such file, or none that is whole."""
        try:
            content = json.loads(_footer(path))
            entries = tuple((np.dtype(kind), tuple(shape)) for kind, shape in content["arrays"])
            return cls(path, content["record"], entries)
        except (OSError, ValueError, TypeError, KeyError, struct.error):
            return None

    def arrays(self) -> list[Array]:
        """Read all arrays."""
        with self.path.open("rb") as file:
            file.seek(len(_MAGIC))
            return [
                np.fromfile(file, dtype, int(np.prod(shape, dtype=np.int64))).reshape(shape)
                for dtype, shape in self.entries
            ]


def _footer(path: Path) -> bytes:
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError(f"{path} is no file of arrays")
        file.seek(-_LENGTH.size, 2)
        (length,) = _LENGTH.unpack(file.read())
        file.seek(-_LENGTH.size - length, 2)
        return file.read(length)


def _plain(array: Array) -> Array:
    if array.dtype.kind not in _PLAIN_KINDS:
        array = array.astype(np.float32)
    return np.ascontiguousarray(array).reshape(array.shape)


def _is_small_float(dtype: np.dtype[Any]) -> bool:
    """Tell those of the package ml_dtypes by their name: NumPy knows them as raw bytes."""
    return dtype.kind == "V" and dtype.name.startswith(("bfloat", "float", "int", "uint"))
