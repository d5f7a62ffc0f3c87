from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.resources import Limits, Resources, check_answer, parse_memory


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (0, 0),
        (8_000_000, 8_000_000),
        ("8GiB", 8 * 2**30),
        ("8 gib", 8 * 2**30),
        ("8Gi", 8 * 2**30),
        ("8GB", 8 * 10**9),
        ("8g", 8 * 10**9),
        ("500MB", 500 * 10**6),
        ("1.5 TiB", 3 * 2**39),
        ("12", 12),
        ("12b", 12),
        (" 2 KiB ", 2048),
    ],
)
def test_memory_is_read(text: int | str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        -1,
        "GiB",
        "8 apples",
        "1.2.3GB",
        ".",
        "-1",
        "-8GiB",
        "1e3",
        "8i",
        "8iB",
        True,
        None,
        1.5j,
    ],
)
def test_other_text_is_refused_with_the_remedy(text: Any) -> None:
    with pytest.raises(FatalValueError, match="8GiB"):
        parse_memory(text)


@settings(deadline=None)
@given(st.integers(0, 4096), st.sampled_from(["KiB", "MiB", "GiB", "TiB"]))
def test_binary_units_are_exact(number: int, unit: str) -> None:
    power = {"KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}[unit]
    assert parse_memory(f"{number}{unit}") == number * 2**power


def test_resources_leave_every_choice_open_by_default() -> None:
    assert Resources() == Resources(gpus=None, gpu_memory=None, cpus=None)
    assert Resources().gpu_memory_bytes == 0
    assert Resources(gpus=2, gpu_memory="1GiB").gpu_memory_bytes == 2**30


def test_memory_of_the_machine_is_a_limit() -> None:
    assert Resources().memory_bytes is None
    assert Resources(memory="4GiB").memory_bytes == 4 * 2**30
    assert Resources(gpus="shared", memory="4GiB").alone().memory_bytes == 4 * 2**30


@pytest.mark.parametrize("memory", [0, 4, "4", "15MiB", "much", -1, True])
def test_memory_that_no_run_does_with_is_refused(memory: Any) -> None:
    with pytest.raises(FatalValueError, match=r"4GiB|8GiB"):
        Resources(memory=memory)


@pytest.mark.parametrize(
    ("keywords", "error"),
    [
        ({"gpus": -1}, FatalValueError),
        ({"gpus": "1"}, FatalTypeError),
        ({"gpus": True}, FatalTypeError),
        ({"gpus": 0.0}, FatalValueError),
        ({"gpus": 1.0}, FatalValueError),
        ({"gpus": -0.5}, FatalValueError),
        ({"gpus": float("nan")}, FatalValueError),
        ({"gpus": "all"}, FatalTypeError),
        ({"gpus": ["GPU-1"]}, FatalTypeError),
        ({"cpus": 0}, FatalValueError),
        ({"cpus": 1.5}, FatalTypeError),
        ({"gpus": 0, "gpu_memory": "8GiB"}, FatalValueError),
    ],
)
def test_impossible_resources_are_refused(keywords: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(keywords))):
        Resources(**keywords)


@pytest.mark.parametrize(
    ("gpus", "is_shared"), [(None, False), (0, False), (2, False), (0.5, True), ("shared", True)]
)
def test_a_part_of_a_gpu_is_shared(gpus: Any, is_shared: bool) -> None:
    assert Resources(gpus=gpus).is_shared is is_shared


def test_whole_gpus_are_whole_numbers() -> None:
    with pytest.raises(FatalValueError, match=r"gpus=1$"):
        Resources(gpus=1.5)


def test_a_shared_gpu_without_memory_is_refused() -> None:
    with pytest.raises(FatalValueError, match="gpu_memory=0"):
        Resources(gpus="shared", gpu_memory=0)
    assert Resources(gpus=1, gpu_memory=0).gpu_memory_bytes == 0


@pytest.mark.parametrize(
    ("resources", "had", "alone"),
    [
        (Resources(gpus=0.5, cpus=2), 0, Resources(gpus=1, cpus=2)),
        (Resources(gpus="shared"), 5, Resources(gpus=1, gpu_memory=5)),
        (Resources(gpus="shared", gpu_memory=8), 5, Resources(gpus=1, gpu_memory=8)),
        (Resources(gpus=2, gpu_memory=8), 9, Resources(gpus=2, gpu_memory=8)),
        (Resources(), 9, Resources()),
    ],
)
def test_who_shares_a_gpu_can_have_one_alone(
    resources: Resources, had: int, alone: Resources
) -> None:
    assert resources.alone(had) == alone


@pytest.mark.parametrize("answer", [None, {"gpus": 1}, 2, Resources])
def test_a_function_that_returns_something_else_is_refused(answer: Any) -> None:
    check_answer(Resources(gpus=1))
    with pytest.raises(FatalTypeError, match=r"return aiotune\.Resources"):
        check_answer(answer)


def test_limits_are_optional_and_take_any_target() -> None:
    assert Limits().max_time is None
    assert Limits(target=-3.5).target == -3.5
    assert Limits(max_time=60, trial_timeout=60).trial_timeout == 60


@pytest.mark.parametrize(
    ("keywords", "error"),
    [
        ({"max_time": 0}, FatalValueError),
        ({"trial_timeout": -1}, FatalValueError),
        ({"max_epochs": 0}, FatalValueError),
        ({"stall_timeout": 0}, FatalValueError),
        ({"stall_timeout": 20, "max_time": 10}, FatalValueError),
        ({"stall_timeout": 20, "trial_timeout": 10}, FatalValueError),
        ({"patience": 0}, FatalValueError),
        ({"max_time": "1h"}, FatalTypeError),
        ({"patience": True}, FatalTypeError),
        ({"max_time": float("nan")}, FatalValueError),
        ({"trial_timeout": 20, "max_time": 10}, FatalValueError),
    ],
)
def test_impossible_limits_are_refused(keywords: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(keywords))):
        Limits(**keywords)


def test_an_amount_of_memory_is_checked_early() -> None:
    with pytest.raises(FatalValueError, match="'lots' is no amount of memory"):
        Resources(gpu_memory="lots")
