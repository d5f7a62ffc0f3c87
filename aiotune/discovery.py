"""The space before the first trial: the program builds once on the processor and tells its names."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import aclosing
from dataclasses import dataclass

import anyio

from aiotune import errors
from aiotune.devices.base import Pool
from aiotune.devices.lease import Lease
from aiotune.errors import ExecutorError, FatalError, FatalRuntimeError, StoreMismatch
from aiotune.executors.base import Assignment, Execution, Executor, Failed, Finished, Met
from aiotune.history import History
from aiotune.layout import Layout
from aiotune.oracles.base import Oracle
from aiotune.resources import Resources
from aiotune.space import HyperParameter, Space

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
    makes_directory: bool = True,
) -> Discovered:
    """Run the program once on a lease of the processor, without training, and return what it declares.

    Raises the error that the program raised.
    """
    if makes_directory:
        await anyio.Path(layout.trial(DISCOVERY)).mkdir(parents=True, exist_ok=True)
    async with pool.lease(Resources(gpus=0, cpus=cpus)) as lease:
        execution = await executor.start(_assignment(oracle, layout, lease))
        log = str(layout.run_log(DISCOVERY, 0)) if executor.writes_logs else None
        return await _meet(execution, log)


def _assignment(oracle: Oracle, layout: Layout, lease: Lease) -> Assignment:
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
        is_discovery=True,
    )


async def _meet(execution: Execution, log: str | None) -> Discovered:
    """Return every name that the program declared. Raises the error that the program raised."""
    space = Space()
    redeclared: frozenset[str] = frozenset()
    async with aclosing(execution.events()) as events:
        async for event in events:
            match event:
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
