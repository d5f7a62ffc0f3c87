"""GPU memory in a run: what a framework may take of a card that is shared, and the most that was taken.

No framework is imported here, and only one that has a GPU initialised in this process is asked for its memory:
the question would else initialise it.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["CONTEXT_BYTES", "MemoryLimit", "memory_limit", "peak_bytes"]

# What a process holds on a card beside what its framework's allocator knows of: the CUDA context, and the
# kernels of cuBLAS, cuDNN and the framework, which are loaded when first used. It depends on card, driver and
# program; 0.3 to 0.6 GiB are reported. Too much costs room; too little, and runs that share a card fail.
CONTEXT_BYTES = 512 * 2**20

_GPU_PLATFORMS = ("gpu", "cuda", "rocm")  # as JAX names them


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """What the allocator of a framework may take of its card.

    fraction: of the card's total, in (0, 1). Either may be unknown (None), not both.
    """

    memory_bytes: int | None
    fraction: float | None


def memory_limit(memory: int | None, fraction: float | None) -> MemoryLimit | None:
    """Return the limit of a run that may hold so many bytes of its card, or such a part; None: a whole card.

    The context is taken off. Of a share so small that it would leave next to nothing, half is left: the run
    then holds more than its share, by half of a context at most.
    """
    if memory is None:
        return None if fraction is None else MemoryLimit(None, fraction)
    left = max(memory - CONTEXT_BYTES, memory // 2)
    return MemoryLimit(left, None if fraction is None else fraction * left / memory)


def peak_bytes(cards: int) -> int:
    """Return the most that this process has held at a time, on the one of its `cards` GPUs where it was most.

    The context counts, as `CONTEXT_BYTES`. 0 while no framework has a GPU initialised.
    """
    peaks: Counter[int] = Counter()
    for name, ask in _QUESTIONS.items():
        module = sys.modules.get(name)
        if module is not None:
            # In the midst of its import, or too old to know: a run does not fail for that.
            with contextlib.suppress(Exception):
                peaks.update(_by_card(list(ask(module)), cards))  # adds
    return max(peaks.values()) + CONTEXT_BYTES if peaks else 0


def _by_card(peaks: list[int], cards: int) -> dict[int, int]:
    """Return the peaks of a framework's devices, which may be parts of cards, added up for each card."""
    sums: Counter[int] = Counter()
    for place, peak in enumerate(peaks):
        sums[place * cards // len(peaks)] += peak
    return dict(sums)


def _tensorflow(module: Any) -> Iterable[int]:
    context: Any = sys.modules["tensorflow.python.eager.context"].context_safe()
    # There is no public way to tell; it initialises all GPUs at once.
    if context is None or not context._initialized:
        return
    for place, _ in enumerate(module.config.list_logical_devices("GPU")):
        yield module.config.experimental.get_memory_info(f"GPU:{place}")["peak"]


def _jax(module: Any) -> Iterable[int]:
    bridge: Any = sys.modules["jax._src.xla_bridge"]  # has no public face that does not initialise
    if not bridge.backends_are_initialized():
        return
    for backend in bridge.backends().values():
        for device in backend.local_devices():
            if device.platform in _GPU_PLATFORMS:
                yield device.memory_stats()["peak_bytes_in_use"]


def _torch(module: Any) -> Iterable[int]:
    cuda = module.cuda
    if cuda.is_initialized():
        # What its allocator has taken from the card, with what it keeps for later use.
        yield from (cuda.max_memory_reserved(place) for place in range(cuda.device_count()))


_QUESTIONS: Mapping[str, Callable[[Any], Iterable[int]]] = {
    "tensorflow": _tensorflow,
    "jax": _jax,
    "torch": _torch,
}
