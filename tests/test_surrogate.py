"""Surrogate: what a search has learnt, and what points promise by it."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from aiotune.learning.acquisition import confidence_bound, log_expected_improvement
from aiotune.learning.criterion import Improvement
from aiotune.learning.focus import Anywhere, Boldly, Category, Focus
from aiotune.learning.gaussian_process import Array, Process
from aiotune.learning.lessons import Lessons
from aiotune.learning.surrogate import Surrogate, SurrogateOptions, chosen_of
from aiotune.objective import MultiObjective, Objective
from aiotune.space import Choice, Float, Space, Values
from tests.support.taught import ended, lessons_of

LINE = Space([Float("x", 0, 1)])
NAMES = Space([Choice("kind", ["a", "b"]), Float("x", 0, 1)])
GRID = np.linspace(0.0, 1.0, 41)[:, None]
PLAIN = SurrogateOptions(alpha=1e-6, beta=None)


def line(score: Callable[[float], float], count: int, repeats: tuple[float, ...] = ()) -> Lessons:
    """Return lessons of points that fill the line evenly, in a mixed order."""
    xs = [(0.5 + index * 0.618034) % 1.0 for index in range(count)]
    return lessons_of(LINE, [({"x": x}, score(x)) for x in xs], repeats)


def valley(x: float) -> float:
    return (x - 0.3) ** 2


def processes(
    lessons: Lessons, surrogate: Surrogate, pending: Array | None = None
) -> list[Process]:
    columns = len(lessons.encoding.groups)
    none = np.empty((0, columns))
    return surrogate.processes(lessons.gates(lessons.count), none if pending is None else pending)


def process(lessons: Lessons, options: SurrogateOptions = PLAIN) -> Process:
    return processes(lessons, Surrogate(lessons, options))[0]


# --- what is known ---


def test_it_predicts_the_valley() -> None:
    mean, std = process(line(valley, 12)).predict(GRID)
    assert GRID[np.argmin(mean), 0] == pytest.approx(0.3, abs=0.03)
    assert std.max() < 0.5


def test_trials_in_flight_count_as_if_they_had_ended_as_expected() -> None:
    lessons = line(valley, 5)
    surrogate = Surrogate(lessons, PLAIN)
    pending = np.array([[0.87]])
    before = processes(lessons, surrogate)[0].predict(pending)
    after = processes(lessons, surrogate, pending)[0].predict(pending)
    assert after[0] == pytest.approx(before[0], abs=1e-3)
    assert after[1] < 0.7 * before[1]


def test_runs_that_differ_much_leave_it_unsure() -> None:
    alike = process(line(valley, 8, repeats=(-1e-9, 1e-9)))
    unlike = process(line(valley, 8, repeats=(-0.3, 0.3)))
    assert (unlike.predict(unlike.x)[1] > 3.0 * alike.predict(alike.x)[1]).all()


def test_of_many_trials_it_learns_from_the_best_and_some_others() -> None:
    lessons = line(valley, 260)
    chosen = chosen_of(lessons, 260)
    assert len(set(chosen.tolist())) == 200
    best = lessons.ranked(260)[:100]
    assert set(best) <= set(chosen)
    others = np.setdiff1d(chosen, best)
    assert lessons.scores[others].max() > 0.95 * lessons.scores.max()
    assert chosen_of(lessons, 200).tolist() == list(range(200))


def test_what_broke_is_not_learnt_from() -> None:
    lessons = lessons_of(LINE, [({"x": 0.2}, math.nan), ({"x": 0.4}, 1.0), ({"x": 0.8}, 2.0)])
    assert process(lessons).x.ravel().tolist() == [0.4, 0.8]


def test_beyond_fifty_trials_it_is_fitted_after_every_fifth_one() -> None:
    whole = line(valley, 62)
    growing = Lessons(LINE, whole.objective)
    growing.take(whole.trials[:50])
    surrogate = Surrogate(growing, PLAIN)
    fits = [processes(growing, surrogate)[0].parameters]
    for trial in whole.trials[50:]:
        growing.take([trial])
        fits.append(processes(growing, surrogate)[0].parameters)
    is_new = [one is not other for one, other in pairwise(fits)]
    assert [51 + index for index, each in enumerate(is_new) if each] == [55, 60]

    resumed = processes(whole, Surrogate(whole, PLAIN))[0].parameters  # as if it had always been
    assert np.array_equal(resumed.lengthscales, fits[-1].lengthscales)
    assert (resumed.noise, resumed.share) == (fits[-1].noise, fits[-1].share)


def test_up_to_fifty_trials_it_is_fitted_after_each() -> None:
    lessons = line(valley, 6)
    surrogate = Surrogate(lessons, PLAIN)
    first = processes(lessons, surrogate)[0].parameters
    assert processes(lessons, surrogate)[0].parameters is first
    lessons.take([ended(6, LINE, {"x": 0.05}, valley(0.05))])
    assert processes(lessons, surrogate)[0].parameters is not first


def test_earlier_searches_are_a_first_guess() -> None:
    def scaled(x: float) -> float:
        return 1000.0 + 50.0 * (x - 0.7) ** 2

    present = lessons_of(LINE, [({"x": 0.1}, 0.36), ({"x": 0.4}, 0.09)])
    bare = process(present).predict(GRID)[0]
    taught = SurrogateOptions(1e-6, None, earlier=(line(scaled, 20),))
    shifted = process(present, taught).predict(GRID)[0]
    assert GRID[np.argmin(shifted), 0] == pytest.approx(0.7, abs=0.1)
    assert GRID[np.argmin(bare), 0] < 0.6
    mute = SurrogateOptions(1e-6, None, earlier=(line(lambda x: 1.0, 20),))
    assert process(present, mute).predict(GRID)[0] == pytest.approx(bare)


# --- what is promised ---


def named() -> Lessons:
    rows: list[tuple[Values, float]] = [
        ({"kind": kind, "x": x}, (x - 0.3) ** 2 + (kind == "b"))
        for x in (0.05, 0.25, 0.5, 0.75, 0.95)
        for kind in ("a", "b")
    ]
    return lessons_of(NAMES, rows)


def promise(lessons: Lessons, options: SurrogateOptions, focus: Focus, columns: Array) -> Array:
    surrogate = Surrogate(lessons, options)
    known = processes(lessons, surrogate)
    gates = lessons.gates(lessons.count)
    return surrogate.criterion(gates, known, focus).value(columns)


def test_a_category_is_compared_with_its_own_best() -> None:
    lessons = named()
    b = lessons.encoding.columns(np.column_stack([np.full(41, 0.75), GRID]))
    known = process(lessons)
    means = known.predict(known.x)[0]
    own = Improvement(known, log_expected_improvement(float(means[1::2].min())))
    best = Improvement(known, log_expected_improvement(float(means.min())))
    category = promise(lessons, PLAIN, Category(0, 0.75), b)
    assert category == pytest.approx(own.value(b))
    assert promise(lessons, PLAIN, Anywhere(), b) == pytest.approx(best.value(b))
    assert (category > best.value(b)).all()


def test_a_category_without_a_trial_is_compared_with_the_best_of_all() -> None:
    space = Space([Choice("kind", ["a", "b", "c"]), Float("x", 0, 1)])
    lessons = lessons_of(space, [(each.values, each.score or 0.0) for each in named().trials])  # type: ignore[misc]
    c = lessons.encoding.columns(np.column_stack([np.full(41, 5 / 6), GRID]))
    unseen = promise(lessons, PLAIN, Category(0, 5 / 6), c)
    assert unseen == pytest.approx(promise(lessons, PLAIN, Anywhere(), c))


def test_a_bold_look_and_a_beta_are_confidence_bounds() -> None:
    lessons = line(valley, 6)
    known = process(lessons)
    bold = promise(lessons, PLAIN, Boldly(), GRID)
    assert bold == pytest.approx(Improvement(known, confidence_bound(2.0)).value(GRID))
    for focus in (Anywhere(), Boldly()):
        given = promise(lessons, SurrogateOptions(1e-6, 0.5), focus, GRID)
        assert given == pytest.approx(Improvement(known, confidence_bound(0.5)).value(GRID))


def test_of_two_objectives_each_has_a_process_and_what_extends_the_front_is_promised() -> None:
    both = MultiObjective([Objective("left", "min"), Objective("right", "min")])
    lessons = Lessons(LINE, both)
    for number, x in enumerate([0.0, 0.1, 0.3, 0.7, 0.9, 1.0]):
        metrics = {"left": abs(x - 0.4), "right": abs(x - 0.6)}  # the front is from 0.4 to 0.6
        score = both.get_value(metrics)
        lessons.take([ended(number, LINE, {"x": x}, score, metrics=metrics, objective=both)])
    surrogate = Surrogate(lessons, PLAIN)
    known = processes(lessons, surrogate)
    assert len(known) == 2
    assert [GRID[np.argmin(each.predict(GRID)[0]), 0] for each in known] == pytest.approx(
        [0.4, 0.6], abs=0.15
    )
    value = surrogate.criterion(lessons.gates(6), known, Anywhere()).value(GRID)
    assert 0.35 < GRID[np.argmax(value), 0] < 0.65
