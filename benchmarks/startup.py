"""How long `import aiotune` takes, and a run from the scheduler's decision to the first line of user code.

The import is timed inside fresh interpreters. A run counts from `RunStarted.at`, which the scheduler stamps
before it records the start, to a `time.time()` in the first line of user code; the fork server is warm.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common import (
    KERAS_PRELOAD,
    Figure,
    options,
    publish,
    quantile,
    run_search,
    scratch,
    warm_server,
)

import aiotune

FRAMEWORKS = {"tensorflow", "keras", "jax", "torch", "sklearn"}
FUNCTION_PRELOAD = ("aiotune.tuners", "aiotune.program", "aiotune.frameworks.keras")
PROBE = """
import json, sys, time
before = set(sys.modules)
start = time.perf_counter()
import aiotune
bare = time.perf_counter() - start
modules = sorted(set(sys.modules) - before)
for name in aiotune.__all__:
    getattr(aiotune, name)
used = time.perf_counter() - start
print(json.dumps([bare, used, modules, sorted(set(sys.modules) - before)]))
"""


class FirstLine(aiotune.RandomSearch):
    """A plain function that tells when it was reached."""

    def run_trial(self, trial: Any) -> dict[str, float]:
        at = time.time()
        trial.hyperparameters.Float("x", 0, 1)
        return {"loss": 0.0, "at": at}


class FirstLineOfBuild(aiotune.HyperModel):
    """A Keras model that tells when its `build` was reached; training would only add time."""

    def build(self, hp: aiotune.HyperParameters) -> Any:
        self.at = time.time()
        import keras

        return keras.Sequential([keras.Input([1]), keras.layers.Dense(hp.Int("units", 1, 10_000))])

    def fit(self, hp: aiotune.HyperParameters, model: Any, *args: Any, **kwargs: Any) -> Any:
        return {"loss": 0.0, "at": self.at}


def measure_imports(repeats: int) -> tuple[list[Figure], list[str]]:
    """Return the figures and a note on what was loaded. CalledProcessError if the import fails."""
    bare, used = [], []
    for _ in range(repeats):
        done = subprocess.run(
            [sys.executable, "-c", PROBE], capture_output=True, text=True, check=True
        )
        first, second, modules, all_modules = json.loads(done.stdout)
        bare.append(first)
        used.append(second)
    figures = [
        Figure("import aiotune, median", quantile(bare, 0.5), "s", at_most=0.3),
        Figure("import and use of every public name, median", quantile(used, 0.5), "s"),
        Figure("ML frameworks imported", len(FRAMEWORKS & set(all_modules)), at_most=0),
    ]
    notes = [
        f"`import aiotune` loads {len(modules)} modules; foreign ones: {_foreign(modules)}",
        f"all public names load {len(all_modules)} modules; foreign ones: {_foreign(all_modules)}",
    ]
    return figures, notes


def _foreign(modules: list[str]) -> str:
    roots = {name.partition(".")[0] for name in modules}
    foreign = sorted(roots - set(sys.stdlib_module_names) - {"aiotune"})
    return ", ".join(foreign) or "none"


async def measure_starts(directory: Path, repeats: int) -> list[Figure]:
    figures = []
    async with warm_server(FUNCTION_PRELOAD):
        for slots in (1, 2):
            seconds = await starts_of_function(directory, repeats, slots)
            figures += described(f"function, {slots} at a time", seconds)
    async with warm_server(KERAS_PRELOAD):
        for slots in (1, 2):
            seconds = await starts_of_build(directory, repeats, slots)
            figures += described(f"Keras build, {slots} at a time", seconds)
    return figures


def described(what: str, seconds: list[float]) -> list[Figure]:
    milliseconds = [1000 * each for each in seconds]
    return [
        Figure(f"first line of {what}, median", quantile(milliseconds, 0.5), "ms", at_most=50),
        Figure(f"first line of {what}, p95", quantile(milliseconds, 0.95), "ms"),
    ]


async def starts_of_function(directory: Path, repeats: int, slots: int) -> list[float]:
    tuner = FirstLine(
        objective=aiotune.Objective("loss", "min"),
        max_trials=repeats + 2,
        seed=1,
        directory=directory,
        project_name=f"function-{slots}",
        preload=FUNCTION_PRELOAD,
        max_concurrent_trials=slots,
    )
    return await seconds_to_first_line(tuner)


async def starts_of_build(directory: Path, repeats: int, slots: int) -> list[float]:
    tuner = aiotune.RandomSearch(
        FirstLineOfBuild(),
        aiotune.Objective("loss", "min"),
        max_trials=repeats + 2,
        seed=1,
        directory=directory,
        project_name=f"build-{slots}",
        preload=KERAS_PRELOAD,
        max_concurrent_trials=slots,
    )
    return await seconds_to_first_line(tuner)


async def seconds_to_first_line(tuner: aiotune.Tuner) -> list[float]:
    """Return them for each run but the first two, which may have waited for the server's imports."""
    outcome = await run_search(tuner)
    return [trial.metrics["at"] - trial.runs[0].started_at for trial in outcome.result.trials[2:]]


def main() -> None:
    given = options(__doc__, repeats=50)
    figures, notes = measure_imports(min(10, given.repeats))
    with scratch() as directory:
        figures += asyncio.run(measure_starts(directory, given.repeats))
    publish("Startup", figures, given.json, notes)


if __name__ == "__main__":
    main()
