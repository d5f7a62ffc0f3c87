from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from aiotune.devices.host import read_host
from aiotune.devices.ledger import Ledger
from aiotune.devices.opening import open_pool
from aiotune.devices.run_memory import RUN_MEMORY_BYTES
from aiotune.errors import DeviceError, FatalTypeError, FatalValueError
from aiotune.resources import Resources
from tests.support.fake_nvml import FakeCard, FakeNvml, fake_cards
from tests.support.nvml_standin import Link, Machine, OnCard, equal_cards, load

GIB = 2**30
A, B, C = fake_cards(3)
THREE = FakeNvml([A, B, C])
NONE = FakeNvml(faults={"nvmlInit": 12})
CORES = read_host().cores


def build(root: Path, **files: str) -> Path:
    """Return a root with these files of a control group of version 2, and of /proc."""
    places = {
        "cpu_max": "sys/fs/cgroup/cpu.max",
        "meminfo": "proc/meminfo",
    }
    for name, text in {"cgroup": "0::/\n", **files}.items():
        path = root / places.get(name, "proc/self/cgroup")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def available(memory_bytes: int) -> str:
    return f"MemAvailable: {memory_bytes // 1024} kB\n"


async def test_gpus_are_slots() -> None:
    pool = await open_pool(environment={}, nvml=THREE)
    assert pool.total.gpus == (A.uuid, B.uuid, C.uuid)
    assert pool.slots == 3


@pytest.mark.parametrize(("asked", "slots"), [(1, 1), (2, 2), (9, 3)])
async def test_fewer_at_a_time_may_be_asked_for_but_no_more_than_gpus(
    asked: int, slots: int
) -> None:
    pool = await open_pool(environment={}, nvml=THREE, max_concurrent=asked)
    assert pool.slots == slots


@pytest.mark.parametrize(
    ("resources", "asked", "slots"),
    [
        (Resources(), None, 3),
        (Resources(gpus=0.5), None, 6),
        (Resources(gpus=0.5), 5, 5),
        (Resources(gpus=0.5), 9, 6),
        (Resources(gpus="shared", gpu_memory="1GiB"), None, 8),
        (None, None, 3),  # until it is known what runs ask for
    ],
)
async def test_runs_that_share_gpus_have_a_slot_and_cores_each(
    resources: Resources | None, asked: int | None, slots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    pool = await open_pool(
        environment={}, nvml=THREE, max_concurrent=asked, resources=resources, ledger=Ledger()
    )
    assert pool.slots == slots
    for _ in range(slots):
        assert pool.lease_nowait(resources or Resources()) is not None


async def test_where_each_run_asks_for_something_else_cores_bound_those_that_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    pool = await open_pool(environment={}, nvml=THREE, ledger=Ledger())
    part = Resources(gpus="shared", gpu_memory="1GiB")
    leases = [pool.lease_nowait(part) for _ in range(9)]
    assert [lease and lease.gpus for lease in leases] == [(A.uuid,)] * 8 + [None]


async def test_the_pool_of_higher_priority_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    ledger = Ledger()
    low, high = [
        await open_pool(environment={}, nvml=THREE, priority=priority, ledger=ledger)
        for priority in (0, 1)
    ]
    low.subscribe(lambda: None), high.subscribe(lambda: None)
    leases = [high.lease_nowait(Resources()) for _ in range(3)]
    assert low.lease_nowait(Resources()) is high.lease_nowait(Resources()) is None
    assert leases[0] is not None
    leases[0].release()
    assert not low.has_room(Resources())
    assert high.has_room(Resources())


async def test_without_gpus_the_processor_has_slots(tmp_path: Path) -> None:
    pool = await open_pool(environment={}, nvml=NONE, root=tmp_path)
    assert pool.total.gpus == ()
    assert pool.slots == len(CORES)


async def test_the_cpu_quota_bounds_the_slots(tmp_path: Path) -> None:
    root = build(tmp_path, cpu_max="100000 100000\n")
    pool = await open_pool(environment={}, nvml=NONE, root=root, ledger=Ledger())
    assert pool.slots == 1
    lease = pool.lease_nowait(Resources())
    assert lease is not None
    assert lease.cores == CORES


async def test_a_stated_number_of_slots_holds_on_the_processor() -> None:
    pool = await open_pool(environment={}, nvml=NONE, max_concurrent=len(CORES) + 1)
    assert pool.slots == len(CORES) + 1


async def test_before_a_measure_memory_bounds_the_slots_but_not_the_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    root = build(tmp_path, meminfo=available(3 * RUN_MEMORY_BYTES))
    pool = await open_pool(environment={}, nvml=NONE, root=root, ledger=Ledger())
    leases = [pool.lease_nowait(Resources()) for _ in range(3)]
    assert [lease and lease.cores for lease in leases] == [(0,), (1,), (2,)]
    assert pool.lease_nowait(Resources()) is None
    pool.measure(RUN_MEMORY_BYTES // 8)
    assert pool.slots == 8
    more = pool.lease_nowait(Resources())
    assert more is not None
    assert more.cores == (3,)


@pytest.mark.parametrize(
    ("choice", "slots"),
    [
        ({"nvml": NONE, "max_concurrent": 2}, 2),
        ({"nvml": THREE}, 3),
        ({"nvml": THREE, "max_concurrent": 2}, 2),
    ],
)
async def test_measures_change_nothing_for_gpus_or_where_the_user_said_how_many(
    choice: dict[str, Any], slots: int, tmp_path: Path
) -> None:
    root = build(tmp_path, meminfo=available(2**20))
    pool = await open_pool(environment={}, root=root, ledger=Ledger(), **choice)
    for memory_bytes in (1, 2**40):
        pool.measure(memory_bytes)
        assert pool.slots == slots


async def test_runs_in_the_caller_are_counted_and_share_the_cores(tmp_path: Path) -> None:
    ledger, root = Ledger(), build(tmp_path, meminfo=available(2**20))
    here = await open_pool(
        environment={}, nvml=NONE, root=root, max_concurrent=1, in_caller=True, ledger=ledger
    )
    children = await open_pool(
        environment={}, nvml=NONE, root=root, max_concurrent=1, ledger=ledger
    )
    one, other = here.lease_nowait(Resources()), children.lease_nowait(Resources())
    assert one is not None
    assert other is not None
    assert one.cores == other.cores == CORES
    assert here.lease_nowait(Resources()) is None
    assert children.lease_nowait(Resources()) is None


async def test_memory_is_no_bound_for_runs_in_the_caller(tmp_path: Path) -> None:
    root = build(tmp_path, meminfo=available(2**20))
    pool = await open_pool(environment={}, nvml=NONE, root=root, in_caller=True, ledger=Ledger())
    assert pool.slots == len(CORES)


async def test_all_pools_of_the_process_share_the_machine() -> None:
    one = await open_pool(environment={}, nvml=THREE)
    two = await open_pool(gpus=[A.uuid, B.uuid], environment={}, nvml=THREE)
    lease = one.lease_nowait(Resources(cpus=1))
    assert lease is not None
    assert lease.gpus == (A.uuid,)
    assert two.free.gpus == (B.uuid,)
    lease.release()
    assert two.free == two.total


async def test_searches_on_some_gpus_each_leave_cores_to_one_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    ledger = Ledger()
    pools = []  # what nobody holds any more gives its leases back as it is collected
    for card, cores in zip([A, B, C], [(0, 1), (2, 3), (4, 5)], strict=True):
        pool = await open_pool(gpus=[card.uuid], environment={}, nvml=THREE, ledger=ledger)
        pools.append(pool)
        lease = pool.lease_nowait(Resources())
        assert lease is not None
        assert (lease.gpus, lease.cores) == ((card.uuid,), cores)


async def test_none_means_no_driver_is_touched() -> None:
    nvml = FakeNvml([A])
    pool = await open_pool(gpus=0, environment={}, nvml=nvml)
    assert pool.total.gpus == ()
    assert nvml.calls.total() == 0


async def test_require_passes_with_gpus_and_gives_the_cause_without() -> None:
    pool = await open_pool(gpus="require", environment={}, nvml=THREE)
    assert len(pool.devices) == 3
    with pytest.raises(DeviceError, match="no NVIDIA driver library"):
        await open_pool(gpus="require", environment={}, nvml=NONE)
    with pytest.raises(DeviceError, match="CUDA_VISIBLE_DEVICES='' leaves no GPU visible"):
        await open_pool(gpus="require", environment={"CUDA_VISIBLE_DEVICES": ""}, nvml=THREE)


async def test_gpus_are_named_by_uuid_or_by_the_beginning_of_one() -> None:
    pool = await open_pool(gpus=["GPU-c", A.uuid], environment={}, nvml=THREE)
    assert pool.total.gpus == (C.uuid, A.uuid)


@pytest.mark.parametrize(
    ("gpus", "message"),
    [
        (["GPU-z"], f"'GPU-z' is no GPU that may be used; there are: {A.uuid}, {B.uuid}"),
        (["GPU-"], "'GPU-' names several GPUs"),
        ([C.uuid], "is no GPU that may be used"),  # hidden
    ],
)
async def test_a_name_that_does_not_name_one_gpu_is_refused(gpus: list[str], message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        await open_pool(gpus=gpus, environment={"CUDA_VISIBLE_DEVICES": "0,1"}, nvml=THREE)


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"gpus": 2}, FatalValueError, r"Resources\(gpus"),
        ({"gpus": False}, FatalValueError, "gpus=False"),
        ({"gpus": None}, FatalValueError, "gpus=None"),
        ({"gpus": "GPU-1"}, FatalValueError, "a list of UUIDs"),
        ({"gpus": [0]}, FatalValueError, "a list of UUIDs"),
        ({"gpus": [""]}, FatalValueError, "a list of UUIDs"),
        ({"gpus": []}, FatalValueError, "gpus=0"),
        ({"gpus": ["GPU-a", A.uuid]}, FatalValueError, "twice"),
        ({"max_concurrent": 0}, FatalValueError, "max_concurrent_trials=0"),
        ({"max_concurrent": True}, FatalTypeError, "whole number"),
        ({"max_concurrent": 1.5}, FatalTypeError, "whole number"),
    ],
)
async def test_bad_choices_are_refused(
    keywords: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        await open_pool(environment={}, nvml=THREE, **keywords)


class _Witness(FakeNvml):
    """Notes the thread that it is asked from."""

    thread: threading.Thread | None = None

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        self.thread = threading.current_thread()
        return super().nvmlDeviceGetCount()


async def test_the_driver_is_asked_from_another_thread() -> None:
    nvml = _Witness([A])
    await open_pool(environment={}, nvml=nvml)
    assert nvml.thread not in (None, threading.current_thread())


@pytest.mark.parametrize(
    ("nvml", "environment", "level", "words"),
    [
        (THREE, {}, logging.INFO, "3 x NVIDIA H100, "),
        (NONE, {}, logging.INFO, "no GPU (NVML: no NVIDIA driver library"),
        (THREE, {"CUDA_VISIBLE_DEVICES": "0,x"}, logging.WARNING, "1 x NVIDIA H100 (CUDA_VIS"),
        (FakeNvml([FakeCard("GPU-u", "GB10", None)]), {}, logging.INFO, "1 x GB10, "),
    ],
)
async def test_one_log_line_says_what_was_found(
    nvml: FakeNvml,
    environment: dict[str, str],
    level: int,
    words: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "aiotune.devices")
    await open_pool(environment=environment, nvml=nvml)
    (record,) = [each for each in caplog.records if each.name == "aiotune.devices"]
    assert record.levelno == level
    assert record.getMessage().startswith(words)


@pytest.mark.parametrize(
    ("choice", "files", "words"),
    [
        ({"nvml": THREE}, {}, "3 slots, bounded by the GPUs"),
        ({"nvml": THREE, "max_concurrent": 2}, {}, "2 slots, bounded by max_concurrent_trials"),
        ({"nvml": THREE, "max_concurrent": 9}, {}, "3 slots, bounded by the GPUs"),
        (
            {"nvml": THREE, "resources": Resources(gpus=0.6)},
            {},
            "3 slots, bounded by what fits on the GPUs",
        ),
        (
            {"nvml": THREE, "resources": Resources(gpus="shared")},
            {},
            "4 slots, bounded by the cores",
        ),
        ({"max_concurrent": 1}, {}, "1 slot, bounded by max_concurrent_trials"),
        ({}, {}, "4 cores: 4 slots, bounded by the cores"),
        ({}, {"cpu_max": "250000 100000"}, "2 slots, bounded by the CPU quota of 2.5 cores"),
        (
            {},
            {"meminfo": available(13 * 2**30)},
            "3 slots, bounded by memory (13 GiB are available, and a run counts 4 GiB until one is",
        ),
    ],
)
async def test_the_log_line_says_what_bounds_the_slots(
    choice: dict[str, Any],
    files: dict[str, str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    caplog.set_level(logging.INFO, "aiotune.devices")
    given: dict[str, Any] = {
        "nvml": NONE,
        "root": build(tmp_path, **files),
        "ledger": Ledger(),
    } | choice
    await open_pool(environment={}, **given)
    assert words in caplog.text


async def test_this_process_s_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    pool = await open_pool(nvml=THREE)
    assert pool.total.gpus == (B.uuid,)


async def test_a_pool_that_is_watched_leases_parts_whole_cards_and_neighbours(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIOTUNE_LOCK_DIR", str(tmp_path / "locks"))
    cards = equal_cards(4)
    machine.put(*cards, Link(a=cards[1].uuid, b=cards[3].uuid, has_nvlink=True))
    told: list[str] = []

    async def tell(uuid: str, reason: str | None) -> None:
        told.append(f"{uuid}: {reason}")

    with load(machine), anyio.fail_after(60):
        pool = await open_pool(environment={}, ledger=Ledger())
        assert pool.free == pool.total
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pool.tend, tell)
            for resources in (Resources(gpus=0.5), Resources(gpus=2), Resources(gpus=4)):
                async with pool.lease(resources) as lease:
                    assert len(lease.guards) == len(lease.gpus)
                    if resources.gpus == 2:
                        assert set(lease.gpus) == {cards[1].uuid, cards[3].uuid}
                    usage = pool.usage(lease, 0.0, 1.0)
                    assert usage is not None
            tasks.cancel_scope.cancel()
    assert told == []
    assert pool.free == pool.total


async def test_a_card_that_is_watched_is_leased_time_and_again(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIOTUNE_LOCK_DIR", str(tmp_path / "locks"))
    ledger, (card,) = Ledger(), equal_cards(1)
    machine.put(card)
    told: list[str | None] = []

    async def tell(uuid: str, reason: str | None) -> None:
        told.append(reason)

    with load(machine), anyio.fail_after(60):
        pool = await open_pool(environment={}, ledger=ledger)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pool.tend, tell)
            await checkpoint()
            assert card.uuid in ledger.withheld  # till it has been looked at
            for resources in (Resources(), Resources(), Resources(gpus=0.5), Resources()):
                async with pool.lease(resources) as lease:
                    assert lease.gpus == (card.uuid,)
                    machine.put(OnCard(device=card.uuid, pid=4711, memory=30 * GIB))
                machine.end(4711)
                assert pool.lease_nowait(resources) is None  # not before a look at its memory
            tasks.cancel_scope.cancel()
    assert told == []
    assert pool.free == pool.total


# Memory that a run is said to take


async def test_stated_memory_decides_how_many_runs_there_are(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(
        f"MemTotal: {8 * 2**20} kB\nMemAvailable: {6 * 2**20} kB\n"
    )
    resources = Resources(memory="6GiB")
    pool = await open_pool(
        environment={}, nvml=NONE, root=tmp_path, resources=resources, ledger=Ledger()
    )
    assert pool.slots == 1
    lease = pool.lease_nowait(resources)
    assert lease is not None
    assert lease.memory_bytes == 6 * 2**30
    with pytest.raises(DeviceError, match=r"has 8 GiB that may be used: lower Resources\(memory"):
        pool.resolve(Resources(memory="9GiB"))


async def test_memory_of_runs_in_this_process_is_refused() -> None:
    with pytest.raises(FatalValueError, match="has no effect on runs in this process"):
        await open_pool(
            environment={}, nvml=NONE, in_caller=True, resources=Resources(memory="1GiB")
        )
