"""Memory limits of frameworks on a card that the run shares: set before any of them touches the GPU.

For those that are told by a call. JAX reads variables when it first touches a GPU (`world.memory_variables`).
No framework is imported here, and none initialises a GPU for this.
"""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from aiotune.executors.gpu_memory import MemoryLimit

__all__ = ["LIMITERS"]

_MEBIBYTE = 2**20
# PyTorch reads the first of these that is set.
_TORCH_ALLOCATOR_VARIABLES = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")


def _limit_tensorflow(tensorflow: Any, limit: MemoryLimit) -> None:
    """Limit the memory of its GPUs; nothing where it sees none.

    It asks the driver which GPUs there are, and makes no context yet. A configuration that user code sets
    later, before its first operation, takes the place of this one.
    """
    if limit.memory_bytes is None:
        return
    config = tensorflow.config
    mebibytes = max(1, limit.memory_bytes // _MEBIBYTE)
    own = [config.LogicalDeviceConfiguration(memory_limit=mebibytes)]
    gpus = config.list_physical_devices("GPU")
    for gpu in gpus:
        config.set_logical_device_configuration(gpu, own)
    if gpus:
        _allow_growth_within(tensorflow, own)


def _allow_growth_within(tensorflow: Any, own: object) -> None:
    """Let user code ask for memory growth, as programs do at their beginning: it then grows up to the limit.

    TensorFlow refuses that call once a limit is set, but takes the same wish from a variable, which it reads
    when it initialises the GPU.
    """
    config = tensorflow.config
    set_growth = config.experimental.set_memory_growth

    @functools.wraps(set_growth)
    def set_memory_growth(device: Any, enable: bool) -> None:
        if config.get_logical_device_configuration(device) is own:
            os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true" if enable else "false"
        else:
            set_growth(device, enable)

    config.experimental.set_memory_growth = set_memory_growth


def _limit_torch(torch: Any, limit: MemoryLimit) -> None:
    """Have its allocator keep to the limit from when it initialises CUDA, which this does not bring about.

    Its own function for that would. What it calls when it does so, its own seeds among them, is in a queue.
    """
    chosen = next(filter(None, map(os.environ.get, _TORCH_ALLOCATOR_VARIABLES)), "")
    if "per_process_memory_fraction" not in chosen:
        torch.cuda._lazy_call(functools.partial(_set_fractions, torch.cuda, limit))


def _set_fractions(cuda: Any, limit: MemoryLimit) -> None:
    try:
        for device in range(cuda.device_count()):
            cuda.set_per_process_memory_fraction(_fraction(cuda, device, limit), device)
    except Exception:  # it would leave CUDA unusable
        print("aiotune: torch refused its memory limit:", file=sys.stderr)
        traceback.print_exc()


def _fraction(cuda: Any, device: int, limit: MemoryLimit) -> float:
    if limit.memory_bytes is None:
        return 1.0 if limit.fraction is None else limit.fraction
    total: int = cuda.get_device_properties(device).total_memory  # less than NVML's, a little
    return min(1.0, limit.memory_bytes / total)


LIMITERS: Mapping[str, Callable[[Any, MemoryLimit], None]] = {
    "tensorflow": _limit_tensorflow,
    "torch": _limit_torch,
}
