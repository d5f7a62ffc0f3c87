"""Whole searches on stand-in cards: real children, real locks, the real binding of NVML."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
from collections import Counter
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from aiotune import EndReason, Limits, Resources, SearchResult
from aiotune.devices.ledger import shared_ledger
from aiotune.devices.nvml_readings import Sensor
from aiotune.events import DeviceChanged, RunStarted
from aiotune.trial import FailureKind, Run
from tests.support.gpu_searches import GIB, Crowd, Greedy, Guests, Sized, make, room_for
from tests.support.nvml_standin import Card, Machine, OnCard, equal_cards
from tests.support.programs import line_of, program

PATIENT = Limits(trial_timeout=6)  # for those that never end

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the fork server is Linux's"),
    pytest.mark.usefixtures("driver"),
]


def runs_of(result: SearchResult) -> list[Run]:
    return [run for trial in result.trials for run in trial.runs]


def used(machine: Machine) -> dict[str, int | None]:
    """Return what the driver says is in use."""
    uuids = [card.uuid for card in machine.cards]
    with closing(Sensor()) as sensor:
        return {uuid: reading.used_bytes for uuid, reading in sensor.read(uuids).items()}


def assert_all_is_free(machine: Machine, locks: Path, before: dict[str, int | None]) -> None:
    """No lease, no lock and no memory is left."""
    assert not shared_ledger().taken().cards
    assert used(machine) == before
    for card in machine.cards:
        fd = os.open(locks / f"{card.uuid}.lock", os.O_RDWR | os.O_CREAT)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # else BlockingIOError
        os.close(fd)


def assert_no_card_had_two(runs: list[Run]) -> None:
    for uuid in {each for run in runs for each in run.devices}:
        spans = sorted((r.started_at, r.ended_at or 0.0) for r in runs if uuid in r.devices)
        for before, after in pairwise(spans):
            assert before[1] <= after[0], f"{uuid} was in two leases: {before} and {after}"


def most_at_once(runs: list[Run]) -> int:
    moves = sorted(
        move for run in runs for move in ((run.started_at, 1), (run.ended_at or 0.0, -1))
    )
    held = [sum(step for _, step in moves[: i + 1]) for i in range(len(moves))]
    return max(held)


async def test_two_hundred_trials_on_eight_cards(
    machine: Machine, tmp_path: Path, lock_directory: Path
) -> None:
    machine.put(*equal_cards(8))
    before = used(machine)
    tuner = make(Guests, tmp_path, max_trials=200, limits=PATIENT)
    result = await tuner.search(verbose=0)
    assert result.reason is EndReason.MAX_TRIALS
    runs = runs_of(result)
    kinds = Counter(run.failure for run in runs if run.failure is not None)
    assert kinds == {FailureKind.CRASH: 20, FailureKind.USER_ERROR: 10, FailureKind.TIMEOUT: 3}
    assert Counter(trial.status for trial in result.trials) == {"COMPLETED": 167, "FAILED": 33}
    cards = {card.uuid for card in machine.cards}
    assert {run.devices for run in runs} == {(uuid,) for uuid in cards}
    assert {each.metrics["names"] for run in runs for each in run.observations} == {1.0}
    assert_no_card_had_two(runs)
    assert most_at_once(runs) == 8
    assert_all_is_free(machine, lock_directory, before)


async def test_a_search_that_is_cancelled_leaves_every_card_free(
    machine: Machine, tmp_path: Path, lock_directory: Path
) -> None:
    machine.put(*equal_cards(4))
    before = used(machine)
    tuner = make(Guests, tmp_path, max_trials=200, max_retries_per_trial=1)
    async with tuner.start() as search:
        begun = 0
        async for event in search.events():
            begun += isinstance(event, RunStarted)
            if begun == 20:
                break
    assert_all_is_free(machine, lock_directory, before)


CALLER = """
import asyncio, sys
from pathlib import Path
from aiotune import Limits
from tests.support import gpu_searches

tuner = gpu_searches.make(
    gpu_searches.Guests, Path(sys.argv[1]), max_trials=40, limits=Limits(trial_timeout=6),
    observers=[lambda event, history: print(type(event).__name__, flush=True)],
)
asyncio.run(tuner.search(verbose=0))
"""


@pytest.mark.parametrize("kills_after", [1, 6, 25])
def test_a_caller_that_is_killed_leaves_every_card_to_the_next(
    machine: Machine, tmp_path: Path, lock_directory: Path, kills_after: int
) -> None:
    machine.put(*equal_cards(4))
    before = used(machine)
    with program(CALLER, tmp_path) as process:
        left = kills_after
        while left:
            left -= line_of(process) == "RunStarted"
        process.kill()
        process.wait()
        # At once: what the killed one had is locked until its runs are dead.
        tuner = make(Guests, tmp_path, max_trials=40, limits=PATIENT)
        result = asyncio.run(tuner.search(verbose=0))
    assert len(result.trials) == 40
    assert all(trial.is_over for trial in result.trials)
    assert_no_card_had_two([run for run in runs_of(result) if run.state != "LOST"])
    assert_all_is_free(machine, lock_directory, before)


async def test_trials_of_different_sizes_land_where_they_fit(
    machine: Machine, tmp_path: Path
) -> None:
    sizes = {"GPU-small": 4, "GPU-medium": 24, "GPU-large": 80}
    machine.put(*(Card(uuid=uuid, total=size * GIB) for uuid, size in sizes.items()))
    tuner = make(Sized, tmp_path, max_trials=30, resources=room_for)
    tuner.oracle.hyperparameters.Choice("gibibytes", [2, 20, 60])
    result = await tuner.search(verbose=0)
    assert {trial.status for trial in result.trials} == {"COMPLETED"}
    wanted = Counter(trial.values["gibibytes"] for trial in result.trials)
    assert set(wanted) == {2, 20, 60}
    for trial in result.trials:
        (card,) = trial.runs[0].devices
        assert sizes[card] > trial.values["gibibytes"]
    assert {run.devices for run in runs_of(result)} == {(uuid,) for uuid in sizes}


@pytest.mark.parametrize(("memory", "together"), [("2GiB", 39), (None, 37)])
async def test_sixty_models_of_two_gibibytes_fill_one_card(
    machine: Machine, tmp_path: Path, memory: str | None, together: int
) -> None:
    """Told how much they take, or by what the first one was measured to take. None finds the card full."""
    machine.put(*equal_cards(1))
    assert together * 2 * GIB >= 0.9 * machine.cards[0].total
    tuner = make(
        Crowd,
        tmp_path,
        max_trials=60,
        max_concurrent_trials=60,
        resources=Resources(gpus="shared", gpu_memory=memory),
    )
    result = await tuner.search(together, verbose=0)
    assert {trial.status for trial in result.trials} == {"COMPLETED"}
    runs = runs_of(result)
    assert len(runs) == 60  # none was out of memory
    assert max(run.metrics["together"] for run in runs) == together


async def test_out_of_memory_on_a_shared_card_is_tried_again_alone(
    machine: Machine, tmp_path: Path
) -> None:
    machine.put(*equal_cards(2))
    tuner = make(Greedy, tmp_path, max_trials=6, resources=Resources(gpus=0.25, cpus=1))
    result = await tuner.search(verbose=0)
    assert {trial.status for trial in result.trials} == {"COMPLETED"}
    for trial in result.trials:
        shared, alone = trial.runs
        assert shared.failure is FailureKind.OUT_OF_MEMORY
        assert shared.gpu_memory is not None
        assert shared.gpu_memory < 20 * GIB
        assert alone.gpu_memory is None


async def test_a_card_that_breaks_is_passed_over_and_told(machine: Machine, tmp_path: Path) -> None:
    machine.put(*equal_cards(3))
    broken = machine.cards[1].uuid
    changes: list[DeviceChanged] = []
    begun: list[str] = []

    def watch(event: object, history: object) -> None:
        match event:
            case DeviceChanged():
                changes.append(event)
            case RunStarted(devices=devices):
                if len(begun) == 10:
                    machine.change(broken, is_lost=True)
                begun.extend(devices)

    tuner = make(Guests, tmp_path, max_trials=60, limits=PATIENT, observers=[watch])
    result = await tuner.search(verbose=0)
    assert result.reason is EndReason.MAX_TRIALS
    assert [each.device for each in changes] == [broken]
    assert changes[0].reason
    assert broken not in begun[-20:]
    assert set(begun[-20:]) == {card.uuid for card in machine.cards} - {broken}


async def test_a_card_with_somebody_elses_work_is_left_alone(
    machine: Machine, tmp_path: Path
) -> None:
    machine.put(*equal_cards(2))
    busy, free = (card.uuid for card in machine.cards)
    machine.put(OnCard(device=busy, pid=2**22 + 1, memory=20 * GIB))
    machine.put(OnCard(device=free, pid=2**22 + 2, memory=2 * GIB, is_graphics=True))
    result = await make(Greedy, tmp_path).search(verbose=0)
    assert {run.devices for run in runs_of(result)} == {(free,)}
    machine.end(2**22 + 1)
    again = await make(Greedy, tmp_path, max_trials=40).search(verbose=0)
    assert {run.devices for run in runs_of(again)} == {(free,), (busy,)}
