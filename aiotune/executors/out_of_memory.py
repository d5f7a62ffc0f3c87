"""Which errors mean that memory ran out: the computer's, or a GPU's. No framework is imported to tell."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

__all__ = ["aborted_for_memory", "is_out_of_memory"]

# Python's and NumPy's; TensorFlow's; PyTorch's.
_NAMES = frozenset(
    {"MemoryError", "_ArrayMemoryError", "ResourceExhaustedError", "OutOfMemoryError"}
)
# Libraries that have one type for all their errors say it in the text alone.
_TEXTS = re.compile(
    "|".join(
        (
            r"RESOURCE_EXHAUSTED",  # XLA: JAX, TensorFlow with jit_compile
            r"(?i:(cuda|hip)\w*( runtime)?( error)?(\s*\(2\))?\W+out of memory)",  # PyTorch, CuPy, Numba
            r"(CUDA|HIP)_ERROR_OUT_OF_MEMORY",  # the driver's, as XLA, Numba and TensorRT pass it on
            r"(cuda|hip)Error(MemoryAllocation|OutOfMemory)",
            r"(CUDNN|CUBLAS|CUSOLVER|CUSPARSE|CUFFT)_(STATUS_)?ALLOC_FAILED",
            r"Dst tensor is not initialized",  # TensorFlow, of an array that it copies to a full GPU
            r"Failed to allocate (request for )?[\d.]+ ?\w*[Bb](ytes)?\b",  # XLA's allocators
            r"CUDNN_STATUS_INTERNAL_ERROR_\w+_ALLOCATION_FAILED",
            r"DefaultCPUAllocator: (can't allocate|not enough) memory",  # PyTorch, without a GPU
        )
    )
)
_SEARCHED = 10_000  # characters of the beginning of an error's text, and of its end

# What a native library prints before it aborts.
_LAST_WORDS = re.compile(r"std::bad_alloc|terminate called.*bad_alloc|[Oo]ut of memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error, or one that it was raised from (`raise ... from`), says that memory ran out."""
    return any(map(_says_so, _causes(error)))


def aborted_for_memory(log: str) -> bool:
    """Tell whether the end of the log of a process that aborted says that memory ran out."""
    return _LAST_WORDS.search(log) is not None or _TEXTS.search(log) is not None


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:  # user code may have tied a knot
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__


def _says_so(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    names = {kind.__name__ for kind in type(error).__mro__}
    return not names.isdisjoint(_NAMES) or _TEXTS.search(_ends_of(str(error))) is not None


def _ends_of(text: str) -> str:
    """Return the text, or its beginning and end: a search in megabytes would take seconds."""
    return text if len(text) <= 2 * _SEARCHED else f"{text[:_SEARCHED]}\n{text[-_SEARCHED:]}"
