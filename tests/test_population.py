"""PopulationBasedTrainingOracle: in a search without a loop, and through the real scheduler."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiotune.constraints import AtMost, Constraint
from aiotune.errors import FatalTypeError, FatalValueError, StoreMismatch
from aiotune.events import EndReason
from aiotune.executors.base import Failed, Finished, Observed, RunEvent
from aiotune.history import History
from aiotune.hyperparameters import HyperParameters
from aiotune.objective import Objective
from aiotune.oracles.population import PopulationBasedTrainingOracle
from aiotune.settlement import Policy
from aiotune.space import unit_draw
from aiotune.trial import Budget, FailureKind, Trial, TrialState
from tests.support.evolving import Evolution
from tests.support.fake_executor import FakeExecutor, Script
from tests.support.searches import SearchOfFakes

SCORE = Objective("score", "min")


def declare(hp: HyperParameters) -> None:
    hp.Float("rate", 1e-4, 1.0, sampling="log")
    if hp.Choice("optimizer", ["sgd", "adam"]) == "sgd":
        hp.Float("momentum", 0.0, 0.9)


def oracle(population_size: int = 6, max_epochs: int = 6, **options: Any) -> Any:
    given: dict[str, Any] = {
        "objective": SCORE,
        "interval": 2,
        "seed": 3,
        "max_consecutive_failed_trials": 1000,
    }
    return PopulationBasedTrainingOracle(
        population_size=population_size, max_epochs=max_epochs, **given | options
    )


def table(history: History) -> list[tuple[object, ...]]:
    """Return what does not depend on time: each trial's point, origin, end and score."""
    streams = {trial.trial_id: trial.stream for trial in history.trials.values()}
    return sorted(
        (
            trial.stream,
            sorted(trial.values.items()),
            -1 if trial.parent is None else streams[trial.parent],
            str(trial.budget),
            trial.status,
            trial.score,
        )
        for trial in history.trials.values()
    )


def generations_of(history: History) -> Mapping[int, Mapping[int, Trial]]:
    """Return who trained in each generation, by place."""
    size = sum(trial.parent is None for trial in history.trials.values())
    found: dict[int, dict[int, Trial]] = defaultdict(dict)
    for trial in history.trials.values():
        for run in trial.runs:
            assert run.budget is not None
            assert run.budget.rung is not None
            found[run.budget.rung][trial.stream % size] = trial
    return found


def last_score(trial: Trial, generation: int) -> float | None:
    """Return the score of a trial's last epoch in a generation; None if it broke there."""
    runs = [each for each in trial.runs if each.budget and each.budget.rung == generation]
    observations = runs[-1].observations
    return observations[-1].metrics["score"] if observations else None


# --- selection ---


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(2, 9),
    max_epochs=st.integers(3, 9),
    quantile=st.sampled_from([0.1, 0.25, 0.5]),
    slots=st.integers(1, 10),
    broken=st.frozensets(st.tuples(st.integers(0, 40), st.integers(0, 4)), max_size=12),
    picks=st.lists(st.integers(0, 9), min_size=1, max_size=9),
)
def test_the_worst_descend_from_the_best_in_whatever_order_the_runs_end(
    size: int,
    max_epochs: int,
    quantile: float,
    slots: int,
    broken: frozenset[tuple[int, int]],
    picks: list[int],
) -> None:
    def evolved(slots: int, picks: list[int]) -> Evolution:
        turns = iter(picks * 100)
        return Evolution(
            oracle(size, max_epochs, quantile=quantile),
            declare,
            slots,
            fails=lambda trial: (trial.stream, trial.budget and trial.budget.rung) in broken,
            pick=lambda in_flight: next(turns),
        ).run()

    search = evolved(slots, picks)
    assert not search.history.open_trials()
    assert table(search.history) == table(evolved(1, [0]).history)
    replaced = max(1, int(quantile * size + 1e-9))
    found = generations_of(search.history)
    for number in range(-(-max_epochs // 2) - 1):
        scores = {place: last_score(trial, number) for place, trial in found[number].items()}
        assert len(scores) == size
        ranked = sorted((score, place) for place, score in scores.items() if score is not None)
        if not ranked:
            assert search.message == "no member of the population is left: all of them failed"
            assert number + 1 not in found
            return
        best = {found[number][place].trial_id for _, place in ranked[:replaced]}
        going_on = {place for _, place in ranked[: size - replaced]}
        for place, trial in found[number + 1].items():
            if place in going_on:
                assert trial == found[number][place]
            else:
                assert trial.parent in best
    assert search.message == f"the population was trained for {max_epochs} epochs"


def test_a_member_is_judged_by_its_last_epoch_for_that_is_what_is_copied() -> None:
    def score(trial: Trial, epoch: int) -> float:
        return [0.1, 0.9][epoch % 2] if trial.stream == 0 else 0.5

    search = Evolution(oracle(2, 4), declare, score=score).run()
    assert [trial.parent for trial in search.trials] == [None, None, "0001"]
    assert search.trials[0].score == 0.1


def test_the_others_go_on_before_the_last_member_has_ended() -> None:
    """Of six, one is replaced: with five results those between best and worst have their place for certain."""
    search = Evolution(oracle(), declare, slots=2, pick=lambda in_flight: -1)
    while not any(len(trial.runs) == 2 for trial in search.trials):
        assert search.step()
    assert not search.trials[0].runs


def test_every_member_has_the_same_chance_to_be_a_parent() -> None:
    parents: dict[int, int] = defaultdict(int)
    for seed in range(60):
        search = Evolution(
            oracle(8, 4, quantile=0.5, seed=seed),
            declare,
            score=lambda trial, epoch: float(trial.stream),
        ).run()
        for trial in search.trials:
            if trial.parent is not None:
                parents[int(trial.parent)] += 1
    assert sum(parents.values()) == 240
    assert set(parents) == {0, 1, 2, 3}
    assert min(parents.values()) > 35


# --- values ---


def test_a_descendant_goes_on_at_its_parents_epoch_with_values_nearby() -> None:
    search = Evolution(oracle(resample_probability=0.0), declare).run()
    children = [trial for trial in search.trials if trial.parent is not None]
    assert len(children) == 2
    for child in children:
        assert child.parent is not None
        parent = search.history.trial(child.parent)
        assert child.runs[0].budget is not None
        assert child.runs[0].budget.initial_epoch in (2, 4)
        assert child.values["rate"] in (
            pytest.approx(0.8 * float(parent.values["rate"])),  # type: ignore[arg-type]
            pytest.approx(1.2 * float(parent.values["rate"])),  # type: ignore[arg-type]
            1.0,
        )
        assert child.values["optimizer"] == parent.values["optimizer"]


def test_only_the_names_in_explore_change() -> None:
    search = Evolution(
        oracle(12, 12, explore=["rate"], quantile=0.5, resample_probability=1.0), declare
    ).run()
    children = [trial for trial in search.trials if trial.parent is not None]
    assert len(children) == 30
    for child in children:
        assert child.parent is not None
        values = dict(search.history.trial(child.parent).values)
        assert child.values["rate"] != values["rate"]
        assert {**values, "rate": child.values["rate"]} == child.values


def test_the_constraint_holds_for_descendants() -> None:
    asked = oracle(8, 12, quantile=0.5)
    asked.constraint = Constraint([lambda hp: hp["rate"] < 0.1])
    search = Evolution(asked, declare).run()
    assert len(search.trials) > 8
    assert all(float(trial.values["rate"]) < 0.1 for trial in search.trials)  # type: ignore[arg-type]


def test_queued_points_are_members_of_the_first_generation() -> None:
    asked = oracle()
    asked.enqueue({"rate": 0.5}, {"rate": 0.25, "optimizer": "adam"})
    for _ in range(10):
        asked.enqueue({"rate": 0.125})
    search = Evolution(asked, declare).run()
    assert [trial.values["rate"] for trial in search.trials[:2]] == [0.5, 0.25]
    assert [trial.stream for trial in search.trials[:6]] == list(range(6))


def test_the_space_may_be_unknown_before_the_first_run() -> None:
    search = Evolution(oracle(explore=["rate"]), declare, slots=3, has_discovery=False).run()
    assert table(search.history) == table(
        Evolution(oracle(explore=["rate"]), declare).run().history
    )


# --- resuming ---


@settings(max_examples=30, deadline=None)
@given(
    slots=st.integers(1, 6),
    cut=st.integers(1, 200),
    broken=st.frozensets(st.tuples(st.integers(0, 20), st.integers(0, 2)), max_size=5),
    picks=st.lists(st.integers(0, 5), min_size=1, max_size=5),
    most=st.sampled_from([0.3, 1.0]),
)
def test_a_search_that_is_cut_anywhere_goes_on_as_if_it_had_not_been(
    slots: int, cut: int, broken: frozenset[tuple[int, int]], picks: list[int], most: float
) -> None:
    """Also where those that are replaced turn out to break a bound."""

    def fails(trial: Trial) -> bool:
        return (trial.stream, trial.budget and trial.budget.rung) in broken

    turns = iter(picks * 100)
    policy = Policy(bounds=(AtMost("score", most),))
    evolution = functools.partial(
        Evolution, oracle(quantile=0.4), declare, slots, fails=fails, policy=policy
    )
    whole = evolution(pick=lambda _: next(turns)).run()
    resumed = evolution(facts=whole.facts[:cut]).run()
    assert table(resumed.history) == table(whole.history)


@pytest.mark.parametrize(
    "changed", [{"population_size": 5}, {"interval": 3}, {"max_epochs": 5}], ids=str
)
def test_a_project_of_another_population_is_refused(changed: dict[str, Any]) -> None:
    first = Evolution(oracle(), declare).run()
    with pytest.raises(StoreMismatch, match="does not fit population_size="):
        Evolution(oracle(**changed), declare, facts=first.facts).run()


# --- through the scheduler ---


async def training(script: Script) -> AsyncIterator[RunEvent]:
    """Train up to the budget, and write a line for each epoch into the checkpoint directory."""
    assignment = script.assignment
    budget = assignment.budget
    assert budget is not None
    yield script.met(declare)
    await anyio.lowlevel.checkpoint()
    diary = Path(assignment.trial_directory) / f"repeat-{assignment.repeat}" / "diary"
    diary.parent.mkdir(exist_ok=True)
    assert diary.exists() == assignment.continues == (budget.initial_epoch > 0)
    if (assignment.stream, budget.rung) in ((2, 0), (9, 1)):
        yield Failed(FailureKind.USER_ERROR, "ValueError: no")
        return
    with diary.open("a") as file:
        for epoch in range(budget.initial_epoch, budget.epochs):
            print(epoch, assignment.trial_id, file=file)
            yield Observed(epoch, {"score": unit_draw(9, "score", assignment.stream, epoch)})
    yield Finished()


async def searched(root: Path, slots: int = 1) -> SearchOfFakes:
    search = SearchOfFakes(oracle(quantile=0.4), FakeExecutor(training), root, slots=slots)
    await search.run()
    return search


def diary_of(search: SearchOfFakes, trial: Trial) -> list[tuple[int, str]]:
    path = search.root / "search" / f"trial_{trial.trial_id}" / "repeat-0" / "diary"
    lines = [line.split() for line in path.read_text().splitlines()]
    return [(int(epoch), trial_id) for epoch, trial_id in lines]


async def test_a_descendant_has_the_files_of_its_parent_as_they_were_then(tmp_path: Path) -> None:
    search = await searched(tmp_path, slots=4)
    ended = search.history.ended
    assert ended is not None
    assert ended.reason is EndReason.EXHAUSTED
    trained = [each for each in search.history.trials.values() if each.status == "COMPLETED"]
    assert any(trial.parent is not None for trial in trained)
    for trial in trained:
        diary = diary_of(search, trial)
        assert [epoch for epoch, _ in diary] == list(range(len(diary)))
        inherited = [trial_id for _, trial_id in diary if trial_id != trial.trial_id]
        assert inherited[-1:] == ([] if trial.parent is None else [trial.parent])


@pytest.mark.parametrize("slots", [1, 4])
async def test_every_cut_resumes_to_the_same_table(tmp_path: Path, slots: int) -> None:
    make = functools.partial(oracle, 4, 4)
    whole = SearchOfFakes(make(), FakeExecutor(forgetful), tmp_path, slots=slots)
    await whole.run()
    async for cut, history in whole.resumed_at_every_cut(make):
        assert table(history) == table(whole.history), f"after fact {cut}"


async def forgetful(script: Script) -> AsyncIterator[RunEvent]:
    """Train as `training` does, and write no file."""
    assignment = script.assignment
    assert assignment.budget is not None
    yield script.met(declare)
    await anyio.lowlevel.checkpoint()
    if (assignment.stream, assignment.budget.rung) in ((2, 0), (9, 1)):
        yield Failed(FailureKind.USER_ERROR, "ValueError: no")
        return
    for epoch in range(assignment.budget.initial_epoch, assignment.budget.epochs):
        yield Observed(epoch, {"score": unit_draw(9, "score", assignment.stream, epoch)})
    yield Finished()


# --- options ---


def test_the_budgets_end_with_max_epochs() -> None:
    assert oracle(max_epochs=5).budgets == (
        Budget(2, 0, rung=0, is_last=False),
        Budget(4, 2, rung=1, is_last=False),
        Budget(5, 4, rung=2),
    )


@pytest.mark.parametrize(
    ("size", "quantile", "replaced"), [(10, 0.3, 3), (4, 0.25, 1), (3, 0.25, 1), (5, 0.5, 2)]
)
def test_how_many_are_replaced(size: int, quantile: float, replaced: int) -> None:
    assert oracle(size, quantile=quantile).replaced == replaced


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"population_size": 1}, "population_size=1: it must be 2 or more"),
        ({"interval": 6}, "interval=6: it must be below max_epochs=6"),
        ({"interval": 0}, "interval=0: it must be 1 or more"),
        ({"quantile": 0.6}, "quantile=0.6"),
        ({"quantile": 0.0}, "quantile=0.0"),
        ({"resample_probability": 1.5}, "resample_probability=1.5"),
        ({"factors": ()}, r"factors=\(\): a list of numbers"),
        ({"factors": (0.0, 2.0)}, "factors=0.0"),
        ({"explore": "rate"}, "explore='rate': a list of names"),
        ({"explore": []}, r"explore=\[\]"),
    ],
    ids=str,
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises((FatalValueError, FatalTypeError), match=message):
        oracle(**options)


def test_an_unknown_name_in_explore_is_refused_before_the_first_trial() -> None:
    search = Evolution(oracle(explore=["rat"]), declare)
    with pytest.raises(FatalValueError, match=r"'rat' is not among .*; did you mean 'rate'"):
        search.run()
    assert not search.trials


def test_a_broken_population_ends_the_search() -> None:
    search = Evolution(oracle(), declare, fails=lambda trial: True).run()
    assert search.message == "no member of the population is left: all of them failed"
    assert {trial.state for trial in search.trials} == {TrialState.FAILED}
    assert len(search.trials) == 6


def test_the_default_interval_is_a_tenth() -> None:
    assert PopulationBasedTrainingOracle(SCORE, max_epochs=60).interval == 6
    assert PopulationBasedTrainingOracle(SCORE, max_epochs=5).interval == 1
