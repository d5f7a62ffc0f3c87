"""Whether the disk has room for another run: what the scheduler asks before it starts one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from aiotune.settlement import Work

__all__ = ["Room", "Unlimited"]


class Room(Protocol):
    """The room for checkpoints. No run starts while files that nobody refers to are still being deleted."""

    @property
    def is_settled(self) -> bool:
        """Whether nothing is being measured or deleted."""

    @property
    def lack(self) -> str | None:
        """Why the run asked for last was not admitted, in words; None if it was."""

    def admits(self, work: Work) -> bool:
        """Tell whether the run may start. If not, room is being made, or runs in progress have to end first.

        StoreError if room cannot be made, for the store refuses facts.
        """

    def subscribe(self, wake: Callable[[], None]) -> None:
        """Call `wake` whenever it is settled."""

    def pinned(self, trial_id: str) -> AbstractContextManager[None]:
        """Let nothing of the trial be deleted for want of room as long as the context lasts."""

    async def wait_settled(self) -> None: ...


class Unlimited:
    """Room for everything: of a search that writes no files, or has no limit and deletes nothing."""

    is_settled = True
    lack = None

    def admits(self, work: Work) -> bool:
        return True

    def subscribe(self, wake: Callable[[], None]) -> None:
        pass

    def pinned(self, trial_id: str) -> AbstractContextManager[None]:
        return nullcontext()

    async def wait_settled(self) -> None:
        pass
