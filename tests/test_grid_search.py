"""GridSearchOracle: its values, its order, and through the real scheduler the points that it tries."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from inspect import signature
from itertools import islice, product
from pathlib import Path
from random import Random
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiotune.events import (
    EndReason,
    SpaceGrew,
)
from aiotune.executors.base import Failed, Finished, RunEvent
from aiotune.executors.context import RunContext
from aiotune.history import History
from aiotune.hyperparameters import HyperParameters
from aiotune.objective import Objective
from aiotune.oracles.base import Answer
from aiotune.oracles.grid_axis import Axis
from aiotune.oracles.grid_search import GridSearchOracle
from aiotune.space import (
    Boolean,
    Choice,
    Fixed,
    Float,
    HyperParameter,
    Int,
    Scalar,
    Space,
    point_key,
)
from aiotune.trial import FailureKind, TrialState
from aiotune.tuners import GridSearch
from tests.support.define_by_run import Block, Loop, Name, Statement, declaration, paths
from tests.support.fake_executor import FakeExecutor, Play, Script, declaring
from tests.support.searches import SearchOfFakes
from tests.support.simulation import Simulation

SCORE = Objective("score", "min")
Declare = Callable[[HyperParameters], object]


# --- the values of one name


def values_of(declared: HyperParameter) -> list[Scalar]:
    axis = Axis(declared)
    return [axis.value_at(index) for index in range(axis.size)]


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        (Boolean("x"), [False, True]),
        (Boolean("x", default=True), [True, False]),
        (Fixed("x", 7), [7]),
        (Choice("x", ["a", "b", "c"], default="b"), ["b", "a", "c"]),
        (Choice("x", ["a", "b", "a"]), ["a", "b"]),
        (Choice("x", ["a", None]), [None, "a"]),
        (Choice("x", [1, True, 1.0]), [1, True, 1.0]),
        (Int("x", 1, 4), [1, 2, 3, 4]),
        (Int("x", 1, 4, default=3), [3, 1, 2, 4]),
        (Int("x", 0, 10, step=4), [0, 4, 8]),
        (Int("x", 0, 10, step=4, default=5), [5, 0, 4, 8]),
        (Int("x", 1, 8, step=2, sampling="log"), [1, 2, 4, 8]),
        (Int("x", 1, 8, step=2, sampling="reverse_log"), [1, 5, 7, 8]),
        (Int("x", 1, 3, sampling="log"), [1, 2, 3]),
        (Float("x", 0, 1, step=0.25), [0.0, 0.25, 0.5, 0.75, 1.0]),
        (Float("x", 0, 0.3, step=0.1, default=0.1), [0.1, 0.0, 0.2, 0.3]),
        (Float("x", 0.01, 1, step=10, sampling="log"), [0.01, 0.1, 1.0]),
        (Float("x", 2, 2), [2.0]),
    ],
)
def test_the_default_comes_first_then_the_others_in_order(
    declared: HyperParameter, expected: list[Scalar]
) -> None:
    assert [(type(each), each) for each in values_of(declared)] == [
        (type(each), each) for each in expected
    ]


def test_a_range_without_steps_has_its_default_and_ten_values_as_in_keras_tuner() -> None:
    tenths = [(2 * number + 1) / 20 for number in range(10)]
    assert values_of(Float("x", 0, 10)) == pytest.approx([0, *(10 * u for u in tenths)])
    in_factors = values_of(Float("x", 1e-4, 1e-1, sampling="log", default=1e-2))
    assert in_factors == pytest.approx([1e-2, *(1e-4 * 1000**u for u in tenths)])
    mirrored = values_of(Float("x", 1, 16, sampling="reverse_log"))
    assert mirrored == pytest.approx([1, *(17 - 16 ** (1 - u) for u in tenths)])
    whole = values_of(Int("x", 1, 1000, sampling="log", default=50))
    assert whole == [50, *(math.floor(1001**u) for u in tenths)]


def test_a_default_that_is_one_of_the_ten_is_not_tried_twice() -> None:
    assert values_of(Float("x", 0, 1, default=0.1 + 0.05))[0] == 0.1 + 0.05
    assert len(values_of(Float("x", 0, 1, default=0.1 + 0.05))) == 10
    assert len(values_of(Float("x", 1e-9, 1, sampling="log", default=1e-9 * 1e9**0.05))) == 10
    assert len(values_of(Float("x", 1e-9, 1, sampling="log", default=1.1e-9))) == 11


def test_a_range_of_any_length_costs_nothing() -> None:
    axis = Axis(Int("x", 0, 10**15, default=10**14))
    assert axis.size == 10**15 + 1
    assert (axis.value_at(0), axis.value_at(1), axis.value_at(10**15)) == (10**14, 0, 10**15)


def test_a_name_that_is_not_tuned_has_its_default_alone() -> None:
    assert Axis(Int("x", 1, 4, default=3), is_tuned=False).size == 1


# --- searches


class Checked(GridSearchOracle):
    """Holds each answer against that of an oracle which sees the history for the first time."""

    def ask(self, history: History, number: int) -> Answer:
        answer = super().ask(history, number)
        fresh = GridSearchOracle(
            hyperparameters=self.hyperparameters,
            tune_new_entries=self.tune_new_entries,
        )
        assert answer == fresh.ask(history, number)
        return answer


def slowly(declare: Declare, turns: Callable[[int], int]) -> Play:
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


async def searched(
    root: Path, play: Play, *, slots: int = 1, known: Declare | None = None, **options: Any
) -> SearchOfFakes:
    """Run a grid search. `known`: what is declared before the first trial, as a discovery would."""
    given: dict[str, Any] = {"objective": SCORE, "max_consecutive_failed_trials": 1000}
    search = SearchOfFakes(Checked(**given | options), FakeExecutor(play), root, slots=slots)
    if known is not None:
        hp = HyperParameters()
        known(hp)
        search.history.space = search.history.space.grow(hp.declared)
    await search.run()
    assert search.history.ended is not None
    assert search.history.ended.reason in (EndReason.EXHAUSTED, EndReason.MAX_TRIALS)
    return search


def tried(history: History) -> list[Mapping[str, Any]]:
    """Return the points of a search in the order of asking; duplicates are not among them."""
    trials = history.trials.values()
    return [trial.values for trial in trials if trial.state is not TrialState.DUPLICATE]


def keys(points: Sequence[Mapping[str, Any]]) -> Counter[str]:
    return Counter(point_key(dict(values)) for values in points)


async def test_the_last_name_is_the_fastest_and_defaults_come_first(tmp_path: Path) -> None:
    def declare(hp: HyperParameters) -> None:
        hp.Choice("a", ["x", "y"], default="y")
        hp.Int("b", 1, 3, default=2)

    search = await searched(tmp_path, declaring(declare, lambda _: 0.0))
    assert tried(search.history) == [{"a": a, "b": b} for a, b in product(["y", "x"], [2, 1, 3])]


@pytest.mark.parametrize("slots", [1, 3, 8])
async def test_a_known_space_is_handed_out_in_order_to_all_slots_at_once(
    tmp_path: Path, slots: int
) -> None:
    """No run meets a name before each slot has one."""
    are_all_busy = anyio.Event()

    def declare(hp: HyperParameters) -> None:
        hp.Int("a", 0, 3)
        with hp.conditional_scope("a", [1, 2]):
            hp.Boolean("b")
        hp.Choice("c", ["x", "y"])

    async def play(script: Script) -> AsyncIterator[RunEvent]:
        if script.assignment.number == slots - 1:
            are_all_busy.set()
        await are_all_busy.wait()
        yield script.met(declare)
        yield Finished({"score": 0.0}, 0)

    with anyio.fail_after(30):
        search = await searched(tmp_path, play, slots=slots, known=declare)
    assert tried(search.history) == [
        {"a": a, **b, "c": c}
        for a in range(4)
        for b in ([{"b": False}, {"b": True}] if a in (1, 2) else [{}])
        for c in "xy"
    ]
    assert len(search.history.trials) == 12


def by_if(hp: HyperParameters) -> None:
    """Nothing but the first path is known before: 2 + 3 + 9 points."""
    if hp.Choice("kind", ["plain", "deep"]) == "plain":
        hp.Boolean("bias")
    else:
        for layer in range(hp.Int("layers", 1, 2)):
            hp.Int(f"units_{layer}", 1, 3)


BY_IF: list[dict[str, Any]] = [
    *({"kind": "plain", "bias": bias} for bias in (False, True)),
    *({"kind": "deep", "layers": 1, "units_0": u} for u in (1, 2, 3)),
    *(
        {"kind": "deep", "layers": 2, "units_0": u, "units_1": v}
        for u, v in product((1, 2, 3), repeat=2)
    ),
]


@pytest.mark.parametrize("slots", [1, 2, 5])
@pytest.mark.parametrize("known", [None, by_if])
async def test_names_that_are_met_in_the_midst_of_a_search_are_searched(
    tmp_path: Path, slots: int, known: Declare | None
) -> None:
    search = await searched(tmp_path, slowly(by_if, lambda n: n * 7 % 4), slots=slots, known=known)
    assert keys(tried(search.history)) == keys(BY_IF)
    if slots == 1:
        assert tried(search.history) == BY_IF
        assert len(search.history.trials) == len(BY_IF)


@pytest.mark.parametrize("slots", [1, 4])
async def test_one_name_in_two_scopes_has_the_range_of_its_scope(
    tmp_path: Path, slots: int
) -> None:
    def declare(hp: HyperParameters) -> None:
        hp.Choice("kind", ["a", "b"])
        with hp.conditional_scope("kind", ["a"]):
            hp.Int("x", 0, 2)
        with hp.conditional_scope("kind", ["b"]):
            hp.Choice("x", ["u", "v"])

    search = await searched(tmp_path, declaring(declare, lambda _: 0.0), slots=slots, known=declare)
    assert keys(tried(search.history)) == keys(
        [{"kind": "a", "x": x} for x in range(3)] + [{"kind": "b", "x": x} for x in "uv"]
    )


async def test_the_same_set_as_keras_tuners_for_a_static_space(tmp_path: Path) -> None:
    def declare(hp: HyperParameters) -> None:
        hp.Float("rate", 1e-4, 1e-1, sampling="log", default=1e-3)
        hp.Int("units", 32, 96, step=32)
        hp.Fixed("epochs", 3)

    search = await searched(tmp_path, declaring(declare, lambda _: 0.0), slots=3)
    rates = [1e-3, *(1e-4 * 1000 ** (0.05 + 0.1 * number) for number in range(10))]
    expected = [(rate, units, 3) for rate in rates for units in (32, 64, 96)]
    found = sorted(tuple(each.values()) for each in tried(search.history))
    assert found == [pytest.approx(each) for each in sorted(expected)]


async def test_the_chance_of_a_point_depends_on_the_point_alone(tmp_path: Path) -> None:
    def declare(hp: HyperParameters) -> None:
        if hp.Choice("a", ["x", "y"]) == "y":
            hp.Int("b", 0, 3)
        hp.Boolean("c")

    alone = await searched(tmp_path, slowly(declare, lambda _: 0))
    many = await searched(tmp_path, slowly(declare, lambda n: n * 5 % 4), slots=3)
    one, other = (
        {point_key(dict(trial.values)): trial.stream for trial in each.history.trials.values()}
        for each in (alone, many)
    )
    assert one == other
    assert len(set(one.values())) == 10


async def test_max_trials_ends_it(tmp_path: Path) -> None:
    search = await searched(tmp_path, slowly(by_if, lambda n: n % 3), slots=3, max_trials=6)
    assert len(tried(search.history)) == len(keys(tried(search.history))) == 6
    again = search.again(Checked(objective=SCORE, max_trials=None), slots=1)
    await again.run()
    assert keys(tried(again.history)) == keys(BY_IF)


async def test_a_program_without_hyperparameters_has_one_point(tmp_path: Path) -> None:
    search = await searched(tmp_path, declaring(lambda hp: None, lambda _: 0.0), slots=3)
    assert tried(search.history) == [{}]


async def test_names_beyond_the_given_ones_keep_their_default(tmp_path: Path) -> None:
    given_names = HyperParameters()
    given_names.Int("a", 0, 2)

    def declare(hp: HyperParameters) -> None:
        hp.Int("a", 0, 9)
        hp.Int("b", 0, 99, default=7)

    search = await searched(
        tmp_path,
        declaring(declare, lambda _: 0.0),
        slots=2,
        known=lambda hp: hp.Int("a", 0, 2),
        hyperparameters=given_names,
        tune_new_entries=False,
    )
    assert keys(tried(search.history)) == keys([{"a": a, "b": 7} for a in range(3)])


async def test_a_name_that_a_run_meets_after_its_path_seemed_complete(tmp_path: Path) -> None:
    async def play(script: Script) -> AsyncIterator[RunEvent]:
        yield script.met(lambda hp: hp.Int("a", 0, 1))
        await anyio.lowlevel.checkpoint()
        yield script.met(lambda hp: (hp.Int("a", 0, 1), hp.Int("b", 0, 2)))
        yield Finished({"score": 0.0}, 0)

    search = await searched(tmp_path, play, slots=2)
    assert keys(tried(search.history)) == keys(
        [{"a": a, "b": b} for a, b in product(range(2), range(3))]
    )


async def test_a_program_that_is_no_function_of_its_values_comes_to_an_end(tmp_path: Path) -> None:
    async def play(script: Script) -> AsyncIterator[RunEvent]:
        name = "xyz"[script.assignment.number % 3]
        yield script.met(lambda hp: (hp.Boolean("a"), hp.Int(name, 0, 3)))
        yield Finished({"score": 0.0}, 0)

    search = await searched(tmp_path, play, slots=2)
    assert 3 < len(search.history.trials) < 100


async def test_a_name_that_is_declared_with_a_condition_and_without(tmp_path: Path) -> None:
    """What is met after `a` then depends on `c`, which is met later."""

    def declare(hp: HyperParameters) -> None:
        if not hp.Boolean("a"):
            hp.Int("b", 0, 2)
        hp.Boolean("c", default=True)
        with hp.conditional_scope("c", [True]):
            hp.Int("b", 0, 2)

    search = await searched(tmp_path, declaring(declare, lambda _: 0.0))
    assert keys(tried(search.history)) == keys(
        [{"a": False, "b": b, "c": c} for b in range(3) for c in (True, False)]
        + [{"a": True, "b": b, "c": True} for b in range(3)]
        + [{"a": True, "c": False}]
    )


async def test_a_grid_too_large_to_list_costs_nothing(tmp_path: Path) -> None:
    def declare(hp: HyperParameters) -> None:
        for index in range(40):
            hp.Int(f"x_{index}", 0, 10**9)

    search = await searched(
        tmp_path, declaring(declare, lambda _: 0.0), slots=3, known=declare, max_trials=20
    )
    assert [each["x_39"] for each in tried(search.history)] == list(range(20))


# --- failures


async def test_what_broke_early_is_looked_at_again_when_a_name_shows_elsewhere(
    tmp_path: Path,
) -> None:
    def declare(hp: HyperParameters) -> None:
        if hp.Int("a", 0, 2) in (0, 2):
            hp.Boolean("b")

    async def play(script: Script) -> AsyncIterator[RunEvent]:
        if script.assignment.number == 0:
            yield Failed(FailureKind.CRASH, "killed")
        else:
            yield script.met(declare)
            yield Finished({"score": 0.0}, 0)

    search = await searched(tmp_path, play, known=lambda hp: hp.Int("a", 0, 2))
    assert tried(search.history) == [
        {},
        {"a": 1},
        {"a": 2, "b": False},
        {"a": 0, "b": True},
        {"a": 2, "b": True},
    ]


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize(
    ("kind", "failed"),
    [(FailureKind.OUT_OF_MEMORY, 4), (FailureKind.INFEASIBLE, 1), (FailureKind.USER_ERROR, 1)],
)
async def test_a_failure_counts_for_its_point_and_a_refusal_for_what_it_was_refused_for(
    tmp_path: Path, slots: int, kind: FailureKind, failed: int
) -> None:
    def declare(hp: HyperParameters) -> None:
        hp.Int("a", 0, 1)
        hp.Int("b", 0, 3)

    async def play(script: Script) -> AsyncIterator[RunEvent]:
        if script.assignment.values.get("a") == 1:
            yield script.met(lambda hp: hp.Int("a", 0, 1), is_complete=False)
            yield Failed(kind, "at a=1")
        else:
            yield script.met(declare)
            yield Finished({"score": 0.0}, 0)

    search = await searched(tmp_path, play, slots=slots, known=declare)
    states = Counter(trial.state for trial in search.history.trials.values())
    assert states[TrialState.COMPLETED] == 4
    lost = states[TrialState.FAILED] + states[TrialState.INFEASIBLE]
    assert failed <= lost <= (failed if failed == 4 else slots)


async def test_a_trial_that_failed_early_is_not_tried_again_when_its_names_show(
    tmp_path: Path,
) -> None:
    """At a=1 the first trial breaks before it meets a name; the others show that b comes there."""
    broken: list[int] = []

    def declare(hp: HyperParameters) -> None:
        if hp.Int("a", 0, 1) == 1:
            hp.Int("b", 0, 2)

    async def play(script: Script) -> AsyncIterator[RunEvent]:
        if script.assignment.values.get("a") == 1 and not broken:
            broken.append(script.assignment.number)
            yield Failed(FailureKind.CRASH, "killed")
        else:
            yield script.met(declare)
            yield Finished({"score": 0.0}, 0)

    search = await searched(tmp_path, play, known=lambda hp: (hp.Int("a", 0, 1), hp.Int("b", 0, 2)))
    points = [trial.values for trial in search.history.trials.values()]
    states = [trial.state for trial in search.history.trials.values()]
    # The broken one would have met b at its default, 0.
    assert [each.get("b") for each in points if each["a"] == 1] == [None, 1, 2]
    assert states.count(TrialState.FAILED) == 1
    assert len(points) == 4


async def test_with_nothing_but_a_crash_there_is_one_trial(tmp_path: Path) -> None:
    async def play(script: Script) -> AsyncIterator[RunEvent]:
        yield Failed(FailureKind.CRASH, "killed")

    search = await searched(tmp_path, play, slots=2)
    assert len(search.history.trials) == 1


# --- any program, any schedule


SIZES = {"a": 2, "b": 3, "c": 1, "d": 2, "e": 4}
NAMES = st.sampled_from(list(SIZES)).map(lambda name: Name(name, SIZES[name]))
LOOPS = st.builds(Loop, st.sampled_from(["l", "m"]), st.just(2), NAMES)
STATEMENTS: st.SearchStrategy[Statement] = st.recursive(
    NAMES | LOOPS,
    lambda inner: st.builds(
        Block, NAMES, st.integers(0, 3), st.booleans(), st.lists(inner, max_size=3).map(tuple)
    ),
    max_leaves=6,
)
MOST_POINTS = 100
PROGRAMS = st.lists(STATEMENTS, max_size=4).filter(
    lambda program: len(list(islice(paths(program), MOST_POINTS + 1))) <= MOST_POINTS
)


def simulated(
    program: Sequence[Statement], chance: Random, slots: int, is_known: bool = False
) -> Simulation:
    declare = declaration(program)
    simulation = Simulation(Checked(), declare, chance, slots)
    if is_known:
        hp = HyperParameters()
        declare(hp)
        simulation.record(SpaceGrew(0, None, hp.declared))
    return simulation


def whole_space(program: Sequence[Statement]) -> Space:
    """Return every name that the program has at any point."""
    space = Space()
    for point in paths(program):
        hp = HyperParameters(space, point)
        declaration(program)(hp)
        space = space.grow(hp.declared)
    return space


@settings(max_examples=150, deadline=None)
@given(
    program=PROGRAMS,
    slots=st.integers(1, 6),
    chance=st.randoms(use_true_random=False),
    is_known=st.booleans(),
)
def test_every_point_that_a_program_can_reach_is_tried_once(
    program: list[Statement], slots: int, chance: Random, is_known: bool
) -> None:
    found = simulated(program, chance, slots, is_known).run()
    assert keys(tried(found)) == keys(list(paths(program)))
    if slots == 1:
        assert len(found.trials) == len(tried(found))


@settings(max_examples=80, deadline=None)
@given(
    program=PROGRAMS,
    slots=st.integers(1, 5),
    chance=st.randoms(use_true_random=False),
    bad=st.sets(st.integers(0, 60), max_size=20),
)
def test_trials_that_break_cost_their_own_points_at_most(
    program: list[Statement], slots: int, chance: Random, bad: set[int]
) -> None:
    """With every name known: what is behind a crash cannot be told otherwise."""
    simulation = simulated(program, chance, slots)
    simulation.record(SpaceGrew(0, None, tuple(whole_space(program))))
    simulation.bad = bad
    trials = simulation.run().trials.values()
    done = keys([each.values for each in trials if each.state is TrialState.COMPLETED])
    broken = sum(each.state is TrialState.FAILED for each in trials)
    assert done <= keys(list(paths(program)))
    assert len(list(paths(program))) - done.total() <= broken


@settings(max_examples=10, deadline=None)
@given(
    program=PROGRAMS.filter(lambda program: 3 <= len(list(paths(program))) <= 12),
    slots=st.integers(1, 4),
    chance=st.randoms(use_true_random=False),
)
def test_resumed_at_every_cut_it_tries_the_rest(
    program: list[Statement], slots: int, chance: Random
) -> None:
    whole = simulated(program, chance, slots)
    whole.run()
    for cut in range(len(whole.facts)):
        facts = whole.facts[:cut]
        resumed = Simulation(Checked(), whole.declare, chance, slots, facts=facts)
        assert keys(tried(resumed.run())) == keys(list(paths(program))), f"cut after fact {cut}"


async def test_a_search_resumed_at_every_cut_tries_the_rest(tmp_path: Path) -> None:
    whole = await searched(tmp_path, slowly(by_if, lambda n: n * 7 % 4), slots=2)
    async for cut, history in whole.resumed_at_every_cut(lambda: Checked(objective=SCORE), slots=2):
        assert keys(tried(history)) == keys(BY_IF), f"cut after fact {cut}"


# --- the tuner


class Grid(GridSearch):
    async def run_trial(self, trial: RunContext) -> float:
        hp = trial.hyperparameters
        return float(hp.Int("a", 1, 3)) * (2.0 if hp.Boolean("b") else 1.0)


async def test_the_tuner_searches_the_whole_grid_and_goes_on_where_it_was(tmp_path: Path) -> None:
    first = await Grid(None, max_trials=4, directory=tmp_path, gpus=0).search(verbose=0)
    assert [trial.score for trial in first.trials] == [1, 2, 2, 4]
    whole = await Grid(None, directory=tmp_path, gpus=0).search(verbose=0)
    assert [trial.score for trial in whole.trials] == [1, 2, 2, 4, 3, 6]
    assert whole.reason is EndReason.EXHAUSTED
    assert whole.best_hyperparameters is not None
    assert whole.best_hyperparameters.values == {"a": 1, "b": False}


def test_the_arguments_are_those_of_keras_tuner() -> None:
    tail = ["max_retries_per_trial", "max_consecutive_failed_trials"]
    given = ["objective", "max_trials", "seed", "hyperparameters"]
    new = ["tune_new_entries", "allow_new_entries"]
    assert list(signature(GridSearch).parameters) == ["hypermodel", *given, *new, *tail, "kwargs"]
    assert list(signature(GridSearchOracle).parameters) == [*given, *reversed(new), *tail]
    assert GridSearchOracle("loss", 5, 7).max_trials == 5
    assert GridSearchOracle().max_trials is None
