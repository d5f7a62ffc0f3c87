"""A record of JSON values and many arrays in one file, without pickle: raw bytes, then what they are.

    "aiotune arrays 1" and a newline, the arrays' bytes one after another, the record as JSON, its length (8
    bytes, little-endian)

The record comes last, so that arrays can be written as they are made: no second copy of a model is in memory.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aiotune.private_files import open_file, open_to_read

__all__ = ["ArrayFile", "is_storable", "write_arrays"]

Array = np.ndarray[Any, Any]

_MAGIC = b"aiotune arrays 1\n"
_LENGTH = struct.Struct("<Q")
_PLAIN_KINDS = "biufc"  # those whose bytes mean the same to every NumPy
_BUFFER_BYTES = 1 << 20
_LONGEST_KIND = 8  # characters, of "<f4" and its like
_MOST_DIMENSIONS = 32  # that every NumPy has
_LONGEST_SIDE = 1 << 48  # of an array: more is in no memory


def is_storable(array: Array) -> bool:
    """Return whether it can be written: numbers and booleans, bfloat16 and its like among them."""
    return array.dtype.kind in _PLAIN_KINDS or _is_small_float(array.dtype)


def write_arrays(path: Path, record: dict[str, Any], arrays: Iterable[Array]) -> None:
    """Write the file. bfloat16, float8 and the like become float32, which holds each of their values."""
    entries = []
    fd = open_file(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    with os.fdopen(fd, "wb", buffering=_BUFFER_BYTES) as file:
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
            footer, begin = _footer(path)
            content = json.loads(footer.decode())
            entries = tuple(_entry(kind, shape) for kind, shape in content["arrays"])
            size = sum(dtype.itemsize * math.prod(shape) for dtype, shape in entries)
            is_whole = len(_MAGIC) + size == begin and isinstance(content["record"], dict)
            return cls(path, content["record"], entries) if is_whole else None
        except (OSError, ValueError, TypeError, KeyError, RecursionError, struct.error):
            return None  # also for a link, a FIFO or a device in its place

    def arrays(self) -> list[Array]:
        """Read all arrays."""
        with open_to_read(self.path) as file:
            file.seek(len(_MAGIC))
            return [
                np.fromfile(file, dtype, int(np.prod(shape, dtype=np.int64))).reshape(shape)
                for dtype, shape in self.entries
            ]


def _entry(kind: str, shape: list[int]) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Return an array's type and shape. ValueError for what `write_arrays` does not write."""
    if type(kind) is not str or len(kind) > _LONGEST_KIND or len(shape) > _MOST_DIMENSIONS:
        raise ValueError("no array has such a type, or so many dimensions")
    dtype = np.dtype(kind)
    is_shape = all(type(n) is int and 0 <= n < _LONGEST_SIDE for n in shape)
    # Beside a side of 0 the others take no room, but NumPy multiplies them all the same.
    if (
        dtype.kind not in _PLAIN_KINDS
        or not is_shape
        or math.prod(filter(None, shape)) > _LONGEST_SIDE
    ):
        raise ValueError(f"no array has the type {kind!r} and the shape {shape}")
    return dtype, tuple(shape)


def _footer(path: Path) -> tuple[bytes, int]:
    """Return the record's text, and where it begins."""
    with open_to_read(path) as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError(f"{path} is no file of arrays")
        file.seek(-_LENGTH.size, 2)
        (length,) = _LENGTH.unpack(file.read())
        begin = file.seek(-_LENGTH.size - length, 2)
        return file.read(length), begin


def _plain(array: Array) -> Array:
    if array.dtype.kind not in _PLAIN_KINDS:
        array = array.astype(np.float32)
    return np.ascontiguousarray(array).reshape(array.shape)


def _is_small_float(dtype: np.dtype[Any]) -> bool:
    """Tell those of the package ml_dtypes by their name: NumPy knows them as raw bytes."""
    return dtype.kind == "V" and dtype.name.startswith(("bfloat", "float", "int", "uint"))
