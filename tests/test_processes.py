"""The fork server that the runs of a tuner share, and what it imports."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
import threading
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

import aiotune
from aiotune import RandomSearch, SearchResult
from aiotune.errors import FatalRuntimeError
from aiotune.events import RunStarted
from aiotune.executors.context import RunContext
from aiotune.processes import modules_to_preload, refuse_to_block
from aiotune.program import current_run
from aiotune.settings import Settings
from tests.support import tuned
from tests.support.processes import is_gone
from tests.support.tuned import make

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the fork server is Linux's")


class Telling(RandomSearch):
    """Tells which process has started it, and whether that is a copy of it."""

    def run_trial(self, trial: RunContext) -> dict[str, float]:
        trial.hyperparameters.Float("x", 0.0, 1.0)
        parent = os.getppid()
        commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in ("self", parent)]
        return {"loss": 0.0, "server": parent, "is_fork": commands[0] == commands[1]}


def servers(*results: SearchResult) -> set[int]:
    """Return the processes that have started the runs."""
    return {int(trial.metrics["server"]) for result in results for trial in result.trials}


async def test_two_searches_at_once_share_one_fork_server_and_one_pool(tmp_path: Path) -> None:
    tuners = [make(Telling, tmp_path, project_name=name, max_trials=6) for name in ("a", "b")]
    results = await asyncio.gather(*(tuner.search(verbose=0) for tuner in tuners))
    assert len(servers(*results)) == 1
    runs = [run for result in results for trial in result.trials for run in trial.runs]
    assert len(runs) == 12
    for device in {run.devices for run in runs}:
        spans = sorted((run.started_at, run.ended_at or 0) for run in runs if run.devices == device)
        for (_, ended), (began, _) in itertools.pairwise(spans):
            assert ended <= began


async def test_a_block_keeps_the_fork_server_for_all_its_searches(tmp_path: Path) -> None:
    tuner = make(Telling, tmp_path, max_trials=2)
    async with tuner:
        first = await tuner.search(verbose=0)
        longer = make(Telling, tmp_path, max_trials=4)
        async with longer:
            both = await longer.search(verbose=0)
        (server,) = servers(first, both)
        assert not is_gone(server)
    assert is_gone(server)


async def test_without_a_block_the_fork_server_ends_with_its_search(tmp_path: Path) -> None:
    (server,) = servers(await make(Telling, tmp_path, max_trials=2).search(verbose=0))
    assert is_gone(server)


async def test_trials_in_the_loop_need_no_fork_server(tmp_path: Path) -> None:
    tuner = make(Telling, tmp_path, executor="inline", max_concurrent_trials=1)
    async with tuner:
        await tuner.search(verbose=0)
    assert not (tmp_path / "project" / "server.log").exists()


@pytest.mark.parametrize(("method", "is_fork"), [("fork", True), ("auto", True), ("spawn", False)])
async def test_start_method(tmp_path: Path, method: str, is_fork: bool) -> None:
    tuner = make(Telling, tmp_path, max_trials=1, start_method=method)
    (trial,) = (await tuner.search(verbose=0)).trials
    assert bool(trial.metrics["is_fork"]) is is_fork


def preloaded(hypermodel: Any, frameworks: set[str], **settings: Any) -> list[str]:
    """Return what is imported beside aiotune's own modules."""
    kind = RandomSearch if hypermodel else Telling
    tuner = kind(hypermodel, objective="val_loss")
    modules = modules_to_preload(tuner, frameworks, Settings(**settings))
    return [each for each in modules if not each.startswith("aiotune.")]


def test_what_the_user_names_is_imported_then_what_the_program_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    build = aiotune.HyperModel()
    assert preloaded(build, {"torch"}, preload=["numpy"]) == ["numpy"]
    assert preloaded(build, {"torch", "jax", "keras"}) == ["keras", "torch"]
    assert preloaded(None, {"torch", "sklearn"}) == ["sklearn", "torch"]
    assert preloaded(None, set()) == []


async def test_what_blocks_is_refused_where_it_would_stop_a_search(tmp_path: Path) -> None:
    refuse_to_block("await it")  # nothing is in progress
    async with make(tuned.Endless, tmp_path).start([]) as search:
        await anext(event async for event in search.events() if isinstance(event, RunStarted))
        with pytest.raises(FatalRuntimeError, match="write `await it` instead"):
            refuse_to_block("await it")
        await anyio.to_thread.run_sync(refuse_to_block, "await it")  # stops no loop
        other = RandomSearch(lambda hp: None, "val_loss", directory=tmp_path, project_name="b")
        with pytest.raises(FatalRuntimeError, match=r"await tuner.discover\(\)"):
            other.search_space_summary()
    refuse_to_block("await it")


class Slow:
    """Takes as long to pickle as the test likes."""

    begun = threading.Event()
    may_end = threading.Event()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        self.begun.set()
        assert self.may_end.wait(60)
        return Slow, ()


def payloads() -> list[str]:
    """Return the payloads that this process has open."""
    links = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
    return [each for each in links if "aiotune-payload" in each]


@pytest.mark.parametrize("call", ["discover", "block"])
async def test_a_cancelled_call_leaves_no_payload(tmp_path: Path, call: str) -> None:
    tuner = make(RandomSearch, tmp_path, hypermodel=lambda hp: None)
    tuner.slow = Slow()  # type: ignore[attr-defined]
    Slow.begun.clear()
    Slow.may_end.clear()

    async def block() -> None:
        async with tuner:
            raise AssertionError("it was cancelled before")

    task = asyncio.create_task(tuner.discover() if call == "discover" else block())  # type: ignore[arg-type]
    await anyio.to_thread.run_sync(Slow.begun.wait)
    task.cancel()
    await asyncio.sleep(0)
    Slow.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert payloads() == []


class Meeting(RandomSearch):
    """Its runs are tasks of one process, all in progress at once."""

    async def run_trial(self, trial: RunContext, barrier: asyncio.Barrier) -> dict[str, float]:
        trial.hyperparameters.Float("x", 0.0, 1.0)
        await barrier.wait()
        run = current_run(trial.trial_id)
        with pytest.raises(FatalRuntimeError, match="here runs trial"):
            current_run("7777")
        return {"loss": 0.0, "is_own": run is trial}


async def test_each_run_of_the_loop_knows_itself(tmp_path: Path) -> None:
    options: Any = {"max_trials": 1, "executions_per_trial": 2}
    tuner = make(Meeting, tmp_path, **options)
    (trial,) = (await tuner.search(asyncio.Barrier(2), verbose=0)).trials
    assert [run.metrics["is_own"] for run in trial.runs] == [1, 1]
    with pytest.raises(FatalRuntimeError, match="no trial runs here"):
        tuner.save_model(trial.trial_id, None)


class World(RandomSearch):
    """Tells what it finds in its environment."""

    def run_trial(self, trial: RunContext) -> float:
        trial.hyperparameters.Float("x", 0.0, 1.0)
        return float(os.environ["AIOTUNE_TEST_WORLD"])


async def test_the_world_of_the_runs_is_the_callers_as_of_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIOTUNE_TEST_WORLD", "1")
    search = make(World, tmp_path, max_trials=1).search(verbose=0)
    monkeypatch.setenv("AIOTUNE_TEST_WORLD", "2")
    assert (await search).best_score == 1
