from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import pynvml
import pytest

from aiotune.devices.device import Process, Reading
from aiotune.devices.nvml_readings import Sensor
from tests.support.fake_nvml import CODES
from tests.support.nvml_standin import Card, Instance, Machine, OnCard, equal_cards, load

GIB = 2**30
A, B = (card.uuid for card in equal_cards(2))
SPLIT = Card(uuid="GPU-s", mig="on")
INSTANCES = (
    Instance(uuid="MIG-1", card="GPU-s", place=0, gi=1),
    Instance(uuid="MIG-2", card="GPU-s", place=4, gi=5),
)
DEVICES = (A, B, "MIG-1", "MIG-2")

# All that a sensor calls, by the names that the library exports.
CALLS = (
    "nvmlInitWithFlags",
    "nvmlShutdown",
    "nvmlDeviceGetHandleByUUID",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetDeviceHandleFromMigDeviceHandle",
    "nvmlDeviceGetGpuInstanceId",
    "nvmlEventSetCreate",
    "nvmlEventSetFree",
    "nvmlEventSetWait_v2",
    "nvmlDeviceRegisterEvents",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetComputeRunningProcesses_v2",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetGraphicsRunningProcesses_v2",
    "nvmlDeviceGetGraphicsRunningProcesses_v3",
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetTotalEnergyConsumption",
    "nvmlDeviceGetTotalEccErrors",
    "nvmlDeviceGetRemappedRows",
    "nvmlDeviceGetFieldValues",
)
# What says that a card, or the driver, cannot be used, whatever was asked.
BROKEN = {
    pynvml.NVML_ERROR_UNINITIALIZED,
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND,
    pynvml.NVML_ERROR_GPU_IS_LOST,
    pynvml.NVML_ERROR_RESET_REQUIRED,
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    pynvml.NVML_ERROR_GPU_NOT_FOUND,
}
# What an error of these keeps from being known of a device: nothing else.
LOST: Mapping[str, Mapping[str, object]] = {
    "nvmlDeviceGetMemoryInfo": {"total_bytes": None, "used_bytes": None},
    "nvmlDeviceGetMemoryInfo_v2": {"reserved_bytes": None},
    "nvmlDeviceGetComputeRunningProcesses_v2": {"processes": ()},
    "nvmlDeviceGetComputeRunningProcesses_v3": {},
    "nvmlDeviceGetGraphicsRunningProcesses_v2": {},
    "nvmlDeviceGetGraphicsRunningProcesses_v3": {},
    "nvmlDeviceGetUtilizationRates": {"utilisation": None},
    "nvmlDeviceGetPowerUsage": {"power_watts": None},
    "nvmlDeviceGetTotalEnergyConsumption": {"energy_joules": None},
    "nvmlDeviceGetTotalEccErrors": {},
    "nvmlDeviceGetRemappedRows": {},
    "nvmlDeviceGetFieldValues": {},
}
# Nothing that card A, of which the driver has newer answers, is asked.
OLDER = {
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetComputeRunningProcesses_v2",
    "nvmlDeviceGetGraphicsRunningProcesses_v2",
}


@pytest.fixture
def loaded(machine: Machine) -> Iterator[Machine]:
    """Return a machine below the binding: a card, one with an older driver's answers, one split by MIG."""
    machine.put(*equal_cards(2), SPLIT, *INSTANCES)
    machine.change(B, memory="v1")
    for function in CALLS:
        if function.endswith("RunningProcesses_v3"):
            machine.fail(function, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND, B)
    machine.put(*(OnCard(device=uuid, pid=7, memory=2 * GIB) for uuid in (A, B)))
    machine.put(OnCard(device="MIG-1", pid=8))
    with load(machine):
        yield machine


@pytest.fixture
def sensor(tmp_path: Path) -> Iterator[Sensor]:
    sensor = Sensor(root=tmp_path)
    yield sensor
    sensor.close()


def test_a_card_tells_all_of_itself(loaded: Machine, sensor: Sensor) -> None:
    loaded.change(A, percent=35, milliwatts=250_500, millijoules=7_000)
    loaded.put(OnCard(device=A, pid=9, memory=None, is_graphics=True))
    assert sensor.read([A])[A] == Reading(
        total_bytes=80 * GIB,
        used_bytes=2 * GIB + GIB // 2,
        reserved_bytes=GIB // 2,
        processes=(Process(7, 2 * GIB, False), Process(9, None, True)),
        utilisation=0.35,
        power_watts=250.5,
        energy_joules=7.0,
    )


def test_what_an_instance_cannot_tell_is_none(loaded: Machine, sensor: Sensor) -> None:
    assert sensor.read(["MIG-1"])["MIG-1"] == Reading(
        total_bytes=10 * GIB,
        used_bytes=GIB,
        reserved_bytes=0,
        processes=(Process(8, GIB, False),),
    )


def test_a_process_that_computes_and_draws_computes(loaded: Machine, sensor: Sensor) -> None:
    loaded.put(OnCard(device=A, pid=7, is_graphics=True))
    assert sensor.read([A])[A].processes == (Process(7, 2 * GIB, False),)


def test_memory_and_processes_as_older_drivers_tell_them(loaded: Machine, sensor: Sensor) -> None:
    reading = sensor.read([B])[B]
    assert reading.processes == (Process(7, 2 * GIB, False),)
    assert (reading.total_bytes, reading.used_bytes) == (80 * GIB, 2 * GIB + GIB // 2)
    assert reading.reserved_bytes is None


@pytest.mark.parametrize(("memory", "used"), [(3 * GIB, 5 * GIB), (None, None)])
def test_memory_that_device_and_host_share(
    loaded: Machine, tmp_path: Path, memory: int | None, used: int | None
) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 134217728 kB\nMemAvailable: 1 kB\n")
    loaded.change(A, memory="none")
    loaded.put(OnCard(device=A, pid=9, memory=memory))
    sensor = Sensor(root=tmp_path)
    reading = sensor.read([A])[A]
    sensor.close()
    assert (reading.total_bytes, reading.used_bytes) == (128 * GIB, used)
    assert reading.fault is None


def test_memory_that_nobody_knows(loaded: Machine, tmp_path: Path) -> None:
    loaded.change(A, memory="none")
    sensor = Sensor(root=tmp_path)
    reading = sensor.read([A])[A]
    sensor.close()
    assert (reading.total_bytes, reading.fault) == (None, None)


def test_readings_follow_the_machine(loaded: Machine, sensor: Sensor) -> None:
    assert sensor.read([A])[A].used_bytes == 2 * GIB + GIB // 2
    loaded.end(7)
    assert sensor.read([A])[A].used_bytes == GIB // 2
    assert [name for name, _ in loaded.calls].count("nvmlInitWithFlags") == 1


def test_the_tests_of_errors_know_all_that_is_called(loaded: Machine, sensor: Sensor) -> None:
    sensor.read(DEVICES)
    sensor.faults(0)
    sensor.close()
    assert {name for name, _ in loaded.calls} == set(CALLS)


@pytest.mark.parametrize("function", CALLS)
def test_no_error_of_any_call_escapes(loaded: Machine, sensor: Sensor, function: str) -> None:
    clean = sensor.read(DEVICES)
    for code in CODES:
        loaded.fail(function, code)
        readings = sensor.read(DEVICES)
        assert list(readings) == list(DEVICES)
        assert all(is_explained(readings[uuid], clean[uuid], function) for uuid in DEVICES)
        assert sensor.faults(0) == {}
        sensor.close()
        loaded.fail(function, 0)
        assert sensor.read(DEVICES) == clean


def is_explained(reading: Reading, clean: Reading, function: str) -> bool:
    """Return whether a reading lacks nothing but what the function tells, or says what is wrong."""
    if reading.fault is not None:
        return bool(reading.fault.strip()) and "\n" not in reading.fault
    return reading in (clean, dataclasses.replace(clean, **LOST.get(function, {})))  # type: ignore[arg-type]


@pytest.mark.parametrize("function", [name for name in CALLS if name.startswith("nvmlDevice")])
def test_every_error_of_one_card_leaves_the_others(
    loaded: Machine, sensor: Sensor, function: str
) -> None:
    clean = sensor.read(DEVICES)
    for code in CODES:
        loaded.fail(function, code, A)
        readings = sensor.read(DEVICES)
        assert {**readings, A: None} == {**clean, A: None}
        if code in BROKEN and function in LOST and function not in OLDER:
            assert str(readings[A].fault).startswith("it cannot be read: ")
        loaded.fail(function, 0, A)
    assert sensor.read(DEVICES) == clean


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"ecc": 1}, "memory errors that could not be corrected"),
        ({"remap": 1}, "the card is to be exchanged"),
        ({"recovery": 4}, "the GPU has to be reset"),
        ({"is_lost": True}, "it cannot be read: the GPU has fallen off the bus"),
    ],
)
def test_a_fault_goes_when_the_card_is_well_again(
    loaded: Machine, sensor: Sensor, figures: dict[str, object], words: str
) -> None:
    clean = sensor.read(DEVICES)
    for card, devices in ((A, {A}), ("GPU-s", {"MIG-1", "MIG-2"})):
        well = next(each for each in loaded.cards if each.uuid == card)
        loaded.change(card, **figures)
        readings = sensor.read(DEVICES)
        assert {uuid for uuid, each in readings.items() if words in (each.fault or "")} == devices
        assert {uuid for uuid, each in readings.items() if each == clean[uuid]} == {
            *DEVICES
        } - devices
        loaded.change(card, **{name: getattr(well, name) for name in figures})
        assert sensor.read(DEVICES) == clean


def test_a_card_that_is_gone_is_used_again_when_it_is_back(loaded: Machine, sensor: Sensor) -> None:
    clean = sensor.read([A, B])
    card = loaded.cards[0]
    loaded.remove(A)
    for _ in range(20):
        readings = sensor.read([A, B])
        assert str(readings[A].fault).startswith("it ")
        assert readings[B] == clean[B]
    assert readings[A].fault == "it is gone: the driver does not know it"
    loaded.put(card)
    for _ in range(8):  # it looks for cards less often after a while
        readings = sensor.read([A, B])
    assert readings == clean


def test_a_sensor_that_sees_no_driver_sees_it_when_it_is_there(
    loaded: Machine, sensor: Sensor
) -> None:
    loaded.unload()
    sensor.open()
    fault = "NVML: the NVIDIA driver is not loaded (Driver Not Loaded)"
    assert sensor.read([A, B]) == {A: Reading(fault=fault), B: Reading(fault=fault)}
    assert sensor.faults(0) == {}
    loaded.write()
    assert sensor.read([A])[A].fault is None


def test_other_code_that_closes_nvml_once_too_often_is_not_noticed(
    loaded: Machine, sensor: Sensor
) -> None:
    clean = sensor.read(DEVICES)
    pynvml.nvmlShutdown()
    assert sensor.read(DEVICES) == clean


def test_a_closed_sensor_opens_again(loaded: Machine, sensor: Sensor) -> None:
    sensor.open()
    sensor.open()
    clean = sensor.read([A])
    sensor.close()
    sensor.close()
    names = [name for name, _ in loaded.calls]
    assert (names.count("nvmlInitWithFlags"), names.count("nvmlShutdown")) == (1, 1)
    assert sensor.read([A]) == clean


def test_why_a_figure_is_not_known_is_logged_once(
    loaded: Machine, sensor: Sensor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "aiotune.devices")
    loaded.fail("nvmlDeviceGetPowerUsage", pynvml.NVML_ERROR_UNKNOWN)
    for _ in range(2):
        assert sensor.read([A])[A].power_watts is None
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["nvmlDeviceGetPowerUsage has no answer: Unknown Error"]


# Xid errors.


def test_an_xid_is_told_once_of_the_card_that_it_befell(loaded: Machine, sensor: Sensor) -> None:
    loaded.xid(A, 48)  # before anybody looked
    sensor.read(DEVICES)
    assert sensor.faults(0) == {}
    loaded.xid(A, 79)
    loaded.xid(B, 1234)
    assert sensor.faults(0) == {A: "Xid 79 (fallen off the bus)", B: "Xid 1234"}
    assert sensor.faults(0) == {}


@pytest.mark.parametrize("number", [13, 31, 43, 45, 68, 109])
def test_an_error_of_a_program_is_no_fault_of_the_card(
    loaded: Machine, sensor: Sensor, number: int
) -> None:
    sensor.read(DEVICES)
    loaded.xid(A, number)
    assert sensor.faults(0) == {}


def test_an_xid_of_a_split_card_is_its_instances(loaded: Machine, sensor: Sensor) -> None:
    sensor.read(DEVICES)
    loaded.xid("GPU-s", 95, gpu_instance=5)
    assert sensor.faults(0) == {"MIG-2": "Xid 95 (memory error, not contained)"}
    loaded.xid("GPU-s", 62)
    assert set(sensor.faults(0)) == {"MIG-1", "MIG-2"}


def test_a_lost_card_is_known_by_its_handle(loaded: Machine, sensor: Sensor) -> None:
    sensor.read(DEVICES)
    loaded.xid(A, 79)
    loaded.change(A, is_lost=True)
    assert set(sensor.faults(0)) == {A}


def test_an_xid_is_not_lost_when_another_card_is_at_fault(loaded: Machine, sensor: Sensor) -> None:
    sensor.read(DEVICES)
    loaded.xid(B, 64)
    loaded.change(A, ecc=1)
    sensor.read(DEVICES)
    assert set(sensor.faults(0)) == {B}


def test_a_sensor_waits_for_an_xid(loaded: Machine, sensor: Sensor) -> None:
    sensor.read(DEVICES)
    loaded.delay("nvmlEventSetWait_v2", 1)
    assert sensor.faults(0.02) == {}
    waits = [name for name, _ in loaded.calls].count("nvmlEventSetWait_v2")
    loaded.xid(A, 48)
    assert set(sensor.faults(60)) == {A}
    assert waits > 1


def test_cards_without_events_have_none(loaded: Machine, sensor: Sensor) -> None:
    for card in (A, B, "GPU-s"):
        loaded.change(card, has_events=False)
    sensor.read(DEVICES)
    loaded.xid(A, 79)
    assert sensor.faults(60) == {}


def test_cards_are_followed_again_after_an_error_of_the_events(
    loaded: Machine, sensor: Sensor
) -> None:
    sensor.read(DEVICES)
    loaded.fail("nvmlEventSetWait_v2", pynvml.NVML_ERROR_UNKNOWN)
    assert sensor.faults(0) == {}
    loaded.fail("nvmlEventSetWait_v2", 0)
    sensor.read(DEVICES)
    loaded.xid(A, 79)
    assert set(sensor.faults(0)) == {A}
