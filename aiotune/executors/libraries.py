"""Seeds and thread counts of the libraries that a run uses: set for those loaded, and at import for the others.

A forked child has inherited the random state of whatever the fork server has loaded, so that without new seeds
all runs would draw the same numbers. No framework is imported here.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import os
import random
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

__all__ = ["Settings", "apply_settings", "prepare_pools"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run asks of its libraries. `threads` 0 leaves their choice to them."""

    seed: int  # 32 bits
    threads: int
    has_gpu: bool


def apply_settings(settings: Settings) -> None:
    """Seed Python, set what is loaded, and see to it that what is imported later is set then."""
    random.seed(settings.seed)
    _limit_loaded_pools(settings.threads)
    waiting = {}
    for name, setter in _SETTERS.items():
        module = sys.modules.get(name)
        if module is None:
            waiting[name] = setter
        else:
            _try(setter, module, settings)
    sys.meta_path.insert(0, _AtImport(settings, waiting))


def _numpy(module: Any, settings: Settings) -> None:
    module.seed(settings.seed)


def _tensorflow(module: Any, settings: Settings) -> None:
    if settings.threads:
        module.config.threading.set_intra_op_parallelism_threads(settings.threads)
        # One thread between operations would let an operation wait for another for ever.
        module.config.threading.set_inter_op_parallelism_threads(max(2, settings.threads))
    module.random.set_seed(settings.seed)


def _torch(module: Any, settings: Settings) -> None:
    if settings.threads:
        module.set_num_threads(settings.threads)
    module.manual_seed(settings.seed)


def _jax(module: Any, settings: Settings) -> None:
    if not settings.has_gpu and os.environ.get("JAX_PLATFORMS") == "cpu":
        module.config.update("jax_platforms", "cpu")  # it read the variable when it was imported


def _keras(module: Any, settings: Settings) -> None:
    module.utils.set_random_seed(settings.seed)


_Setter = Callable[[Any, Settings], None]
_SETTERS: Mapping[str, _Setter] = {
    "numpy.random": _numpy,
    "tensorflow": _tensorflow,
    "torch": _torch,
    "jax": _jax,
    "keras": _keras,
}


def _try(setter: _Setter, module: ModuleType, settings: Settings) -> None:
    """Set a library; one that refuses costs a note in the run's log, not the run."""
    try:
        setter(module, settings)
    except Exception:
        print(f"aiotune: {module.__name__} refused its seed or thread count:", file=sys.stderr)
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


class _AtImport(importlib.abc.MetaPathFinder):
    """Sets each waiting library right after its first import."""

    def __init__(self, settings: Settings, waiting: dict[str, _Setter]) -> None:
        self._settings = settings
        self._waiting = waiting

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        setter = self._waiting.pop(fullname, None)
        if setter is None:
            return None
        spec = self._spec_of_others(fullname, path, target)
        if spec is not None and spec.loader is not None:
            self._hook(spec.loader, setter)
        return spec

    def _spec_of_others(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> importlib.machinery.ModuleSpec | None:
        for finder in sys.meta_path:
            if finder is not self:
                spec = finder.find_spec(fullname, path, target)
                if spec is not None:
                    return spec
        return None

    def _hook(self, loader: Any, setter: _Setter) -> None:
        """Change this one loader object; a loader around it would lack its resource methods."""
        execute = loader.exec_module

        def execute_and_set(module: ModuleType) -> None:
            execute(module)
            _try(setter, module, self._settings)

        loader.exec_module = execute_and_set
