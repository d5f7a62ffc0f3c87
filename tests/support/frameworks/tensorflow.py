"""Stands for TensorFlow, in a process of a test."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

from tests.support import gpu_framework
from tests.support.gpu_framework import MIB, Exhausted, Pool

_pools: list[Pool] | None = None
_limits: dict[str, Sequence[int]] = {}  # by GPU, of its logical devices, in MiB
_growing: set[str] = set()
random = SimpleNamespace(set_seed=lambda seed: None)


class ResourceExhaustedError(Exception):
    pass


def take(size: int) -> None:
    """Stands for an operation on the GPU."""
    try:
        _initialized()[0].take(size)
    except Exhausted as error:
        raise ResourceExhaustedError(f"OOM when allocating tensor: {error}") from None


def _initialized() -> list[Pool]:
    """Take what each logical device may have, at once unless it may grow."""
    global _pools
    if _pools is None:
        _pools = []
        for card in gpu_framework.cards():
            for limit in _limits.get(card.uuid, [None]):
                may_grow = card.uuid in _growing and card.uuid not in _limits
                forced = os.environ.get("TF_FORCE_GPU_ALLOW_GROWTH")
                may_grow = may_grow if forced is None else forced == "true"
                size = None if limit is None else limit * MIB
                # Without a limit it leaves something of the card to the driver.
                size = card.total - gpu_framework.CONTEXT if size is None else size
                _pools.append(Pool(card, size, is_reserved=not may_grow))
        context._initialized = True
    return _pools


def _set_configuration(gpu: str, limits: Sequence[int]) -> None:
    if _pools is not None:
        raise RuntimeError("Virtual devices cannot be modified after being initialized")
    _limits[gpu] = limits


def _set_memory_growth(gpu: str, enable: bool) -> None:
    if gpu in _limits:
        raise ValueError("Cannot set memory growth on device when virtual devices configured")
    (_growing.add if enable else _growing.discard)(gpu)


def _memory_info(device: str) -> dict[str, int]:
    pool = _initialized()[int(device.removeprefix("GPU:"))]
    return {"current": pool.used, "peak": pool.peak}


config = SimpleNamespace(
    threading=SimpleNamespace(
        set_intra_op_parallelism_threads=lambda number: None,
        set_inter_op_parallelism_threads=lambda number: None,
    ),
    LogicalDeviceConfiguration=lambda memory_limit: memory_limit,
    list_physical_devices=lambda kind: list(gpu_framework.visible()),
    list_logical_devices=lambda kind: _initialized(),
    set_logical_device_configuration=_set_configuration,
    get_logical_device_configuration=_limits.get,
    experimental=SimpleNamespace(
        set_memory_growth=_set_memory_growth, get_memory_info=_memory_info
    ),
)

context: Any = SimpleNamespace(_initialized=False)
_eager: Any = ModuleType("tensorflow.python.eager.context")
_eager.context_safe = lambda: context
sys.modules[_eager.__name__] = _eager
