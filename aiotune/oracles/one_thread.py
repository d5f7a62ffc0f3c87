"""Linear algebra on one thread: what an oracle computes is small, and the other cores are training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController

__all__ = ["one_thread"]


@contextmanager
def one_thread() -> Iterator[None]:
    """Let NumPy and SciPy compute on one thread in this block, and as before after it.

    On cores that are busy, the threads of one small matrix product wait for one another: measured ten times
    slower on two of them than on one.
    """
    with _controller().limit(limits=1, user_api="blas"):
        yield


@cache
def _controller() -> ThreadpoolController:
    """Find the libraries that are loaded: some milliseconds, once. The module's users have loaded theirs."""
    import numpy  # noqa: F401
    import scipy.linalg  # noqa: F401

    return ThreadpoolController()
