"""Linear algebra on one thread: what an oracle computes is small, and the other cores are training."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController

__all__ = ["one_thread"]

# Blocks take turns. The limit is the whole process's, and each block restores what it found: of two that
# overlapped, the second would find the first one's limit and leave it there for ever. A count, where the last
# one out restores, is no way: threadpoolctl 3.8 lets only the thread that set the limit take it back.
# Turns cost little: what is computed in the blocks holds Python's own lock most of the time.
_TURN = threading.RLock()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let NumPy and SciPy compute on one thread in this block, and as before after it. Never yield in it.

    On cores that are busy, the threads of one small matrix product wait for one another: measured ten times
    slower on two of them than on one.
    """
    with _TURN, _controller().limit(limits=1, user_api="blas"):
        yield


@cache
def _controller() -> ThreadpoolController:
    """Find the libraries that are loaded: some milliseconds, once. The module's users have loaded theirs."""
    import numpy  # noqa: F401
    import scipy.linalg  # noqa: F401

    return ThreadpoolController()
