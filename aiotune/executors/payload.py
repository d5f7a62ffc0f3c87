"""The payload: a program, pickled once for a whole search, that every child maps instead of copying.

It lies in a memory file without a name. Large buffers (arrays, wherever they hang) stand beside the pickle,
page by page, and a child maps them copy-on-write: writable, shared until written, invisible to others.

    pickle | buffer 0 | buffer 1 | ... | index: JSON | length of the index: 8 bytes
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import pickle
import struct
import tempfile
from collections.abc import Callable, Mapping
from types import MappingProxyType, TracebackType
from typing import IO, Any, Self

import cloudpickle

from aiotune.errors import PayloadError
from aiotune.executors.context import Program
from aiotune.executors.culprit import Culprit, find_culprit
from aiotune.executors.mentions import mentioned_frameworks

__all__ = ["LARGE_BUFFER_BYTES", "Payload", "load"]

LARGE_BUFFER_BYTES = 64 * 1024  # smaller ones cost less inside the pickle than a page of their own
_TRAILER = struct.Struct("!Q")
_NO_PARTS: Mapping[str, object] = MappingProxyType({})


class Payload:
    """A pickled program in an unlinked file; close it when no run will start from it any more.

    `frameworks` are the ML frameworks that the program refers to, found while pickling, for the fork
    server to import before it forks.
    """

    def __init__(self, fd: int, *, frameworks: frozenset[str], pickle_bytes: int) -> None:
        self._fd = fd
        self.frameworks = frameworks
        self.pickle_bytes = pickle_bytes  # without the buffers beside it

    @classmethod
    def create(cls, program: Program, parts: Mapping[str, object] = _NO_PARTS) -> Payload:
        """Pickle the program. Blocking: it copies every array once; call it in a thread.

        `parts` are its components by the names that users know them by ("argument 1", "callbacks").
        Raises PayloadError, which names the part, for what cannot be pickled, and if memory is short.
        """
        fd = _create_file()
        try:
            with open(fd, "wb", closefd=False) as file:
                frameworks, pickle_bytes = _write(file, program, parts)
            return cls(_protect(fd), frameworks=frameworks, pickle_bytes=pickle_bytes)
        except BaseException as error:
            os.close(fd)
            if isinstance(error, OSError | MemoryError):
                raise PayloadError(
                    f"there is no memory for a copy of the program and its data ({error}): pass "
                    "less data, or load it inside build or run_trial"
                ) from error
            raise

    @property
    def fd(self) -> int:
        """The file's descriptor. Its position is shared: read it with `load` only."""
        if self._fd < 0:
            raise PayloadError("the payload is closed")
        return self._fd

    def close(self) -> None:
        """Give the memory back once the last child that mapped it has ended. Twice is no harm."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def load(fd: int) -> Program:
    """Return the program of the payload at `fd`; raises whatever unpickling raises.

    Its large arrays are private, writable maps of the file, mapped as long as one of them lives.
    """
    content = memoryview(mmap.mmap(fd, 0, access=mmap.ACCESS_COPY))
    (index_bytes,) = _TRAILER.unpack(content[-_TRAILER.size :])
    index = json.loads(bytes(content[-_TRAILER.size - index_bytes : -_TRAILER.size]))
    buffers = [content[start : start + size] for start, size in index["buffers"]]
    program: Program = pickle.loads(content[: index["pickle_bytes"]], buffers=buffers)
    return program


def _write(
    file: IO[bytes], program: Program, parts: Mapping[str, object]
) -> tuple[frozenset[str], int]:
    """Write the whole layout; return the frameworks met and the pickle's size."""
    buffers: list[memoryview] = []

    def keep_inside(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes <= LARGE_BUFFER_BYTES:
            return True
        buffers.append(raw)
        return False

    scout = _Scout(file, buffer_callback=keep_inside)
    try:
        scout.dump(program)
    except (OSError, MemoryError):
        raise
    except Exception as error:
        raise _payload_error(error, program, parts) from error
    pickle_bytes = file.tell()
    places = [(_write_aligned(file, buffer), buffer.nbytes) for buffer in buffers]
    index = json.dumps({"pickle_bytes": pickle_bytes, "buffers": places}).encode()
    file.write(index + _TRAILER.pack(len(index)))
    return frozenset(scout.frameworks), pickle_bytes


class _Scout(cloudpickle.Pickler):  # type: ignore[misc]
    """A pickler that notes the frameworks that it passes."""

    def __init__(
        self, file: IO[bytes], buffer_callback: Callable[[pickle.PickleBuffer], bool]
    ) -> None:
        super().__init__(file, protocol=5, buffer_callback=buffer_callback)
        self.frameworks: set[str] = set()

    def reducer_override(self, obj: object) -> Any:
        self.frameworks.update(mentioned_frameworks(obj))
        return super().reducer_override(obj)


def _write_aligned(file: IO[bytes], buffer: memoryview) -> int:
    """Write the buffer from the start of a page on, and return where that is."""
    file.write(b"\0" * (-file.tell() % mmap.PAGESIZE))
    start = file.tell()
    file.write(buffer)
    return start


def _payload_error(error: Exception, program: Program, parts: Mapping[str, object]) -> PayloadError:
    culprit = find_culprit(parts, _is_picklable) or Culprit("the program", program)
    return PayloadError(
        f"{culprit.where} cannot be sent to a child process: it is of type "
        f"{culprit.type_name}. {culprit.remedy} ({type(error).__name__}: {error})"
    )


def _is_picklable(thing: object) -> bool:
    """Try it, without keeping the outcome."""
    try:
        pickler = cloudpickle.Pickler(_Sink(), protocol=5, buffer_callback=lambda _: False)
        pickler.dump(thing)
    except Exception:
        return False
    return True


class _Sink:
    """A file that forgets."""

    def write(self, data: bytes) -> int:
        return len(data)


def _create_file() -> int:
    """Return the descriptor of a new empty file that has no name, and that is not inherited."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("aiotune-payload", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _protect(fd: int) -> int:
    """Make the file's content final, where the system can: a child then cannot harm another's."""
    if hasattr(fcntl, "F_ADD_SEALS"):
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd
