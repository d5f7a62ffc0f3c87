"""RandomSearchOracle through the real scheduler, with runs that are scripts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiotune.events import EndReason
from aiotune.executors.base import Failed, Finished, RunEvent
from aiotune.history import History
from aiotune.hyperparameters import HyperParameters
from aiotune.objective import Objective
from aiotune.oracles.base import Exhausted, Suggest
from aiotune.oracles.random_search import RandomSearchOracle
from aiotune.space import point_key
from aiotune.trial import FailureKind, TrialState
from tests.support.fake_executor import FakeExecutor, Play, Script, declaring
from tests.support.searches import SearchOfFakes

SCORE = Objective("score", "min")


def grown(hp: HyperParameters) -> None:
    """A program with `if` and loops: 2 + 3 * (1 + 3 + 9) points at most, few names known beforehand."""
    if hp.Choice("kind", ["plain", "deep"]) == "plain":
        hp.Boolean("bias")
    else:
        for layer in range(hp.Int("layers", 1, 2)):
            hp.Int(f"units_{layer}", 1, 3)


def slowly(declare: Callable[[HyperParameters], object], turns: Callable[[int], int]) -> Play:
    """Return a script that takes `turns(number)` turns of the loop before and after meeting its names."""

    async def play(script: Script) -> AsyncIterator[RunEvent]:
        count = turns(script.assignment.number)
        for _ in range(count):
            await anyio.lowlevel.checkpoint()
        yield script.met(declare)
        for _ in range(count):
            await anyio.lowlevel.checkpoint()
        yield Finished({"score": 0.0}, 0)

    return play


def points(history: History) -> list[str]:
    return sorted(
        point_key(dict(trial.values))
        for trial in history.trials.values()
        if trial.state is TrialState.COMPLETED
    )


async def searched(
    root: Path, play: Play, *, slots: int, max_trials: int | None, seed: int = 3
) -> SearchOfFakes:
    oracle = RandomSearchOracle(objective=SCORE, max_trials=max_trials, seed=seed)
    search = SearchOfFakes(oracle, FakeExecutor(play), root, slots=slots)
    await search.run()
    return search


@pytest.mark.parametrize("max_trials", [5, 12, 30])
async def test_the_set_of_points_does_not_depend_on_the_number_of_slots(
    tmp_path: Path, max_trials: int
) -> None:
    alone = await searched(tmp_path, slowly(grown, lambda _: 0), slots=1, max_trials=max_trials)
    many = await searched(
        tmp_path, slowly(grown, lambda number: number * 7 % 5), slots=4, max_trials=max_trials
    )
    assert points(many.history) == points(alone.history)
    assert len(set(points(alone.history))) == len(points(alone.history))


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    slots=st.integers(2, 6),
    max_trials=st.integers(1, 20),
    delays=st.lists(st.integers(0, 6), min_size=1, max_size=7),
)
def test_no_schedule_changes_the_set_of_points(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    slots: int,
    max_trials: int,
    delays: list[int],
) -> None:
    root = tmp_path_factory.mktemp("search")

    async def both() -> tuple[list[str], list[str]]:
        alone = await searched(
            root, slowly(grown, lambda _: 0), slots=1, max_trials=max_trials, seed=seed
        )
        many = await searched(
            root,
            slowly(grown, lambda number: delays[number % len(delays)]),
            slots=slots,
            max_trials=max_trials,
            seed=seed,
        )
        return points(alone.history), points(many.history)

    alone, many = anyio.run(both)
    assert many == alone


@pytest.mark.parametrize("slots", [1, 3])
async def test_a_finite_space_is_exhausted_exactly(tmp_path: Path, slots: int) -> None:
    def declare(hp: HyperParameters) -> None:
        hp.Choice("a", ["x", "y"])
        hp.Int("b", 0, 4)

    search = await searched(
        tmp_path, declaring(declare, lambda _: 0.0), slots=slots, max_trials=100
    )
    assert len(points(search.history)) == len(set(points(search.history))) == 10
    assert search.history.ended is not None
    assert search.history.ended.reason is EndReason.EXHAUSTED


async def test_exactly_max_trials_whatever_duplicates_show(tmp_path: Path) -> None:
    search = await searched(tmp_path, slowly(grown, lambda n: n % 3), slots=4, max_trials=11)
    assert len(points(search.history)) == 11
    assert search.history.ended is not None
    assert search.history.ended.reason is EndReason.MAX_TRIALS


async def test_a_resumed_search_finds_the_same_points(tmp_path: Path) -> None:
    play = slowly(grown, lambda n: n % 3)
    whole = await searched(tmp_path, play, slots=1, max_trials=12)
    first = await searched(tmp_path, play, slots=2, max_trials=5)
    resumed = first.again(RandomSearchOracle(objective=SCORE, max_trials=12, seed=3), slots=3)
    await resumed.run()
    assert points(resumed.history) == points(whole.history)


async def test_a_failure_bans_its_own_point_and_a_refusal_what_it_was_refused_for(
    tmp_path: Path,
) -> None:
    def declare(hp: HyperParameters) -> None:
        hp.Int("a", 0, 1)
        hp.Int("b", 0, 3)

    def first_only(hp: HyperParameters) -> None:
        hp.Int("a", 0, 1)

    async def counted(kind: FailureKind) -> int:
        async def play(script: Script) -> AsyncIterator[RunEvent]:
            if script.assignment.values.get("a") == 1:
                yield script.met(first_only, is_complete=False)
                yield Failed(kind, "at a=1")
            else:
                yield script.met(declare)
                yield Finished({"score": 0.0}, 0)

        oracle = RandomSearchOracle(
            objective=SCORE, max_trials=100, seed=4, max_consecutive_failed_trials=100
        )
        search = SearchOfFakes(oracle, FakeExecutor(play), tmp_path)
        known = HyperParameters()
        declare(known)
        search.history.space = search.history.space.grow(known.space)
        await search.run()
        return len(search.history.trials)

    assert await counted(FailureKind.OUT_OF_MEMORY) == 4 + 4
    assert await counted(FailureKind.INFEASIBLE) == 4 + 1
    assert await counted(FailureKind.USER_ERROR) == 4 + 1


async def test_a_program_without_hyperparameters_has_one_point(tmp_path: Path) -> None:
    search = await searched(
        tmp_path, declaring(lambda hp: None, lambda _: 0.0), slots=1, max_trials=10
    )
    assert [trial.state for trial in search.history.trials.values()] == [TrialState.COMPLETED]


async def test_values_stay_as_they_are_when_new_entries_are_not_tuned(tmp_path: Path) -> None:
    given = HyperParameters()
    given.Int("a", 0, 3)
    oracle = RandomSearchOracle(
        objective=SCORE, max_trials=10, hyperparameters=given, tune_new_entries=False, seed=5
    )

    def declare(hp: HyperParameters) -> None:
        hp.Int("a", 0, 3)
        hp.Int("b", 0, 99, default=7)

    async def play(script: Script) -> AsyncIterator[RunEvent]:
        values = {"b": 7} | dict(script.assignment.values)
        yield Finished({"score": float(values["b"])}, 0)

    search = SearchOfFakes(oracle, FakeExecutor(play), tmp_path)
    search.history.space = search.history.space.grow(given.space)
    await search.run()
    values = [trial.values for trial in search.history.trials.values()]
    assert sorted(each["a"] for each in values) == [0, 1, 2, 3]
    assert all("b" not in each for each in values)


def test_the_same_seed_gives_the_same_answers() -> None:
    history = History()
    space = HyperParameters()
    space.Float("x", 0, 1)
    history.space = history.space.grow(space.space)
    one, other, third = (
        RandomSearchOracle(objective=SCORE, seed=seed).ask(history, 0) for seed in (0, 0, 1)
    )
    assert one == other
    assert one != third


def test_an_unknown_space_is_asked_for_once() -> None:
    oracle = RandomSearchOracle(objective=SCORE, seed=0)
    assert oracle.ask(History(), 0) == Suggest({}, stream=0)
    assert isinstance(oracle.ask(History(), 1), Suggest | Exhausted)
