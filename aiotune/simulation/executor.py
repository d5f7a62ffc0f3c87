"""Runs that follow learning curves on a virtual clock: no process, no training."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Sequence
from random import Random
from typing import Any

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.executors.base import (
    Assignment,
    Execution,
    Executor,
    Failed,
    Finished,
    Observed,
    RunEvent,
    Started,
)
from aiotune.executors.context import RunContext, abort, finish
from aiotune.simulation.curve import Curve
from aiotune.trial import FailureKind

__all__ = ["Curves", "SimulatedExecutor", "takes_chance"]

Curves = Callable[..., Curve]  # (hp), or (hp, chance) with a `random.Random` of the run's own


def takes_chance(curves: Curves) -> bool:
    """Tell whether a function of curves takes a second argument. FatalTypeError if it takes no first one."""
    try:
        signature = inspect.signature(curves)
    except ValueError:  # of something that is not written in Python
        return False
    for arguments in ((None,), (None, None)):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return len(arguments) == 2
    raise FatalTypeError(
        f"curves{signature} cannot be called: write `def curves(hp)`, or `def curves(hp, chance)` for noise"
    )


class SimulatedExecutor(Executor):
    """Runs that report what `curves` says of their point, epoch by epoch.

    epochs: how long a run trains that has no budget; None: as long as its curve is.
    """

    writes_logs = False

    def __init__(self, curves: Curves, epochs: int | None = None) -> None:
        self._curves = curves
        self._takes_chance = takes_chance(curves)
        self._epochs = epochs
        # A run that crashed is gone on with from here: by trial and repeat.
        self._reached: dict[tuple[str, int], int] = {}

    async def start(
        self, assignment: Assignment, *, held: Sequence[int] = ()
    ) -> SimulatedExecution:
        return SimulatedExecution(self, assignment)

    def follow(self, run: RunContext) -> Curve:
        """Return the curve of a run's point. FatalTypeError if there is none."""
        hp = run.hyperparameters
        found: Any = self._curves(hp, Random(run.seed)) if self._takes_chance else self._curves(hp)
        if not isinstance(found, Curve):
            raise FatalTypeError(f"curves() must return an aiotune.Curve, not {found!r:.100}")
        return found

    def span(self, curve: Curve, assignment: Assignment) -> range:
        """Return the epochs that a run trains. FatalValueError if its curve does not have them."""
        budget = assignment.budget
        epochs = (self._epochs or curve.epochs) if budget is None else budget.epochs
        if epochs is None:
            raise FatalValueError(
                "nothing says how many epochs a trial has: pass simulate(..., epochs=...), or curves with a "
                "value for each epoch"
            )
        if curve.epochs is not None and epochs > curve.epochs:
            raise FatalValueError(
                f"the curve of trial {assignment.trial_id} has {curve.epochs} epochs, and it is to train "
                f"{epochs}: give longer curves, or train for fewer epochs"
            )
        first = 0 if budget is None else budget.initial_epoch
        if assignment.continues:
            first = max(first, self._reached.get((assignment.trial_id, assignment.repeat), 0))
        return range(first, epochs)

    def note_crash(self, assignment: Assignment, epoch: int) -> None:
        """Take note of the epoch in which a run crashed."""
        self._reached[assignment.trial_id, assignment.repeat] = epoch


class SimulatedExecution(Execution):
    """One simulated run; also the channel of its context. A request to stop takes no time."""

    def __init__(self, executor: SimulatedExecutor, assignment: Assignment) -> None:
        self._executor = executor
        self._assignment = assignment
        self._emitted: list[RunEvent] = []
        self._alarm: asyncio.Future[None] | None = None  # while time passes
        self.stop_reason: str | None = None

    def emit(self, event: RunEvent) -> None:
        self._emitted.append(event)

    def request_stop(self, reason: str) -> None:
        self.stop_reason = reason
        if self._alarm is not None:
            _ring(self._alarm)

    async def events(self) -> AsyncGenerator[RunEvent, None]:
        yield Started(asyncio.get_running_loop().time())
        run = RunContext(self._assignment, self)
        prepared = self._prepare(run)
        for event in self._emitted:
            yield event
        if not isinstance(prepared, tuple):
            yield prepared
            return
        curve, epochs = prepared
        await self._pass(curve.startup)
        for epoch in epochs:
            await self._pass(curve.seconds_of(epoch))
            if self.stop_reason is not None:
                yield Finished(is_stopped=True)
                return
            if epoch == curve.breaks_at:
                yield self._broken(curve, epoch)
                return
            try:
                metrics = curve.at(epoch)
            except Exception as error:  # a function of the user's own
                yield abort(run, error)
                return
            yield Observed(epoch, metrics)
        yield Finished()

    def _prepare(self, run: RunContext) -> tuple[Curve, range] | Finished | Failed:
        """Return what is to be trained, once all names of the point are met; or how the run ends before."""
        try:
            curve = self._executor.follow(run)
            finish(run, Finished())
            if self._assignment.is_discovery:
                return Finished()
            return curve, self._executor.span(curve, self._assignment)
        except Exception as error:
            ending = abort(run, error)
            # That the defaults break says nothing of other points: the names that were met count.
            is_fatal = isinstance(ending, Failed) and ending.is_fatal
            is_excused = self._assignment.is_discovery and not is_fatal
            return Finished() if is_excused else ending

    def _broken(self, curve: Curve, epoch: int) -> Failed:
        kind = FailureKind(curve.failure)
        if kind is FailureKind.CRASH:
            self._executor.note_crash(self._assignment, epoch)
        return Failed(kind, f"{kind.value} in epoch {epoch}, as its curve says")

    async def _pass(self, seconds: float) -> None:
        """Let time pass, until a stop is asked for at most."""
        if self.stop_reason is not None:
            return
        loop = asyncio.get_running_loop()
        self._alarm = loop.create_future()
        timer = loop.call_later(seconds, _ring, self._alarm)
        try:
            await self._alarm
        finally:
            timer.cancel()
            self._alarm = None


def _ring(alarm: asyncio.Future[None]) -> None:
    if not alarm.done():
        alarm.set_result(None)
