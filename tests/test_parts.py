from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiotune.devices.device import Device
from aiotune.devices.parts import Part, Share, part_on, runs_on, share_of, usable_bytes
from aiotune.resources import Resources

GIB = 2**30


def card(gibibytes: float | None) -> Device:
    return Device("a", "card", None if gibibytes is None else int(gibibytes * GIB))


@pytest.mark.parametrize(
    ("resources", "share"),
    [
        (Resources(), None),
        (Resources(gpus=2, gpu_memory="8GiB"), None),
        (Resources(gpus=0.25), Share(0.25, None)),
        (Resources(gpus=0.5, gpu_memory=10), Share(0.5, 10)),
        (Resources(gpus="shared", gpu_memory=10), Share(None, 10)),
        (Resources(gpus="shared"), Share()),
    ],
)
def test_what_resources_ask_of_a_card(resources: Resources, share: Share | None) -> None:
    assert share_of(resources) == share


@pytest.mark.parametrize(
    ("total", "usable"),
    [(80 * GIB, 80 * GIB - 80 * GIB // 64), (4 * GIB, 4 * GIB - 2**28), (2**29, 2**29 - 2**27)],
)
def test_the_driver_keeps_a_reserve(total: int, usable: int) -> None:
    assert usable_bytes(total) == usable


def test_a_fraction_is_a_part_of_what_runs_may_have() -> None:
    part = part_on(card(64), Share(0.25))
    usable = usable_bytes(64 * GIB)
    assert part == Part(0.25, usable // 4, usable // 4 / (64 * GIB))


def test_an_amount_of_memory_counts_as_its_part() -> None:
    part = part_on(card(64), Share(None, 8 * GIB))
    assert part == Part(8 * GIB / usable_bytes(64 * GIB), 8 * GIB, 0.125, is_packed=True)


def test_a_fraction_with_an_amount_keeps_both() -> None:
    assert part_on(card(64), Share(0.5, 8 * GIB)) == Part(0.5, 8 * GIB, 0.125)


@pytest.mark.parametrize(
    ("total", "share"),
    [
        (64, Share()),  # nothing is known
        (64, Share(None, 64 * GIB)),  # it leaves nothing to the driver
        (None, Share(None, 8 * GIB)),  # a part of what?
    ],
)
def test_what_cannot_be_shared_is_all_of_the_card(total: float | None, share: Share) -> None:
    assert part_on(card(total), share) is None


@pytest.mark.parametrize("memory_bytes", [None, 8 * GIB])
def test_of_an_unknown_memory_a_fraction_can_be_had(memory_bytes: int | None) -> None:
    assert part_on(card(None), Share(0.25, memory_bytes)) == Part(0.25, memory_bytes, 0.25)


@pytest.mark.parametrize(
    ("total", "share", "number"),
    [
        (64, Share(0.25), 4),
        (64, Share(0.1), 10),
        (64, Share(1 / 3), 3),
        (64, Share(0.6), 1),
        (64, Share(None, 2 * GIB), 31),
        (64, Share(0.1, 20 * GIB), 3),  # the memory says no first
        (None, Share(0.25, 2 * GIB), 4),
        (None, Share(None, 2 * GIB), 1),
        (64, Share(None, 64 * GIB), 1),
        (64, Share(), None),
    ],
)
def test_how_many_runs_a_card_holds(total: float | None, share: Share, number: int | None) -> None:
    assert runs_on(card(total), share) == number


@settings(deadline=None)
@given(
    total=st.integers(1, 10**12),
    fraction=st.one_of(st.none(), st.floats(0.01, 0.99)),
    part=st.floats(0.001, 1),
)
def test_so_many_runs_are_never_too_many(total: int, fraction: float | None, part: float) -> None:
    device = Device("a", "card", total)
    share = Share(fraction, max(1, int(part * usable_bytes(total))))
    number, one = runs_on(device, share), part_on(device, share)
    assert number is not None
    assert one is not None
    assert one.memory_bytes is not None
    assert number * one.memory_bytes <= usable_bytes(total)
    assert number * one.fraction <= 1 + 1e-6
    assert 0 < one.memory_fraction <= 1
