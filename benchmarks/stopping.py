"""How soon a run ends that is asked to stop: `search.request_stop()` to the recorded end of the run.

A Keras fit is asked in the middle of an epoch, of which it would train or validate for many seconds more. A
function that ignores both the request and SIGTERM must be gone one second after the grace.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from common import (
    KERAS_PRELOAD,
    Figure,
    options,
    publish,
    quantile,
    scratch,
    warm_server,
)

import aiotune

GRACE_SECONDS = 2.0
LONGEST_START_SECONDS = 120.0
MANY_BATCHES = 200_000  # minutes, if the stop were not heard
MARKED_BATCH = 50
LOSS = aiotune.Objective("loss", "min")


class Stubborn(aiotune.RandomSearch):
    """A function that cannot be asked."""

    def run_trial(self, trial: Any, mark: Path) -> None:
        trial.hyperparameters.Float("x", 0, 1)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        write_mark(mark)
        while True:
            time.sleep(60)


class LongEpoch(aiotune.HyperModel):
    """A small model with a very long epoch: of training, or of validation."""

    def __init__(self, mark: Path, phase: str) -> None:
        super().__init__()
        self.mark = mark
        self.phase = phase

    def build(self, hp: aiotune.HyperParameters) -> Any:
        import keras

        units = hp.Int("units", 64, 65)
        model = keras.Sequential(
            [keras.Input([64]), keras.layers.Dense(units), keras.layers.Dense(1)]
        )
        model.compile(optimizer="adam", loss="mse")
        return model

    def fit(
        self, hp: aiotune.HyperParameters, model: Any, *args: Any, callbacks: Any, **kwargs: Any
    ) -> Any:
        import numpy as np
        import tensorflow as tf

        x, y = np.zeros([32, 64], "float32"), np.zeros([32, 1], "float32")
        batches = tf.data.Dataset.from_tensors((x, y)).repeat()
        steps = {"training": (MANY_BATCHES, 1), "validation": (1, MANY_BATCHES)}[self.phase]
        callbacks = [*callbacks, marking_callback(self.mark, self.phase)]
        return model.fit(
            batches,
            steps_per_epoch=steps[0],
            validation_data=batches,
            validation_steps=steps[1],
            epochs=2,
            verbose=0,
            callbacks=callbacks,
        )


def marking_callback(mark: Path, phase: str) -> Any:
    """Return a callback that writes the mark when the phase is well under way."""
    import keras

    class Marking(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            if phase == "training" and batch == MARKED_BATCH:
                write_mark(mark)

        def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
            if phase == "validation" and batch == MARKED_BATCH:
                write_mark(mark)

    return Marking()


def write_mark(mark: Path) -> None:
    """Say, in a child, that it is where it is to be stopped, and which process it is."""
    mark.write_text(str(os.getpid()))


class Mark:
    """A named pipe that tells when a run is where it is to be stopped."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def close(self) -> None:
        os.close(self._fd)

    async def wait_written(self) -> int:
        """Return the process id that was written. TimeoutError if no run gets that far."""
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._fd, ready.set)
        try:
            async with asyncio.timeout(LONGEST_START_SECONDS):
                await ready.wait()
        finally:
            loop.remove_reader(self._fd)
        return int(os.read(self._fd, 64))


async def seconds_to_end(tuner: aiotune.Tuner, path: Path, *args: object) -> float:
    """Return the seconds from the request to the recorded end of the only run, whose process is then gone."""
    with closing(Mark(path)) as mark:
        async with tuner.start(*args) as search:
            pid = await mark.wait_written()
            asked_at = time.time()
            search.request_stop()
            result = await search.result()
    (run,) = result.trials[0].runs
    if is_alive(pid) or run.observations:
        raise RuntimeError("the run lives on, or it reported a partial epoch")
    assert run.ended_at is not None
    return run.ended_at - asked_at


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def stops_of_fit(directory: Path, phase: str, repeats: int) -> list[float]:
    seconds = []
    for repeat in range(repeats):
        mark = directory / f"{phase}-{repeat}.pipe"
        tuner = aiotune.RandomSearch(
            LongEpoch(mark, phase),
            LOSS,
            max_trials=1,
            directory=directory,
            project_name="fit",
            overwrite=True,
            preload=KERAS_PRELOAD,
        )
        seconds.append(await seconds_to_end(tuner, mark))
    return seconds


async def stops_of_stubborn(directory: Path, repeats: int) -> list[float]:
    seconds = []
    for repeat in range(repeats):
        mark = directory / f"stubborn-{repeat}.pipe"
        tuner = Stubborn(
            objective=LOSS,
            max_trials=1,
            directory=directory,
            project_name="stubborn",
            overwrite=True,
            grace_seconds=GRACE_SECONDS,
        )
        seconds.append(await seconds_to_end(tuner, mark, mark))
    return seconds


async def measure(directory: Path, repeats: int) -> list[Figure]:
    figures = []
    async with warm_server(KERAS_PRELOAD):
        for phase in ("training", "validation"):
            seconds = await stops_of_fit(directory, phase, repeats)
            figures += figures_of(f"a fit in {phase}", seconds, 1000, "ms", None)
    seconds = await stops_of_stubborn(directory, min(repeats, 3))
    what = f"ignores stop and SIGTERM, grace {GRACE_SECONDS:g} s"
    return figures + figures_of(what, seconds, 1, "s", GRACE_SECONDS + 1)


def figures_of(
    what: str, seconds: Sequence[float], scale: float, unit: str, at_most: float | None
) -> list[Figure]:
    scaled = [scale * each for each in seconds]
    return [
        Figure(f"{what}: median", quantile(scaled, 0.5), unit, at_most),
        Figure(f"{what}: max", max(scaled), unit, at_most),
    ]


def main() -> None:
    given = options(__doc__, repeats=5)
    with scratch() as directory:
        figures = asyncio.run(measure(directory, given.repeats))
    notes = [f"an epoch has {MANY_BATCHES} batches; no partial epoch was reported (else: an error)"]
    publish("From a stop request to the end of the run", figures, given.json, notes)


if __name__ == "__main__":
    main()
