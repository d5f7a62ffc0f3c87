"""An object on its way from a run to the caller: in a file that nobody else can have written.

Loading a pickle runs what it says, and this is the one place where the caller loads one: a fitted estimator of
scikit-learn may be any object of any class of the user's, for which there is no form as data, and `retrain` is
asked for that object. So the caller gives the run a key, drawn for it alone, which travels in the payload and
is never in a file; the pickle stands behind its keyed hash, and is loaded only if that is right. Who knows the
key is the user's own program, whose estimator it is.
"""

from __future__ import annotations

import hmac
import os
import pickle
import secrets
from pathlib import Path
from typing import Any

from aiotune.errors import FatalRuntimeError
from aiotune.executors.payload import pickled
from aiotune.private_files import open_file, open_to_read

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
    with os.fdopen(open_file(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
        file.write(hmac.digest(key, content, _HASH))
        file.write(content)


def read_sealed(path: Path, key: bytes) -> Any:
    """Return the object. FatalRuntimeError if the file is not what was written with this key."""
    with open_to_read(path) as file:
        sealed = memoryview(file.read())
    seal, content = sealed[:_HASH_BYTES], sealed[_HASH_BYTES:]
    if not hmac.compare_digest(hmac.digest(key, content, _HASH), seal):
        raise FatalRuntimeError(
            f"{path} was changed after the run that wrote it, and is not loaded: what changes files there?"
        )
    return pickle.loads(content)
