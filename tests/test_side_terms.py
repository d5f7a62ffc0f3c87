"""What speaks for a point beside scores."""

from __future__ import annotations

import numpy as np

from aiotune.history import History
from aiotune.hyperparameters import HyperParameters
from aiotune.learning.lessons import Lessons
from aiotune.learning.priors import Near, Priors
from aiotune.learning.side_terms import likely_first, side_terms
from aiotune.objective import Objective
from aiotune.oracles.random_search import RandomSearchOracle
from tests.support.simulated import Program, Simulation

SCORE = Objective("score", "min")
GRID = np.linspace(0.0, 1.0, 21)[:, None]


def lessons_of(program: Program) -> Lessons:
    search = Simulation(RandomSearchOracle(SCORE, 20, seed=0), program).run(20)
    lessons = Lessons(search.history.space, SCORE)
    lessons.read(History(search.facts))
    return lessons


def fine(hp: HyperParameters) -> float:
    return float(hp.Float("x", 0, 1))


def broken_above(hp: HyperParameters) -> float:
    if hp.Float("x", 0, 1) > 0.6:
        raise MemoryError
    return 0.0


def test_while_nothing_broke_and_nothing_is_believed_there_is_none() -> None:
    lessons = lessons_of(fine)
    assert not side_terms(lessons, lessons.gates(lessons.count), None).value(GRID).any()
    chance = np.random.default_rng(0)
    assert np.array_equal(likely_first(GRID, lessons, None, chance), GRID)


def test_where_trials_broke_points_come_last() -> None:
    lessons = lessons_of(broken_above)
    value = side_terms(lessons, lessons.gates(lessons.count), None).value(GRID)
    assert value[GRID[:, 0] < 0.4].min() > value[GRID[:, 0] > 0.8].max() + 1.0
    ordered = likely_first(GRID, lessons, None, np.random.default_rng(0))
    assert sorted(ordered.ravel()) == sorted(GRID.ravel())
    assert ordered[:8].mean() < 0.5 < ordered[-5:].mean()


def behind_an_if(hp: HyperParameters) -> float:
    return float(hp.Float("x", 0, 1)) if hp.Choice("kind", ["plain", "deep"]) == "deep" else 0.0


def test_of_what_the_program_leaves_out_by_itself_nothing_is_believed() -> None:
    lessons = lessons_of(behind_an_if)
    gates = lessons.gates(lessons.count)
    axis = lessons.encoding.named("x")[0]
    assert gates.is_hidden.tolist() == [index == axis for index in range(2)]
    is_plain = np.isnan(lessons.places[:, axis])
    assert 0 < is_plain.sum() < lessons.count
    columns = lessons.encoding.columns(lessons.places)
    value = side_terms(lessons, gates, Priors({"x": Near(0.2, within=0.1)})).value(columns)
    assert not value[is_plain].any()
    assert value[~is_plain].all()


def test_what_is_believed_weighs_less_the_more_is_known() -> None:
    lessons = lessons_of(fine)
    gates = lessons.gates(lessons.count)
    priors = Priors({"x": Near(0.2, within=0.1)})
    first = side_terms(lessons, gates, priors).value(GRID)
    assert int(np.argmax(first)) == 4
    lessons.trials += lessons.trials
    assert np.ptp(side_terms(lessons, gates, priors).value(GRID)) < 0.6 * np.ptp(first)
