"""Processes of a search that are killed, but for the caller: the search goes on, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from aiotune import EndReason, SearchResult
from aiotune.events import Reported
from aiotune.trial import FailureKind, RunState
from tests.support import tuned
from tests.support.chaos import Chaos
from tests.support.marked import MARK, marked, wait_until_gone
from tests.support.tuned import make

KEPT, CLEAN = "Nothing is lost", "Nothing is left behind"
RETRIES = 2
TRIALS = 6
LONGEST_LIFE_SECONDS = 5.0


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A mark for the processes that this one starts; at the end all of them are killed."""
    mark = str(uuid.uuid4())
    monkeypatch.setenv(MARK, mark)
    monkeypatch.setenv("KERAS_TEST", mark)  # a fork server of its own
    yield mark
    for pid in marked(mark):
        kill(pid)


def kill(pid: int) -> None:
    """Kill a process, which may have gone just now with another one."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


async def killing(
    directory: Path, chance: random.Random, victims: tuple[str, ...], kills: int
) -> SearchResult:
    """Search, and kill such processes of a run that has reported, so often; then let the runs end.

    Each run has a daemon, and waits. All of `victims` that belong to the run are killed at once.
    """
    tuner = make(tuned.Sower, directory, max_trials=TRIALS, max_retries_per_trial=RETRIES)
    gate = directory / "gate"
    killed: set[int] = set()
    async with tuner.start(str(gate)) as search:
        async for event in search.events():
            if not isinstance(event, Reported):
                continue
            family = [int(event.metrics[victim]) for victim in victims]
            if not killed.isdisjoint(family):
                continue  # it reported before it was killed with the other run
            if len(killed) == kills * len(victims):
                gate.touch()
                continue
            await asyncio.sleep(chance.uniform(0, 0.02))  # anywhere in what follows the report
            killed.update(family)
            for pid in family:
                kill(pid)
        return await search.result()


def check(result: SearchResult) -> None:
    """Check counts: every trial is there once, completed or out of retries, and no run is made again."""
    assert result.reason is EndReason.MAX_TRIALS
    assert len(result.trials) == TRIALS
    for trial in result.trials:
        done = Counter(run.state for run in trial.runs)
        failed = done[RunState.FAILED]
        assert trial.is_over
        assert done[RunState.FINISHED] == (trial.status == "COMPLETED")
        assert failed <= RETRIES + 1
        assert (trial.status == "FAILED") == (failed == RETRIES + 1 or done[RunState.LOST] >= 3)
        assert {run.failure for run in trial.runs} <= {None, FailureKind.CRASH}


@pytest.mark.parametrize(
    "victims",
    [("child",), ("server",), ("guardian",), ("guardian", "server")],
    ids=" and ".join,
)
async def test_search_goes_on_and_nothing_is_left(
    chaos: Chaos, tmp_path: Path, mark: str, victims: tuple[str, ...]
) -> None:
    kills = chaos.pick(1, 3)
    searches = chaos.pick(1, 10)
    for index in range(searches):
        chance = random.Random(f"{chaos.seed} {victims} {index}")
        check(await killing(tmp_path / f"{index}", chance, victims, kills))
        assert wait_until_gone(mark, LONGEST_LIFE_SECONDS) == [], f"search {index}"
    fault = f"SIGKILL of the {' and the '.join(victims)} of a run"
    chaos.count(KEPT, fault, kills * searches)
    chaos.count(CLEAN, fault, kills * searches)
