"""How NumPy arrays travel: as a buffer beside the pickle, whatever their layout; a mapped file as its name.

Pickle itself sends only contiguous arrays of the common dtypes out of band. Smaller arrays are left to it.
"""

from __future__ import annotations

import mmap
import os
from typing import Any, Literal

import numpy as np

from aiotune.executors.payload import LARGE_BUFFER_BYTES

__all__ = ["reduce_array"]

Array = np.ndarray[Any, Any]
_VIEWS = (np.ndarray, np.memmap, np.matrix, np.recarray)  # classes that add no state of their own


def reduce_array(thing: object) -> Any:
    """Return how a large array travels, for pickle; NotImplemented where pickle's own way is as good."""
    if not isinstance(thing, np.ndarray) or thing.dtype.hasobject:
        return NotImplemented
    if thing.nbytes <= LARGE_BUFFER_BYTES:
        return NotImplemented
    if type(thing) is np.ma.MaskedArray:
        return _reduce_masked(thing)
    if type(thing) not in _VIEWS:
        return NotImplemented
    mapped = _mapped_file(thing)
    if mapped is not None:
        return mapped
    if type(thing) is np.ndarray and _is_sent_by_numpy(thing):
        return NotImplemented
    plain, order = _contiguous(thing.view(np.ndarray))
    return _array, (plain.reshape(-1).view(np.uint8), type(thing), thing.dtype, thing.shape, order)


def _is_sent_by_numpy(array: Array) -> bool:
    """Return whether pickle sends it out of band: dates, and dtypes of other packages, are no buffers."""
    try:
        memoryview(array).release()  # type: ignore[arg-type]  # NumPy's stubs do not call it a Buffer
    except (ValueError, TypeError, BufferError):
        return False
    return array.flags.c_contiguous or array.flags.f_contiguous


def _contiguous(array: Array) -> tuple[Array, Literal["C", "F"]]:
    """Return the items in memory order, and in which order of axes they are to be read."""
    if array.flags.f_contiguous and not array.flags.c_contiguous:
        return array.T, "F"
    return np.ascontiguousarray(array), "C"


def _array(
    content: Array,
    kind: type[Array],
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    order: Literal["C", "F"],
) -> Array:
    array = content.view(dtype).reshape(shape, order=order)
    # A map is not one any more, once it was copied.
    return array if kind in (np.ndarray, np.memmap) else array.view(kind)


def _reduce_masked(array: np.ma.MaskedArray[Any, Any]) -> Any:
    mask = None if array.mask is np.ma.nomask else np.asarray(array.mask)
    return _masked, (np.asarray(array.data), mask, array.fill_value, array.hardmask)


def _masked(
    data: Array, mask: Array | None, fill_value: Any, is_hard: bool
) -> np.ma.MaskedArray[Any, Any]:
    given = np.ma.nomask if mask is None else mask
    return np.ma.MaskedArray(data, mask=given, fill_value=fill_value, hard_mask=is_hard)


def _mapped_file(array: Array) -> Any:
    """Return how an array that is the content of a file travels, or None if it is not, or not any more.

    A map that was made copy-on-write is none: the file does not have what was written to it.
    """
    root: Any = array
    while isinstance(root.base, np.ndarray):
        root = root.base
    if not (isinstance(root, np.memmap) and isinstance(root.base, mmap.mmap)):
        return None
    if root.filename is None or root.mode == "c":
        return None
    is_contiguous = array.flags.c_contiguous or array.flags.f_contiguous
    path = os.path.abspath(root.filename)
    try:
        is_whole = os.path.getsize(path) >= root.offset + root.nbytes
    except OSError:
        return None
    if not (is_contiguous and is_whole):
        return None
    offset = root.offset + array.ctypes.data - root.ctypes.data
    order = "C" if array.flags.c_contiguous else "F"
    return _map, (path, type(array), array.dtype, offset, array.shape, order)


def _map(
    path: str,
    kind: type[Array],
    dtype: np.dtype[Any],
    offset: int,
    shape: tuple[int, ...],
    order: Literal["C", "F"],
) -> Array:
    """Map the file copy-on-write: like every array in a child it can be written to, and is private."""
    return np.memmap(path, dtype, "c", offset, shape, order).view(kind)
