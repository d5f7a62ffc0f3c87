"""How soon a decision to stop takes effect, in batches.

A rule ends each trial at its first report; and searches are asked to end in the middle of an epoch.
"""

from __future__ import annotations

import asyncio
import mmap
import struct
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from common import KERAS_PRELOAD, Figure, scratch, warm_server
from multifidelity_part import Part
from multifidelity_task import OBJECTIVE, build, split

import aiotune
from aiotune.events import Event, RunEnded, StopRequested
from aiotune.history import History
from aiotune.trial import Run, Trial

__all__ = ["Stop", "measure", "part_of"]

TRIALS = 10
EPOCHS = 3
ASKED_AFTER = 60  # batches: in the second epoch of 44
POLL_SECONDS = 0.005
BATCH_TARGET = 1.0

_COUNT = struct.Struct("q")


@dataclass(frozen=True, slots=True)
class Stop:
    """One run that was stopped."""

    batches: int  # that ended after the decision
    seconds: float  # from the decision to the recorded end of the run


class Counter:
    """A number in a file that a child counts up and this process reads, with no delay between them."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _COUNT.size)

    @classmethod
    def made(cls, path: Path) -> Counter:
        path.write_bytes(_COUNT.pack(0))
        return cls(path)

    @property
    def value(self) -> int:
        (value,) = _COUNT.unpack_from(self._memory)
        return int(value)

    def add_one(self) -> None:
        _COUNT.pack_into(self._memory, 0, self.value + 1)


def counting_callbacks(path: Path) -> list[Any]:
    """Return a list of the callback that counts the batches that are done. Called in a child."""
    import keras

    counter = Counter(path)

    class Counting(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            counter.add_one()

    return [Counting()]


@dataclass
class StopAtOnce(aiotune.Pruner):
    """Ends each trial at its first report, and notes what was done by then. One run at a time."""

    counter: Counter
    decided: tuple[int, float] | None = None
    stops: list[Stop] = field(default_factory=list)

    def judge(self, history: History, trial: Trial, run: Run) -> str | None:
        if self.decided is None:
            self.decided = self.counter.value, time.monotonic()
        return "the benchmark stops every trial"

    def observe(self, event: Event, history: History) -> None:
        """Note how a run went on. A next one begins a process first, and so counts later."""
        if isinstance(event, RunEnded):
            if self.decided is None:
                raise RuntimeError(f"a run ended before it reported: {event.message}")
            batches, at = self.decided
            self.stops.append(Stop(self.counter.value - batches, time.monotonic() - at))
            self.decided = None


def measure() -> Part:
    with scratch() as directory:
        return asyncio.run(_measure(directory))


async def _measure(directory: Path) -> Part:
    async with warm_server(KERAS_PRELOAD):
        by_rule, bare = await _stopped_by_rule(directory)
        asked = [await _asked(directory) for _ in range(TRIALS)]
    return part_of(by_rule, asked, bare)


async def _stopped_by_rule(directory: Path) -> tuple[Sequence[Stop], Sequence[str]]:
    """Return the stops, and the trials that have lost their metrics or their best model."""
    path = directory / "batches"
    rule = StopAtOnce(Counter.made(path))
    tuner = _tuner(directory, "rule", TRIALS, pruner=rule, observers=[rule.observe])
    result = await tuner.search(*_arguments(), **_keywords(path))
    return rule.stops, [each.trial_id for each in result.trials if not _is_whole(tuner, each)]


async def _asked(directory: Path) -> Stop:
    """Ask a search to end when its only run is in the middle of an epoch.

    Batches count from the recorded decision, which is sent next; seconds from the call.
    """
    path = directory / "batches"
    counter = Counter.made(path)
    decided: list[int] = []

    def observe(event: Event, history: History) -> None:
        if isinstance(event, StopRequested):
            decided.append(counter.value)

    tuner = _tuner(directory, "asked", 1, observers=[observe])
    async with tuner.start(*_arguments(), **_keywords(path)) as search:
        # Polled: a child that woke this loop would count later than it trains.
        while counter.value < ASKED_AFTER:  # noqa: ASYNC110
            await asyncio.sleep(POLL_SECONDS)
        at = time.monotonic()
        search.request_stop()
        await search.result()
    return Stop(counter.value - decided[0], time.monotonic() - at)


def _tuner(directory: Path, name: str, trials: int, **settings: Any) -> aiotune.Tuner:
    return aiotune.RandomSearch(
        build,
        OBJECTIVE,
        max_trials=trials,
        seed=1,
        directory=directory,
        project_name=name,
        overwrite=True,
        preload=KERAS_PRELOAD,
        max_concurrent_trials=1,
        keep_checkpoints="all",
        **settings,
    )


def _arguments() -> tuple[Any, ...]:
    return split(0)[0]


def _keywords(counted_in: Path) -> dict[str, Any]:
    return {
        "validation_data": split(0)[1],
        "epochs": EPOCHS,
        "verbose": 0,
        "callbacks": partial(counting_callbacks, counted_in),
    }


def _is_whole(tuner: aiotune.Tuner, trial: Trial) -> bool:
    """Return whether a trial that was pruned has its metrics and a best model that can be loaded."""
    has_result = trial.status == "PRUNED" and trial.score is not None
    epochs = [each for run in trial.runs for each in run.observations]
    if not (has_result and len(epochs) == 1):
        return False
    tuner.load_model(trial)  # raises where there is none
    return True


def part_of(by_rule: Sequence[Stop], asked: Sequence[Stop], bare: Sequence[str]) -> Part:
    """Return the figures. bare: the trials that have lost metrics or best model."""
    figures = []
    for what, stops in (("by a rule", by_rule), ("asked in mid-epoch", asked)):
        batches = [each.batches for each in stops]
        seconds = [1000 * each.seconds for each in stops]
        figures += [
            Figure(f"{what}: batches that ended after it, max", max(batches), "", BATCH_TARGET),
            Figure(f"{what}: the same, median", median(batches)),
            Figure(f"{what}: until the end is recorded, median", median(seconds), "ms"),
            Figure(f"{what}: the same, max", max(seconds), "ms"),
        ]
    figures.append(Figure("pruned trials without metrics or best model", len(bare), "", 0))
    return Part(
        "stop",
        f"From the decision to stop to the end of the run: digits CNN, {len(by_rule)} runs each",
        figures,
        notes=[
            "a rule's decision is its answer, another one's is the recorded StopRequested",
            "the batch that is under way at the decision is counted, if it ends",
        ],
        results={
            "by a rule": [asdict(each) for each in by_rule],
            "asked": [asdict(each) for each in asked],
        },
    )
