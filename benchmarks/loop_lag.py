"""How late the caller's event loop is during a search with two slots.

A task sleeps 5 ms again and again and notes how much later than due it wakes up. Each search is made in
silence and with the live progress display in a pseudo-terminal; the fork server is warm. Then come searches
whose trials take 20 ms, so that a model is asked all the time. The last figures are those of an empty loop
beside two busy processes: how late the machine alone makes it.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pty
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TextIO

from common import (
    KERAS_PRELOAD,
    Figure,
    build_dense,
    digits,
    options,
    publish,
    quantile,
    run_search,
    scratch,
    warm_server,
)

import aiotune
from aiotune.observers.progress import Progress

INTERVAL_SECONDS = 0.005
STEPS_PER_SECOND = 200
EMPTY_LOOP_SECONDS = 5.0
OBSERVATIONS = (50, 200)  # that the model has when it is asked first
ASKS = 40
ACCURACY = aiotune.Objective("val_accuracy", "max")
LOSS = aiotune.Objective("loss", "min")


class Reporter(aiotune.RandomSearch):
    """A function that reports 200 steps a second for 2 seconds."""

    def run_trial(self, trial: Any) -> None:
        x = trial.hyperparameters.Float("x", 0, 1)
        start = time.monotonic()
        for step in range(2 * STEPS_PER_SECOND):
            trial.report(step, loss=x / (1 + step))
            time.sleep(max(0.0, start + (step + 1) / STEPS_PER_SECOND - time.monotonic()))


class Modelled(aiotune.BayesianOptimization):
    """A function of ten parameters that takes 20 ms in the loop, and nothing of the processor."""

    async def run_trial(self, trial: Any) -> dict[str, float]:
        hp = trial.hyperparameters
        shares = [hp.Float(f"share_{number}", 0, 1) for number in range(8)]
        count = hp.Int("count", 1, 64)
        kind = hp.Choice("kind", ["a", "b", "c", "d"])
        await asyncio.sleep(0.02)
        return {"loss": sum((each - 0.3) ** 2 for each in shares) + count / 64 + (kind != "c")}


# --- searches ---


async def lags_of_keras(directory: Path, *, has_display: bool) -> list[float]:
    split = digits()
    with display(ACCURACY, max_trials=12) if has_display else silence() as observers:
        tuner = aiotune.RandomSearch(
            build_dense,
            ACCURACY,
            max_trials=12,
            preload=KERAS_PRELOAD,
            observers=observers,
            **common_options(directory, "keras"),
        )
        async with sampled() as lags:
            await run_search(
                tuner, split.x, split.y, epochs=5, validation_data=split.validation_data, verbose=0
            )
    return lags


async def lags_of_reports(directory: Path, *, has_display: bool) -> list[float]:
    with display(LOSS, max_trials=6) if has_display else silence() as observers:
        tuner = Reporter(
            objective=LOSS,
            max_trials=6,
            observers=observers,
            **common_options(directory, "reports"),
        )
        async with sampled() as lags:
            await run_search(tuner)
    return lags


async def lags_of_asks(directory: Path, observations: int) -> list[float]:
    """Return the lags while a model of so many trials, then more, is asked for 40; those before are drawn."""
    options = common_options(directory, f"asks-{observations}")
    options |= {"objective": LOSS, "num_initial_points": observations}
    await run_search(Modelled(max_trials=observations, **options))
    tuner = Modelled(max_trials=observations + ASKS, **options | {"overwrite": False})
    async with sampled() as lags:
        await run_search(tuner)
    return lags


def common_options(directory: Path, project_name: str) -> dict[str, Any]:
    return {
        "seed": 1,
        "directory": directory,
        "project_name": project_name,
        "overwrite": True,
        "max_concurrent_trials": 2,
    }


@contextmanager
def silence() -> Iterator[Sequence[Any]]:
    yield ()


@contextmanager
def display(objective: aiotune.Objective, *, max_trials: int) -> Iterator[Sequence[Any]]:
    """Give the live progress display as observers; RuntimeError in the end if it drew nothing."""
    with pseudo_terminal() as (terminal, drawn):
        progress = Progress(objective, max_trials, stream=terminal)
        try:
            yield (progress,)
        finally:
            progress.close()
    if not any(b"\x1b[" in chunk for chunk in drawn):
        raise RuntimeError("the progress display was not live")


@contextmanager
def pseudo_terminal() -> Iterator[tuple[TextIO, Sequence[bytes]]]:
    """Give a terminal, and what was written to it; a thread reads it, in the place of a screen."""
    os.environ["TERM"] = "xterm-256color"
    ours, theirs = pty.openpty()
    drawn: list[bytes] = []
    screen = threading.Thread(target=read_all, args=(ours, drawn), daemon=True)
    screen.start()
    try:
        with os.fdopen(theirs, "w") as terminal:
            yield terminal, drawn
    finally:
        screen.join()
        os.close(ours)


def read_all(terminal: int, chunks: list[bytes]) -> None:
    while True:
        try:
            chunks.append(os.read(terminal, 65536))
        except OSError:  # the other side is closed
            return


# --- lag ---


@asynccontextmanager
async def sampled() -> AsyncIterator[list[float]]:
    """Give a list that fills with seconds of lag while the block runs."""
    lags: list[float] = []
    sampler = asyncio.create_task(sample(lags))
    try:
        yield lags
    finally:
        sampler.cancel()


async def sample(lags: list[float]) -> None:
    while True:
        due = time.perf_counter() + INTERVAL_SECONDS
        await asyncio.sleep(INTERVAL_SECONDS)
        lags.append(time.perf_counter() - due)


async def lags_beside_busy_processes() -> list[float]:
    """Return the lag of a loop that does nothing else, while a process computes on each core."""
    context = multiprocessing.get_context("spawn")
    cores = sorted(os.sched_getaffinity(0))
    busy = [context.Process(target=compute, args=(core,), daemon=True) for core in cores]
    for each in busy:
        each.start()
    try:
        async with sampled() as lags:
            await asyncio.sleep(EMPTY_LOOP_SECONDS)
    finally:
        for each in busy:
            each.terminate()
            each.join()
    return lags


def compute(core: int) -> None:
    os.sched_setaffinity(0, {core})
    while True:
        sum(range(100_000))


def figures_of(what: str, lags: Sequence[float], at_most: float | None) -> list[Figure]:
    milliseconds = [1000 * lag for lag in lags]
    return [
        Figure(f"{what}: p50", quantile(milliseconds, 0.5), "ms"),
        Figure(f"{what}: p99", quantile(milliseconds, 0.99), "ms", at_most),
        Figure(f"{what}: max", max(milliseconds), "ms"),
    ]


async def measure(directory: Path, repeats: int) -> list[Figure]:
    """Return the figures over all samples of all repeats."""
    lags: dict[str, list[float]] = {}
    async with warm_server(KERAS_PRELOAD):
        await lags_of_keras(directory, has_display=True)  # waits for the server's imports
        for _ in range(repeats):
            for has_display in (False, True):
                how = "display" if has_display else "silent"
                lags.setdefault(f"Keras, {how}", []).extend(
                    await lags_of_keras(directory, has_display=has_display)
                )
                lags.setdefault(f"200 reports a second and run, {how}", []).extend(
                    await lags_of_reports(directory, has_display=has_display)
                )
    for observations in OBSERVATIONS:
        for _ in range(repeats):
            lags.setdefault(f"a model of {observations} trials and more", []).extend(
                await lags_of_asks(directory, observations)
            )
    figures = [each for what in lags for each in figures_of(what, lags[what], 20)]
    return figures + figures_of(
        "empty loop, busy machine", await lags_beside_busy_processes(), None
    )


def main() -> None:
    given = options(__doc__, repeats=1)
    with scratch() as directory:
        figures = asyncio.run(measure(directory, given.repeats))
    publish("Lag of the caller's event loop", figures, given.json)


if __name__ == "__main__":
    main()
