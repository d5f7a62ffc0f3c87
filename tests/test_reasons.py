"""Why a lease cannot be had now, as the status of a search shows it."""

from __future__ import annotations

import pytest

from aiotune.devices.ledger import Ledger
from aiotune.devices.pool import DevicePool
from aiotune.devices.run_memory import RUN_MEMORY_BYTES
from aiotune.errors import DeviceError
from aiotune.resources import Resources
from tests.support.leasing import gpus, take


def pool(*gibibytes: int, cores: int = 16, ledger: Ledger | None = None) -> DevicePool:
    number = len(gibibytes) or cores
    return DevicePool(
        gpus(*gibibytes), cores=range(cores), slots=number, shared_slots=cores, ledger=ledger
    )


def test_cards_are_named_with_what_keeps_them() -> None:
    ledger = Ledger()
    here = pool(80, 80, 24, 80, ledger=ledger)
    ledger.withhold("b", "12 GiB of its memory are in use by another program")
    take(here, Resources(gpu_memory="30GiB"))
    take(here, Resources(gpus="shared", gpu_memory="60GiB"))
    assert here.why(Resources(gpus="shared", gpu_memory="30GiB")) == (
        "a: leased; b: 12 GiB of its memory are in use by another program; c: too small; "
        "d: shared by 1 run, with 18.8 GiB left"
    )


def test_several_cards_are_counted() -> None:
    here = pool(80, 80, 80)
    take(here), take(here)
    assert here.why(Resources(gpus=2)) == ("2 GPUs needed, 1 free; a, b: leased")


def test_a_whole_card_waits_for_those_that_share_it() -> None:
    here = pool(80)
    take(here, Resources(gpus=0.25)), take(here, Resources(gpus=0.25))
    assert here.why(Resources()) == "a: shared by 2 runs"


def test_slots_cores_and_memory_are_named() -> None:
    full = DevicePool([], cores=range(4), slots=1)
    take(full, Resources(cpus=1))
    assert full.why(Resources()) == "the search has 1 slot, all in use"
    busy = pool(80, 80, cores=4)
    take(busy, Resources(cpus=3))
    assert busy.why(Resources(cpus=2)) == "2 cores needed, 1 free"
    ledger = Ledger()
    small = [
        DevicePool(
            [], cores=range(8), slots=8, memory_bytes=RUN_MEMORY_BYTES * 3 // 2, ledger=ledger
        )
        for _ in range(2)
    ]
    take(small[0])
    assert small[1].why(Resources()) == "a run counts 4 GiB of memory, and so much is not left"


def test_what_is_kept_for_others_is_said() -> None:
    ledger = Ledger()
    rich, poor = pool(80, 80, ledger=ledger), pool(80, 80, ledger=ledger)
    poor.subscribe(lambda: None)
    lease, _ = take(rich), take(rich)
    assert poor.lease_nowait(Resources()) is None
    lease.release()
    assert rich.lease_nowait(Resources()) is None
    assert rich.why(Resources()) == "what is free is kept for a run that comes first"


def test_the_impossible_is_refused() -> None:
    with pytest.raises(DeviceError, match=r"lower Resources\(gpus"):
        pool(80).why(Resources(gpus=2))
