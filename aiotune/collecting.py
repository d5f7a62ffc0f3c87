"""The garbage collector of Python, held back while something large is built of which nothing is garbage."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["uncollected"]

_lock = threading.Lock()
_holders = 0
_was_enabled = False


@contextmanager
def uncollected() -> Iterator[None]:
    """Collect nothing within the block, in no thread: for a few seconds at most.

    A million new objects would be looked through again and again, which takes a quarter of the time that it
    takes to make them. Memory that is in no circle is given back as ever.
    """
    global _holders, _was_enabled
    with _lock:
        if _holders == 0:
            _was_enabled = gc.isenabled()
            gc.disable()
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if _holders == 0 and _was_enabled:
                gc.enable()
