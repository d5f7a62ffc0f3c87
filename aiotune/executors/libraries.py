"""Seeds, threads, memory limits of the libraries that a run uses: set for those loaded, for others at import.

A forked child has inherited the random state of whatever the fork server has loaded, so that without new seeds
all runs would draw the same numbers. No framework is imported here.
"""

from __future__ import annotations

import functools
import os
import random
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

from aiotune.executors.gpu_limits import LIMITERS
from aiotune.executors.gpu_memory import MemoryLimit
from aiotune.executors.imports import Imports

__all__ = ["Settings", "apply_settings", "prepare_pools", "seed_keras"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run asks of its libraries. `threads` 0 leaves their choice to them.

    limit: what each may take of the GPU, in a run that shares its card; None: all of it, or none.
    """

    seed: int  # 32 bits
    threads: int
    has_gpu: bool
    limit: MemoryLimit | None = None


def apply_settings(settings: Settings, imports: Imports) -> None:
    """Seed Python, set what is loaded, and see to it that what is imported later is set then."""
    random.seed(settings.seed)
    _limit_loaded_pools(settings.threads)
    for name, setter in _SETTERS.items():
        imports.after(name, functools.partial(_try, setter, settings))
    if settings.limit is not None:
        for name, limiter in LIMITERS.items():
            imports.after(name, functools.partial(_try, limiter, settings.limit))


def _numpy(module: Any, settings: Settings) -> None:
    module.seed(settings.seed)


def _tensorflow(module: Any, settings: Settings) -> None:
    if settings.threads:
        module.config.threading.set_intra_op_parallelism_threads(settings.threads)
        # One thread between operations would let an operation wait for another for ever.
        module.config.threading.set_inter_op_parallelism_threads(max(2, settings.threads))
    module.random.set_seed(settings.seed)


def _torch(module: Any, settings: Settings) -> None:
    module.manual_seed(settings.seed)
    _place_keras_tensors(module, settings)
    if settings.threads:
        module.set_num_threads(settings.threads)
        module.set_num_interop_threads(settings.threads)


def _place_keras_tensors(torch: Any, settings: Settings) -> None:
    """Have Keras on PyTorch put its tensors on the run's device, which it chose when it was imported.

    That was in the fork server, which sees every GPU of the machine; a run without one would fail there.
    """
    core: Any = sys.modules.get("keras.src.backend.torch.core")
    if core is None:
        return  # its import will look for itself
    if not settings.has_gpu:
        if core.DEFAULT_DEVICE.startswith("cuda"):
            core.DEFAULT_DEVICE = "cpu"
    elif "KERAS_TORCH_DEVICE" not in os.environ and torch.cuda.is_available():
        core.DEFAULT_DEVICE = "cuda"


def _jax(module: Any, settings: Settings) -> None:
    """Choose its platforms: it read the variable when it was imported. Its threads follow the affinity."""
    platforms = os.environ.get("JAX_PLATFORMS")
    if platforms:
        module.config.update("jax_platforms", platforms)


def _keras(module: Any, settings: Settings) -> None:
    seed_keras(module, settings.seed)


def seed_keras(keras: Any, seed: int) -> None:
    """Seed Python, numpy and Keras's backend, from which Keras, if its state is fresh, draws all its chance.

    Keras's own function imports TensorFlow in order to seed it, whatever the backend: 2 to 15 s in each run.
    """
    if "tensorflow" in sys.modules:
        keras.utils.set_random_seed(seed)
        return
    random.seed(seed)
    sys.modules["numpy"].random.seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


_SETTERS: Mapping[str, Callable[[Any, Settings], None]] = {
    "numpy.random": _numpy,
    "tensorflow": _tensorflow,
    "torch": _torch,
    "jax": _jax,
    "keras": _keras,
}


def _try(setter: Callable[[Any, _T], None], wish: _T, module: ModuleType) -> None:
    """Set a library; one that refuses costs a note in the run's log, not the run."""
    try:
        setter(module, wish)
    except Exception:
        what = "memory limit" if isinstance(wish, MemoryLimit) else "seed or thread count"
        print(f"aiotune: {module.__name__} refused its {what}:", file=sys.stderr)
        traceback.print_exc()


@functools.cache
def _loaded_pools() -> Any:
    """Return the controller of the BLAS and OpenMP pools that are loaded now; None if there can be none.

    Finding them takes 10 to 20 ms, so the fork server does it once for all its children.
    """
    if not {"numpy", "torch", "tensorflow"} & sys.modules.keys():
        return None
    import threadpoolctl

    return threadpoolctl.ThreadpoolController()


def prepare_pools() -> None:
    """Find the thread pools that are loaded, before the first fork."""
    _loaded_pools()


def _limit_loaded_pools(threads: int) -> None:
    """Limit the pools that are loaded already: environment variables come too late for them."""
    controller = _loaded_pools() if threads else None
    if controller is not None:
        controller.limit(limits=threads)
