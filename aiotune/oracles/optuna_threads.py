"""PyTorch on one thread, where a sampler of Optuna computes with it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["torch_on_one_thread"]


@contextmanager
def torch_on_one_thread() -> Iterator[None]:
    """Let PyTorch, if some sampler has loaded it, use one thread in this block, and as many as before after it.

    To be used within `one_thread`, for the same reason, and for its turns: the number is the whole process's.
    """
    torch = sys.modules.get("torch")  # not imported: only GPSampler needs it, and it takes seconds
    if torch is None:
        yield
        return
    count: int = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(count)
