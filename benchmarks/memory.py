"""What children at once hold for themselves when a program carries gigabytes: arguments and captured globals.

Each child reads every array, waits until all have done so, and then measures its own Pss_Anon: private
anonymous memory, with pages that several processes share counted in parts. What the same search without data
holds comes off.
For `model.fit`, what Keras itself copies is measured beside it, by a fit in one process without aiotune.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from common import KERAS_PRELOAD, Figure, options, publish, run_search, scratch, warm_server

import aiotune
from aiotune.executors.payload import Payload

CHILDREN = 4
GIGABYTE = 10**9
FIT_BYTES = GIGABYTE // 4
FEATURES = 100
LONGEST_WAIT_SECONDS = 120.0
POLL_SECONDS = 0.01
LOSS = aiotune.Objective("loss", "min")

CAPTURED = np.ones(1, "float32")  # replaced by `main`; `run_trial` reads it as a global


def ones(size_bytes: int) -> np.ndarray[Any, Any]:
    """Return rows of FEATURES float32 numbers, so many bytes in all: (n, FEATURES)."""
    rows = size_bytes // 4 // FEATURES
    return np.ones((rows, FEATURES), "float32")


def anonymous_bytes() -> int:
    """Return this process's Pss_Anon."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss_Anon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this kernel does not tell Pss_Anon")


def wait_for_all(directory: Path, name: str, stage: str) -> None:
    """Return when all children have come to this stage."""
    (directory / f"{stage}-{name}").touch()
    deadline = time.monotonic() + LONGEST_WAIT_SECONDS
    while len(list(directory.glob(f"{stage}-*"))) < CHILDREN:
        if time.monotonic() > deadline:
            raise TimeoutError(f"not all of {CHILDREN} children came to {stage!r}")
        time.sleep(POLL_SECONDS)


def measured_together(directory: Path, name: str) -> int:
    """Return this child's Pss_Anon at a moment when all children are alive and have their data."""
    wait_for_all(directory, name, "ready")
    measured = anonymous_bytes()
    wait_for_all(directory, name, "measured")
    return measured


class Reader(aiotune.RandomSearch):
    """A plain function that reads all of its arrays."""

    def run_trial(self, trial: Any, meeting: Path, *arrays: Any) -> dict[str, float]:
        trial.hyperparameters.Float("x", 0, 1)
        total = sum(float(each.sum(dtype="float64")) for each in (*arrays, CAPTURED))
        return {"loss": 0.0, "total": total, "bytes": measured_together(meeting, trial.trial_id)}


class Fit(aiotune.HyperModel):
    """A small model, fitted for one epoch; measured at its end, while the data of the fit is alive."""

    def __init__(self, meeting: Path) -> None:
        super().__init__()
        self.meeting = meeting

    def build(self, hp: aiotune.HyperParameters) -> Any:
        hp.Float("x", 0, 1)
        return small_model()

    def fit(self, hp: aiotune.HyperParameters, model: Any, *args: Any, **kwargs: Any) -> Any:
        name = f"{hp.get('x')}"
        found: list[int] = []
        probe = probing_callback(lambda: found.append(measured_together(self.meeting, name)))
        callbacks = [*kwargs.pop("callbacks"), probe]
        history = model.fit(*args, callbacks=callbacks, batch_size=4096, verbose=0, **kwargs)
        return {"loss": history.history["loss"][-1], "bytes": found[0]}


def small_model() -> Any:
    import keras

    model = keras.Sequential([keras.Input([FEATURES]), keras.layers.Dense(1)])
    model.compile(optimizer="sgd", loss="mse")
    return model


def probing_callback(probe: Callable[[], object]) -> Any:
    """Return a callback that calls `probe` at the last batch of the first epoch."""
    import keras

    class Probing(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch + 1 == self.params["steps"]:
                probe()

    return Probing()


def keras_alone(size_bytes: int) -> int:
    """Return Pss_Anon of this process in a fit of arrays of so many bytes."""
    x = ones(size_bytes)
    found: list[int] = []
    probe = probing_callback(lambda: found.append(anonymous_bytes()))
    small_model().fit(x, x[:, 0], batch_size=4096, verbose=0, callbacks=[probe])
    return found[0]


def growth_of_keras_alone() -> int:
    """Return what a fit adds to its arrays: Pss_Anon with data less that without, less the arrays."""
    code = "import memory, sys; print(memory.keras_alone(int(sys.argv[1])))"
    sizes = [
        int(
            subprocess.run(
                [sys.executable, "-c", code, str(size)],
                cwd=Path(__file__).parent,
                check=True,
                capture_output=True,
                text=True,
            ).stdout.split()[-1]
        )
        for size in (FIT_BYTES, 4096 * 4 * FEATURES)
    ]
    return sizes[0] - sizes[1] - FIT_BYTES


@contextmanager
def noted_pickles() -> Iterator[list[int]]:
    """Give the list of the sizes of the pickles that are made inside."""
    sizes: list[int] = []
    create = Payload.create.__func__  # type: ignore[attr-defined]

    def noting(cls: type[Payload], *args: Any, **kwargs: Any) -> Payload:
        payload: Payload = create(cls, *args, **kwargs)
        sizes.append(payload.pickle_bytes)
        return payload

    Payload.create = classmethod(noting)  # type: ignore[method-assign, assignment]
    try:
        yield sizes
    finally:
        Payload.create = classmethod(create)  # type: ignore[method-assign]


async def held_by_all(tuner: aiotune.Tuner, *args: Any) -> int:
    """Return Pss_Anon of all children together."""
    outcome = await run_search(tuner, *args)
    return int(sum(trial.metrics["bytes"] for trial in outcome.result.trials))


def options_of(directory: Path, name: str) -> dict[str, Any]:
    (directory / name).mkdir()
    return {
        "objective": LOSS,
        "max_trials": CHILDREN,
        "max_concurrent_trials": CHILDREN,
        "gpus": 0,
        "directory": directory,
        "project_name": f"{name}-project",
    }


async def measure_reader(directory: Path) -> list[Figure]:
    global CAPTURED
    held = {}
    for name, size in (("without", 8 * FEATURES), ("with", GIGABYTE)):
        CAPTURED = ones(size)
        arrays = [ones(size // 2), ones(size // 2)]
        with noted_pickles() as pickles:
            tuner = Reader(**options_of(directory, name), seed=1)
            held[name] = await held_by_all(tuner, directory / name, *arrays)
        for trial in tuner.trials:
            expected = 2 * size // 4
            if abs(trial.metrics["total"] - expected) > 1:
                raise RuntimeError("a child has not read all of its data")
    CAPTURED = ones(4096)
    return [
        Figure("pickle of 2 GB", max(pickles) / 1e6, "MB", 1),
        Figure("growth, 4 readers of 2 GB", (held["with"] - held["without"]) / 1e6, "MB", 200),
    ]


async def measure_fit(directory: Path) -> list[Figure]:
    held = {}
    async with warm_server(KERAS_PRELOAD):
        for name, size in (("small fit", 4096 * 4 * FEATURES), ("fit", FIT_BYTES)):
            x = ones(size)
            tuner = aiotune.RandomSearch(
                Fit(directory / name), **options_of(directory, name), seed=1, preload=KERAS_PRELOAD
            )
            held[name] = await held_by_all(tuner, x, x[:, 0])
    alone = growth_of_keras_alone()
    ours = (held["fit"] - held["small fit"]) / CHILDREN
    size = FIT_BYTES / 1e6
    return [
        Figure(f"growth of one of 4 fits of {size:.0f} MB", ours / 1e6, "MB", alone / 1e6 + 20),
        Figure(f"what Keras alone adds to {size:.0f} MB", alone / 1e6, "MB"),
    ]


def main() -> None:
    given = options(__doc__, repeats=1)
    with scratch() as directory:
        figures = asyncio.run(measure_reader(directory))
        figures += asyncio.run(measure_fit(directory))
    notes = [
        "a growth is Pss_Anon with the data less Pss_Anon of the same search without",
        "the target of a fit is what Keras alone adds to its arrays, and 20 MB",
    ]
    publish("Memory of children that share gigabytes", figures, given.json, notes)


if __name__ == "__main__":
    main()
