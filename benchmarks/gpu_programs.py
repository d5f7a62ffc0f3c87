"""What the children of `gpu.py` run: a Keras model that tells where and when it trained, and takers of memory.

A child imports this module, so everything heavy is imported where it is used.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiotune

__all__ = ["FEATURES", "Killed", "Neighbours", "Timed", "allocate", "samples"]

FEATURES = 256
CHUNK_BYTES = 256 * 2**20  # memory is taken in such pieces
REHEARSAL_CHUNK_BYTES = 2**16
LONGEST_NEIGHBOUR_SECONDS = 60.0


class Timed(aiotune.HyperModel):
    """A dense model that trains for so many seconds, and tells when its first step ended and where it was."""

    def __init__(self, train_seconds: float, units: int = 1024) -> None:
        super().__init__()
        self.train_seconds = train_seconds
        self.units = 8 if is_rehearsal() else units

    def build(self, hp: aiotune.HyperParameters) -> Any:
        self.line_at = time.time()
        import keras

        rate = hp.Float("learning_rate", 1e-4, 1e-3, sampling="log")
        layers = [keras.layers.Dense(self.units, activation="relu") for _ in range(3)]
        model = keras.Sequential([keras.Input([FEATURES]), *layers, keras.layers.Dense(1)])
        model.compile(optimizer=keras.optimizers.Adam(rate), loss="mse")
        return model

    def fit(self, hp: aiotune.HyperParameters, model: Any, x: Any, y: Any, **kwargs: Any) -> Any:
        watch = first_step_callback(self.train_seconds)
        history = model.fit(x, y, epochs=10_000, batch_size=256, verbose=0, callbacks=[watch])
        return {
            "loss": history.history["loss"][-1],
            "line_at": self.line_at,
            "step_at": watch.first_step_at,
            "off_gpu": float(not is_on_gpu(model)),
            "by_index": float(not named_by_uuid()),
            "gpus_seen": float(gpus_seen()),
            "pool_bytes": float(pool_bytes()),
        }


def first_step_callback(train_seconds: float) -> Any:
    """Return a callback that notes the end of the first training step and ends the fit in time."""
    import keras

    class Watch(keras.callbacks.Callback):  # type: ignore[misc]
        first_step_at = 0.0

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if not self.first_step_at:
                float((logs or {}).get("loss", 0.0))  # waits for the device
                self.first_step_at = time.time()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if time.time() - self.first_step_at >= train_seconds:
                self.model.stop_training = True

    return Watch()


class Killed(aiotune.RandomSearch):
    """Trial 0 takes memory, says so in a file and waits to be killed; the others return at once."""

    def run_trial(self, trial: Any, folder: Path, size: int) -> dict[str, float]:
        trial.hyperparameters.Float("x", 0, 1)
        if trial.number > 0:
            return {"loss": 0.0}
        held = take(size)
        write(folder / "pid", str(os.getpid()))
        time.sleep(LONGEST_NEIGHBOUR_SECONDS)
        return {"loss": float(len(held))}


class Neighbours(aiotune.RandomSearch):
    """Two trials on one card: number 0 trains within its share, number 1 asks for more than it may have.

    The greedy one writes down how much it got, attempt by attempt; the other one goes on until it has failed.
    """

    def run_trial(self, trial: Any, folder: Path, share: int, wanted: int) -> dict[str, float]:
        trial.hyperparameters.Float("x", 0, 1)
        if trial.number == 0:
            return {"loss": train_until(folder / "greedy-0-over", share // 4)}
        wait_for(folder / "neighbour-trains")
        attempt = next(i for i in range(100) if not (folder / f"greedy-{i}").exists())
        limit = share if is_rehearsal() and attempt == 0 else wanted
        try:
            take(min(limit, wanted), folder / f"greedy-{attempt}")
            if limit < wanted:
                raise MemoryError("what a GPU would say")
        finally:
            write(folder / f"greedy-{attempt}-over", "")
        return {"loss": 1.0}


def train_until(over: Path, size: int) -> float:
    """Hold `size` bytes and train until the file is there, and 1 s more; return the number of steps."""
    import numpy as np

    model = Timed(0).build(aiotune.HyperParameters())
    x, y = samples(256)
    held = take(size)
    steps, end = 0, time.time() + LONGEST_NEIGHBOUR_SECONDS
    while time.time() < end:
        loss = model.train_on_batch(x, y)
        steps += 1
        if not np.all(np.isfinite(loss)):
            raise RuntimeError(f"the loss of the neighbour is {loss}")
        if steps == 3:
            write(over.with_name("neighbour-trains"), "")
        if over.exists():
            end = min(end, time.time() + 1.0)
    return float(steps) if held else 0.0


def take(size: int, book: Path | None = None) -> Sequence[object]:
    """Return pieces of memory on the GPU, `size` bytes together; `book` has how many there are so far."""
    chunk = REHEARSAL_CHUNK_BYTES if is_rehearsal() else CHUNK_BYTES
    pieces: list[object] = []
    while len(pieces) * CHUNK_BYTES < size:
        pieces.append(allocate(chunk))
        if book is not None:
            write(book, str(len(pieces) * CHUNK_BYTES))
    return pieces


def samples(number: int) -> tuple[Any, Any]:
    import numpy as np

    draw = np.random.default_rng(0)
    number = 256 if is_rehearsal() else number
    x = draw.normal(size=(number, FEATURES)).astype("float32")
    return x, x[:, :1] * 0.5


def wait_for(path: Path) -> None:
    """Wait until the file is there; RuntimeError after a minute."""
    end = time.time() + LONGEST_NEIGHBOUR_SECONDS
    while not path.exists():
        if time.time() > end:
            raise RuntimeError(f"{path.name} did not come")
        time.sleep(0.01)


def write(path: Path, text: str) -> None:
    """Write a file at one stroke: it is there with its text, or it is not there."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    beside.write_text(text)
    beside.replace(path)


# --- the three frameworks ---


def is_rehearsal() -> bool:
    """Return whether the benchmark tries itself out on the processor."""
    return "AIOTUNE_GPU_REHEARSAL" in os.environ


def allocate(size: int) -> object:
    """Return an array of `size` bytes that is on the GPU for sure: it was written, and waited for."""
    import keras

    number = size // 4
    match keras.backend.backend():
        case "jax":
            import jax

            return jax.block_until_ready(jax.numpy.ones([number], "float32"))
        case "torch":
            import torch

            device = "cpu" if is_rehearsal() else "cuda"
            tensor = torch.ones([number], dtype=torch.float32, device=device)
            if device == "cuda":
                torch.cuda.synchronize()
            return tensor
        case _:
            import tensorflow as tf

            tensor = tf.ones([number])
            float(tensor[0])
            return tensor


def is_on_gpu(model: Any) -> bool:
    """Return whether each weight of the model lies on a GPU; on the processor in a rehearsal."""
    import keras

    weights = [weight.value for weight in model.trainable_variables]
    match keras.backend.backend():
        case "jax":
            where = {device.platform for weight in weights for device in weight.devices()}
        case "torch":
            where = {weight.device.type for weight in weights}
        case _:
            where = {
                weight.device.rpartition("device:")[2].split(":")[0].lower() for weight in weights
            }
    return bool(where) and where <= ({"cpu"} if is_rehearsal() else {"gpu", "cuda"})


def gpus_seen() -> int:
    """Return how many GPUs the framework sees; 1 in a rehearsal."""
    import keras

    if is_rehearsal():
        return 1
    match keras.backend.backend():
        case "jax":
            import jax

            return len([each for each in jax.devices() if each.platform == "gpu"])
        case "torch":
            import torch

            return int(torch.cuda.device_count())
        case _:
            import tensorflow as tf

            return len(tf.config.list_physical_devices("GPU"))


def pool_bytes() -> int:
    """Return what the framework's allocator has taken from the card; -1 where it does not tell."""
    import keras

    if is_rehearsal():
        return -1
    match keras.backend.backend():
        case "jax":
            import jax

            return int((jax.devices()[0].memory_stats() or {}).get("pool_bytes", -1))
        case "torch":
            import torch

            return int(torch.cuda.max_memory_reserved())
        case _:
            return -1


def named_by_uuid() -> bool:
    """Return whether CUDA_VISIBLE_DEVICES holds UUIDs, and no index."""
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return is_rehearsal() or all(name.startswith(("GPU-", "MIG-")) for name in names)
