"""What a median pruner saves: the epochs of a random search with it and without, and what both find."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

from common import KERAS_PRELOAD, Figure, scratch, warm_server
from multifidelity_part import Part, Rows
from multifidelity_task import OBJECTIVE, build, split

import aiotune

__all__ = ["Pair", "measure", "part_of"]

TRIALS = 30
EPOCHS = 9
BATCH_SIZE = 64  # quicker; nothing here is a time
SLOWEST = 1e-4  # least learning rate: a space as wide as that of a user who knows little
SHARE_TARGET = 0.5
LOSS_TARGET = 0.5  # percentage points


@dataclass(frozen=True, slots=True)
class Found:
    """One search."""

    epochs: int
    best: float
    pruned: int  # trials


@dataclass(frozen=True, slots=True)
class Pair:
    """The same search twice."""

    seed: int
    whole: Found
    pruned: Found

    @property
    def share(self) -> float:
        """Return the epochs of the pruned one as a share of those of the whole one."""
        return self.pruned.epochs / self.whole.epochs

    @property
    def loss(self) -> float:
        """Return by how many percentage points the pruned one is worse; below 0: better."""
        return 100 * (self.whole.best - self.pruned.best)


def measure(seeds: int) -> Part:
    with scratch() as directory:
        return part_of(asyncio.run(_pairs(directory, seeds)))


async def _pairs(directory: Path, seeds: int) -> list[Pair]:
    pairs = []
    async with warm_server(KERAS_PRELOAD):
        for seed in range(seeds):
            whole = await _search(directory, seed, None)
            pruned = await _search(directory, seed, aiotune.MedianPruner())
            pairs.append(Pair(seed, whole, pruned))
            print("  ".join(_row(pairs[-1])), flush=True)
    return pairs


async def _search(directory: Path, seed: int, pruner: aiotune.Pruner | None) -> Found:
    """Search once. The points and the chances of a trial are the same with a pruner and without."""
    train, held_out = split(seed)
    tuner = aiotune.RandomSearch(
        partial(build, slowest=SLOWEST),
        OBJECTIVE,
        max_trials=TRIALS,
        seed=seed + 1,
        directory=directory,
        project_name="pruner",
        overwrite=True,
        preload=KERAS_PRELOAD,
        max_concurrent_trials=2,
        pruner=pruner,
    )
    result = await tuner.search(
        *train, validation_data=held_out, epochs=EPOCHS, batch_size=BATCH_SIZE, verbose=0
    )
    return _found(result)


def _found(result: aiotune.SearchResult) -> Found:
    """RuntimeError if a trial failed: its figures would be worth nothing."""
    broken = [each for each in result.trials if each.status not in ("COMPLETED", "PRUNED")]
    if broken or result.best_score is None:
        raise RuntimeError(
            f"trials that broke: {[(each.trial_id, each.message) for each in broken]}"
        )
    epochs = sum(len(run.observations) for trial in result.trials for run in trial.runs)
    pruned = sum(each.status == "PRUNED" for each in result.trials)
    return Found(epochs, result.best_score, pruned)


def part_of(pairs: Sequence[Pair]) -> Part:
    """Return the table and the figures."""
    return Part(
        "pruner",
        f"MedianPruner on RandomSearch, digits CNN: {TRIALS} trials of {EPOCHS} epochs",
        [
            Figure(
                "epochs, pruned / whole, median",
                median(each.share for each in pairs),
                "",
                SHARE_TARGET,
            ),
            Figure("epochs, worst seed", max(each.share for each in pairs)),
            Figure(
                "score lost, median", median(each.loss for each in pairs), "points", LOSS_TARGET
            ),
            Figure("score lost, worst seed", max(each.loss for each in pairs), "points"),
        ],
        [_rows(pairs)],
        [
            "the pruner has its default settings; two trials at a time",
            f"learning rates of {SLOWEST:g} to 0.01, batches of {BATCH_SIZE}",
        ],
        {"pairs": [asdict(each) for each in pairs]},
    )


def _rows(pairs: Sequence[Pair]) -> Rows:
    head = ("seed", "epochs", "pruned", "share", "best", "pruned", "points lost", "trials pruned")
    return [head, *map(_row, pairs)]


def _row(pair: Pair) -> tuple[str, ...]:
    epochs = str(pair.whole.epochs), str(pair.pruned.epochs), f"{pair.share:.2f}"
    scores = f"{pair.whole.best:.4f}", f"{pair.pruned.best:.4f}", f"{pair.loss:.2f}"
    return str(pair.seed), *epochs, *scores, str(pair.pruned.pruned)
