"""One sweep of aiotune's Hyperband, in a process of its own, on two slots.

python multifidelity_ours.py DIRECTORY MAX_EPOCHS SEED
"""

from __future__ import annotations

import asyncio
import sys
import time
from functools import partial
from pathlib import Path

from multifidelity_task import FACTOR, OBJECTIVE, StampedBuild, split, stamp, stamping_callbacks

import aiotune


async def main() -> None:
    directory, max_epochs, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    stamps = directory / "stamps"
    train, held_out = split(seed)
    tuner = aiotune.Hyperband(
        StampedBuild(stamps),
        OBJECTIVE,
        max_epochs=max_epochs,
        factor=FACTOR,
        seed=seed + 1,
        directory=directory,
        project_name="sweep",
        max_concurrent_trials=2,
    )
    stamp(stamps, "search")
    result = await tuner.search(
        *train,
        validation_data=held_out,
        verbose=0,
        callbacks=partial(stamping_callbacks, stamps),
    )
    stamp(
        stamps,
        "done",
        best=result.best_score,
        trials=len(result.trials),
        runs=slots_of(result),
        versions={"aiotune": aiotune.__version__},
    )


def slots_of(result: aiotune.SearchResult) -> list[tuple[float, float, str]]:
    """Return of each run when it started and ended, by the clock of the stamps, and the slot that it had."""
    behind = time.time() - time.monotonic()
    return [
        (run.started_at - behind, run.ended_at - behind, ", ".join(run.devices))
        for trial in result.trials
        for run in trial.runs
        if run.ended_at is not None
    ]


if __name__ == "__main__":
    asyncio.run(main())
