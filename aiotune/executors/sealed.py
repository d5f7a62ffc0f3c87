"""An object on its way from a run to the caller: in a file that nobody else can have written.

Loading a pickle runs what it says. So the caller gives the run a key, drawn for it alone, which travels in the
payload and is never in a file; the pickle stands behind its keyed hash, and is loaded only if that is right.
"""

from __future__ import annotations

import hmac
import pickle
import secrets
from pathlib import Path
from typing import Any

from aiotune.errors import FatalRuntimeError
from aiotune.executors.payload import pickled

__all__ = ["make_key", "read_sealed", "write_sealed"]

_HASH = "sha256"
_HASH_BYTES = 32


def make_key() -> bytes:
    """Return a new key, for one file."""
    return secrets.token_bytes(_HASH_BYTES)


def write_sealed(path: Path, thing: object, key: bytes) -> None:
    """Write the object. FatalRuntimeError if it cannot be pickled."""
    try:
        content = pickled(thing)
    except Exception as error:
        raise FatalRuntimeError(
            f"a {type(thing).__name__} cannot come back from its process: {type(error).__name__}: {error}. "
            "Keep what cannot be pickled (an open file, a lock) out of it"
        ) from error
    path.write_bytes(hmac.digest(key, content, _HASH) + content)


def read_sealed(path: Path, key: bytes) -> Any:
    """Return the object. FatalRuntimeError if the file is not what was written with this key."""
    sealed = memoryview(path.read_bytes())
    seal, content = sealed[:_HASH_BYTES], sealed[_HASH_BYTES:]
    if not hmac.compare_digest(hmac.digest(key, content, _HASH), seal):
        raise FatalRuntimeError(
            f"{path} was changed after the run that wrote it, and is not loaded: what changes files there?"
        )
    return pickle.loads(content)
