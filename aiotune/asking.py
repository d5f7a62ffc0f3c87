"""Asking the oracle: on the event loop, or in a thread where an answer takes long, and perhaps beforehand.

While a thread is in the oracle, the loop goes on: facts are recorded, for the oracle reads a snapshot of the
history, and only a call of the oracle itself waits. Snapshots are taken in turn, so the facts that an oracle
sees never become fewer.

A trial may be asked for beforehand, while others run, so that a device that becomes free has its trial at once.
That has a price: the suggestion does not know the result that makes room for it. So it is done only where
trials are short, compared with the time of an answer, and never with one trial in flight: its result is worth
more than the wait, and such a search goes the same way every time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from statistics import fmean

import anyio
from anyio import lowlevel

from aiotune.calling import blaming
from aiotune.clock import Clock
from aiotune.errors import FatalRuntimeError
from aiotune.history import History
from aiotune.oracles.base import Answer, Oracle, Suggest, Verdict
from aiotune.own_thread import OwnThread
from aiotune.space import Space
from aiotune.trial import Observation, RunState, Trial, trial_id_of

__all__ = ["Asked", "Asker"]

_LOG = logging.getLogger("aiotune")

# With runs that last longer than so many answers, a device loses less than 2 % of its time by waiting for one.
_SHORT_RUN_IN_ANSWERS = 50
_NEWEST_TRIALS = 8  # what runs lately last; early ones may have been others
_PATIENCE_SECONDS = 10.0  # with a thread whose answer nobody wants any more
_RAN_TO_AN_END = frozenset({RunState.FINISHED, RunState.STOPPED, RunState.FAILED})


# Threads that were left alone in an oracle: nobody else may call it before they are back.
_LEFT: list[tuple[Oracle, threading.Thread]] = []


@dataclass(frozen=True, slots=True)
class Asked:
    """An answer, and what the oracle had seen when it gave it. More facts may be known by now."""

    answer: Answer
    number: int  # that a new trial would get
    asked_after: int  # how many facts
    space: Space
    was_idle: bool  # no trial was in flight: nothing can have ended since


class _Preparation:
    """An answer that is asked for beforehand: None until it is there."""

    def __init__(self) -> None:
        self.asked: Asked | None = None


class Asker:
    """The oracle of one search, as scheduler and runner call it: one call at a time.

    One that asks on the loop is called at once, and never prepared. may_use_threads: False lets every oracle
    ask on the loop: on a virtual clock, an answer takes no time.

    A thread whose answer is not wanted any more is waited for 10 s. One that is not back by then is left alone,
    and no further call is made: the oracle keeps nothing that does not follow from the history.
    """

    def __init__(
        self, oracle: Oracle, history: History, clock: Clock, *, may_use_threads: bool = True
    ) -> None:
        self._oracle = oracle
        self._history = history
        self._clock = clock
        self._in_thread = oracle.asks_in_thread and may_use_threads
        self._name = type(oracle).__name__
        self._lock = anyio.Lock()  # held while a thread is in the oracle
        self._wanted = anyio.CancelScope()  # of the answer that is under way
        self._is_closed = False
        self._answer_seconds = 0.0  # how long the last answer of a thread took
        self._preparation: _Preparation | None = None  # the one that counts; others were forgotten

    # --- asking ---

    def close(self) -> None:
        """Ask nothing any more; an answer that is under way is not wanted. Returns at once."""
        self._is_closed = True
        self._wanted.cancel()

    async def ask(self, number: int) -> Asked | None:
        """Ask what to do next, or return what was prepared. None once closed.

        FatalRuntimeError if a thread of an earlier search is still in the oracle.
        """
        if not self._in_thread:
            with blaming(f"{self._name}.ask()"):
                answer = self._oracle.next_answer(self._history, number)
            return _asked(answer, number, self._history)
        async with self._turn():
            preparation, self._preparation = self._preparation, None
            if preparation is not None and self._is_good(preparation.asked, number):
                assert preparation.asked is not None
                return preparation.asked
            return await self._ask_in_thread(number)

    def prepare(self, number: int, spawn: Callable[..., None]) -> None:
        """Ask beforehand in a task that `spawn` starts, if that pays and is not done yet. Returns at once."""
        if self._in_thread and self._preparation is None and self._pays():
            self._preparation = _Preparation()
            spawn(self._fill, self._preparation, number)

    def forget_prepared(self) -> None:
        """Drop what was asked for beforehand: something that the oracle did not know of has changed."""
        self._preparation = None

    async def _fill(self, preparation: _Preparation, number: int) -> None:
        async with self._turn():
            if preparation is self._preparation:
                preparation.asked = await self._ask_in_thread(number)

    async def _ask_in_thread(self, number: int) -> Asked | None:
        if self._is_closed:
            return None
        if self._is_left:
            raise FatalRuntimeError(
                f"{self._name}.ask() of an earlier search has not returned yet, so that the oracle cannot be "
                "used: make a new tuner"
            )
        seen = self._history.snapshot()
        begun = self._clock.monotonic()
        with anyio.CancelScope() as self._wanted:
            answer = await self._answer(seen, number)
            await lowlevel.checkpoint_if_cancelled()
            self._answer_seconds = self._clock.monotonic() - begun
            return _asked(answer, number, seen)
        return None

    async def _answer(self, seen: History, number: int) -> Answer:
        """Ask in a thread of its own: those that the loop shares may all be taken by the user's work."""
        former = self._oracle.follow(lambda: seen)  # what it asks itself about the search, too
        asking = OwnThread(partial(self._oracle.next_answer, seen, number), name="aiotune-oracle")
        try:
            with blaming(f"{self._name}.ask()"):
                return await asking.result(self._clock, patience_seconds=_PATIENCE_SECONDS)
        finally:
            self._oracle.follow(former)
            if not asking.is_over:
                _LEFT.append((self._oracle, asking.thread))
                _LOG.error(
                    "%s.ask() has not returned for %g s since its answer is not wanted any more: the search "
                    "ends without it",
                    self._name,
                    _PATIENCE_SECONDS,
                )

    @property
    def _is_left(self) -> bool:
        """Whether a thread is in the oracle that nobody waits for any more."""
        _LEFT[:] = [each for each in _LEFT if each[1].is_alive()]
        return any(oracle is self._oracle for oracle, _ in _LEFT)

    def _pays(self) -> bool:
        """Tell whether runs are so short that devices would wait for answers a good part of their time."""
        newest = islice(self._history.newest_ended(), _NEWEST_TRIALS)
        seconds = [
            run.seconds
            for trial in newest
            for run in trial.runs
            if run.state in _RAN_TO_AN_END and run.seconds is not None
        ]
        return bool(seconds) and fmean(seconds) < _SHORT_RUN_IN_ANSWERS * self._answer_seconds

    def _is_good(self, asked: Asked | None, number: int) -> bool:
        """Tell whether a prepared answer is still one: a point of the space as it is now that no trial has."""
        if asked is None or not isinstance(asked.answer, Suggest):
            return False  # others hold for the moment only
        if asked.number != number or asked.space is not self._history.space:
            return False
        return not self._oracle.is_duplicate(self._history, _trial(asked, asked.answer))

    # --- its other methods ---

    async def judge(self, trial_id: str, observation: Observation) -> Verdict:
        """Ask for the verdict on a running trial whose newest report is `observation`."""
        async with self._turn_of("judge") as is_free:
            if not is_free:
                return Verdict.CONTINUE
            with blaming(f"{self._name}.judge(), for trial {trial_id}"):
                return self._oracle.judge(self._history.trial(trial_id), observation)

    async def tell(self, trial: Trial) -> None:
        """Tell that `trial` is over or paused."""
        async with self._turn_of("tell") as is_free:
            if is_free:
                with blaming(f"{self._name}.tell(), for trial {trial.trial_id}"):
                    self._oracle.tell(trial)

    async def is_duplicate(self, trial_id: str) -> bool:
        """Ask whether a trial, whose path is now known better, is the point of another one."""
        async with self._turn_of("is_duplicate") as is_free:
            if not is_free:
                return False
            with blaming(f"{self._name}.is_duplicate(), for trial {trial_id}"):
                return self._oracle.is_duplicate(self._history, self._history.trial(trial_id))

    def _turn_of(self, method: str) -> AbstractAsyncContextManager[bool]:
        """Wait for the oracle, but not for one that asks on the loop, nor for a method that does nothing.

        Within, it is told whether the oracle may be called: not if a thread was left alone in it.
        """
        if not self._in_thread:
            return nullcontext(True)
        own = getattr(getattr(self._oracle, method), "__func__", None)
        return nullcontext(True) if own is getattr(Oracle, method) else self._turn()

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[bool]:
        """Wait until no thread is in the oracle, first come first served, and keep others out."""
        try:
            self._lock.acquire_nowait()  # `acquire` would let a turn of the loop pass
        except anyio.WouldBlock:
            await self._lock.acquire()
        try:
            yield not self._is_left
        finally:
            self._lock.release()


def _asked(answer: Answer, number: int, seen: History) -> Asked:
    return Asked(answer, number, seen.length, seen.space, not seen.has_trials_in_flight)


def _trial(asked: Asked, suggested: Suggest) -> Trial:
    """Return the trial that would be created."""
    return Trial(
        trial_id_of(asked.number),
        asked.number,
        suggested.stream,
        suggested.values,
        asked.asked_after,
        created_at=0.0,
        budget=suggested.budget,
        parent=suggested.parent,
    )
