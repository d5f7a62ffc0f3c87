"""The payload: a program, pickled once for a whole search, that every child maps instead of copying.

It lies in a memory file without a name. Large buffers (arrays, wherever they hang) stand beside the pickle,
page by page, and a child maps them copy-on-write: writable, shared until written, invisible to others.
The pickle holds three things: a prelude, which the child calls before the rest is unpickled, the program, and
the functions and classes of `__main__` by name.

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
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType, TracebackType
from typing import IO, Any, Self

import cloudpickle

from aiotune.errors import PayloadError
from aiotune.executors.context import Program
from aiotune.executors.culprit import Culprit, find_culprit
from aiotune.executors.main_module import (
    MainGlobals,
    is_definition_of_main,
    main_globals,
    names_set_by,
)
from aiotune.executors.mentions import mentioned_frameworks

__all__ = ["LARGE_BUFFER_BYTES", "Payload", "Prelude", "PreludeError", "Reducer", "load", "pickled"]

Prelude = Callable[[], object]
Reducer = Callable[[object], Any]  # what `object.__reduce_ex__` returns, or NotImplemented

LARGE_BUFFER_BYTES = 64 * 1024  # smaller ones cost less inside the pickle than a page of their own
_TRAILER = struct.Struct("!Q")
_NO_PARTS: Mapping[str, object] = MappingProxyType({})
# Pickling looks into modules, and TensorFlow's lazy ones (`tf.keras`) break when two threads load them at once.
_ONE_AT_A_TIME = threading.Lock()


class PreludeError(Exception):
    """The prelude failed; its error is the cause."""


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
    def create(
        cls,
        program: Program,
        parts: Mapping[str, object] = _NO_PARTS,
        *,
        prelude: Prelude | None = None,
        reducers: Sequence[Reducer] = (),
    ) -> Payload:
        """Pickle the program. Blocking: it copies every array once; call it in a thread.

        `parts` are its components by the names that users know them by ("argument 1", "callbacks").
        `prelude` is called in the child before the program is unpickled. `reducers` say how objects travel that
        pickle itself does not know, or not well: the first that does not answer NotImplemented holds.
        Raises PayloadError, which names the part, for what cannot be pickled, and if memory is short.
        """
        fd = _create_file()
        try:
            with _ONE_AT_A_TIME, open(fd, "wb", closefd=False) as file:
                frameworks, pickle_bytes = _write(file, (prelude, program), parts, reducers)
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
    """Call the prelude of the payload at `fd` and return its program; raises whatever unpickling raises.

    PreludeError from what the prelude raises. What it set in `__main__` holds: unpickling a function would set
    the names that the function uses back to the caller's values.

    Its large arrays are private, writable maps of the file, mapped as long as one of them lives.
    """
    content = memoryview(mmap.mmap(fd, 0, access=mmap.ACCESS_COPY))
    (index_bytes,) = _TRAILER.unpack(content[-_TRAILER.size :])
    index = json.loads(bytes(content[-_TRAILER.size - index_bytes : -_TRAILER.size]))
    buffers = [content[start : start + size] for start, size in index["buffers"]]
    # One unpickler for both, so that what they share (globals of the user's functions) is shared in the child.
    unpickler = pickle.Unpickler(_Reader(content[: index["pickle_bytes"]]), buffers=buffers)
    prelude: Prelude | None = unpickler.load()
    changed: Mapping[str, Any] = {} if prelude is None else _called(prelude)
    program: Program = unpickler.load()
    definitions: dict[str, Any] = unpickler.load()
    main_globals().update({**definitions, **changed})
    return program


def pickled(thing: object) -> bytes:
    """Return the pickle of what goes up to the caller, or raise what pickling raises.

    What has a name goes by it, so that the caller finds its own class; only what has none goes by value.
    """
    try:
        return pickle.dumps(thing, protocol=5)
    except Exception:  # a lambda, a local class
        content: bytes = cloudpickle.dumps(thing, protocol=5)
        return content


def _called(prelude: Prelude) -> Mapping[str, Any]:
    try:
        return names_set_by(prelude)
    except BaseException as error:
        raise PreludeError from error


class _Reader:
    """A file over bytes that are not copied."""

    def __init__(self, content: memoryview) -> None:
        self._content = content
        self._position = 0

    def read(self, size: int) -> bytes:
        return bytes(self._take(size))

    def readinto(self, buffer: memoryview) -> int:
        piece = self._take(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def readline(self) -> bytes:
        raise pickle.UnpicklingError("a pickle of this protocol has no lines")

    def _take(self, size: int) -> memoryview:
        piece = self._content[self._position : self._position + size]
        self._position += len(piece)
        return piece


def _write(
    file: IO[bytes],
    content: tuple[Prelude | None, Program],
    parts: Mapping[str, object],
    reducers: Sequence[Reducer],
) -> tuple[frozenset[str], int]:
    """Write the whole layout; return the frameworks met and the pickle's size."""
    buffers: list[memoryview] = []

    def keep_inside(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes <= LARGE_BUFFER_BYTES:
            return True
        buffers.append(raw)
        return False

    scout = _Scout(file, reducers, buffer_callback=keep_inside)
    try:
        for each in content:
            scout.dump(each)
        scout.dump(dict(scout.definitions))
    except (OSError, MemoryError, PayloadError):
        raise
    except Exception as error:
        raise _payload_error(error, content[1], parts, reducers) from error
    pickle_bytes = file.tell()
    places = [(_write_aligned(file, buffer), buffer.nbytes) for buffer in buffers]
    index = json.dumps({"pickle_bytes": pickle_bytes, "buffers": places}).encode()
    file.write(index + _TRAILER.pack(len(index)))
    return frozenset(scout.frameworks), pickle_bytes


class _Scout(cloudpickle.Pickler):  # type: ignore[misc]
    """A pickler that asks the reducers first, and notes the frameworks and definitions that it passes."""

    def __init__(
        self,
        file: IO[bytes] | _Sink,
        reducers: Sequence[Reducer],
        buffer_callback: Callable[[pickle.PickleBuffer], bool],
    ) -> None:
        super().__init__(file, protocol=5, buffer_callback=buffer_callback)
        self._reducers = reducers
        self.frameworks: set[str] = set()
        self.definitions: dict[str, Any] = {}
        # cloudpickle would give the functions of `__main__` a namespace that is nobody else's.
        self.globals_ref[id(main_globals())] = MainGlobals()

    def reducer_override(self, obj: object) -> Any:
        self.frameworks.update(mentioned_frameworks(obj))
        if is_definition_of_main(obj):
            self.definitions[obj.__name__] = obj  # type: ignore[attr-defined]
        for reduce in self._reducers:
            reduced = reduce(obj)
            if reduced is not NotImplemented:
                return reduced
        return super().reducer_override(obj)


def _write_aligned(file: IO[bytes], buffer: memoryview) -> int:
    """Write the buffer from the start of a page on, and return where that is."""
    file.write(b"\0" * (-file.tell() % mmap.PAGESIZE))
    start = file.tell()
    file.write(buffer)
    return start


def _payload_error(
    error: Exception,
    program: Program,
    parts: Mapping[str, object],
    reducers: Sequence[Reducer],
) -> PayloadError:
    failure_of = partial(_pickling_failure, reducers=reducers)
    culprit = find_culprit(parts, failure_of) or Culprit("the program", program, error)
    return PayloadError(str(culprit))


def _pickling_failure(thing: object, reducers: Sequence[Reducer]) -> Exception | None:
    """Pickle it, without keeping the outcome, and return what that raises."""
    try:
        _Scout(_Sink(), reducers, buffer_callback=lambda _: False).dump(thing)
    except Exception as error:
        return error
    return None


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
