"""What a search does for the sake of a Jupyter kernel that it runs in."""

from __future__ import annotations

import sys

import anyio

__all__ = ["is_in_kernel", "stay_interruptible"]

_PULSE_SECONDS = 0.25


def is_in_kernel() -> bool:
    """Tell whether this process is a Jupyter kernel."""
    return "ipykernel.kernelapp" in sys.modules


async def stay_interruptible() -> None:
    """Wake the loop now and then, for as long as this is not cancelled, so that cells can be interrupted.

    The kernel's handler of SIGINT cancels the cell by a callback that does not wake the loop (ipykernel issue
    881): a cell that awaits a search would stop at the next event of a trial, which may be minutes away.
    """
    while True:  # noqa: ASYNC110 (nothing is waited for: the waking is the point)
        await anyio.sleep(_PULSE_SECONDS)
