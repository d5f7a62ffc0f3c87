"""Stands for JAX, in a process of a test."""

from __future__ import annotations

import os
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

from tests.support import gpu_framework
from tests.support.gpu_framework import Exhausted, Pool

config = SimpleNamespace(update=lambda name, value: None)
_pools: list[Pool] | None = None


class XlaRuntimeError(RuntimeError):
    pass


def take(size: int) -> None:
    """Stands for an operation on the GPU."""
    try:
        _initialized()[0].take(size)
    except Exhausted as error:
        raise XlaRuntimeError(
            f"RESOURCE_EXHAUSTED: Out of memory while trying to allocate: {error}"
        ) from None


def _initialized() -> list[Pool]:
    """Take a part of each card, at once or as it is needed: the variables are read now."""
    global _pools
    if _pools is None:
        fraction = _fraction()
        is_reserved = os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE", "") not in ("false", "0")
        _pools = [
            Pool(card, int(fraction * card.total), is_reserved=is_reserved)
            for card in gpu_framework.cards()
        ]
    return _pools


def _fraction() -> float:
    new = os.environ.get("XLA_CLIENT_MEM_FRACTION")
    old = os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION")
    if new and old:
        raise ValueError("XLA_CLIENT_MEM_FRACTION is specified with its old name")
    return float(new or old or 0.75)


def _backends() -> dict[str, Any]:
    devices = [
        SimpleNamespace(
            platform="gpu", memory_stats=lambda pool=pool: {"peak_bytes_in_use": pool.peak}
        )
        for pool in _initialized()
    ]
    return {"cuda": SimpleNamespace(local_devices=lambda: devices)}


_bridge: Any = ModuleType("jax._src.xla_bridge")
_bridge.backends_are_initialized = lambda: _pools is not None
_bridge.backends = _backends
sys.modules[_bridge.__name__] = _bridge
