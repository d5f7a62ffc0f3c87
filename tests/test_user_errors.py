"""What the user's code in the caller's process may raise: the search ends with it, and harms nothing."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from aiotune import Pruner, RandomSearch, Resources
from aiotune.errors import FatalRuntimeError
from aiotune.events import EndReason, Event, RunEnded, RunStarted, SearchEnded
from aiotune.executors.context import RunContext
from aiotune.history import History
from aiotune.store.reader import read_facts
from aiotune.trial import Run, Trial
from tests.support.tuned import make


class Bug(Exception):
    """What the code below raises."""


class Broken(RandomSearch):
    """Two trials at a time in the loop, and one place that raises in the second call."""

    place = ""
    calls = 0
    is_mended = False

    async def run_trial(self, trial: RunContext) -> float:
        x: float = trial.hyperparameters.Float("x", 0.0, 1.0)
        for step in range(3):
            trial.report(step, loss=x)
            await asyncio.sleep(0)
        return x

    def raise_at(self, place: str) -> None:
        if place == self.place and not self.is_mended:
            self.calls += 1
            if self.calls == (1 if place.startswith("on_search") else 2):
                raise Bug(place)

    def on_search_begin(self) -> None:
        self.raise_at("on_search_begin")

    def on_search_end(self) -> None:
        self.raise_at("on_search_end")

    async def on_trial_begin(self, trial: Trial) -> None:
        await asyncio.sleep(0)
        self.raise_at("on_trial_begin")

    async def on_trial_end(self, trial: Trial) -> None:
        await asyncio.sleep(0)
        self.raise_at("on_trial_end")

    def pre_create_trial(self) -> None:
        self.raise_at("pre_create_trial")


def break_oracle(tuner: Broken, method: str) -> None:
    """Let a method of the tuner's oracle raise where the tuner says so."""
    own: Callable[..., Any] = getattr(tuner.oracle, method)

    def broken(*args: Any) -> Any:
        tuner.raise_at(f"oracle.{method}")
        return own(*args)

    setattr(tuner.oracle, method, broken)


class BrokenPruner(Pruner):
    def __init__(self, tuner: list[Broken], method: str) -> None:
        self._tuner = tuner
        self._method = method

    judges_reports = judges_ends = True

    def judge(self, history: History, trial: Trial, run: Run) -> str | None:
        self._tuner[0].raise_at(f"pruner.{self._method}") if self._method == "judge" else None
        return None

    def judge_repeats(self, history: History, trial: Trial) -> str | None:
        self._tuner[0].raise_at(f"pruner.{self._method}") if self._method != "judge" else None
        return None


def make_broken(directory: Path, place: str) -> Broken:
    """Return a tuner whose code at `place` raises."""
    own: list[Broken] = []
    options: dict[str, Any] = {}
    match place.split("."):
        case ["pruner", method]:
            options["pruner"] = BrokenPruner(own, method)
            options["executions_per_trial"] = 2
        case ["resources"]:
            options["resources"] = lambda hp: own[0].raise_at("resources") or Resources(gpus=0)
        case ["constraint"]:
            options["constraint"] = lambda hp: own[0].raise_at("constraint") is None
    tuner = make(Broken, directory, max_trials=5, objective="loss", **options)
    tuner.place = place
    own.append(tuner)
    if place.startswith("oracle."):
        break_oracle(tuner, place.removeprefix("oracle."))
    return tuner


PLACES = {
    "on_search_begin": "Broken.on_search_begin()",
    "on_trial_begin": "Broken.on_trial_begin(), for trial 000",
    "on_trial_end": "Broken.on_trial_end(), for trial 000",
    "on_search_end": "Broken.on_search_end()",
    "pre_create_trial": "Broken.pre_create_trial()",
    "oracle.ask": "RandomSearchOracle.ask()",
    "oracle.judge": "RandomSearchOracle.judge(), for trial 000",
    "oracle.tell": "RandomSearchOracle.tell(), for trial 000",
    "oracle.is_duplicate": "RandomSearchOracle.is_duplicate(), for trial 000",
    "pruner.judge": "BrokenPruner.judge(), for trial 000",
    "pruner.judge_repeats": "BrokenPruner.judge_repeats(), for trial 000",
    "resources": "",  # these two say it in an error of their own, with the point
    "constraint": "",
}


def cause_of(error: BaseException) -> BaseException:
    """Return what the user's code raised."""
    return error if isinstance(error, Bug) or error.__cause__ is None else cause_of(error.__cause__)


@pytest.mark.parametrize("place", PLACES)
async def test_an_error_of_the_users_code_ends_the_search_and_harms_nothing(
    tmp_path: Path, place: str
) -> None:
    tuner = make_broken(tmp_path, place)
    with pytest.raises((Bug, FatalRuntimeError)) as caught:
        await tuner.search()

    error = cause_of(caught.value)
    assert isinstance(error, Bug)
    assert traceback.extract_tb(error.__traceback__)[-1].name == "raise_at"
    if PLACES[place]:
        assert caught.value is error
        (note,) = error.__notes__
        assert note.startswith(f"raised in {PLACES[place]}")
    else:
        assert place in str(caught.value)
    facts = read_facts(tmp_path / "project" / "study.db")
    check_nothing_is_left(facts, has_failed=place != "on_search_end")

    tuner.is_mended = True
    assert (await tuner.search()).reason is EndReason.MAX_TRIALS
    assert [trial.status for trial in tuner.trials] == ["COMPLETED"] * 5


def check_nothing_is_left(facts: list[Event], *, has_failed: bool) -> None:
    """Check that each run that began has ended, and that the search's end is told."""
    begun = [fact for fact in facts if isinstance(fact, RunStarted)]
    over = [fact for fact in facts if isinstance(fact, RunEnded)]
    assert {(fact.trial_id, fact.run) for fact in begun} == {
        (fact.trial_id, fact.run) for fact in over
    }
    assert isinstance(facts[-1], SearchEnded)
    assert (facts[-1].reason is EndReason.FAILED) == has_failed


async def test_an_observer_that_always_raises_is_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def watch(event: Event, history: History) -> None:
        raise Bug("the observer")

    tuner = make(Broken, tmp_path, observers=[watch])
    assert (await tuner.search()).reason is EndReason.MAX_TRIALS
    assert caplog.text.count("Bug: the observer") == 1


class Waiting(Broken):
    """Its hook never returns."""

    async def hang(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            self.calls += 1

    async def on_search_begin(self) -> None:  # type: ignore[override]
        await (self.hang() if self.place == "on_search_begin" else asyncio.sleep(0))

    async def on_search_end(self) -> None:  # type: ignore[override]
        await (self.hang() if self.place == "on_search_end" else asyncio.sleep(0))

    async def on_trial_begin(self, trial: Trial) -> None:
        await (self.hang() if self.place == "on_trial_begin" else asyncio.sleep(0))

    async def on_trial_end(self, trial: Trial) -> None:
        await (self.hang() if self.place == "on_trial_end" else asyncio.sleep(0))

    async def pre_create_trial(self) -> None:  # type: ignore[override]
        await (self.hang() if self.place == "pre_create_trial" else asyncio.sleep(0))


HOOKS = [place for place in PLACES if place.startswith(("on_", "pre_"))]


@pytest.mark.parametrize("place", HOOKS)
async def test_a_hook_that_never_returns_can_be_cancelled(tmp_path: Path, place: str) -> None:
    tuner = make(Waiting, tmp_path)
    tuner.place = place
    searching = asyncio.ensure_future(tuner.search())
    while not is_hanging(searching):
        await anyio.lowlevel.checkpoint()
    searching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await searching
    assert tuner.calls > 0
    tuner.place = ""
    assert (await tuner.search()).reason is EndReason.MAX_TRIALS


def is_hanging(searching: asyncio.Future[Any]) -> bool:
    """Tell whether a task waits in the hook."""
    assert not searching.done()
    return any("hang" in _awaited(task) for task in asyncio.all_tasks())


def _awaited(task: asyncio.Task[Any]) -> list[str]:
    """Return the names of the coroutines that a task waits in."""
    names, current = [], task.get_coro()
    while current is not None:
        names.append(getattr(current, "__name__", ""))
        current = getattr(current, "cr_await", None)
    return names


async def test_a_hook_that_awaits_what_was_cancelled_ends_the_search(tmp_path: Path) -> None:
    class Upload(Broken):
        async def on_trial_end(self, trial: Trial) -> None:
            upload = asyncio.create_task(asyncio.sleep(60))
            upload.cancel()
            await upload

    with pytest.raises(FatalRuntimeError, match="awaited something that was cancelled"):
        await make(Upload, tmp_path).search()


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_a_hook_may_end_the_program(tmp_path: Path, kind: type[BaseException]) -> None:
    """All tasks are cancelled then, also those that write: it is as if the process were killed."""

    class Leaving(Broken):
        async def on_trial_end(self, trial: Trial) -> None:
            if not self.is_mended:
                raise kind(3)

    tuner = make(Leaving, tmp_path)
    with pytest.raises(kind):
        asyncio.run(run(tuner))
    tuner.is_mended = True
    assert asyncio.run(run(tuner)) is EndReason.MAX_TRIALS
    assert [trial.status for trial in tuner.trials] == ["COMPLETED"] * 4


async def run(tuner: Broken) -> EndReason:
    return (await tuner.search()).reason
