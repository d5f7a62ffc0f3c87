"""The caller's side of a tuner: where its files are, what is known of its search, and what it may do."""

from __future__ import annotations

import asyncio
import inspect
import weakref
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, NoReturn

from aiotune.errors import SearchNotAwaited
from aiotune.history import History
from aiotune.layout import Layout
from aiotune.objective import Objective
from aiotune.oracles.base import Oracle
from aiotune.settings import Settings

__all__ = ["OracleView", "Project"]

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
        # What search() returned last, until its first step; weak, so that a forgotten one can go.
        self._expected: weakref.ref[SearchCoroutine] | None = None

    def expect(self, search: SearchCoroutine | None) -> None:
        """Note that search() was called and returned this coroutine; None: it has begun."""
        self._expected = None if search is None else weakref.ref(search)

    def history(self) -> History:
        """Return what is known of the search. SearchNotAwaited after a forgotten `await`."""
        if self._expected is not None and _is_forgotten(self._expected()):
            raise SearchNotAwaited(
                "search() was not awaited: use `await tuner.search(...)`, or "
                "`asyncio.run(tuner.search(...))` outside of async code"
            )
        if self._history is None:
            self._history = self._read()
        return self._history

    def hold(self, history: History) -> None:
        """Answer from this history from now on: a search has opened it."""
        self._history = history

    @property
    def known(self) -> History:
        """What is known without a look at the store: nothing before the first search or question."""
        return self._history or History()

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


@dataclass(frozen=True)
class OracleView:
    """What a child knows of the oracle: enough to read, nothing to change."""

    objective: Objective
    max_trials: int | None

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(
            f"the oracle lives in the caller's process; in a trial it has objective and max_trials, not "
            f"{name!r}. Report metrics with trial.report(...)."
        )
