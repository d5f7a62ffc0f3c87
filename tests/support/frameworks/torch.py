"""Stands for PyTorch, in a process of a test."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from types import SimpleNamespace

from tests.support import gpu_framework
from tests.support.gpu_framework import Exhausted, Pool

_pools: list[Pool] | None = None
_queue: list[Callable[[], object]] = []


class OutOfMemoryError(RuntimeError):
    pass


def manual_seed(seed: int) -> None: ...


def set_num_threads(number: int) -> None: ...


def set_num_interop_threads(number: int) -> None: ...


def take(size: int) -> None:
    """Stands for an operation on the GPU."""
    try:
        _initialized()[0].take(size)
    except Exhausted as error:
        raise OutOfMemoryError(f"CUDA out of memory. {error}") from None


def _initialized() -> list[Pool]:
    global _pools
    if _pools is None:
        _pools = [Pool(card) for card in gpu_framework.cards()]
        for each in _queue:
            each()
    return _pools


def _lazy_call(callable: Callable[[], object]) -> None:
    if _pools is None:
        _queue.append(callable)
    else:
        callable()


def _set_fraction(fraction: float, device: int) -> None:
    pool = _initialized()[device]
    pool.limit = int(fraction * pool.total)


def _is_available() -> bool:
    """As keras asks when it is imported: by NVML, which it never closes, if the variable says so."""
    if os.environ.get("PYTORCH_NVML_BASED_CUDA_CHECK") != "1":
        return bool(gpu_framework.cards())
    library = ctypes.CDLL("libnvidia-ml.so.1")
    count = ctypes.c_uint()
    assert library.nvmlInit_v2() == 0
    assert library.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0
    return bool(count.value) and os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1")


cuda = SimpleNamespace(
    _lazy_call=_lazy_call,
    is_available=_is_available,
    is_initialized=lambda: _pools is not None,
    device_count=lambda: len(_initialized()),
    get_device_properties=lambda device: SimpleNamespace(total_memory=_initialized()[device].total),
    set_per_process_memory_fraction=_set_fraction,
    max_memory_reserved=lambda device: _initialized()[device].peak,
)
if "per_process_memory_fraction:" in (options := os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "")):
    _lazy_call(lambda: _set_fraction(float(options.rpartition(":")[2]), 0))
