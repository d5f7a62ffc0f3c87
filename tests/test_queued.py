"""Points that are tried first: with every oracle, before and during a search, and when it goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import aiotune
from aiotune import EndReason, HyperParameters, Objective, Trial
from aiotune.errors import FatalError, FatalRuntimeError, FatalTypeError, FatalValueError
from aiotune.events import SpaceGrew, TrialCreated
from aiotune.executors.context import RunContext
from aiotune.history import History
from aiotune.oracles.base import Oracle, Suggest
from aiotune.oracles.grid_search import GridSearchOracle
from aiotune.oracles.hyperband import HyperbandOracle
from aiotune.oracles.random_search import RandomSearchOracle
from aiotune.space import Boolean, Choice, Condition, Float, Int, Scalar
from aiotune.trial import TrialState

SCORE = Objective("score", "min")
UNITS, RATE = Int("units", 1, 100), Float("rate", 0.001, 1.0, sampling="log")
KIND = Choice("kind", ["plain", "deep"])
DEPTH = Int("depth", 1, 4, conditions=(Condition("kind", ("deep",)),))
SPACE = (UNITS, RATE, KIND, DEPTH)


def history(*asked: dict[str, Scalar]) -> History:
    facts: list[Any] = [SpaceGrew(0.0, None, SPACE)]
    facts += [
        TrialCreated(0.0, f"{number:04d}", number, number, values, 1)
        for number, values in enumerate(asked)
    ]
    return History(facts)


def random_search(**options: Any) -> RandomSearchOracle:
    return RandomSearchOracle(SCORE, max_trials=None, seed=1, **options)


def given(oracle: Oracle, known: History | None = None) -> dict[str, Scalar]:
    known = known or history()
    answer = oracle.next_answer(known, known.next_number)
    assert isinstance(answer, Suggest)
    return dict(answer.values)


# --- the oracle ---


def test_queued_points_come_first_in_their_order_and_then_the_oracles_own() -> None:
    oracle, alone = random_search(), random_search()
    one: dict[str, Scalar] = {"units": 3, "rate": 0.5, "kind": "plain"}
    two: dict[str, Scalar] = {"units": 4, "rate": 0.5, "kind": "deep", "depth": 2}
    oracle.enqueue(one, two)
    assert given(oracle) == one
    assert given(oracle, history(one)) == two
    assert given(oracle, history(one, two)) == given(alone, history(one, two))


def test_a_suggestion_keeps_its_stream() -> None:
    oracle, alone = random_search(), random_search()
    oracle.enqueue({"units": 3})
    queued, own = oracle.next_answer(history(), 0), alone.next_answer(history(), 0)
    assert isinstance(queued, Suggest)
    assert isinstance(own, Suggest)
    assert queued.stream == own.stream
    assert {**own.values, "units": 3} == dict(queued.values)


def test_a_point_is_kept_until_a_trial_has_it() -> None:
    """A suggestion may be dropped: a search that ends, one that was prepared beforehand."""
    oracle = random_search()
    oracle.enqueue({"units": 3})
    assert given(oracle) == given(oracle)
    assert given(oracle, history({"units": 4}))["units"] == 3


def test_what_a_trial_has_or_was_begun_with_is_passed_over() -> None:
    oracle = random_search()
    oracle.enqueue({"units": 3}, {"units": 5, "depth": 2})
    known = history({"units": 3, "rate": 0.1, "kind": "plain"})
    assert given(oracle, known)["units"] == 5
    # What was proposed for a name that the program did not meet counts, too.
    known = history({"units": 3, "rate": 0.1}, {"units": 5, "kind": "deep", "depth": 2})
    assert given(oracle, known) == given(random_search(), known)


def test_the_parents_that_a_value_needs_follow_from_it() -> None:
    oracle = random_search()
    for depth in (1, 2, 3):
        oracle.enqueue({"depth": depth})
    known: list[dict[str, Scalar]] = []
    for depth in (1, 2, 3):
        known.append(given(oracle, history(*known)))
        assert (known[-1]["kind"], known[-1]["depth"]) == ("deep", depth)


def test_a_value_that_is_inactive_is_left_out() -> None:
    oracle = random_search()
    oracle.enqueue({"kind": "plain", "depth": 2, "units": 3, "rate": 0.5})
    values = given(oracle)
    assert values == {"kind": "plain", "units": 3, "rate": 0.5}
    assert given(oracle, history(values))["units"] != 3


def test_hyperparameters_and_real_values_are_points() -> None:
    def activation() -> None: ...

    choice = Choice("activation", [activation, "relu"])
    oracle = random_search()
    known = History([SpaceGrew(0.0, None, (choice,))])
    oracle.enqueue(HyperParameters([choice], {"activation": activation, "tuner/epochs": 3}))
    assert given(oracle, known) == {"activation": choice.label_of(activation)}


def test_grid_search_goes_through_its_whole_grid_beside_them() -> None:
    oracle = GridSearchOracle(SCORE, seed=1)
    space = (Int("units", 1, 3), Boolean("bias"))
    oracle.enqueue({"units": 2, "bias": True})
    facts: list[Any] = [SpaceGrew(0.0, None, space)]
    found = []
    for number in range(6):
        answer = oracle.next_answer(History(facts), number)
        assert isinstance(answer, Suggest)
        found.append(dict(answer.values))
        facts.append(TrialCreated(0.0, f"{number:04d}", number, answer.stream, answer.values, 1))
        if number == 0:
            assert answer.values == {"units": 2, "bias": True}
            own = GridSearchOracle(SCORE, seed=1).next_answer(History(facts[:1]), 0)
            assert isinstance(own, Suggest)
            assert answer.stream != own.stream


def test_hyperband_gives_them_its_budget() -> None:
    oracle = HyperbandOracle(SCORE, max_epochs=9, seed=1)
    oracle.enqueue({"units": 3})
    answer = oracle.next_answer(history(), 0)
    assert isinstance(answer, Suggest)
    assert answer.budget is not None
    assert answer.values["units"] == 3


def test_the_constraint_rules_how_a_part_of_a_point_is_completed() -> None:
    from aiotune.constraints import Constraint

    oracle = random_search()
    oracle.constraint = Constraint([lambda hp: hp["units"] < 3 or hp["kind"] == "deep"])
    for units in range(10, 20):
        oracle.enqueue({"units": units})
        values = given(oracle, history(*({"units": each} for each in range(10, units))))
        assert (values["units"], values["kind"]) == (units, "deep")


@pytest.mark.parametrize(
    ("point", "kind", "match"),
    [
        ({}, FatalValueError, "no values"),
        (7, FatalTypeError, "a dict of values by name"),
        ({7: 7}, FatalTypeError, "a dict of values by name"),
        ({"units": 101}, FatalValueError, r"units = 101 is not in Int\(1 to 100\)"),
        ({"units": 1.5}, FatalValueError, "units = 1.5 is not in"),
        ({"kind": "wide"}, FatalValueError, "kind = 'wide' is not in Choice"),
        ({"unitz": 3}, FatalValueError, "'unitz' is not among .*did you mean 'units'?"),
        ({"zzz": 3}, FatalValueError, "'zzz' is not among .*declare it in hyperparameters="),
    ],
)
def test_a_point_that_does_not_fit_is_refused(
    point: Any, kind: type[Exception], match: str
) -> None:
    oracle = random_search()
    oracle.follow(history)
    with pytest.raises(kind, match=match):
        oracle.enqueue({"units": 7}, point)
    assert given(oracle) == given(random_search())  # none of them was taken in
    if isinstance(point, dict) and point and "units" not in str(match):
        early = random_search()
        if not any(isinstance(name, int) for name in point):
            early.enqueue(point)  # the space is not known yet
            with pytest.raises(kind, match=match):
                early.next_answer(history(), 0)


def test_a_range_that_is_known_beforehand_is_checked_at_once() -> None:
    oracle = random_search(hyperparameters=HyperParameters([UNITS]))
    oracle.enqueue({"units": 3, "late": 7})
    with pytest.raises(FatalValueError, match="units = 101"):
        oracle.enqueue({"units": 101})
    strict = random_search(hyperparameters=HyperParameters([UNITS]), allow_new_entries=False)
    with pytest.raises(FatalValueError, match="'late' is not among"):
        strict.enqueue({"units": 3, "late": 7})


def test_a_point_that_the_constraint_refuses_is_an_error() -> None:
    from aiotune.constraints import Constraint

    oracle = random_search()
    oracle.constraint = Constraint([lambda hp: hp["units"] > 3])
    oracle.follow(history)
    with pytest.raises(FatalValueError, match="constraint= refuses this point"):
        oracle.enqueue({"units": 3, "rate": 0.5, "kind": "plain"})
    oracle.enqueue({"units": 3})
    with pytest.raises(FatalValueError, match="whatever the other names are"):
        oracle.next_answer(history(), 0)


def test_of_a_wish_what_does_not_fit_is_left_out() -> None:
    oracle = random_search()
    oracle.enqueue({"units": 500, "unknown": 3}, {"units": 500, "kind": "deep"}, is_wish=True)
    values = given(oracle)
    assert values["kind"] == "deep"
    assert UNITS.contains(values["units"])


# --- whole searches ---


class Traced(aiotune.RandomSearch):
    """Returns `units`; `late` is met in the run only."""

    def run_trial(self, trial: RunContext, *args: Any, **kwargs: Any) -> Any:
        hp = trial.hyperparameters
        hp.Int("late", 1, 9)
        return float(hp.Int("units", 1, 100))


def traced(tmp_path: Path, make: Callable[..., Any] = Traced, **options: Any) -> Any:
    hp = HyperParameters([UNITS])
    defaults = {"max_trials": 4, "seed": 2, "hyperparameters": hp, "executor": "inline"}
    return make(None, **{**defaults, **options}, directory=tmp_path)


def units(trials: Any) -> list[Scalar]:
    return [trial.values["units"] for trial in trials]


async def test_a_tuner_tries_queued_points_first(tmp_path: Path) -> None:
    tuner = traced(tmp_path)
    tuner.enqueue({"units": 7}, {"units": 8})
    result = await tuner.search(verbose=0)
    assert units(result.trials)[:2] == [7, 8]
    assert len(result.trials) == 4


async def test_a_program_that_enqueues_at_each_start_can_be_resumed(tmp_path: Path) -> None:
    for most in (1, 3, 6):
        tuner = traced(tmp_path, max_trials=most)
        tuner.enqueue({"units": 7}, {"units": 8}, {"units": 9})
        result = await tuner.search(verbose=0)
        assert len(result.trials) == most
    assert units(result.trials)[:3] == [7, 8, 9]
    assert not {7, 8, 9} & {*units(result.trials)[3:]}


async def test_a_point_that_is_enqueued_during_a_search_is_next(tmp_path: Path) -> None:
    class Asking(Traced):
        def on_trial_end(self, trial: Trial) -> None:
            if trial.number == 1:
                self.enqueue({"units": 77})

    result = await traced(tmp_path, Asking).search(verbose=0)
    assert units(result.trials)[2] == 77


async def test_a_search_that_waits_is_woken(tmp_path: Path) -> None:
    """Its oracle has nothing to propose while a trial runs; the run ends once a second one has begun."""
    import anyio

    second = anyio.Event()

    class Once(Oracle):
        def populate_space(self, trial_id: str) -> dict[str, Any]:
            if self.trials:
                return {"status": "STOPPED"}
            return {"status": "RUNNING", "values": {"units": 1}}

    class Waiting(aiotune.Tuner):
        async def run_trial(self, trial: RunContext, *args: Any, **kwargs: Any) -> Any:
            value = trial.hyperparameters.Int("units", 1, 100)
            if value == 2:
                second.set()
            else:
                self.enqueue({"units": 2})
            with anyio.fail_after(20):
                await second.wait()
            return float(value)

    tuner = Waiting(Once(max_trials=5, seed=1), directory=tmp_path, max_concurrent_trials=2)
    result = await tuner.search(verbose=0)
    assert units(result.trials) == [1, 2]
    assert result.reason is EndReason.EXHAUSTED


async def test_a_bad_point_ends_the_search_before_the_first_trial(tmp_path: Path) -> None:
    tuner = traced(tmp_path)
    tuner.enqueue({"nothing": 7})
    with pytest.raises(FatalValueError, match="'nothing' is not among the names"):
        await tuner.search(verbose=0)
    assert not tuner.trials


async def test_a_queued_point_that_shows_as_a_duplicate_is_not_tried_again(tmp_path: Path) -> None:
    class Narrow(aiotune.RandomSearch):
        def run_trial(self, trial: RunContext, *args: Any, **kwargs: Any) -> Any:
            hp = trial.hyperparameters
            if hp.Boolean("wide"):
                hp.Int("width", 1, 3)
            return 0.0

    tuner = traced(
        tmp_path, Narrow, hyperparameters=HyperParameters([Boolean("wide"), Int("width", 1, 3)])
    )
    tuner.enqueue({"wide": False, "width": 1}, {"wide": False, "width": 2})
    result = await tuner.search(verbose=0)
    states = [trial.state for trial in result.trials]
    assert states.count(TrialState.DUPLICATE) <= 2
    assert states[:2] == [TrialState.COMPLETED, TrialState.DUPLICATE]
    assert len({str(trial.values) for trial in result.trials}) == 4  # every point of the program


def test_a_child_cannot_enqueue(tmp_path: Path) -> None:
    slim = traced(tmp_path).for_child()
    with pytest.raises(FatalRuntimeError, match="not known in a trial's process"):
        slim.enqueue({"units": 7})


# --- warm start ---


async def test_the_best_points_of_an_earlier_search_are_tried_first(tmp_path: Path) -> None:
    earlier = traced(tmp_path, max_trials=6, project_name="earlier")
    found = await earlier.search(verbose=0)
    best = units(found.best_trials(2))
    sources: list[Any] = [found, earlier, list(found.trials), earlier.project_dir]
    sources.append(Path(earlier.project_dir) / "study.db")
    for number, source in enumerate(sources):
        hp = HyperParameters([UNITS, Int("late", 1, 9)])
        tuner = traced(tmp_path, project_name=f"later-{number}", max_trials=3, hyperparameters=hp)
        tuner.warm_start(source, best=2)
        result = await tuner.search(verbose=0)
        assert units(result.trials)[:2] == best
        assert len(result.trials) == 3
        ((*known,),) = tuner.oracle.earlier
        assert [trial.score for trial in known] == [trial.score for trial in found.trials]


async def test_what_does_not_fit_the_new_space_is_left_out(tmp_path: Path) -> None:
    earlier = traced(tmp_path, project_name="earlier")
    found = await earlier.search(verbose=0)

    class Other(aiotune.RandomSearch):
        def run_trial(self, trial: RunContext, *args: Any, **kwargs: Any) -> Any:
            return float(trial.hyperparameters.Int("filters", 1, 100))

    hp = HyperParameters([Int("filters", 1, 100)])
    tuner = traced(tmp_path, Other, hyperparameters=hp)
    tuner.warm_start(found)
    result = await tuner.search(verbose=0)
    assert len(result.trials) == 4
    assert tuner.oracle.earlier == ((),)


async def test_a_warm_start_from_what_does_not_compare_is_refused(tmp_path: Path) -> None:
    found = await traced(tmp_path, project_name="earlier").search(verbose=0)
    tuner = traced(tmp_path, objective=Objective("score", "max"))
    with pytest.raises(FatalValueError, match="their scores do not compare"):
        tuner.warm_start(found)
    assert tuner.oracle.earlier == ()
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "oracle.json").write_text("{}")
    own = traced(tmp_path)
    cases: list[tuple[Any, type[Exception], str]] = [
        (tmp_path / "theirs", FatalValueError, "aiotune import"),
        (tmp_path / "nothing", FatalValueError, "no project of aiotune"),
        (own, FatalValueError, "own project"),
        (own.project_dir, FatalValueError, "own project"),
        ([3], FatalTypeError, "needs a SearchResult"),
        (found.trials[0], FatalTypeError, r"pass \[trial\]"),
        ([], FatalValueError, "no trial of the list has ended"),
    ]
    for source, kind, match in cases:
        with pytest.raises(kind, match=match):
            own.warm_start(source)
    with pytest.raises(FatalValueError, match="best=-1"):
        own.warm_start(found, best=-1)


async def test_a_warm_start_in_the_midst_of_a_search_is_refused(tmp_path: Path) -> None:
    found = await traced(tmp_path, project_name="earlier").search(verbose=0)

    class Late(Traced):
        def on_trial_end(self, trial: Trial) -> None:
            self.warm_start(found)

    with pytest.raises(FatalError, match="before the search"):
        await traced(tmp_path, Late).search(verbose=0)
