"""Discovery over the real binding and a stand-in for the driver's library, and that stand-in itself."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import anyio
import pynvml
import pytest

from aiotune.devices.device import Device, Discovery
from aiotune.devices.nvml_discovery import discover
from aiotune.devices.opening import open_pool
from aiotune.errors import DeviceError
from tests.support.fake_nvml import CODES
from tests.support.nvml_standin import (
    Card,
    Instance,
    Link,
    Machine,
    OnCard,
    build,
    environment,
    equal_cards,
    load,
)

GIB = 2**30
ROOT = Path(__file__).parents[1]
A, B, C, D = (card.uuid for card in equal_cards(4))
SPLIT = Card(uuid="GPU-s", mig="on")
INSTANCES = (
    Instance(uuid="MIG-1", card="GPU-s", place=0, gi=1),
    Instance(uuid="MIG-2", card="GPU-s", place=4, gi=5),
)

# All that discovery calls, by the names that the library exports.
CALLS = (
    "nvmlInitWithFlags",
    "nvmlShutdown",
    "nvmlDeviceGetCount_v2",
    "nvmlDeviceGetHandleByIndex_v2",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetName",
    "nvmlDeviceGetTotalEccErrors",
    "nvmlDeviceGetRemappedRows",
    "nvmlDeviceGetFieldValues",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetMaxMigDeviceCount",
    "nvmlDeviceGetMigDeviceHandleByIndex",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetP2PStatus",
    "nvmlDeviceGetTopologyCommonAncestor",
)
# Cards are as good without an answer to these.
GOOD_TO_KNOW = {
    "nvmlShutdown",
    "nvmlDeviceGetName",
    "nvmlDeviceGetTotalEccErrors",
    "nvmlDeviceGetRemappedRows",
    "nvmlDeviceGetFieldValues",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetP2PStatus",
    "nvmlDeviceGetTopologyCommonAncestor",
}
ABSENT = {
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_NOT_FOUND,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
}


@pytest.fixture
def usual(machine: Machine) -> Machine:
    """Return a machine with two whole cards, an old one, and one that is split by MIG."""
    old = Card(uuid=C, memory="v1", mig=None)
    machine.put(*equal_cards(2), old, SPLIT, *INSTANCES, Link(a=A, b=B, level=10))
    return machine


def uuids(found: Discovery) -> list[str]:
    return [device.uuid for device in found.devices]


@pytest.mark.parametrize("number", range(17))
def test_from_none_to_sixteen_cards(machine: Machine, number: int) -> None:
    machine.put(*equal_cards(number))
    with load(machine):
        found = discover({})
    assert uuids(found) == [card.uuid for card in equal_cards(number)]
    assert (found.problem is None) == (number > 0)


def test_what_is_found(usual: Machine, tmp_path: Path) -> None:
    name = Card(uuid="").name
    with load(usual):
        found = discover({}, root=tmp_path)
    assert found.problem is None
    assert found.devices == (
        Device(A, name, 80 * GIB, neighbours=(B,)),
        Device(B, name, 80 * GIB, neighbours=(A,)),
        Device(C, name, 80 * GIB),
        *(Device(each.uuid, each.name, 10 * GIB, "mig", parent="GPU-s") for each in INSTANCES),
    )


def test_the_tests_of_errors_know_all_that_is_called(usual: Machine) -> None:
    with load(usual):
        discover({})
    assert {name for name, _ in usual.calls} == set(CALLS)


@pytest.mark.parametrize("function", CALLS)
def test_every_error_of_every_call_is_a_stated_reason(usual: Machine, function: str) -> None:
    for code in CODES:
        usual.fail(function, code)
        with load(usual):
            found = discover({})
        assert found.problem is None or "\n" not in found.problem
        is_complete = uuids(found) == [A, B, C, "MIG-1", "MIG-2"]
        is_no_split = function == "nvmlDeviceGetMigMode" and code in ABSENT
        assert is_complete or is_no_split or found.problem
        if function in GOOD_TO_KNOW and not is_complete:
            assert "cannot be used: " in str(found.problem)
        usual.fail(function, 0)
    with load(usual):
        assert uuids(discover({})) == [A, B, C, "MIG-1", "MIG-2"]


@pytest.mark.parametrize("function", [name for name in CALLS if name.startswith("nvmlDevice")])
def test_every_error_of_one_card_leaves_the_others(usual: Machine, function: str) -> None:
    for code in CODES:
        usual.fail(function, code, B)
        with load(usual):
            found = discover({})
        assert [uuid for uuid in uuids(found) if uuid != B] == [A, C, "MIG-1", "MIG-2"]
        if B not in uuids(found):
            assert str(found.problem).startswith(("GPU 1 of nvidia-smi cannot be used", f"{B} "))
        usual.fail(function, 0, B)


def test_closer_cards_come_first(machine: Machine) -> None:
    machine.put(*equal_cards(4))
    machine.put(Link(a=A, b=B, level=50), Link(a=A, b=C, level=40, has_nvlink=True))
    machine.put(Link(a=A, b=D, level=10), Link(a=C, b=B, level=20))
    with load(machine):
        found = discover({})
    assert [device.neighbours for device in found.devices] == [(C, D, B), (C, A), (A, B), (A,)]


def test_equally_close_cards_come_by_their_index(machine: Machine) -> None:
    cards = equal_cards(8)
    pairs = [(a, b) for a in cards for b in cards if a.uuid < b.uuid]
    machine.put(*cards, *(Link(a=a.uuid, b=b.uuid, has_nvlink=True) for a, b in pairs))
    with load(machine):
        found = discover({"CUDA_VISIBLE_DEVICES": "5"})
    others = tuple(card.uuid for place, card in enumerate(cards) if place != 5)
    assert found.devices[0].neighbours == others


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"is_lost": True}, "GPU 0 of nvidia-smi cannot be used: the GPU has fallen off the bus"),
        ({"ecc": 2}, f"{A} cannot be used: memory errors that could not be corrected (2 since"),
        ({"remap": 1}, f"{A} cannot be used: broken memory that could not be replaced"),
        ({"recovery": 1}, f"{A} cannot be used: the GPU has to be reset"),
        ({"recovery": 2}, f"{A} cannot be used: the machine has to be restarted"),
    ],
)
def test_a_card_at_fault_is_left_out_and_shifts_no_index(
    machine: Machine, figures: dict[str, object], words: str
) -> None:
    machine.put(*equal_cards(2))
    machine.change(A, **figures)
    with load(machine):
        found = discover({})
        assert uuids(discover({"CUDA_VISIBLE_DEVICES": "1"})) == [B]
        assert uuids(discover({"CUDA_VISIBLE_DEVICES": "0"})) == []
    assert uuids(found) == [B]
    assert str(found.problem).startswith(words)


def test_recovery_of_the_traffic_between_cards_is_no_fault(machine: Machine) -> None:
    machine.put(Card(uuid=A, recovery=3))  # drain peer to peer
    with load(machine):
        assert discover({}) == Discovery((Device(A, Card(uuid="").name, 80 * GIB),))


def test_instances_of_a_card_at_fault_are_left_out(machine: Machine) -> None:
    machine.put(*equal_cards(1), SPLIT, *INSTANCES)
    machine.change("GPU-s", ecc=1)
    with load(machine):
        found = discover({})
    assert uuids(found) == [A]
    assert str(found.problem).startswith("GPU-s cannot be used: memory errors")


@pytest.mark.parametrize("meminfo", ["MemTotal:  1048576 kB\nMemFree: 1 kB\n", "", None])
def test_parts_that_share_the_machines_memory(
    machine: Machine, tmp_path: Path, meminfo: str | None
) -> None:
    if meminfo is not None:
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/meminfo").write_text(meminfo)
    machine.put(Card(uuid=A, name="NVIDIA GB10", memory="none", mig=None))
    with load(machine):
        found = discover({}, root=tmp_path)
    assert found == Discovery((Device(A, "NVIDIA GB10", GIB if meminfo else None),))


def test_a_name_that_is_no_text_is_unknown(machine: Machine) -> None:
    machine.put(Card(uuid=A, name="\udcff\udcfe"))
    with load(machine):
        assert discover({}).devices == (Device(A, "unknown", 80 * GIB),)


def no_driver(machine: Machine) -> Path | None:
    machine.unload()
    return None


def version_mismatch(machine: Machine) -> Path | None:
    machine.fail("nvmlInit", pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH)
    return None


def stub(machine: Machine, source: str) -> Path | None:
    (machine.folder / "stub.c").write_text(source)
    return build(machine.folder, machine.folder / "stub.c")


def empty_stub(machine: Machine) -> Path | None:
    return stub(machine, "int nothing;")


def wsl_stub(machine: Machine) -> Path | None:
    """It opens, and has nothing else to say."""
    return stub(
        machine,
        "int nvmlInitWithFlags(unsigned flags) { return (int)flags * 0; }\n"
        "int nvmlShutdown(void) { return 0; }\n"
        'const char *nvmlErrorString(int code) { return code ? "\\xff" : ""; }\n',
    )


def garbled_stub(machine: Machine) -> Path | None:
    """Its errors have words that are no text."""
    return stub(
        machine,
        "int nvmlInitWithFlags(unsigned flags) { return 4000 + (int)flags; }\n"
        'const char *nvmlErrorString(int code) { return code ? "\\xff" : ""; }\n',
    )


CAUSES = [
    (no_driver, "the NVIDIA driver is not loaded"),
    (version_mismatch, "the driver was updated under the running kernel: restart the machine"),
    (empty_stub, "lacks what is needed"),
    (wsl_stub, "lacks what is needed"),
    (garbled_stub, "NVML: error 4000"),
]


@pytest.mark.parametrize(("cause", "words"), CAUSES)
async def test_without_a_working_driver_runs_use_the_processor(
    machine: Machine,
    caplog: pytest.LogCaptureFixture,
    cause: Callable[[Machine], Path | None],
    words: str,
) -> None:
    library = cause(machine)
    caplog.set_level(logging.INFO, "aiotune.devices")
    with load(machine, library):
        pool = await open_pool(environment={}, max_concurrent=1)
        with pytest.raises(
            DeviceError, match='gpus="require", but no GPU can be used: NVML: '
        ) as error:
            await open_pool(environment={}, gpus="require")
    assert pool.total.gpus == ()
    assert words in str(error.value)
    assert [words in record.getMessage() for record in caplog.records] == [True]


def run(program: str, variables: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **variables},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


DISCOVER = "from aiotune.devices.nvml_discovery import discover; print(discover({}))"


def test_another_process_finds_the_library_by_itself(machine: Machine) -> None:
    machine.put(*equal_cards(1))
    assert A in run(DISCOVER, environment(machine))


def test_a_library_that_does_not_load_is_none(tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text("no library")
    answer = run(DISCOVER, {"LD_LIBRARY_PATH": str(tmp_path)})
    assert "no NVIDIA driver library was found on this machine" in answer


async def test_a_driver_that_sleeps_does_not_block_the_loop(machine: Machine) -> None:
    machine.put(*equal_cards(1))
    machine.delay("nvmlInit", 100)
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    with load(machine):
        async with anyio.create_task_group() as group:
            group.start_soon(turn)
            pool = await open_pool(environment={})
            group.cancel_scope.cancel()
    assert pool.total.gpus == (A,)
    assert turns > 100


# The stand-in itself: what it has in common with the library that it stands for.


def test_figures_of_memory_as_both_versions_tell_them(machine: Machine) -> None:
    machine.put(Card(uuid=A, total=100, reserved=10, used=5), OnCard(device=A, pid=1, memory=20))
    with load(machine):
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(A)
        plain = pynvml.nvmlDeviceGetMemoryInfo(handle)
        detailed = pynvml.nvmlDeviceGetMemoryInfo(handle, pynvml.nvmlMemory_v2)
        pynvml.nvmlShutdown()
    assert (plain.total, plain.used, plain.free) == (100, 35, 65)
    assert (detailed.total, detailed.reserved, detailed.used, detailed.free) == (100, 10, 25, 65)


def test_a_lost_card_is_back_only_when_nvml_is_opened_again(machine: Machine) -> None:
    machine.put(*equal_cards(1))
    with load(machine):
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(A)
        machine.change(A, is_lost=True)
        with pytest.raises(pynvml.NVMLError_GpuIsLost):
            pynvml.nvmlDeviceGetName(handle)
        machine.change(A, is_lost=False)
        with pytest.raises(pynvml.NVMLError_GpuIsLost):
            pynvml.nvmlDeviceGetName(handle)
        pynvml.nvmlShutdown()
        pynvml.nvmlInit()
        assert pynvml.nvmlDeviceGetName(handle) == Card(uuid="").name
        pynvml.nvmlShutdown()


@pytest.mark.parametrize("lag", [0, 2])
def test_memory_lags_behind_a_dead_process(machine: Machine, lag: int) -> None:
    child = subprocess.Popen(["sleep", "60"])
    machine.put(Card(uuid=A, total=100, reserved=0))
    machine.put(OnCard(device=A, pid=child.pid, memory=7, is_bound=True, lag=lag))
    with load(machine):
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(A)
        assert pynvml.nvmlDeviceGetMemoryInfo(handle).used == 7
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now
        used = [pynvml.nvmlDeviceGetMemoryInfo(handle).used for _ in range(lag + 1)]
        assert used == [7] * lag + [0]
        assert pynvml.nvmlDeviceGetComputeRunningProcesses(handle) == []
        pynvml.nvmlShutdown()
    child.wait()


ALLOCATE = """
import os, sys
from tests.support.nvml_standin import allocate
allocate(sys.argv[1], int(sys.argv[2]))
print(os.getpid(), flush=True)
sys.stdin.read()
"""


def allocator(machine: Machine, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", ALLOCATE, *arguments],
        env={**os.environ, **environment(machine)},
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answers(pids: Sequence[pynvml.c_nvmlProcessInfo_t]) -> list[tuple[int, int]]:
    return [(each.pid, each.usedGpuMemory) for each in pids]


def test_what_a_stand_in_framework_takes_is_in_use_until_it_ends(machine: Machine) -> None:
    machine.put(Card(uuid=A, total=100, reserved=10), OnCard(device=A, pid=1, memory=20))
    machine.allocations = type(machine.allocations)(pids=1_000_000)
    machine.write()
    with allocator(machine, A, "60") as first, load(machine):
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(A)
        assert first.stdout is not None
        pid = int(first.stdout.readline())
        assert pynvml.nvmlDeviceGetMemoryInfo(handle).used == 90
        found = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
        assert sorted(answers(found)) == [(1, 20), (1_000_000 + pid, 60)]
        with allocator(machine, A, "11") as second:
            _, errors = second.communicate()
        assert "MemoryError: out of memory: 11 bytes wanted" in errors
        first.kill()
        first.wait()
        assert pynvml.nvmlDeviceGetMemoryInfo(handle).used == 30
        pynvml.nvmlShutdown()


def test_a_process_on_an_instance_is_on_its_card(machine: Machine) -> None:
    machine.put(SPLIT, *INSTANCES, OnCard(device="MIG-1", pid=5, memory=GIB))
    with load(machine):
        pynvml.nvmlInit()
        for uuid, expected in (("GPU-s", [(5, GIB)]), ("MIG-1", [(5, GIB)]), ("MIG-2", [])):
            handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
            assert answers(pynvml.nvmlDeviceGetComputeRunningProcesses(handle)) == expected
        pynvml.nvmlShutdown()


def test_a_machine_with_a_driver_and_then_without(machine: Machine) -> None:
    machine.put(*equal_cards(1))
    with load(machine):
        assert uuids(discover({})) == [A]
        machine.unload()
        assert not machine.has_driver
        assert uuids(discover({})) == []
        machine.write()
        assert uuids(discover({})) == [A]
