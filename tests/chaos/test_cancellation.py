"""Whatever is cancelled, at whichever instant and in whichever way: it ends, and nothing of it is left.

Where something is, the test says how, and what the tasks waited for; `--chaos-seed` meets the same instants.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from aiotune.events import Event
from aiotune.executors.launch import Server, acquire_server, count_users, release_server
from aiotune.processes import OWN_MODULES
from tests.support import cancelled
from tests.support.cancelled import CALLS, LEAVING, PROJECT, Call
from tests.support.cancelling import BELL, FAULTS, Fault, LoopFactory, Struck, strike, watchdog
from tests.support.chaos import Chaos
from tests.support.leftovers import Surroundings, cards_locked, project_leftovers
from tests.support.nvml_standin import Machine, equal_cards

PROMISE = "Nothing is left behind"
ALL = 1_000_000  # instants
NEVER = FAULTS["Task.cancel"]  # with instant None

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the fork server is Linux's")


@pytest.fixture(autouse=True)
def temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have temporary files in a directory where nobody else has any."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))


@pytest.fixture(autouse=True)
def frozen_heap() -> Iterator[None]:
    """Have the garbage collector look at what a test makes only: it is asked after each cancellation."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@contextlib.contextmanager
def kept_server() -> Iterator[Server]:
    """Keep the process that starts the runs; its imports take longer than all of a search here."""
    server = acquire_server(OWN_MODULES)
    try:
        yield server
    finally:
        release_server(server)
    assert not server.is_alive, "somebody has not given it back"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with kept_server() as server:
        yield server


class Matrix:
    """Cancels one call again and again, each time in a project of its own, and notes what is left.

    server: that the call uses, and that stays when it has ended.
    """

    def __init__(
        self,
        call: Call,
        directory: Path,
        *,
        loop_factory: LoopFactory = None,
        server: Server | None = None,
    ) -> None:
        self._call = call
        self._directory = directory
        self._loop_factory = loop_factory
        self._server = server
        self.number = 0  # of those that were cancelled
        self.losses: list[str] = []
        whole = self._strike("whole", NEVER, None)
        assert whole.error is None, whole.error
        assert whole.complaints == []
        self.instants, self._expected = whole.instants, whole.value

    def cancel(self, what: str, fault: Fault, instant: int, *, resume: bool) -> None:
        """Cancel at that instant; resume: then do it again, undisturbed: what must come out comes out.

        No call has as many instants as another one: if this one ends before, an earlier instant has to do.
        """
        while not self._cancel(what, fault, instant, resume=resume) and instant > 0:
            instant //= 2

    def _cancel(self, what: str, fault: Fault, instant: int, *, resume: bool) -> bool:
        """Do so once; tell whether the call was still going on at that instant."""
        project = self._directory / f"{what} {instant}"
        users = self._users()
        before = Surroundings.now()
        struck = self._strike(project.name, fault, instant)
        self.number += struck.was_struck
        left = [*struck.complaints, *self._unexpected(struck), *before.left()]
        left += project_leftovers(project / PROJECT)
        left += ["a use of the process that starts the runs"] * (self._users() - users)
        if resume and not left:
            left += self._resumed(project.name)
        if left:
            self.losses.append(f"{what} at {instant}, while waiting in {struck.place}: {left}")
        shutil.rmtree(project, ignore_errors=True)
        return struck.was_struck

    def _users(self) -> int:
        return 0 if self._server is None else count_users(self._server)

    def _unexpected(self, struck: Struck) -> Iterator[str]:
        """Yield how a call ended otherwise than well, or cancelled."""
        if struck.error is None and struck.value not in (None, self._expected):
            yield f"it returns {struck.value}"
        expected = asyncio.CancelledError | TimeoutError | KeyboardInterrupt | None
        if not isinstance(struck.error, expected):
            yield f"it raises {struck.error!r}"

    def _resumed(self, project: str) -> list[str]:
        again = self._strike(project, NEVER, None)
        if again.error is not None:
            return [f"it cannot be resumed: {again.error!r}"]
        is_alike = again.value == self._expected
        return [*again.complaints, *([] if is_alike else [f"resumed, it returns {again.value}"])]

    def _strike(self, project: str, fault: Fault, instant: int | None) -> Struck:
        perform = partial(self._call, self._directory / project)
        return strike(perform, fault, instant, loop_factory=self._loop_factory)


def spread(chance: random.Random, instants: int, number: int) -> Sequence[int]:
    """Return so many of the instants, evenly, beginning at one that chance draws: in time, all are met."""
    stride = max(1, instants // number)
    return range(chance.randrange(stride), instants, stride)


def cancel_all(
    matrix: Matrix, chaos: Chaos, what: str, numbers: Mapping[str, int], *, resume_each: int = 2
) -> None:
    """Cancel at so many instants for each fault, and count."""
    for name, number in numbers.items():
        chance = random.Random(str((chaos.seed, what, name)))
        before, losses = matrix.number, len(matrix.losses)
        for index, instant in enumerate(spread(chance, matrix.instants, number)):
            fault = varied(FAULTS.get(name, BELL), chance)
            matrix.cancel(name, fault, instant, resume=index % resume_each == 0)
        lost = len(matrix.losses) - losses
        chaos.count(PROMISE, f"{name}: {what}", matrix.number - before, losses=lost)
    assert matrix.losses == [], "\n".join(matrix.losses)
    assert matrix.number > 0


def varied(fault: Fault, chance: random.Random) -> Fault:
    """Return the fault; if it strikes twice, the second time some instants earlier or later."""
    return fault if fault.further is None else replace(fault, further=chance.randint(1, 12))


@pytest.mark.parametrize("what", CALLS)
def test_every_call_can_be_cancelled_at_every_instant(
    chaos: Chaos, tmp_path: Path, server: Server, what: str
) -> None:
    matrix = Matrix(CALLS[what], tmp_path, server=server)
    drawn = random.Random(str((chaos.seed, what))).sample(sorted(FAULTS), 3)
    quick = dict.fromkeys(drawn, 1)
    long = dict.fromkeys(FAULTS, 20) | {"Task.cancel": ALL}
    cancel_all(matrix, chaos, what, chaos.pick(quick, long), resume_each=chaos.pick(1, 8))


@pytest.mark.parametrize("what", LEAVING)
def test_what_is_left_early_ends(chaos: Chaos, tmp_path: Path, server: Server, what: str) -> None:
    matrix = Matrix(LEAVING[what], tmp_path, server=server)
    cancel_all(matrix, chaos, what, {"left": chaos.pick(2, 40)}, resume_each=4)


def test_on_uvloop(chaos: Chaos, tmp_path: Path, server: Server) -> None:
    uvloop = pytest.importorskip("uvloop")
    call = CALLS["child processes"]
    matrix = Matrix(call, tmp_path, loop_factory=uvloop.new_event_loop, server=server)
    quick = dict.fromkeys(("Task.cancel", "anyio scope", "Ctrl-C twice"), 1)
    cancel_all(matrix, chaos, "on uvloop", chaos.pick(quick, dict.fromkeys(FAULTS, 12)))


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_while_the_process_that_starts_the_runs_is_not_there_yet(
    chaos: Chaos, tmp_path: Path, start_method: str
) -> None:
    call = partial(cancelled.search_cold, start_method)
    matrix = Matrix(call, tmp_path)
    numbers = dict.fromkeys(chaos.pick(("Task.cancel",), sorted(FAULTS)), chaos.pick(1, 3))
    cancel_all(matrix, chaos, f"with a new process, {start_method}", numbers, resume_each=3)


@pytest.mark.usefixtures("driver")
def test_leases_and_locks_of_cards(
    chaos: Chaos, tmp_path: Path, machine: Machine, lock_directory: Path
) -> None:
    machine.put(*equal_cards(2))
    with kept_server() as server:
        matrix = Matrix(cancelled.search_on_cards, tmp_path, server=server)
        quick = dict.fromkeys(("Task.cancel", "Ctrl-C twice"), 1)
        cancel_all(matrix, chaos, "on cards", chaos.pick(quick, dict.fromkeys(FAULTS, 6)))
    assert [*cards_locked(lock_directory)] == []


def test_a_caller_that_does_not_wait_longer(chaos: Chaos, tmp_path: Path, server: Server) -> None:
    call = CALLS["child processes"]
    seconds = measured_seconds(call, tmp_path / "measured")
    number, losses = chaos.pick(2, 40), []
    for index in range(number):
        patience = random.Random(str((chaos.seed, index))).uniform(0.0, seconds)
        project = tmp_path / f"{index}"
        before = Surroundings.now()
        struck = strike(partial(wait_for, call, project, patience), NEVER, None)
        left = [*struck.complaints, *before.left(), *project_leftovers(project / PROJECT)]
        if left or not isinstance(struck.error, TimeoutError | None):
            losses.append(f"after {patience} s: {struck.error!r}, {left}")
    chaos.count(PROMISE, "asyncio.wait_for", number, losses=len(losses))
    assert losses == []


def measured_seconds(call: Call, directory: Path) -> float:
    async def measure() -> float:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await call(directory)
        return loop.time() - begun

    return asyncio.run(measure())


async def wait_for(call: Call, directory: Path, seconds: float) -> object:
    return await asyncio.wait_for(call(directory), seconds)


@pytest.mark.parametrize("is_waited_for", [True, False])
def test_a_generator_that_is_abandoned(
    chaos: Chaos, tmp_path: Path, server: Server, is_waited_for: bool
) -> None:
    """The garbage collector closes it, in another task; or, with the loop, nobody waits for it any more."""
    instants = range(1, chaos.pick(3, 16))
    losses = []
    for instant in instants:
        project = tmp_path / f"{instant}"
        before = Surroundings.now()
        with watchdog():
            complaints = asyncio.run(abandon(project, instant, is_waited_for=is_waited_for))
            gc.collect()
        left = [*complaints, *before.left(), *project_leftovers(project / PROJECT)]
        losses += [f"after {instant} events: {left}"] if left else []
    chaos.count(PROMISE, "generator abandoned", len(instants), losses=len(losses))
    assert losses == []


async def abandon(directory: Path, number: int, *, is_waited_for: bool) -> list[str]:
    """Abandon a search in a generator after so many events; return what the loop has to complain of."""
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: complaints.append(str(context))
    )
    generator = events_of(directory)
    for _ in range(number):
        await anext(generator)
    del generator
    gc.collect()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if is_waited_for:
        await asyncio.wait(others)
    return complaints


async def events_of(directory: Path) -> AsyncIterator[Event]:
    async with cancelled.make_forked(directory).start() as search:
        async for event in search.events():
            yield event
