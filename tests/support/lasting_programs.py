"""Programs that go on for long in one process: `python -m tests.support.lasting_programs NAME COUNT SEED DIR`.

Each first does a little of the same, so that what is made once has been made. It prints as JSON what it holds
before, in between and after, and which trials did not end as their points say.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import aiotune
from aiotune.events import Event, TrialEnded
from aiotune.history import History
from aiotune.trial import Trial, TrialState
from tests.support.lasting import Gate, Watch, gate_of, gated, take_snapshot

LOSS = aiotune.Objective("loss", "min")
POINTS = 10  # snapshots
BLOCK = 10  # trials: one alone says little where several run at once
STEPS = 3
EPOCHS = 9  # of the last rung of a bracket
OF_ITERATION = 17  # trials of all its brackets
TRIALS = 5  # of a search of which there are many
AT_ONCE = 20  # searches
WARM = 4  # searches, of each sort one
RAISES, DIES = 0.06, 0.08  # trials below these values of `x` do so

Report = dict[str, Any]
Fate = Literal["ends well", "raises", "is killed"]
ENDS: dict[Fate, set[TrialState]] = {
    "ends well": {TrialState.COMPLETED, TrialState.PRUNED},
    "raises": {TrialState.FAILED},
    "is killed": {TrialState.FAILED},
}


def fate_of(x: float, *, may_die: bool) -> Fate:
    if x < RAISES:
        return "raises"
    return "is killed" if may_die and x < DIES else "ends well"


def begin(trial: Any, *, may_die: bool) -> float:
    """Return the point of a trial; raise, or end the process, where the point says so."""
    x: float = trial.hyperparameters.Float("x", 0, 1)
    match fate_of(x, may_die=may_die):
        case "raises":
            raise ValueError(f"no model at {x}")
        case "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "ends well":
            pass
    return x


class Kind(aiotune.Tuner):
    """may_die: its trials have processes of their own."""

    may_die = False

    async def pre_create_trial(self) -> None:
        if gate := gate_of(self.project_name):
            await gate.passed()

    def on_trial_end(self, trial: Trial) -> None:
        if gate := gate_of(self.project_name):
            gate.ended()


class InLoop(aiotune.RandomSearch, Kind):
    async def run_trial(self, trial: Any) -> dict[str, float]:
        x = begin(trial, may_die=False)
        units = trial.hyperparameters.Int("units", 1, 10_000)
        await asyncio.sleep(0)
        for step in range(STEPS):
            trial.report(loss=x + 1 / (units + step))
        return {"loss": x}


class InChildren(aiotune.RandomSearch, Kind):
    may_die = True

    def run_trial(self, trial: Any) -> dict[str, float]:
        x = begin(trial, may_die=True)
        units = trial.hyperparameters.Int("units", 1, 10_000)
        for step in range(STEPS):
            trial.report(loss=x + 1 / (units + step))
        return {"loss": x}


class InBrackets(aiotune.Hyperband, Kind):
    async def run_trial(self, trial: Any) -> dict[str, float]:
        x = begin(trial, may_die=False)
        for step in range(trial.budget.initial_epoch, trial.budget.epochs):
            trial.report(step, loss=x + 1 / (1 + step))
        return {"loss": x}


@dataclass(frozen=True)
class Setting:
    """Where a program runs, and from which seed."""

    directory: Path
    seed: int

    def trials_of(self, kind: type[Kind], trials: int) -> int:
        """Return how many a search will have that is asked for so many."""
        if kind is not InBrackets:
            return trials
        return max(1, trials // OF_ITERATION) * OF_ITERATION

    def tuner(self, kind: type[Kind], name: str, trials: int, **options: Any) -> Any:
        """Return a tuner whose points follow from the seed and its name."""
        retries = 0 if "long" in name or name == "young" else 1  # a gate lets trials pass, not runs
        if kind is InBrackets:
            iterations = self.trials_of(kind, trials) // OF_ITERATION
            options |= {"max_epochs": EPOCHS, "hyperband_iterations": iterations}
        else:
            options |= {"max_trials": trials, "pruner": aiotune.MedianPruner()}
        return kind(
            objective=LOSS,
            seed=zlib.crc32(name.encode(), self.seed),
            max_retries_per_trial=retries,
            max_consecutive_failed_trials=trials,
            max_concurrent_trials=2,
            limits=aiotune.Limits(trial_timeout=300.0),
            directory=self.directory,
            project_name=name,
            **options,
        )


class Findings:
    """What a program tells: faults by their kind, what was wrong, and what the process held."""

    def __init__(self) -> None:
        self.faults: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.before = ""  # snapshots
        self.between: list[str] = []
        self.after = ""

    def check(self, name: str, trials: Sequence[Trial], kind: type[Kind], count: int) -> None:
        """Compare the trials of a search with what was asked for, and with what their points say."""
        if len(trials) != count:
            self.wrong.append(f"{name}: {len(trials)} trials instead of {count}")
        for trial in trials:
            fate: Fate = "is killed"  # before it could tell its point
            if "x" in trial.values:
                fate = fate_of(float(trial.values["x"]), may_die=kind.may_die)
            if trial.state not in ENDS[fate]:
                self.wrong.append(f"{name}, {trial.trial_id}: {trial.status}, but it {fate}")
            self.faults[f"trial that {fate}"] += 1

    async def look(self, done: int) -> str:
        """Count what the process holds once the loop has let go of what is over."""
        for _ in range(3):
            await asyncio.sleep(0)
        if not done:
            take_snapshot(done)  # what a look itself makes, once
        return take_snapshot(done)


# --- one search ---


async def one_search(kind: type[Kind], found: Findings, setting: Setting, count: int) -> Report:
    """Search with so many trials, with a display, and look at it several times.

    Their last tenth takes turns with the first trials of another search, so that both see the same machine.
    """
    count = setting.trials_of(kind, count)
    tenth = count // POINTS
    async with AsyncExitStack() as stack:
        # It keeps the fork server, so that this can be looked at before and after.
        keeper = setting.tuner(kind, "keeper", TRIALS)
        if kind.may_die:
            await stack.enter_async_context(keeper)
        await keeper.search(verbose=2)
        found.before = await found.look(0)
        watch = Watch(range(tenth, count + 1, tenth))
        tuner = setting.tuner(kind, "long", count, observers=[watch])
        if kind is InBrackets:
            result, times = await tuner.search(verbose=2), []
        else:
            result, times = await in_turns(tuner, kind, found, setting, count)
        found.check("long", result.trials, kind, count)
        found.between = watch.snapshots
        del tuner, result
        found.after = await found.look(count)
        return {"times": times}


async def in_turns(
    tuner: Any, kind: type[Kind], found: Findings, setting: Setting, count: int
) -> tuple[aiotune.SearchResult, list[tuple[float, float]]]:
    """Return what the search has found, and the milliseconds of a trial: young, old; block by block."""
    blocks = max(1, count // POINTS // BLOCK - 1)
    old, young = Gate(), Gate()
    other = setting.tuner(kind, "young", blocks * BLOCK)
    times = []
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(search_by_leave(tuner, old))
        second = tasks.create_task(search_by_leave(other, young))
        await old.let_through(count - blocks * BLOCK - BLOCK)
        await young.wait_closed()
        for _ in range(blocks):
            seconds = await young.let_through(BLOCK), await old.let_through(BLOCK)
            times.append((1000 * seconds[0] / BLOCK, 1000 * seconds[1] / BLOCK))
        found.check("young", (await second).trials, kind, blocks * BLOCK)
        await old.let_through(BLOCK)
    return first.result(), times


async def search_by_leave(tuner: Any, gate: Gate) -> aiotune.SearchResult:
    """Search, each trial by leave of the gate."""
    with gated(tuner.project_name, gate):
        async with tuner.start(verbose=2) as search:
            result: aiotune.SearchResult = await search.result()
            return result


# --- many searches ---


async def one_after_the_other(found: Findings, setting: Setting, count: int) -> Report:
    """Search so often: in the loop, in children whose fork server ends with them, and cancelled half-way."""
    ways = (searched, cancelled)

    async def search(number: int) -> None:
        kind = (InLoop, InChildren)[number % 2]
        await ways[number // 2 % 2](kind, found, setting, f"search_{number}")

    return await repeated(search, found, count)


async def with_one_server(found: Findings, setting: Setting, count: int) -> Report:
    """Search so often in children of one fork server; every fourth search is cancelled half-way."""

    async def search(number: int) -> None:
        way = cancelled if number % 4 == 3 else searched
        await way(InChildren, found, setting, f"search_{number}")

    async with setting.tuner(InChildren, "keeper", TRIALS):
        return await repeated(search, found, count)


async def at_once(found: Findings, setting: Setting, count: int) -> Report:
    """Search so often, 20 searches at a time, every fourth one in children."""
    at_a_time = min(AT_ONCE, count)
    kinds = (InLoop, InLoop, InLoop, InChildren)

    async def search(number: int) -> None:
        async with asyncio.TaskGroup() as tasks:
            for each, kind in zip(range(at_a_time), itertools.cycle(kinds), strict=False):
                tasks.create_task(searched(kind, found, setting, f"search_{number}_{each}"))

    return await repeated(search, found, count // at_a_time, warm=1)


async def repeated(
    search: Callable[[int], Awaitable[None]], found: Findings, count: int, *, warm: int = WARM
) -> Report:
    """Do it so often, and look at the process before, in between, and after."""
    for number in range(warm):
        await search(number)
    found.before = await found.look(0)
    for number in range(count):
        await search(warm + number)
        if (number + 1) % max(1, count // POINTS) == 0:
            found.between.append(await found.look(number + 1))
    found.after = await found.look(count)
    return {}


async def searched(kind: type[Kind], found: Findings, setting: Setting, name: str) -> None:
    result = await setting.tuner(kind, name, TRIALS).search(verbose=0)
    found.faults["search"] += 1
    found.check(name, result.trials, kind, TRIALS)


async def cancelled(kind: type[Kind], found: Findings, setting: Setting, name: str) -> None:
    """Cancel a search after its second trial."""
    ends: list[str] = []

    def cancel(event: Event, history: History) -> None:
        if isinstance(event, TrialEnded):
            ends.append(event.trial_id)
            if len(ends) == 2:
                task.cancel()

    task = asyncio.ensure_future(
        setting.tuner(kind, name, TRIALS, observers=[cancel]).search(verbose=0)
    )
    with suppress(asyncio.CancelledError):
        await task
    found.faults["search that was cancelled"] += 1
    if not task.cancelled():
        found.wrong.append(f"{name}: it was not cancelled")


PROGRAMS: dict[str, Callable[[Findings, Setting, int], Awaitable[Report]]] = {
    "in_loop": partial(one_search, InLoop),
    "in_children": partial(one_search, InChildren),
    "in_brackets": partial(one_search, InBrackets),
    "one_after_the_other": one_after_the_other,
    "with_one_server": with_one_server,
    "at_once": at_once,
}


def main(name: str, count: str, seed: str, directory: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a search shows is no answer
    found = Findings()
    report = asyncio.run(PROGRAMS[name](found, Setting(Path(directory), int(seed)), int(count)))
    print(json.dumps({**vars(found), **report}), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
