"""Evolution: what generations make of the distribution, on numbers, steps and names."""

from __future__ import annotations

import numpy as np

from aiotune.history import History
from aiotune.hyperparameters import HyperParameters
from aiotune.learning.evolution import Evolution
from aiotune.learning.gaussian_process import Array
from aiotune.learning.lessons import Lessons
from aiotune.objective import Objective
from aiotune.oracles.cmaes import CmaEsOracle
from tests.support.simulated import Program, Simulation

SCORE = Objective("score", "min")


def search(program: Program, trials: int, slots: int = 1) -> Simulation:
    oracle = CmaEsOracle(SCORE, None, seed=0, num_initial_points=5)
    return Simulation(oracle, program, slots).run(trials)


def points_of(lessons: Lessons) -> Array:
    evolution = Evolution(lessons, seed=0, initial=5, sigma=0.15, population=None)
    return evolution.points(40, np.random.default_rng(0))


def lessons_after(facts: Simulation) -> Lessons:
    lessons = Lessons(facts.history.space, SCORE)
    lessons.read(History(facts.facts))
    return lessons


def valley(hp: HyperParameters) -> float:
    """A narrow one along the diagonal of two of its axes."""
    x, y, z = (hp.Float(name, 0, 1) for name in "xyz")
    return 100 * (x - y) ** 2 + (x + y - 1.2) ** 2 + (z - 0.2) ** 2  # type: ignore[no-any-return]


def test_it_takes_the_shape_of_the_valley() -> None:
    points = points_of(lessons_after(search(valley, 150)))
    assert np.std(points[:, 0] - points[:, 1]) < 0.5 * np.std(points[:, 0] + points[:, 1])
    assert np.abs(points[:, 2] - 0.2).mean() < 0.1


def test_what_it_has_become_follows_from_the_trials_alone() -> None:
    """Whether it was there at each of them, or reads them all at once."""
    whole = search(valley, 60, slots=5)
    lessons = Lessons(whole.history.space, SCORE)
    evolution = Evolution(lessons, seed=0, initial=5, sigma=0.15, population=None)
    for cut in range(1, len(whole.facts) + 1):
        lessons.read(History(whole.facts[:cut]))
        if lessons.has_scores:
            evolution.points(1, np.random.default_rng(cut))
    grown = evolution.points(40, np.random.default_rng(0))
    assert np.array_equal(grown, points_of(lessons_after(whole)))


def test_steps_do_not_freeze() -> None:
    """With a margin some points lie beside the best value, however sure the distribution is."""

    def steps(hp: HyperParameters) -> float:
        return (hp.Int("k", 0, 20) - 13) ** 2 + (hp.Float("x", 0, 1) - 0.5) ** 2  # type: ignore[no-any-return]

    lessons = lessons_after(search(steps, 90))
    levels = lessons.encoding.axes[0].indices(points_of(lessons)[:, 0])
    assert np.median(levels) == 13
    assert set(levels) - {13}


def test_names_are_those_of_the_best_and_sometimes_others() -> None:
    def named(hp: HyperParameters) -> float:
        return float(hp.Choice("kind", list("abcd")) != "c") + abs(hp.Float("x", 0, 1) - 0.5)  # type: ignore[no-any-return]

    lessons = lessons_after(search(named, 40))
    levels = lessons.encoding.axes[0].indices(points_of(lessons)[:, 0])
    assert 0.6 < np.mean(levels == 2) < 1.0


def test_of_an_inactive_name_nothing_is_learnt() -> None:
    def two(hp: HyperParameters) -> float:
        kind = hp.Choice("kind", ["a", "b"])
        with hp.conditional_scope("kind", ["b"]):
            rate = hp.Float("rate", 0, 1) or 0.0
        return (hp.Float("x", 0, 1) - 0.3) ** 2 + (1 + rate if kind == "b" else 0)  # type: ignore[no-any-return]

    points = points_of(lessons_after(search(two, 80)))
    assert points[:, 2].std() < 0.1 < points[:, 1].std()


def test_generations_without_a_score_are_left_out() -> None:
    def failing(hp: HyperParameters) -> float:
        x = hp.Float("x", 0, 1) + hp.Float("y", 0, 1)
        calls.append(x)
        if len(calls) > 7:
            raise MemoryError
        return x  # type: ignore[no-any-return]

    calls: list[float] = []
    lessons = lessons_after(search(failing, 40))
    assert lessons.is_broken.sum() > 30
    assert np.isfinite(points_of(lessons)).all()
