"""A process that shares made-up cards with others, by real locks: for tests of several such processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from random import Random

import anyio
from anyio.abc import TaskStatus

from aiotune.devices.ledger import Ledger
from aiotune.devices.locks import CardLocks, open_locks
from aiotune.devices.pool import DevicePool
from aiotune.executors.base import Finished, Observed
from aiotune.executors.context import RunContext
from aiotune.executors.payload import Payload
from aiotune.executors.process import ProcessExecutor
from aiotune.executors.world import World
from aiotune.resources import Resources
from tests.support.leasing import gpus
from tests.support.runs import assign

__all__ = [
    "CARDS",
    "hold_all",
    "hold_with_a_run",
    "lease_often",
    "searching",
    "sharing",
    "take_all",
    "with_family",
]

CARDS = ("a", "b", "c", "d")
ALL = Resources(gpus=len(CARDS), cpus=1)


@asynccontextmanager
async def sharing(directory: Path) -> AsyncIterator[tuple[DevicePool, Ledger]]:
    """Open a pool of the cards, tended like a watch does that only looks after the locks."""
    ledger = Ledger()
    ledger.locks = CardLocks(directory)
    pool = DevicePool(gpus(8, 8, 8, 8), cores=range(64), slots=len(CARDS), shares=64, ledger=ledger)
    leave = ledger.tend(CARDS, ledger.restore)
    async with anyio.create_task_group() as group:
        group.start_soon(_look_after_locks, ledger)
        yield pool, ledger
        group.cancel_scope.cancel()
    leave()


async def _look_after_locks(ledger: Ledger) -> None:
    assert ledger.locks is not None
    while True:
        for uuid in ledger.withheld:
            if ledger.locks.holder(uuid) is None:
                ledger.restore(uuid)
        await anyio.sleep(0.001)


async def lease_often(directory: Path, diary: Path, number: int, seed: int) -> None:
    """Lease so many times, several at once, and write down which cards were ours from when to when.

    A line of the diary is [since, until, cards], by the monotonic clock that all processes share.
    """
    left = iter(range(number))
    async with sharing(directory) as (pool, _), anyio.create_task_group() as group:
        print("ready", flush=True)
        await anyio.to_thread.run_sync(input)
        with diary.open("w") as file:
            async with anyio.create_task_group() as tenants:
                for tenant in range(6):
                    rng = Random(seed * 100 + tenant)
                    tenants.start_soon(_lease_and_note, pool, left, rng, file.write)
        group.cancel_scope.cancel()


async def _lease_and_note(
    pool: DevicePool, left: Iterable[int], rng: Random, write: Callable[[str], object]
) -> None:
    for _ in left:
        wanted = rng.choice((1, 1, 1, 2))
        async with pool.lease(Resources(gpus=wanted, cpus=1)) as lease:
            assert len(lease.gpus) == len(lease.guards) == wanted
            since = time.monotonic()
            await anyio.sleep(rng.random() * 0.004)
            write(json.dumps([since, time.monotonic(), lease.gpus]) + "\n")


async def hold_all(directory: Path) -> None:
    """Lease all cards, say so, and keep them."""
    async with sharing(directory) as (pool, _), pool.lease(ALL):
        print("held", flush=True)
        await anyio.sleep_forever()


async def take_all(directory: Path) -> None:
    """Say why no card is to be had, wait for all of them, and say which they are."""
    async with sharing(directory) as (pool, ledger), anyio.create_task_group() as group:
        await group.start(_lease_and_tell, pool)
        print(json.dumps(dict(ledger.withheld)), flush=True)


async def _lease_and_tell(pool: DevicePool, task_status: TaskStatus[None]) -> None:
    assert pool.lease_nowait(ALL) is None
    task_status.started()
    async with pool.lease(ALL) as lease:
        print(json.dumps(sorted(lease.gpus)), flush=True)


async def hold_with_a_run(directory: Path, files: Path) -> None:
    """Lease all cards for a run that does not end by itself, and print what it reports of itself."""
    # A server of its own, which the test may halt.
    world = World.current({**os.environ, "KERAS_TEST": "card_sharing"})
    with Payload.create(deaf) as payload:
        async with (
            ProcessExecutor(payload, world=world) as executor,
            sharing(directory) as (pool, _),
            pool.lease(ALL) as lease,
        ):
            execution = await executor.start(assign(files), held=lease.guards)
            async with aclosing(execution.events()) as events:
                async for event in events:
                    if isinstance(event, Observed):
                        print(json.dumps(dict(event.metrics)), flush=True)


def with_family(run: RunContext) -> Finished:
    """Start a program, and fork a daemon; then report all and wait to be killed."""
    executed = subprocess.Popen(["sleep", "600"], close_fds=False, start_new_session=True)
    forked = os.fork()
    if forked:
        run.report(pid=os.getpid(), server=os.getppid(), executed=executed.pid, forked=forked)
    else:
        os.setsid()
    while True:
        signal.pause()


def searching(run: RunContext) -> Finished:
    """Report which of the cards a search inside of the run could lease: 1, or 0."""
    locks = open_locks(os.environ)
    return Finished({card: float(locks.take(card) is not None) for card in CARDS})


def deaf(run: RunContext) -> Finished:
    """Tell the run's process and its fork server, and then listen to nobody."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    run.report(pid=os.getpid(), server=os.getppid())
    while True:
        signal.pause()
