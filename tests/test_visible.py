from __future__ import annotations

import pytest

from aiotune.devices.device import Card, Device
from aiotune.devices.visible import visible


def gpu(uuid: str, name: str = "H100") -> Card:
    return Card(uuid, name, (Device(uuid, name, 80 * 2**30),))


# Four cards; the last is split by MIG into two.
MIG = (Device("MIG-71", "1g", 10 * 2**30, "mig"), Device("MIG-72", "1g", 10 * 2**30, "mig"))
CARDS = (gpu("GPU-aa1"), gpu("GPU-aa2"), gpu("GPU-b1"), Card("GPU-c1", "H100", MIG))
EVERYTHING = ["GPU-aa1", "GPU-aa2", "GPU-b1", "MIG-71", "MIG-72"]

FORMS: list[tuple[str | None, list[str]]] = [
    (None, EVERYTHING),
    ("", []),
    (" ", []),
    ("-1", []),
    ("none", []),
    ("all", []),
    ("NoDevFiles", []),
    ("0", ["GPU-aa1"]),
    ("2", ["GPU-b1"]),
    ("0,1", ["GPU-aa1", "GPU-aa2"]),
    ("2,0", ["GPU-b1", "GPU-aa1"]),  # in the order of the list
    (" 1 , 2 ", ["GPU-aa2", "GPU-b1"]),
    ("+1", ["GPU-aa2"]),
    ("01", ["GPU-aa2"]),
    ("1x,2y", ["GPU-aa2", "GPU-b1"]),  # strtoul
    ("0x1", ["GPU-aa1"]),  # strtoul, base 10
    ("0,", ["GPU-aa1"]),
    (",0", []),
    ("0,,1", ["GPU-aa1"]),
    ("0,-1,1", ["GPU-aa1"]),
    ("0,7,1", ["GPU-aa1"]),
    ("4", []),
    ("0,junk,1", ["GPU-aa1"]),
    ("0;1", ["GPU-aa1"]),
    ("0,0", []),
    ("0,1,0", []),
    ("9,9", []),
    ("0,-1,0", ["GPU-aa1"]),
    ("3", ["MIG-71", "MIG-72"]),  # a split card: its instances
    ("99999999999999999999", []),
    ("GPU-aa1", ["GPU-aa1"]),
    ("GPU-b", ["GPU-b1"]),
    ("GPU-b1,GPU-aa1", ["GPU-b1", "GPU-aa1"]),
    ("GPU-aa", []),  # two cards begin so
    ("GPU-", []),
    ("GPU-zz", []),
    ("GPU-b,GPU-zz,GPU-aa1", ["GPU-b1"]),
    ("GPU-b, GPU-aa1", ["GPU-b1"]),  # a blank makes another name
    ("GPU-b,GPU-b", []),
    ("GPU-b,GPU-b1", []),  # the same card by two names
    ("GPU-b,0", ["GPU-b1"]),  # one kind of name only
    ("0,GPU-b", ["GPU-aa1"]),
    ("GPU-b,MIG-71", ["GPU-b1"]),
    ("gpu-b1", []),
    ("MIG-71", ["MIG-71"]),
    ("MIG-72,MIG-71", ["MIG-72", "MIG-71"]),
    ("MIG-7", []),
    ("MIG-71,GPU-b1", ["MIG-71"]),
    ("MIG-GPU-c1/1/0", []),  # the name that drivers before R470 gave
    ("GPU-c1", ["MIG-71", "MIG-72"]),
    ("-0", ["GPU-aa1"]),
    ("--1", []),
    ("0,-2,1", ["GPU-aa1"]),
    ("1.9", ["GPU-aa2"]),
    ("1e1", ["GPU-aa2"]),
    ("0 1", ["GPU-aa1"]),
    ("\t1,\n2", ["GPU-aa2", "GPU-b1"]),
    ("0,\u0661", ["GPU-aa1"]),  # another script's digit
    ("3,0", ["MIG-71", "MIG-72", "GPU-aa1"]),
    ("0,3,7", ["GPU-aa1", "MIG-71", "MIG-72"]),
    ("0,MIG-71", ["GPU-aa1"]),
    ("junk,0", []),
    ("GPU", []),
    ("GPU-aa1 ", []),
    (" GPU-aa1", []),
    ("GPU-aa1,", ["GPU-aa1"]),
    ("GPU-aa1,,GPU-b1", ["GPU-aa1"]),
    (",GPU-aa1", []),
    ("GPU-c,GPU-b", ["MIG-71", "MIG-72", "GPU-b1"]),
    ("GPU-c1,GPU-c1", []),
    ("GPU-c1,MIG-71", ["MIG-71", "MIG-72"]),
    ("MIG-", []),
    ("mig-71", []),
    ("MIG-71,MIG-71", []),
    ("MIG-71,,MIG-72", ["MIG-71"]),
    ("MIG-71,junk", ["MIG-71"]),
]


@pytest.mark.parametrize(("text", "expected"), FORMS)
def test_every_form_leaves_what_cuda_leaves(text: str | None, expected: list[str]) -> None:
    environment = {} if text is None else {"CUDA_VISIBLE_DEVICES": text}
    found = visible(CARDS, environment)
    assert [device.uuid for device in found.devices] == expected
    if not expected:
        assert found.problem is not None
        assert found.problem.startswith(f"CUDA_VISIBLE_DEVICES={text!r} leaves no GPU visible")


@pytest.mark.parametrize("text", ["0,7,1", "GPU-b,GPU-zz", "0,junk"])
def test_ignored_entries_are_reported_beside_devices(text: str) -> None:
    problem = visible(CARDS, {"CUDA_VISIBLE_DEVICES": text}).problem
    assert problem is not None
    assert text.split(",")[1] in problem
    assert "ignored" in problem


@pytest.mark.parametrize("text", ["0,1", "0,", "0,-1", "GPU-aa1,GPU-b1"])
def test_a_sound_list_has_no_problem(text: str) -> None:
    assert visible(CARDS, {"CUDA_VISIBLE_DEVICES": text}).problem is None


@pytest.mark.parametrize(
    ("environment", "is_reported"),
    [
        ({"CUDA_VISIBLE_DEVICES": "0"}, True),
        ({"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "FASTEST_FIRST"}, True),
        ({"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, False),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, False),  # all of them, in whatever order
        ({"CUDA_VISIBLE_DEVICES": "GPU-a"}, False),
        ({}, False),
    ],
)
def test_an_index_among_different_models_is_reported_as_unsure(
    environment: dict[str, str], is_reported: bool
) -> None:
    found = visible([gpu("GPU-a", "T4"), gpu("GPU-b", "H100")], environment)
    assert found.devices[0].uuid == "GPU-a"
    assert (found.problem is not None and "CUDA_DEVICE_ORDER" in found.problem) == is_reported


def test_a_card_that_cannot_be_read_keeps_its_index() -> None:
    cards = [Card(None, "unknown", ()), gpu("GPU-b1", "unknown")]
    assert visible(cards, {"CUDA_VISIBLE_DEVICES": "0"}).devices == ()
    assert visible(cards, {"CUDA_VISIBLE_DEVICES": "1"}).devices == cards[1].devices


def test_the_names_that_drivers_before_r470_give_instances_are_obeyed() -> None:
    uuids = ["MIG-GPU-c1/1/0", "MIG-GPU-c1/2/0"]
    split = Card("GPU-c1", "A100", tuple(Device(uuid, "1g", None, "mig") for uuid in uuids))
    cards = [gpu("GPU-b1"), split]
    for text, expected in [
        ("MIG-GPU-c1/2/0", uuids[1:]),
        ("MIG-GPU-c1/2/0,MIG-GPU-c1/1/0", uuids[::-1]),
        ("MIG-GPU-c1", []),  # both
        ("MIG-GPU-c1/3/0", []),
    ]:
        found = visible(cards, {"CUDA_VISIBLE_DEVICES": text})
        assert [device.uuid for device in found.devices] == expected


@pytest.mark.parametrize("text", ["GPU-a,GPU-b1", "0,1"])
def test_a_card_at_fault_does_not_end_the_list(text: str) -> None:
    cards = [Card("GPU-a1", "H100", ()), gpu("GPU-b1")]
    found = visible(cards, {"CUDA_VISIBLE_DEVICES": text})
    assert (found.devices, found.problem) == (cards[1].devices, None)
