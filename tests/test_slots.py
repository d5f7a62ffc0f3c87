from __future__ import annotations

from typing import Any

import pytest

from aiotune.devices.host import Host
from aiotune.devices.slots import Slots, slots_of
from aiotune.resources import Resources
from tests.support.leasing import gpus

HOST = Host(tuple(range(16)), memory_bytes=2**40)


def slots(*cards: int, host: Host = HOST, **keywords: Any) -> Slots:
    given = {"asked": None, "resources": Resources(), "in_caller": False} | keywords
    return slots_of(gpus(*cards), host, **given)


@pytest.mark.parametrize(
    ("resources", "asked", "most", "reason"),
    [
        (Resources(gpus=0.25), None, 8, "what fits on the GPUs"),
        (Resources(gpus=0.1), None, 16, "the cores"),
        (Resources(gpus="shared", gpu_memory="30GiB"), None, 4, "what fits on the GPUs"),
        (Resources(gpus="shared", gpu_memory="2GiB"), None, 16, "the cores"),
        (Resources(gpus="shared", gpu_memory="2GiB"), 60, 60, "max_concurrent_trials"),
        (Resources(gpus="shared", gpu_memory="2GiB"), 100, 78, "what fits on the GPUs"),
        (Resources(gpus="shared"), None, 16, "the cores"),
        (Resources(gpus="shared"), 3, 3, "max_concurrent_trials"),
        (Resources(gpus="shared"), 1, 1, "max_concurrent_trials"),
    ],
)
def test_runs_that_share_cards_have_as_many_slots_as_they_fit(
    resources: Resources, asked: int | None, most: int, reason: str
) -> None:
    found = slots(80, 80, resources=resources, asked=asked)
    assert (found.start, found.most, found.reason) == (most, most, reason)


def test_cards_that_are_too_small_are_not_counted() -> None:
    assert slots(4, 80, resources=Resources(gpus="shared", gpu_memory="30GiB")).most == 2


def test_a_processor_with_few_cores_bounds_runs_that_share() -> None:
    host = Host((0, 1), quota_cores=1.5)
    shared = Resources(gpus="shared")
    assert slots(80, host=host, resources=shared).reason == "the CPU quota of 1.5 cores"
    assert slots(80, host=host, resources=shared).most == 1
    assert slots(80, 80, 80, host=host, resources=shared).most == 3  # a card each, at least


@pytest.mark.parametrize(
    ("asked", "whole", "most", "reason"),
    [
        (None, 2, 16, "the GPUs"),
        (1, 1, 1, "max_concurrent_trials"),
        (4, 2, 4, "the GPUs"),
        (64, 2, 16, "the GPUs"),
    ],
)
def test_where_each_run_asks_for_something_else_some_may_share(
    asked: int | None, whole: int, most: int, reason: str
) -> None:
    assert slots(80, 80, resources=None, asked=asked) == Slots(whole, most, whole, reason)


def test_whole_cards_are_slots_and_the_processor_s_are_as_ever() -> None:
    assert slots(80, 80) == Slots(2, 2, 2, "the GPUs")
    assert slots() == Slots(16, 16, 16, "the cores", 2**40)
    assert slots(in_caller=True) == Slots(16, 16, 16, "the cores")
    assert slots(asked=3) == Slots(3, 3, 3, "max_concurrent_trials")
