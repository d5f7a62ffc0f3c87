"""`aiotune gpus`: what it prints of made-up machines, and that it ends whatever the driver does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pynvml
import pytest

from aiotune.cli_gpus import Machine, Row, gpus_record, gpus_text, look
from aiotune.devices.device import Device, Reading
from aiotune.devices.host import Host
from aiotune.devices.locks import CardLocks
from tests.support import nvml_standin
from tests.support.fake_nvml import FakeNvml, fake_cards
from tests.support.nvml_standin import Instance, OnCard, equal_cards, load
from tests.support.programs import ROOT, run_module

GIB = 2**30
HOST = Host((0, 1, 2, 3), quota_cores=None, memory_bytes=8 * GIB, total_memory_bytes=16 * GIB)
READING = Reading(80 * GIB, 12 * GIB, utilisation=0.45, power_watts=310.4)
A, B = (Device(card.uuid, "NVIDIA H100", 80 * GIB) for card in fake_cards(2))


class Holders:
    """Who holds which card, as a test says."""

    def __init__(self, holders: Mapping[str, str] | None = None) -> None:
        self._holders = holders or {}

    def holder(self, uuid: str) -> str | None:
        return self._holders.get(uuid)


def lines_of(*rows: Row, problems: tuple[str, ...] = (), host: Host = HOST) -> list[str]:
    return list(gpus_text(Machine(rows, problems, host)))


# text


def test_a_table_has_a_row_for_each_device() -> None:
    lines = lines_of(Row(A, READING, "free"), Row(B, Reading(), "busy", "12 GiB are in use"))
    assert lines[0].split() == ["device", "name", "memory", "use", "power", "state"]
    assert lines[1].split("  ") == [
        "GPU-a0000000",
        "NVIDIA H100",
        "12 / 80 GiB",
        "45%",
        "310 W",
        "free",
    ]
    # The driver tells nothing of B but its size.
    assert lines[2].split("  ", 2)[2].strip().startswith("? / 80 GiB   -    -      busy: 12 GiB")
    assert lines[2].index("busy") == lines[1].index("free")


@pytest.mark.parametrize(
    ("state", "reason", "text"),
    [
        ("free", None, "free"),
        ("held", "process 7 (train.py, ann)", "held by process 7 (train.py, ann)"),
        (
            "hidden",
            "CUDA_VISIBLE_DEVICES='1' does not name it",
            "hidden: CUDA_VISIBLE_DEVICES='1' does",
        ),
        ("fault", "the GPU has to be reset", "fault: the GPU has to be reset"),
        ("split", "its instances are leased", "split by MIG: its instances are leased"),
    ],
)
def test_the_state_is_told_in_words(state: str, reason: str | None, text: str) -> None:
    row = Row(A, READING, state, reason)  # type: ignore[arg-type]
    assert text in lines_of(row)[1]


def test_an_instance_stands_below_its_card() -> None:
    instance = Device("MIG-1", "1g.10gb", 10 * GIB, "mig", parent=A.uuid)
    lines = lines_of(Row(A, READING, "split", "..."), Row(instance, READING, "free"))
    assert lines[2].startswith("  MIG-1  ")


def test_names_are_as_long_as_it_takes_to_tell_them_apart() -> None:
    twin = replace(A, uuid=A.uuid[:-1] + "1")
    lines = lines_of(Row(A, READING, "free"), Row(twin, READING, "free"), Row(B, READING, "free"))
    assert [line.split()[0] for line in lines[1:4]] == [A.uuid, twin.uuid, "GPU-b0000000"]


def test_without_a_gpu_the_cause_is_one_line() -> None:
    lines = lines_of(problems=("NVML finds no GPU on this machine",))
    assert lines == [
        "No GPU: NVML finds no GPU on this machine",
        "Processor: 4 cores, 8 GiB of memory available: 2 slots for searches without GPUs",
    ]


def test_what_no_row_says_is_a_note() -> None:
    assert lines_of(Row(A, READING, "free"), problems=("GPU 1 cannot be used",))[2] == (
        "Note: GPU 1 cannot be used"
    )


@pytest.mark.parametrize(
    ("host", "text"),
    [
        (Host((0,)), "Processor: 1 core: 1 slot for"),
        (
            Host((0, 1, 2), quota_cores=1.5),
            "Processor: 3 cores, a CPU quota of 1.5 cores: 1 slot for",
        ),
        (Host((0, 1), memory_bytes=64 * GIB), "2 cores, 64 GiB of memory available: 2 slots for"),
    ],
)
def test_the_processor_has_slots_by_cores_quota_and_memory(host: Host, text: str) -> None:
    assert text in lines_of(host=host)[-1]


# data


def test_the_same_as_data() -> None:
    record = gpus_record(Machine((Row(A, READING, "busy", "why"),), ("a problem",), HOST))
    assert json.loads(json.dumps(record))["host"] == {
        "cores": [0, 1, 2, 3],
        "quota_cores": None,
        "memory_bytes": 8 * GIB,
        "total_memory_bytes": 16 * GIB,
        "slots": 2,
    }
    assert record["problems"] == ["a problem"]
    (device,) = record["devices"]
    assert device["uuid"] == A.uuid
    assert (device["state"], device["reason"]) == ("busy", "why")
    assert (device["used_bytes"], device["total_bytes"]) == (12 * GIB, 80 * GIB)
    assert device["power_watts"] == 310.4


# looking, where the driver fails


def test_a_driver_that_hangs_is_given_up(tmp_path: Path) -> None:
    never = threading.Event()

    class Hanging(FakeNvml):
        def nvmlInit(self) -> None:  # noqa: N802
            never.wait()

    machine = look({}, Holders(), nvml=Hanging(), root=tmp_path, seconds=0.01)  # type: ignore[arg-type]
    never.set()
    assert machine.rows == ()
    assert "did not answer within 0.01 s" in machine.problems[0]
    assert next(gpus_text(machine)).startswith("No GPU: the NVIDIA driver did not answer")


def test_a_machine_without_cards_says_so(tmp_path: Path) -> None:
    machine = look({}, Holders(), nvml=FakeNvml(), root=tmp_path)  # type: ignore[arg-type]
    assert (machine.rows, machine.problems) == ((), ("NVML finds no GPU on this machine",))


# looking at a machine


QUERIES = (
    "nvmlInit",
    "nvmlDeviceGetCount",
    "nvmlDeviceGetHandleByIndex",
    "nvmlDeviceGetHandleByUUID",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetName",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetPowerUsage",
)
CARDS = equal_cards(3, percent=45, milliwatts=310_400)
FIRST, SECOND, THIRD = (card.uuid for card in CARDS)


@pytest.fixture
def gpus(machine: nvml_standin.Machine) -> Iterator[nvml_standin.Machine]:
    """Put a machine of three equal cards below NVML."""
    machine.put(*CARDS)
    with load(machine):
        yield machine


def states(holders: Holders | None = None, **environment: str) -> dict[str, tuple[str, str | None]]:
    """Return the state of each device, and the reason for it."""
    found = look(environment, holders or Holders())
    return {row.device.uuid: (row.state, row.reason) for row in found.rows}


def test_free_cards(gpus: nvml_standin.Machine) -> None:
    found = look({}, Holders())
    assert [(row.device.uuid, row.state) for row in found.rows] == [
        (FIRST, "free"),
        (SECOND, "free"),
        (THIRD, "free"),
    ]
    assert found.problems == ()
    reading = found.rows[0].reading
    assert (reading.total_bytes, reading.utilisation, reading.power_watts) == (
        80 * GIB,
        0.45,
        310.4,
    )


def test_a_card_that_others_compute_on_is_busy(gpus: nvml_standin.Machine) -> None:
    gpus.put(
        OnCard(device=FIRST, pid=4711, memory=12 * GIB),
        OnCard(device=SECOND, pid=4712, memory=12 * GIB, is_graphics=True),
        OnCard(device=THIRD, pid=4713, memory=GIB // 2),
    )
    found = states()
    state, reason = found[FIRST]
    assert state == "busy"
    assert reason is not None
    assert "12 GiB of its memory are in use by another program (process 4711)" in reason
    assert [found[uuid][0] for uuid in (SECOND, THIRD)] == ["free", "free"]


def test_a_card_that_is_leased_has_a_holder(gpus: nvml_standin.Machine) -> None:
    gpus.put(OnCard(device=SECOND, pid=4711, memory=12 * GIB))  # it is the holder's
    found = states(Holders({SECOND: "process 4711 (train.py, ann)"}))
    assert found[FIRST] == ("free", None)
    assert found[SECOND] == ("held", "process 4711 (train.py, ann)")


def test_a_lock_of_another_process_is_seen(gpus: nvml_standin.Machine, tmp_path: Path) -> None:
    theirs, ours = CardLocks(tmp_path / "locks"), CardLocks(tmp_path / "locks")
    assert theirs.take(THIRD) is not None
    found = look({}, ours)
    assert [row.state for row in found.rows] == ["free", "free", "held"]
    theirs.drop(THIRD)
    assert [row.state for row in look({}, ours).rows] == ["free", "free", "free"]


@pytest.mark.parametrize(
    ("value", "hidden", "reason", "problem"),
    [
        ("1", (FIRST, THIRD), "CUDA_VISIBLE_DEVICES='1' does not name it", None),
        (f"{SECOND},junk", (FIRST, THIRD), "does not name it", "'junk' names no GPU here"),
        ("", (FIRST, SECOND, THIRD), "leaves no GPU visible", "leaves no GPU visible"),
        ("1,1", (FIRST, SECOND, THIRD), "it names GPU 1 twice", "it names GPU 1 twice"),
    ],
)
def test_a_hidden_card_says_by_which_rule(
    gpus: nvml_standin.Machine,
    value: str,
    hidden: tuple[str, ...],
    reason: str,
    problem: str | None,
) -> None:
    found = look({"CUDA_VISIBLE_DEVICES": value}, Holders())
    assert {row.device.uuid for row in found.rows if row.state == "hidden"} == set(hidden)
    assert all(reason in (row.reason or "") for row in found.rows if row.state == "hidden")
    assert (problem is None) == (found.problems == ())
    assert problem is None or problem in found.problems[0]


def test_a_card_at_fault_has_a_row_and_no_note(gpus: nvml_standin.Machine) -> None:
    gpus.change(SECOND, ecc=3)
    found = look({}, Holders())
    assert [row.state for row in found.rows] == ["free", "fault", "free"]
    assert "memory errors that could not be corrected" in (found.rows[1].reason or "")
    assert found.problems == ()


def test_a_card_that_cannot_be_read_is_a_note(gpus: nvml_standin.Machine) -> None:
    gpus.fail("nvmlDeviceGetHandleByIndex", pynvml.NVML_ERROR_GPU_IS_LOST, FIRST)
    found = look({}, Holders())
    assert [row.device.uuid for row in found.rows] == [SECOND, THIRD]
    assert "has fallen off the bus" in found.problems[0]


def test_a_card_that_is_lost_between_two_questions_is_at_fault(gpus: nvml_standin.Machine) -> None:
    gpus.fail("nvmlDeviceGetHandleByUUID", pynvml.NVML_ERROR_GPU_IS_LOST, FIRST)
    assert states()[FIRST][0] == "fault"


def test_instances_are_slots_and_their_card_is_none(gpus: nvml_standin.Machine) -> None:
    gpus.change(FIRST, mig="on")
    gpus.change(SECOND, mig="on")
    gpus.put(
        Instance(uuid="MIG-1", card=FIRST, place=0, gi=1),
        Instance(uuid="MIG-2", card=FIRST, place=3, gi=2, used=4 * GIB),
    )
    found = look({"CUDA_VISIBLE_DEVICES": "MIG-1,MIG-2"}, Holders())
    rows = [(row.device.uuid, row.device.parent, row.state) for row in found.rows]
    assert rows == [
        (FIRST, None, "split"),
        ("MIG-1", FIRST, "free"),
        ("MIG-2", FIRST, "busy"),
        (SECOND, None, "fault"),
        (THIRD, None, "hidden"),
    ]
    assert "no instance" in (found.rows[3].reason or "")


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_UNKNOWN, pynvml.NVML_ERROR_DRIVER_NOT_LOADED])
@pytest.mark.parametrize("query", QUERIES)
def test_whatever_fails_something_is_said(
    gpus: nvml_standin.Machine, query: str, code: int
) -> None:
    gpus.fail(query, code)
    found = look({}, Holders())
    lines = list(gpus_text(found))
    assert lines[-1].startswith("Processor: ")
    assert found.problems or len(found.rows) == 3
    json.dumps(gpus_record(found), allow_nan=False)


# the command


def test_it_works_on_this_machine_whatever_it_has() -> None:
    assert "\nProcessor: " in f"\n{run_module('aiotune', 'gpus')}"
    record = json.loads(run_module("aiotune", "gpus", "--json"))
    assert record["host"]["slots"] >= 1
    assert record["devices"] or record["problems"]


def test_the_command_looks_at_the_machine(
    machine: nvml_standin.Machine, lock_directory: Path
) -> None:
    machine.put(*CARDS)
    locks = CardLocks(lock_directory)
    assert locks.take(SECOND) is not None
    environment = {
        **os.environ,
        **nvml_standin.environment(machine),
        "CUDA_VISIBLE_DEVICES": "0,1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "aiotune", "gpus"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    _, first, second, third, processor = done.stdout.splitlines()
    assert first.split() == [
        *("GPU-00000000", "NVIDIA", "H100", "80GB", "HBM3"),
        *("0", "/", "80", "GiB", "45%", "310", "W", "free"),
    ]
    assert f"held by process {os.getpid()} (" in second
    assert third.endswith("hidden: CUDA_VISIBLE_DEVICES='0,1' does not name it")
    assert processor.startswith("Processor: ")
