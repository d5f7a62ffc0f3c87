"""An executor whose runs are scripts in the test's own event loop: no process, no thread, no time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import anyio

from aiotune.executors.base import (
    Assignment,
    Execution,
    Executor,
    Failed,
    Finished,
    Met,
    Observed,
    RunEvent,
    Started,
)
from aiotune.hyperparameters import HyperParameters
from aiotune.space import unit_draw
from aiotune.trial import FailureKind


@dataclass
class Script:
    """One run as its script sees it. `stop` is set when a stop is asked for."""

    assignment: Assignment
    stop: anyio.Event = field(default_factory=anyio.Event)
    reason: str | None = None

    def met(self, declare: Callable[[HyperParameters], object], *, is_complete: bool = True) -> Met:
        """Return the event of a program that declares names like `declare(hp)`."""
        assignment = self.assignment
        hp = HyperParameters(
            space=assignment.space,
            values=dict(assignment.values),
            fill=lambda each: (
                each.from_unit(unit_draw(assignment.seed, assignment.stream, each.name))
                if assignment.draws_new_names
                else each.default
            ),
        )
        declare(hp)
        known = {each.identity for each in assignment.space}
        added = tuple(each for each in hp.declared if each.identity not in known)
        return Met(hp.met, hp.met_values(), added, hp.redeclared, is_complete)


Play = Callable[[Script], AsyncIterator[RunEvent]]


class FakeExecution(Execution):
    def __init__(self, executor: FakeExecutor, assignment: Assignment) -> None:
        self._executor = executor
        self.script = Script(assignment)

    async def events(self) -> AsyncGenerator[RunEvent, None]:
        self._executor.running.append(self)
        self._executor.most = max(self._executor.most, len(self._executor.running))
        try:
            yield Started(0.0)
            async for event in self._executor.play(self.script):
                yield event
        finally:
            self._executor.running.remove(self)
            self._executor.ended += 1

    def request_stop(self, reason: str) -> None:
        self.script.reason = reason
        self.script.stop.set()


class FakeExecutor(Executor):
    """Plays `play(script)` for each run. `assignments` and `most` (runs at a time) are for assertions."""

    def __init__(self, play: Play) -> None:
        self.play = play
        self.assignments: list[Assignment] = []
        self.held: list[tuple[int, ...]] = []  # the descriptors of each
        self.running: list[FakeExecution] = []
        self.most = 0
        self.ended = 0

    async def start(self, assignment: Assignment, *, held: Sequence[int] = ()) -> FakeExecution:
        self.assignments.append(assignment)
        self.held.append(tuple(held))
        return FakeExecution(self, assignment)


def declaring(
    declare: Callable[[HyperParameters], object], score: Callable[[dict[str, object]], float]
) -> Play:
    """Return a script that declares names, then finishes with a score of its values."""

    async def play(script: Script) -> AsyncIterator[RunEvent]:
        met = script.met(declare)
        yield met
        await anyio.lowlevel.checkpoint()
        yield Finished({"score": score(dict(met.values))}, 0)

    return play


async def endless(script: Script) -> AsyncIterator[RunEvent]:
    """A run that reports steps until it is asked to stop."""
    step = 0
    while not script.stop.is_set():
        yield Observed(step, {"score": 1.0 / (1 + step)})
        step += 1
        await anyio.lowlevel.checkpoint()
    yield Finished(is_stopped=True)


async def hanging(script: Script) -> AsyncIterator[RunEvent]:
    """A run that does nothing until it is asked to stop."""
    await script.stop.wait()
    yield Finished(is_stopped=True)


def failing(message: str, kind: FailureKind = FailureKind.USER_ERROR, **details: bool) -> Play:
    """Return a script of a run that breaks."""

    async def play(script: Script) -> AsyncIterator[RunEvent]:
        yield Failed(kind, message, f"Traceback ...\n{message}", **details)

    return play
