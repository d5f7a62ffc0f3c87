"""One backend's share of `gpu.py`, in a process of its own: measures part by part, and writes what each gave.

Each part is a line of JSON in the file that it is told, written when the part is over: `gpu.py` reads what
there is, whatever becomes of this process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from common import KERAS_PRELOAD, Figure, Outcome, quantile, scratch, warm_server
from gpu_programs import Killed, Neighbours, Timed, samples

import aiotune
from aiotune.devices.device import Reading
from aiotune.devices.nvml_readings import Sensor
from aiotune.events import RunEnded, RunStarted
from aiotune.executors.gpu_memory import CONTEXT_BYTES
from aiotune.trial import FailureKind, Run, RunState

__all__ = ["PARTS", "Result", "seconds_of"]

LOSS = aiotune.Objective("loss", "min")
MEBIBYTE, GIBIBYTE = 2**20, 2**30
POLL_SECONDS = 0.005
SHARE = 0.25  # of the card, in the parts that share it by memory


@dataclass(frozen=True, slots=True)
class Result:
    """What one part gave. `error`: why it could not measure, in one line."""

    part: str
    figures: Sequence[Figure] = ()
    notes: Sequence[str] = ()
    error: str | None = None
    seconds: float = 0.0

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Result:
        plain = json.loads(text)
        return cls(**plain | {"figures": [Figure(**each) for each in plain["figures"]]})


@dataclass(frozen=True, slots=True)
class Bench:
    """What the parts measure with."""

    card: Card
    directory: Path
    is_quick: bool

    def tuner(self, hypermodel: Any, name: str, **keywords: Any) -> aiotune.Tuner:
        return self.make(aiotune.RandomSearch, name, hypermodel=hypermodel, **keywords)

    def make(
        self,
        kind: type[aiotune.RandomSearch],
        name: str,
        *,
        gpus: Any = 1,
        slots: int = 1,
        **keywords: Any,
    ) -> aiotune.Tuner:
        """Return a tuner of the card alone. Each run has the same cores, however many there are at a time."""
        cpus = max(1, len(os.sched_getaffinity(0)) // 4)
        has_card = bool(self.card.uuid)
        return kind(
            objective=LOSS,
            seed=1,
            directory=self.directory,
            project_name=name,
            overwrite=True,
            preload=KERAS_PRELOAD,
            max_concurrent_trials=slots,
            gpus=[self.card.uuid] if has_card else 0,
            resources=aiotune.Resources(gpus=gpus if has_card else 0, cpus=cpus),
            keep_checkpoints="none",
            max_retries_per_trial=0,
            **keywords,
        )


@dataclass
class Card:
    """The card that is measured on, and what NVML says of it. uuid: empty in a rehearsal without one."""

    uuid: str
    _sensor: Sensor = field(default_factory=Sensor)
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def read(self) -> Reading:
        if not self.uuid:
            return Reading(total_bytes=GIBIBYTE, used_bytes=0, energy_joules=time.monotonic())
        async with self._reading:  # a sensor serves one thread at a time
            readings = await asyncio.to_thread(self._sensor.read, (self.uuid,))
        return readings[self.uuid]

    async def used(self) -> int:
        """Return the bytes in use. RuntimeError where the driver does not say."""
        reading = await self.read()
        if reading.used_bytes is None:
            raise RuntimeError(f"the driver does not tell what is in use: {reading.fault or ''}")
        return reading.used_bytes

    async def total(self) -> int:
        reading = await self.read()
        if reading.total_bytes is None:
            raise RuntimeError(f"the driver does not tell the card's memory: {reading.fault or ''}")
        return reading.total_bytes

    def close(self) -> None:
        self._sensor.close()


@asynccontextmanager
async def watching(card: Card) -> AsyncIterator[list[int]]:
    """Give a list to which the bytes in use are added all the time."""
    seen: list[int] = [await card.used()]

    async def watch() -> None:
        while True:
            seen.append(await card.used())
            await asyncio.sleep(10 * POLL_SECONDS)

    async with asyncio.TaskGroup() as tasks:
        watcher = tasks.create_task(watch())
        try:
            yield seen
        finally:
            watcher.cancel()


async def observe(tuner: aiotune.Tuner, *args: Any, **kwargs: Any) -> Outcome:
    """Search to the end; trials may fail."""
    async with tuner.start(*args, verbose=0, **kwargs) as search:
        events = tuple([event async for event in search.events()])
        return Outcome(await search.result(), events)


async def train(tuner: aiotune.Tuner) -> Outcome:
    """Search to the end. RuntimeError if a trial failed."""
    outcome = await observe(tuner, *samples(4096))
    for trial in outcome.result.trials:
        if trial.status != "COMPLETED":
            raise RuntimeError(f"trial {trial.trial_id} is {trial.status}: {trial.message}")
    return outcome


def runs_of(outcome: Outcome) -> list[Run]:
    return [run for trial in outcome.result.trials for run in trial.runs]


def span(runs: Sequence[Run]) -> float:
    """Return the seconds from the first run's start to the last one's end."""
    return max(run.ended_at or run.started_at for run in runs) - min(run.started_at for run in runs)


def most_at_once(outcome: Outcome) -> int:
    """Return how many runs were in progress at a time, at most."""
    most = now = 0
    for event in outcome.events:
        now += isinstance(event, RunStarted) - isinstance(event, RunEnded)
        most = max(most, now)
    return most


# --- the parts ---


async def trains(bench: Bench) -> Result:
    """Does a child of the fork server train on the GPU, and does the server itself leave it alone?"""
    before = await bench.card.used()
    tuner = bench.tuner(Timed(2.0), "trains", max_trials=1 if bench.is_quick else 2)
    async with watching(bench.card) as seen:
        outcome = await train(tuner)
    trials = outcome.result.trials
    grown = max(seen) - before
    held = await settled(bench.card, before, 5.0) - before
    metrics = [trial.metrics for trial in trials]
    off_gpu = sum(each["off_gpu"] for each in metrics)
    astray = sum(each["by_index"] or each["gpus_seen"] != 1 for each in metrics)
    figures = [
        Figure("runs that did not train on the GPU", off_gpu, "", 0),
        Figure("runs that saw an index, or not one GPU", astray, "", 0),
        Figure("runs of which NVML saw no memory", float(grown < MEBIBYTE), "", 0),
        Figure("memory of the card while a run trains", grown / GIBIBYTE, "GiB"),
        Figure("memory of the card that the fork server holds", held / MEBIBYTE, "MiB", 16),
    ]
    pool = max(each["pool_bytes"] for each in metrics)
    if pool > 0:
        beside = (grown - pool) / MEBIBYTE
        figures.append(
            Figure(
                "memory of a run beside its framework's", beside, "MiB", CONTEXT_BYTES / MEBIBYTE
            )
        )
    return Result("trains", figures)


async def settled(card: Card, wanted: int, seconds: float) -> int:
    """Return the bytes in use, once they are down to those wanted, or after so many seconds."""
    end = time.monotonic() + seconds
    while (used := await card.used()) > wanted and time.monotonic() < end:  # noqa: ASYNC110
        await asyncio.sleep(POLL_SECONDS)
    return used


async def start(bench: Bench) -> Result:
    """How long does it take from the lease to the first training step?"""
    number = 2 if bench.is_quick else 10
    outcome = await train(bench.tuner(Timed(0.0), "start", max_trials=number + 1))
    trials = outcome.result.trials[1:]  # the first one may have waited for imports
    lines = [trial.metrics["line_at"] - trial.runs[0].started_at for trial in trials]
    steps = [trial.metrics["step_at"] - trial.runs[0].started_at for trial in trials]
    line = 1000 * quantile(lines, 0.5)
    figures = [
        Figure("from the lease to the first line of build, median", line, "ms"),
        Figure("from the lease to the end of the first step, median", quantile(steps, 0.5), "s"),
        Figure("the same, at most", max(steps), "s"),
    ]
    return Result("start", figures, [f"{number} runs, one at a time"])


async def enforced(bench: Bench) -> Result:
    """Does a run that wants more than its share fail alone, and is it run again on the whole card?"""
    total = await bench.card.total()
    share, wanted = int(SHARE * total), int(1.5 * SHARE * total)
    with scratch() as folder:
        tuner = bench.make(Neighbours, "enforced", max_trials=2, slots=2, gpus=SHARE)
        outcome = await observe(tuner, folder, share, wanted)
        got = [int(path.read_text()) for path in sorted(folder.glob("greedy-[0-9]"))]
    neighbour, greedy = outcome.result.trials
    if not greedy.runs:
        raise RuntimeError("the greedy trial has not begun")
    limit = greedy.runs[0].gpu_memory or share
    is_as_told = greedy.runs[0].failure is FailureKind.OUT_OF_MEMORY
    again = [run for run in greedy.runs[1:] if run.state is RunState.FINISHED]
    failed = sum(run.state is RunState.FAILED for run in neighbour.runs)
    figures = [
        Figure("runs over their share that did not fail for memory", float(not is_as_told), "", 0),
        Figure("what such a run got, of its share", got[0] / limit if got else 0.0, "", 1.02),
        Figure("failures of its neighbour", failed, "", 0),
        Figure("greedy trials that failed alone on the card, too", float(not again), "", 0),
        Figure("runs at a time, at most", most_at_once(outcome)),
    ]
    notes = [f"the greedy trial's runs: {'; '.join(map(described, greedy.runs))}"]
    return Result("enforced", figures, notes)


def described(run: Run) -> str:
    why = f" ({run.failure.value})" if run.failure else ""
    memory = "the whole card" if run.gpu_memory is None else f"{run.gpu_memory / GIBIBYTE:.3g} GiB"
    return f"{run.state.value}{why} with {memory}"


async def killed(bench: Bench) -> Result:
    """How soon is the memory back after SIGKILL, and when does the next run start?"""
    before, total = await bench.card.used(), await bench.card.total()
    with scratch() as folder:
        tuner = bench.make(Killed, "killed", max_trials=2)
        async with tuner.start(folder, int(SHARE * total), verbose=0) as search:
            await present(folder / "pid")
            held = await bench.card.used() - before
            os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
            at, start = time.time(), time.monotonic()
            await settled(bench.card, before + held // 20, 20.0)
            back = time.monotonic() - start
            left = await bench.card.used() - before
            events = [event async for event in search.events()]
            await search.result()
    later = [event.at for event in events if isinstance(event, RunStarted) and event.at > at]
    if not later:
        raise RuntimeError("no run was started after the one that was killed")
    figures = [
        Figure("memory that the run held when it was killed", held / GIBIBYTE, "GiB"),
        Figure("until NVML shows it free", 1000 * back, "ms"),
        Figure("what is not free then, of what was held", max(0, left) / max(1, held), "", 0.05),
        Figure("until the next run starts on the card", 1000 * (later[0] - at), "ms", 10_000),
    ]
    return Result("killed", figures)


async def present(path: Path) -> None:
    while not path.exists():  # noqa: ASYNC110, ASYNC240
        await asyncio.sleep(POLL_SECONDS)


async def sharing(bench: Bench) -> Result:
    """What are several runs at a time on one card worth, against one?"""
    levels = (1, 2) if bench.is_quick else (1, 2, 4)
    trials = 4 if bench.is_quick else 6
    seconds: dict[int, float] = {}
    figures = []
    for level in levels:
        tuner = bench.tuner(
            Timed(0.0, 512),
            f"sharing-{level}",
            max_trials=trials,
            slots=level,
            gpus=1 if level == 1 else 1 / level,
        )
        outcome = await train(tuner)
        seconds[level] = span(runs_of(outcome))
        most = most_at_once(outcome)
        figures.append(Figure(f"{trials} trials, {level} on the card", seconds[level], "s"))
        figures.append(Figure(f"runs at a time there, {level} allowed", most, "", level))
    figures += [
        Figure(f"wall time, {level} at a time / 1 at a time", seconds[level] / seconds[1], "", 1.0)
        for level in levels[1:]
    ]
    return Result("sharing", figures)


async def accounting(bench: Bench) -> Result:
    """Do GPU seconds and energy of the runs add up to what the clock and the card say?"""
    seconds = 2.0 if bench.is_quick else 5.0
    figures, notes = [], []
    for slots in (1, 2):
        first = await bench.card.read()
        tuner = bench.tuner(
            Timed(seconds),
            f"accounting-{slots}",
            max_trials=2,
            slots=slots,
            gpus=1 if slots == 1 else 0.5,
        )
        runs = runs_of(await train(tuner))
        last = await bench.card.read()
        what = "alone on the card" if slots == 1 else "two on the card"
        figures += accounts(what, runs, by_clock(runs, slots))
        figures += energies(what, runs, first, last)
        if first.energy_joules is None:
            notes.append("the card has no counter of energy")
    return Result("accounting", figures, notes)


def by_clock(runs: Sequence[Run], slots: int) -> float:
    """Return the seconds in which the card had a run."""
    if slots > 1:
        return span(runs)
    return sum((run.ended_at or run.started_at) - run.started_at for run in runs)


def accounts(what: str, runs: Sequence[Run], clock: float) -> list[Figure]:
    """RuntimeError if a run has no account."""
    usages = [run.usage for run in runs if run.usage is not None]
    if len(usages) < len(runs):
        raise RuntimeError(f"{len(runs) - len(usages)} of {len(runs)} runs have no usage")
    peaks = [usage.peak_bytes for usage in usages if usage.peak_bytes is not None]
    seconds = sum(usage.gpu_seconds for usage in usages)
    figures = [Figure(f"{what}: GPU seconds / seconds by the clock", seconds / clock, "", 1.1)]
    if peaks:
        figures.append(Figure(f"{what}: most memory of a run", max(peaks) / GIBIBYTE, "GiB"))
    return figures


def energies(what: str, runs: Sequence[Run], first: Reading, last: Reading) -> list[Figure]:
    told = [run.usage.energy_joules for run in runs if run.usage and run.usage.energy_joules]
    if not told:
        return []
    figures = [Figure(f"{what}: energy of the runs", sum(told), "J")]
    if first.energy_joules is not None and last.energy_joules is not None:
        counter = max(1.0, last.energy_joules - first.energy_joules)
        ratio = sum(told) / counter
        figures.append(Figure(f"{what}: the same / by the card's counter", ratio, "", 1.05))
    return figures


async def packing(bench: Bench) -> Result:
    """Do small models share the card by themselves, and does memory suffice for all of them?"""
    tuner = bench.tuner(
        Timed(0.0, 256), "packing", max_trials=5 if bench.is_quick else 9, slots=4, gpus="shared"
    )
    outcome = await observe(tuner, *samples(4096))
    runs = runs_of(outcome)
    short = sum(run.failure is FailureKind.OUT_OF_MEMORY for run in runs)
    shares = [run.gpu_memory for run in runs if run.gpu_memory is not None]
    failed = sum(trial.status != "COMPLETED" for trial in outcome.result.trials)
    figures = [
        Figure("runs at a time, at most 4 allowed", most_at_once(outcome), "", 4),
        Figure("runs out of memory", short, "", 0),
        Figure("trials that failed", failed, "", 0),
        Figure(
            "what a run counts, once one was measured", max(shares, default=0) / GIBIBYTE, "GiB"
        ),
    ]
    return Result("packing", figures)


# The most important first: what the time does not suffice for is left out.
PARTS: Mapping[str, Callable[[Bench], Awaitable[Result]]] = {
    part.__name__: part for part in (trains, enforced, killed, start, accounting, sharing, packing)
}


def seconds_of(part: str, *, is_quick: bool) -> float:
    """Return how long a part may take. The first one of a process waits for the imports, too."""
    return {"trains": 90.0, "sharing": 60.0}.get(part, 45.0) * (1 if is_quick else 3)


async def measure(parts: Sequence[str], card: Card, result: Path, is_quick: bool) -> None:
    try:
        with scratch() as directory:
            async with warm_server(KERAS_PRELOAD):
                for name in parts:
                    done = await one_part(name, Bench(card, directory, is_quick))
                    with result.open("a") as file:
                        file.write(f"{done.to_json()}\n")
    finally:
        card.close()


async def one_part(name: str, bench: Bench) -> Result:
    """Measure one part in bounded time; whatever breaks becomes its error."""
    start, limit = time.monotonic(), seconds_of(name, is_quick=bench.is_quick)
    try:
        async with asyncio.timeout(limit):
            done = await PARTS[name](bench)
    except TimeoutError:
        traceback.print_exc()
        done = Result(name, error=f"not done within {limit:g} s")
    except Exception as error:
        traceback.print_exc()
        done = Result(name, error=one_line(error))
    return Result(name, done.figures, done.notes, done.error, time.monotonic() - start)


def one_line(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}".splitlines()[0]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--card", required=True, help="its UUID; empty: none, in a rehearsal")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    asyncio.run(measure(given.parts, Card(given.card), given.result, given.quick))


if __name__ == "__main__":
    main()
