"""What a second slot is worth: 12 trials x 5 epochs of a small dense model, one at a time against two.

Both are measured in alternation in one process, with a warm fork server, on the same trials. CPU time is
that of the caller, of the fork server and of all its children. The target is for a machine of 2 cores.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common import (
    KERAS_PRELOAD,
    CpuTimes,
    Figure,
    Split,
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
from aiotune.events import RunStarted, SearchEnded

if TYPE_CHECKING:
    from aiotune.executors.launch import Server

TRIALS = 12
EPOCHS = 5


@dataclass(frozen=True, slots=True)
class Sample:
    """One search. Times in seconds; `trials`: from the first run's start to the search's end."""

    trials: float
    search: float
    cpu: CpuTimes


async def measure(directory: Path, repeats: int) -> Mapping[int, Sequence[Sample]]:
    """Return the samples by number of slots; each pair is made back to back, the first one varying."""
    split = digits()
    samples: dict[int, list[Sample]] = {1: [], 2: []}
    async with warm_server(KERAS_PRELOAD) as server:
        await search(directory, split, 2, trials=2)  # waits for the server's imports
        for repeat in range(repeats):
            for slots in (1, 2) if repeat % 2 == 0 else (2, 1):
                samples[slots].append(await sample(directory, split, slots, server))
    return samples


async def sample(directory: Path, split: Split, slots: int, server: Server) -> Sample:
    cpu, start = CpuTimes.now(server), time.monotonic()
    trials = await search(directory, split, slots, trials=TRIALS)
    taken = Sample(trials, time.monotonic() - start, CpuTimes.now(server) - cpu)
    print(
        f"{slots} at a time: {taken.search:.2f} s, CPU {taken.cpu.runs:.2f} s in the runs and"
        f" {taken.cpu.caller:.2f} s in the caller",
        flush=True,
    )
    return taken


async def search(directory: Path, split: Split, slots: int, *, trials: int) -> float:
    """Search once and return the seconds from the first run's start to the end."""
    tuner = aiotune.RandomSearch(
        build_dense,
        "val_accuracy",
        max_trials=trials,
        seed=1,
        directory=directory,
        project_name=f"slots-{slots}",
        overwrite=True,
        preload=KERAS_PRELOAD,
        max_concurrent_trials=slots,
    )
    outcome = await run_search(
        tuner, split.x, split.y, epochs=EPOCHS, validation_data=split.validation_data, verbose=0
    )
    return outcome.of(SearchEnded)[0].at - outcome.of(RunStarted)[0].at


def figures_of(samples: Mapping[int, Sequence[Sample]]) -> list[Figure]:
    """Return the ratios, each the median over the pairs, and what they come from."""
    pairs = list(zip(samples[2], samples[1], strict=True))
    trials = [two.trials / one.trials for two, one in pairs]
    searches = [two.search / one.search for two, one in pairs]
    cpu = [two.cpu.total / one.cpu.total for two, one in pairs]
    figures = [
        Figure("wall time of the trials, 2 slots / 1 slot", quantile(trials, 0.5), "", 0.6),
        Figure("wall time of search(), 2 slots / 1 slot", quantile(searches, 0.5), "", 0.6),
        Figure("CPU time of search(), 2 slots / 1 slot", quantile(cpu, 0.5), "", 1.1),
    ]
    for slots in (1, 2):
        chosen = samples[slots]
        figures += [
            Figure(f"search(), {slots} at a time", quantile([s.search for s in chosen], 0.5), "s"),
            Figure(
                f"its trials, {slots} at a time", quantile([s.trials for s in chosen], 0.5), "s"
            ),
            Figure(
                f"its runs' CPU, {slots} at a time",
                quantile([s.cpu.runs for s in chosen], 0.5),
                "s",
            ),
            Figure(
                f"the caller's CPU, {slots} at a time",
                quantile([s.cpu.caller for s in chosen], 0.5),
                "s",
            ),
        ]
    return figures


def main() -> None:
    given = options(__doc__, repeats=3)
    with scratch() as directory:
        samples = asyncio.run(measure(directory, given.repeats))
    publish("Slots", figures_of(samples), given.json, [f"medians of {given.repeats} pairs"])


if __name__ == "__main__":
    main()
