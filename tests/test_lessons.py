"""Lessons: what the trials of a search teach, as arrays."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from aiotune.hyperparameters import HyperParameters
from aiotune.learning.lessons import Lessons
from aiotune.objective import MultiObjective, Objective
from aiotune.oracles.random_search import RandomSearchOracle
from aiotune.space import Choice, Condition, Float, Space, Values
from aiotune.trial import Trial, TrialState
from tests.support.simulated import Simulation
from tests.support.taught import SCORE, ended, lessons_of

LINE = Space([Float("x", 0, 4)])
BOTH = MultiObjective([Objective("a", "min"), Objective("b", "max")], reference=(9.0, 2.0))


def breaking(hp: HyperParameters) -> float:
    kind = hp.Choice("kind", ["a", "b"])
    x = hp.Float("x", 0, 1)
    if x > 0.8:
        raise MemoryError
    return math.nan if x < 0.1 else x + (hp.Float("late", 0, 1) if kind == "b" else 0.0)


def test_a_row_is_a_trial_that_shows_something() -> None:
    ends: list[tuple[TrialState, float | None]] = [
        (TrialState.COMPLETED, 0.5),
        (TrialState.DUPLICATE, None),
        (TrialState.PRUNED, 0.75),
        (TrialState.PRUNED, None),  # before it reported anything
        (TrialState.FAILED, None),
        (TrialState.INFEASIBLE, 0.1),
        (TrialState.COMPLETED, math.nan),
    ]
    lessons = Lessons(LINE, SCORE)
    lessons.take(
        ended(number, LINE, {"x": number / 2}, score, state)
        for number, (state, score) in enumerate(ends)
    )
    assert [trial.number for trial in lessons.trials] == [0, 2, 4, 5, 6]
    assert lessons.places.ravel().tolist() == [0.0, 0.25, 0.5, 0.625, 0.75]
    assert lessons.scores == pytest.approx([0.5, 0.75, math.nan, math.nan, math.nan], nan_ok=True)
    assert np.array_equal(lessons.goals[:, 0], lessons.scores, equal_nan=True)
    assert lessons.is_broken.tolist() == [False, False, True, True, True]
    assert lessons.count == 5
    assert lessons.has_scores
    assert lessons.ranked(5).tolist() == [0, 1, 2, 3, 4]


def test_without_a_trial_or_with_failures_only_there_are_no_scores() -> None:
    assert not Lessons(LINE, SCORE).has_scores
    failed = lessons_of(LINE, [({"x": 1.0}, math.nan)])
    assert failed.count == 1
    assert not failed.has_scores
    assert failed.leaders().tolist() == []


def test_what_is_to_be_large_is_negated() -> None:
    lessons = Lessons(LINE, Objective("score", "max"))
    lessons.take(ended(number, LINE, {"x": 1.0}, float(number)) for number in range(3))
    assert lessons.scores.tolist() == [0.0, -1.0, -2.0]
    assert lessons.leaders().tolist() == [2, 1, 0]


def test_of_several_runs_the_variance_of_their_mean_is_known() -> None:
    lessons = lessons_of(LINE, [({"x": 1.0}, 2.0)], repeats=(-1.0, 1.0))
    lessons.take([ended(1, LINE, {"x": 2.0}, 2.0, repeats=[2.0])])
    # A standard deviation of the root of 2, of which the mean of two runs has a half of the square.
    assert lessons.variances == pytest.approx([1.0, math.nan], nan_ok=True)


def both(number: int, a: float, b: float) -> Trial:
    metrics = {"a": a, "b": b}
    score = BOTH.get_value(metrics)
    return ended(number, LINE, {"x": number / 2}, score, metrics=metrics, objective=BOTH)


def test_of_several_objectives_the_front_leads() -> None:
    lessons = Lessons(LINE, BOTH)
    lessons.take([both(0, 0, 0), both(1, 5, 5), both(2, 1, 9), both(3, 2, 8)])
    lessons.take([ended(4, LINE, {"x": 3.0}, state=TrialState.FAILED, objective=BOTH)])
    assert lessons.goals[:4].tolist() == [[0, 0], [5, -5], [1, -9], [2, -8]]
    assert np.isnan(lessons.goals[4]).all()
    assert lessons.scores[:4].tolist() == [0, 0, -8, -6]
    assert lessons.leaders().tolist() == [2, 0, 3, 1]  # 2 and 0 are the front, 3 has a better score
    assert lessons.reference == (9.0, -2.0)
    assert Lessons(LINE, SCORE).reference is None


def test_a_trial_whose_names_are_not_all_known_is_where_it_was_proposed() -> None:
    space = Space(
        [Choice("kind", ["a", "b"]), Float("x", 0, 1, conditions=(Condition("kind", ("b",)),))]
    )
    lessons = Lessons(space, SCORE)

    def unmet(values: Values) -> Trial:
        met = ended(0, space, {"kind": "a"}, state=TrialState.FAILED)
        return replace(met, values=values, space=(), is_path_complete=False)

    lessons.take([unmet({"kind": "b", "x": 0.5}), unmet({"kind": "a", "x": 0.5}), unmet({})])
    assert np.array_equal(lessons.places, [[0.75, 0.5], [0.25, np.nan]], equal_nan=True)
    assert lessons.is_settled.tolist() == [False, False]


def test_trials_in_flight_are_pending() -> None:
    search = Simulation(RandomSearchOracle(SCORE, 9, seed=0), breaking, slots=3)
    lessons = Lessons(search.history.space, SCORE)
    assert lessons.pending(search.history).shape == (0, len(lessons.encoding.axes))
    search.ask(9)
    pending = lessons.pending(search.history)
    assert len(pending) == 3
    for place, trial in zip(pending.tolist(), search.trials, strict=True):
        assert lessons.encoding.axes[0].value(place[0]) == trial.values["kind"]
        assert place[1] == pytest.approx(trial.values["x"])
    lessons.read(search.history)
    assert lessons.count == 0


def test_read_again_and_again_or_once_the_lessons_are_the_same() -> None:
    search = Simulation(RandomSearchOracle(SCORE, None, seed=1), breaking, slots=2)
    search.run(30)
    whole = Lessons(search.history.space, SCORE)
    whole.read(search.history)
    stepwise = Lessons(search.history.space, SCORE)
    later = Simulation(RandomSearchOracle(SCORE, None, seed=1), breaking, slots=2)
    for count in range(1, 31):
        later.run(count)
        stepwise.read(later.history)
    assert [each.number for each in stepwise.trials] == [each.number for each in whole.trials]
    for name in ("places", "scores", "goals", "variances", "is_broken", "is_settled", "draws"):
        one, other = getattr(stepwise, name), getattr(whole, name)
        assert np.array_equal(one, other, equal_nan=one.dtype == float), name
    assert whole.is_broken.any()
    assert np.isnan(whole.places).any()
    whole.read(search.history)
    assert whole.count == stepwise.count
