"""The space before the first trial: the program builds once on the processor and tells its names."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from dataclasses import dataclass

import anyio

from aiotune import errors
from aiotune.clock import Clock, SystemClock
from aiotune.devices.base import Pool
from aiotune.devices.lease import Lease
from aiotune.errors import ExecutorError, FatalError, FatalRuntimeError, StoreMismatch
from aiotune.executors.base import Assignment, Execution, Executor, Failed, Finished, Met
from aiotune.history import History
from aiotune.layout import Layout
from aiotune.oracles.base import Oracle
from aiotune.private_files import require_directory
from aiotune.resources import Limits, Resources
from aiotune.run_timer import RunTimer
from aiotune.space import HyperParameter, Space
from aiotune.tasks import beside
from aiotune.trial import StopCause

__all__ = ["Discovered", "check_range", "discover", "fatal_error"]

DISCOVERY = "discovery"  # the trial id of the run that is no trial; also names its directory


@dataclass(frozen=True, slots=True)
class Discovered:
    """What a program declares. `redeclared` are names that it declares with more than one range."""

    space: tuple[HyperParameter, ...]
    redeclared: frozenset[str]


async def discover(
    oracle: Oracle,
    layout: Layout,
    pool: Pool,
    executor: Executor,
    cpus: int | None = None,
    *,
    memory: int | str | None = None,
    limits: Limits | None = None,
    clock: Clock | None = None,
    makes_directory: bool = True,
) -> Discovered:
    """Run the program once on a lease of the processor, without training, and return what it declares.

    Raises the error that the program raised; FatalRuntimeError if it reaches the limits of one run.
    """
    limits = limits or Limits()
    if makes_directory:
        await anyio.to_thread.run_sync(require_directory, layout.trial(DISCOVERY))
    async with pool.lease(Resources(gpus=0, cpus=cpus, memory=memory)) as lease:
        execution = await executor.start(_assignment(oracle, layout, lease, limits))
        log = str(layout.run_log(DISCOVERY, 0)) if executor.writes_logs else None
        watch = _Watch(execution, RunTimer(limits, clock or SystemClock()))
        async with watch.standing():
            found = await _meet(execution, watch, log)
        if found is not None:
            return found
        raise FatalRuntimeError(_too_long(watch.reached, limits, log))


def _assignment(oracle: Oracle, layout: Layout, lease: Lease, limits: Limits) -> Assignment:
    """Return the assignment of a run that only meets names.

    It knows just what the user declared beforehand, so that a range that differs from the stored one shows.
    """
    return Assignment(
        trial_id=DISCOVERY,
        number=-1,
        stream=-1,
        repeat=0,
        attempt=0,
        run=0,
        seed=0,
        values={},
        space=tuple(oracle.hyperparameters.space),
        draws_new_names=False,  # defaults, not draws
        allow_new_entries=oracle.allow_new_entries,
        trial_directory=str(layout.trial(DISCOVERY)),
        log=str(layout.run_log(DISCOVERY, 0)),
        gpus=(),
        cores=lease.cores,
        memory_bytes=lease.memory_bytes,
        is_discovery=True,
        stall_seconds=limits.stall_timeout,
    )


class _Watch:
    """Asks the one run to stop once it reaches a limit, which is then `reached`."""

    def __init__(self, execution: Execution, timer: RunTimer) -> None:
        self.timer = timer
        self.reached: StopCause | None = None
        self._execution = execution

    def standing(self) -> AbstractAsyncContextManager[None]:
        """Hold this while the run is followed."""
        return beside(self._stand) if self.timer.is_limited else nullcontext()

    async def _stand(self) -> None:
        self.reached = await self.timer.wait_over()
        self._execution.request_stop(self.reached.value)


async def _meet(execution: Execution, watch: _Watch, log: str | None) -> Discovered | None:
    """Return every name that the program declared; None if it was ended for a limit.

    Raises the error that the program raised.
    """
    space = Space()
    redeclared: frozenset[str] = frozenset()
    async with aclosing(execution.events()) as events:
        async for event in events:
            watch.timer.heard()
            match event:
                case Finished(is_stopped=True) | Failed() if watch.reached is not None:
                    return None
                case Met():
                    space = space.grow((*event.space, *event.added))
                    redeclared |= {known.name for known, _ in event.redeclared}
                case Failed():
                    raise fatal_error(event, log)
                case Finished():
                    return Discovered(tuple(space), redeclared)
                case _:
                    pass
    raise ExecutorError(f"the run that builds the model once ended without a word; its log: {log}")


def _too_long(reached: StopCause | None, limits: Limits, log: str | None) -> str:
    is_stalled = reached is StopCause.STALL
    limit = (
        f"stall_timeout={limits.stall_timeout:g}"
        if is_stalled
        else f"trial_timeout={limits.trial_timeout:g}"
    )
    what = "made no progress for" if is_stalled else "took longer than"
    where = "" if log is None else f"; the end of its log shows where it was: {log}"
    return (
        f"building the model once, to meet its hyperparameters, {what} {limit} s{where}. Mend what hangs "
        "there, or raise the limit in aiotune.Limits(...)"
    )


def fatal_error(failed: Failed, log: str | None) -> FatalError:
    """Return the error that a failed run stands for, of its own type where that is one of ours."""
    name, _, text = failed.message.partition(":")
    kind = getattr(errors, name.rsplit(".", 1)[-1], None)
    where = "" if log is None else f"\nIts log: {log}"
    if isinstance(kind, type) and issubclass(kind, FatalError):
        return kind(f"{text.strip()}{where}")
    return FatalRuntimeError(f"{failed.text}{where}")


def check_range(
    history: History,
    oracle: Oracle,
    declared: Collection[HyperParameter],
    redeclared: Collection[str] = (),
) -> None:
    """Raise StoreMismatch if a stored range differs from the program's.

    A name is exempt if the user gave it beforehand (that declaration wins), and if the program was seen
    to declare it with more than one range (the first one wins): `redeclared`, or seen earlier.
    """
    if not declared:  # the case of nearly every run
        return
    given = {each.identity for each in oracle.hyperparameters.space}
    checked = Space(
        each
        for each in declared
        if each.identity not in given and each.name not in {*redeclared, *history.redeclared}
    )
    conflicts = history.space.conflicts(checked)
    if conflicts:
        lines = "\n  ".join(conflicts)
        raise StoreMismatch(
            f"the stored search has other ranges than the program:\n  {lines}\n"
            "New names are fine, other ranges are not. Pass overwrite=True to begin anew, choose another "
            "project_name, or restore the ranges."
        )
