"""Programs that tell, in their run's log, in what kind of process they find themselves.

A child imports this module when it loads the program, before anything of the user's runs.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from aiotune import HyperModel, HyperParameters
from aiotune.executors.base import Finished
from aiotune.executors.context import RunContext
from aiotune.executors.gpu_memory import peak_bytes
from tests.support import keras_search

__all__ = ["Mixed", "Telling", "tell", "tell_gpus", "tell_gpus_of_a_started_runtime", "told"]

FRAMEWORKS = ("jax", "keras", "tensorflow", "torch")
_MARK = "FACTS "


def _loaded() -> list[str]:
    return [name for name in FRAMEWORKS if name in sys.modules]


def _started() -> list[str]:
    """Return which of the loaded frameworks have started their runtime, and so their threads."""
    started = []
    if "jax" in sys.modules:
        from jax._src import xla_bridge

        started += ["jax"] * xla_bridge.backends_are_initialized()
    if "torch" in sys.modules:
        import torch

        started += ["torch"] * torch.cuda.is_initialized()
    if "tensorflow" in sys.modules:
        from tensorflow.python.eager import context

        started += ["tensorflow"] * context.context()._initialized
    return started


def _modules() -> int:
    """Return how many modules of the frameworks are loaded."""
    return sum(name.partition(".")[0] in FRAMEWORKS for name in sys.modules)


GPUS_FIRST = os.environ.get("CUDA_VISIBLE_DEVICES")
LOADED_FIRST = _loaded()
MODULES_FIRST = _modules()
STARTED_FIRST = _started()


def _threads(pid: int) -> dict[str, int]:
    """Return how many threads of each name the process has."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return Counter((task / "comm").read_text().strip() for task in tasks)


def _pools(backend: str) -> dict[str, int]:
    """Return the sizes of the backend's thread pools."""
    match backend:
        case "torch":
            import torch

            return {"intra": torch.get_num_threads(), "inter": torch.get_num_interop_threads()}
        case "jax":
            return {"intra": _threads(os.getpid())["tf_XLAEigen"]}
        case _:
            from tensorflow.config import threading

            return {
                "intra": threading.get_intra_op_parallelism_threads(),
                "inter": threading.get_inter_op_parallelism_threads(),
            }


def _devices(backend: str) -> list[str]:
    """Return the kinds of devices that the backend sees, in lower case."""
    match backend:
        case "torch":
            import torch

            return ["cpu", *["gpu"] * torch.cuda.is_available()]
        case "jax":
            import jax

            return [device.platform for device in jax.devices()]
        case _:
            import tensorflow as tf

            return [device.device_type.lower() for device in tf.config.list_logical_devices()]


def tell(backend: str, **more: object) -> None:
    """Print the facts about this process; call it when the training is over."""
    facts = {
        "backend": backend,
        "loaded_first": LOADED_FIRST,
        "started_first": STARTED_FIRST,
        "loaded": _loaded(),
        "imported": _modules() - MODULES_FIRST,
        "cores": len(os.sched_getaffinity(0)),
        "pools": _pools(backend),
        "devices": _devices(backend),
        "server_threads": sorted(_threads(os.getppid())),
        "name": Path("/proc/self/comm").read_text().strip(),
    }
    print(_MARK + json.dumps(facts | more))


def tell_gpus(run: RunContext) -> Finished:
    """Print which GPUs this process was shown before anything of the user's ran."""
    facts = {
        "gpus": GPUS_FIRST,
        "started": STARTED_FIRST,
        "loaded": LOADED_FIRST,
        "peak": peak_bytes(1),
        "fraction": os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION"),
    }
    print(_MARK + json.dumps(facts))
    return Finished()


def tell_gpus_of_a_started_runtime(run: RunContext) -> Finished:
    """Compute something, and print how much of a GPU that took, and which runtimes have started."""
    import keras

    keras.ops.sum(keras.ops.ones(3))
    print(_MARK + json.dumps({"started": _started(), "peak": peak_bytes(1)}))
    return Finished()


def told(logs: Path) -> list[dict[str, Any]]:
    """Return the facts that the logs below a directory have."""
    texts = [log.read_text() for log in sorted(logs.rglob("run*.log"))]
    lines = [line for text in texts for line in text.splitlines()]
    return [json.loads(line.removeprefix(_MARK)) for line in lines if line.startswith(_MARK)]


class Telling(keras_search.Dense):
    """A dense model that tells where it was trained."""

    def fit(self, hp: HyperParameters, model: Any, *args: Any, **kwargs: Any) -> Any:
        import keras

        best = super().fit(hp, model, *args, **kwargs)
        tell(keras.backend.backend(), compute=model.layers[0].compute_dtype)
        return best


class Mixed(HyperModel):
    """The same in mixed precision, trained by `model.fit` as it is."""

    def build(self, hp: HyperParameters) -> Any:
        import keras

        keras.config.set_dtype_policy("mixed_bfloat16")
        return keras_search.build(hp)

    def fit(self, hp: HyperParameters, model: Any, *args: Any, **kwargs: Any) -> Any:
        import keras

        history = model.fit(*args, **kwargs)
        tell(keras.backend.backend(), compute=model.layers[0].compute_dtype)
        return history
