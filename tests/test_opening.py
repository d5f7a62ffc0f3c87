from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from aiotune.devices.host import read_host
from aiotune.devices.opening import open_pool
from aiotune.errors import DeviceError, FatalTypeError, FatalValueError
from aiotune.resources import Resources
from tests.support.fake_nvml import FakeCard, FakeNvml, fake_cards

A, B, C = fake_cards(3)
THREE = FakeNvml([A, B, C])
NONE = FakeNvml(faults={"nvmlInit": 12})
CORES = read_host().cores


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


async def test_without_gpus_the_processor_has_slots(tmp_path: Path) -> None:
    pool = await open_pool(environment={}, nvml=NONE, root=tmp_path)
    assert pool.total.gpus == ()
    assert pool.slots == len(CORES)


async def test_the_cpu_quota_bounds_the_slots(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text("100000 100000\n")
    pool = await open_pool(environment={}, nvml=NONE, root=tmp_path)
    assert pool.slots == 1
    lease = pool.lease_nowait(Resources())
    assert lease is not None
    assert lease.cores == CORES


async def test_a_stated_number_of_slots_holds_on_the_processor() -> None:
    pool = await open_pool(environment={}, nvml=NONE, max_concurrent=len(CORES) + 1)
    assert pool.slots == len(CORES) + 1


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


async def test_this_process_s_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    pool = await open_pool(nvml=THREE)
    assert pool.total.gpus == (B.uuid,)
