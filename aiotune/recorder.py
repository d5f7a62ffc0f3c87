"""The one door through which facts come: store first, history second, observers third."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

import anyio

from aiotune.errors import FatalRuntimeError, StoreUnwritable
from aiotune.events import Event
from aiotune.history import History
from aiotune.store.base import Store

__all__ = ["LONGEST_WRITE_SECONDS", "Observer", "Recorder"]

_LOG = logging.getLogger("aiotune")
LONGEST_WRITE_SECONDS = 60.0

Observer = Callable[[Event, History], None]


class Recorder:
    """Writes facts to the store, applies them to the history, shows them to the observers.

    Invariant: `history.length` is the number of the last fact in the store. It holds because the store
    resumes its callers in the order of their facts, and because no cancellation comes between a fact's
    commit and its application.
    """

    def __init__(self, store: Store, history: History, observers: Iterable[Observer] = ()) -> None:
        self.history = history
        self._store = store
        self._observers = list(observers)
        self._broken: set[int] = set()  # ids of those that have raised, which is said once
        self._failure: StoreUnwritable | None = None  # set once a write is in doubt

    async def record(self, *facts: Event, longest_seconds: float = LONGEST_WRITE_SECONDS) -> None:
        """Return once the facts are durable, applied and shown.

        StoreUnwritable if the disk refuses, or does not answer: then it is not known whether the facts are
        there, and no further fact is taken.
        """
        if self._failure is not None:
            raise self._failure
        if self._store.never_waits:  # then no cancellation can come in between either
            number = await self._write(facts)
        else:
            number = await self._write_shielded(facts, longest_seconds)
        if number != self.history.length:
            raise FatalRuntimeError(
                f"fact {number} was applied as fact {self.history.length}: the store is out of order"
            )
        for fact in facts:
            self._show(fact)

    async def _write_shielded(self, facts: Sequence[Event], longest_seconds: float) -> int:
        try:
            with anyio.fail_after(longest_seconds, shield=True):
                return await self._write(facts)
        except TimeoutError as error:
            self._failure = StoreUnwritable(
                f"the store did not answer for {longest_seconds:.0f} s: is the disk hung, or the "
                "database locked by another program?"
            )
            raise self._failure from error
        except anyio.get_cancelled_exc_class():
            # By a loop that shuts down and cancels every task: the shield keeps all else off. The facts may be
            # stored all the same, and then what would be recorded without them contradicts them.
            self._failure = StoreUnwritable(
                "the event loop was shut down while facts were written; the next search() goes on from what "
                "is stored"
            )
            raise

    async def _write(self, facts: Sequence[Event]) -> int:
        """Return the number of the last fact, once it is stored and applied."""
        number = await self._store.append(*facts)
        for fact in facts:
            self.history.apply(fact)
        return number

    def _show(self, fact: Event) -> None:
        for observer in self._observers:
            try:
                observer(fact, self.history)
            except Exception:  # an observer must never change a search
                if id(observer) not in self._broken:
                    self._broken.add(id(observer))
                    what = type(fact).__name__
                    _LOG.exception(
                        "observer %r failed on %s; no more is said of it", observer, what
                    )
