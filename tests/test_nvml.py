from __future__ import annotations

from pathlib import Path

import pytest

from aiotune.devices.device import Device
from aiotune.devices.nvml import Nvml
from aiotune.devices.nvml_discovery import discover
from tests.support.fake_nvml import CODES, QUERIES, FakeCard, FakeInstance, FakeNvml, fake_cards

GIB = 2**30
A, B, C = fake_cards(3)
NOT_THERE = {  # a card that answers so to the question for MIG cannot be split
    FakeNvml.NVML_ERROR_NOT_SUPPORTED,
    FakeNvml.NVML_ERROR_NOT_FOUND,
    FakeNvml.NVML_ERROR_FUNCTION_NOT_FOUND,
}
SPLIT = FakeCard(
    "GPU-s", instances=(FakeInstance("MIG-1", place=0), FakeInstance("MIG-2", place=4))
)


def uuids(nvml: Nvml, **environment: str) -> list[str]:
    return [device.uuid for device in discover(environment, nvml=nvml).devices]


def test_a_machine_of_two_cards() -> None:
    nvml = FakeNvml([A, B])
    found = discover({}, nvml=nvml)
    assert found.devices == tuple(Device(card.uuid, card.name, 80 * GIB) for card in (A, B))
    assert found.problem is None
    assert nvml.sessions == 0


def test_the_instances_of_a_split_card_stand_in_its_place() -> None:
    found = discover({}, nvml=FakeNvml([A, SPLIT]))
    assert [(each.uuid, each.kind) for each in found.devices] == [
        (A.uuid, "gpu"),
        ("MIG-1", "mig"),
        ("MIG-2", "mig"),
    ]
    assert found.devices[1].memory_bytes == 10 * GIB
    assert found.problem is None


def test_a_card_that_could_be_split_but_is_not_is_a_device() -> None:
    assert uuids(FakeNvml([FakeCard("GPU-x", has_mig=True)])) == ["GPU-x"]


def test_a_split_card_without_instances_is_no_device_and_is_reported() -> None:
    found = discover({}, nvml=FakeNvml([FakeCard("GPU-s", instances=())]))
    assert found.devices == ()
    assert found.problem is not None
    assert "GPU-s has MIG on, but no instance" in found.problem


def test_an_instance_knows_its_card() -> None:
    assert [each.parent for each in discover({}, nvml=FakeNvml([A, SPLIT])).devices] == [
        None,
        "GPU-s",
        "GPU-s",
    ]


@pytest.mark.parametrize("memory_bytes", [None, 0])
def test_unknown_memory_leaves_the_device_usable(memory_bytes: int | None, tmp_path: Path) -> None:
    nvml = FakeNvml([FakeCard("GPU-u", memory_bytes=memory_bytes)])
    found = discover({}, nvml=nvml, root=tmp_path)
    assert found.devices == (Device("GPU-u", "NVIDIA H100", None),)
    assert found.problem is None


def test_answers_in_bytes_are_read() -> None:
    assert uuids(FakeNvml([A], is_bytes=True)) == [A.uuid]


def test_the_environment_is_obeyed() -> None:
    assert uuids(FakeNvml([A, B, C]), CUDA_VISIBLE_DEVICES="2,0") == [C.uuid, A.uuid]
    assert uuids(FakeNvml([A, SPLIT]), CUDA_VISIBLE_DEVICES="MIG-2") == ["MIG-2"]


def test_a_machine_without_cards_says_so() -> None:
    found = discover({"CUDA_VISIBLE_DEVICES": "0"}, nvml=FakeNvml())
    assert found.devices == ()
    assert found.problem == "NVML finds no GPU on this machine"


@pytest.mark.parametrize(
    ("code", "words"),
    [(12, "no NVIDIA driver library"), (9, "driver is not loaded"), (18, "restart the machine")],
)
def test_the_usual_causes_are_named(code: int, words: str) -> None:
    problem = discover({}, nvml=FakeNvml([A], {"nvmlInit": code})).problem
    assert problem is not None
    assert words in problem


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("code", CODES)
def test_no_error_of_any_query_escapes(query: str, code: int) -> None:
    nvml = FakeNvml([A, SPLIT], {query: code})
    found = discover({}, nvml=nvml)
    assert found.problem is None or "\n" not in found.problem
    if len(found.devices) < 3 and not (query == "nvmlDeviceGetMigMode" and code in NOT_THERE):
        assert found.problem
    if query == "nvmlInit":
        assert nvml.calls.total() == 1
    elif query != "nvmlShutdown":
        assert nvml.sessions == 0


@pytest.mark.parametrize("code", CODES)
def test_a_broken_card_harms_no_other_and_shifts_no_index(code: int) -> None:
    nvml = FakeNvml([A, B, C], {("nvmlDeviceGetUUID", 1): code})
    assert uuids(nvml) == [A.uuid, C.uuid]
    assert uuids(nvml, CUDA_VISIBLE_DEVICES="2") == [C.uuid]
    assert uuids(nvml, CUDA_VISIBLE_DEVICES="1") == []
    problem = discover({}, nvml=nvml).problem
    assert problem is not None
    assert problem.startswith("GPU 1 of nvidia-smi cannot be used")


def test_a_card_of_another_job_is_not_counted_as_cuda_does_not() -> None:
    nvml = FakeNvml(
        [A, B, C], {("nvmlDeviceGetHandleByIndex", 0): FakeNvml.NVML_ERROR_NO_PERMISSION}
    )
    assert uuids(nvml, CUDA_VISIBLE_DEVICES="0") == [B.uuid]


class _Stub(FakeNvml):
    """A library that answers something else than text, or lacks a function."""

    def __init__(self, error: Exception) -> None:
        super().__init__([A])
        self._error = error

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        raise self._error


@pytest.mark.parametrize("error", [OSError("stub"), AttributeError("stub"), ValueError("stub")])
def test_a_broken_binding_is_a_problem_not_an_exception(error: Exception) -> None:
    nvml = _Stub(error)
    found = discover({}, nvml=nvml)
    assert (found.devices, found.problem) == ((), "NVML: stub")
    assert nvml.sessions == 0


def test_the_real_library_answers_or_says_why_not() -> None:
    found = discover({})
    assert found.devices or found.problem
    assert all(device.uuid.startswith(("GPU-", "MIG-")) for device in found.devices)
