"""The caller's side of a tuner: where its files are, what is known of its search, and what it may do."""

from __future__ import annotations

import asyncio
import inspect
import weakref
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any

from aiotune.errors import SearchNotAwaited
from aiotune.history import History
from aiotune.layout import Layout
from aiotune.oracles.base import Oracle
from aiotune.settings import Settings

__all__ = ["Project"]

SearchCoroutine = Coroutine[Any, Any, object]


class Project:
    """One project of one tuner, in the caller's process.

    Invariant: `history` answers from memory once a search was opened, else from one synchronous read.
    """

    def __init__(self, oracle: Oracle, layout: Layout, settings: Settings) -> None:
        self.oracle = oracle
        self.layout = layout
        self.settings = settings
        self._history: History | None = None
        self._is_held = False  # by a search, which goes on adding to it
        # What search() returned last, until its first step; weak, so that a forgotten one can go.
        self._expected: weakref.ref[SearchCoroutine] | None = None
        # What `async with tuner` keeps open; one for each block that is entered.
        self.warm: list[AbstractAsyncContextManager[None]] = []
        oracle.follow(self.history)
        settings.inform(oracle)

    def expect(self, search: SearchCoroutine | None) -> None:
        """Note that search() was called and returned this coroutine; None: it has begun."""
        self._expected = None if search is None else weakref.ref(search)

    def check_awaited(self) -> None:
        """Raise SearchNotAwaited after a forgotten `await`. To be called where the search was."""
        if self._expected is not None and _is_forgotten(self._expected()):
            raise SearchNotAwaited(
                "search() was not awaited: use `await tuner.search(...)`, or "
                "`asyncio.run(tuner.search(...))` outside of async code"
            )

    def history(self) -> History:
        """Return what is known of the search. SearchNotAwaited after a forgotten `await`."""
        self.check_awaited()
        if self._history is None:
            self._history = self._read()
        return self._history

    def reload(self) -> None:
        """Forget what was read, or found by a search of this process that has ended."""
        is_searching = (
            self._history is not None and self._history.opened and not self._history.ended
        )
        if not (self._is_held and is_searching):
            self._history, self._is_held = None, False

    def hold(self, history: History) -> None:
        """Answer from this history from now on: a search has opened it."""
        self._history, self._is_held = history, True

    @property
    def known(self) -> History:
        """What is known without a look at the store: nothing before the first search or question."""
        return self._history or History()

    def peek(self) -> History:
        """Return what is known, or else read the store, which blocks; from any thread.

        What it reads is not held: a search may be opening the project just now.
        """
        return self._history or self._read()

    def seed(self) -> int:
        """Return the seed that chance derives from: the oracle's, else the stored one, else 0. As `peek`."""
        if self.oracle.seed is not None:
            return self.oracle.seed
        opened = self.peek().opened
        return 0 if opened is None else opened.seed

    def overwrite(self) -> None:
        """Delete what aiotune wrote in the project. StoreLocked while a search of it is on."""
        from aiotune.store.cleanup import remove_project

        remove_project(self.layout)

    def _read(self) -> History:
        from aiotune.store.reader import read_facts

        return History(read_facts(self.layout.store)) if self.layout.store.exists() else History()


def _is_forgotten(search: SearchCoroutine | None) -> bool:
    """Tell whether nobody will run a coroutine that has not begun: it is gone, or no task has it."""
    if search is None:
        return True
    if inspect.getcoroutinestate(search) != inspect.CORO_CREATED:
        return False  # closed before its first step: its task was cancelled
    try:
        tasks = asyncio.all_tasks()
    except RuntimeError:  # no loop runs here
        return True
    return all(task.get_coro() is not search for task in tasks)
