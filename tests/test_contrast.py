"""Contrast: good trials against others."""

from __future__ import annotations

import numpy as np

from aiotune.history import History
from aiotune.hyperparameters import HyperParameters
from aiotune.learning.contrast import Contrast
from aiotune.learning.gaussian_process import Array
from aiotune.learning.lessons import Lessons
from aiotune.learning.priors import Near, Priors
from aiotune.objective import Objective
from aiotune.oracles.random_search import RandomSearchOracle
from tests.support.landscapes import bowl
from tests.support.simulated import Program, Simulation

SCORE = Objective("score", "min")
NOWHERE = np.empty((0, 2))


def lessons_of(program: Program = bowl, trials: int = 40) -> Lessons:
    search = Simulation(RandomSearchOracle(SCORE, trials, seed=0), program).run(trials)
    lessons = Lessons(search.history.space, SCORE)
    lessons.read(History(search.facts))
    return lessons


def drawn(lessons: Lessons, pending: Array = NOWHERE, beliefs: Priors | None = None) -> Array:
    contrast = Contrast(lessons, pending, beliefs, gamma=0.1, prior_weight=1.0)
    return contrast.best_first(64, np.random.default_rng(0))


def test_points_lie_where_good_trials_do() -> None:
    lessons = lessons_of()
    good = lessons.places[lessons.ranked(40)[:4]].mean(axis=0)
    points = drawn(lessons)
    off = np.linalg.norm(points - good, axis=1)
    assert points.shape == (64, 2)
    assert off[:16].mean() < 0.7 * off[-16:].mean()


def test_where_trials_are_in_flight_others_keep_off() -> None:
    lessons = lessons_of()
    best = drawn(lessons)[0]
    kept_off = drawn(lessons, pending=np.repeat(best[None], 6, axis=0))
    assert np.linalg.norm(kept_off[0] - best) > 0.05


def test_what_is_believed_counts_too() -> None:
    def flat(hp: HyperParameters) -> float:
        hp.Float("x", 0, 1)
        return float(hp.Float("y", 0, 1)) * 0.0

    beliefs = Priors({"x": Near(0.2, within=0.05)})
    lessons = lessons_of(flat, trials=10)
    assert abs(drawn(lessons, beliefs=beliefs)[0, 0] - 0.2) < 0.1
    assert drawn(lessons)[:8, 0].mean() > 0.3


def test_one_score_among_failures_is_enough() -> None:
    def scarce(hp: HyperParameters) -> float:
        x = hp.Float("x", 0, 1) + 0 * hp.Float("y", 0, 1)
        calls.append(x)
        if len(calls) == 2:
            return 1.0
        raise MemoryError

    calls: list[float] = []
    assert np.isfinite(drawn(lessons_of(scarce, trials=9))).all()
