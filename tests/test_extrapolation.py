from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from aiotune.pruners.extrapolation import LEAST_POINTS, chance_below

CURVES: dict[str, Callable[[float], float]] = {
    "power": lambda t: 0.1 + 0.9 * t**-1.0,
    "exponential": lambda t: 0.1 + 0.9 * math.exp(-0.3 * (t - 1)),
    "log power": lambda t: 0.1 + 0.9 * (math.log(t + 1) / math.log(2)) ** -2.0,
}


def chance(curve: Callable[[float], float], seen: int, end: int, *goals: float) -> list[float]:
    """Return the chances of a curve that is seen up to its step number `seen`."""
    losses = [curve(step + 1.0) for step in range(seen)]
    return [float(p) for p in chance_below(range(seen), losses, end, np.array(goals))]


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("seen", [LEAST_POINTS, 10, 30])
def test_where_a_clean_curve_leads_is_found(name: str, seen: int) -> None:
    curve = CURVES[name]
    end, now = curve(100.0), curve(float(seen))
    low, high = chance(curve, seen, 99, end - 0.6 * (now - end) - 0.05, now)
    assert low < 0.3
    assert high > 0.6


@pytest.mark.parametrize("name", CURVES)
def test_the_more_is_seen_the_surer_it_is(name: str) -> None:
    curve = CURVES[name]
    missed = curve(100.0) - 0.1
    chances = [chance(curve, seen, 99, missed)[0] for seen in (LEAST_POINTS, 8, 16, 64)]
    assert chances[-1] < 0.02
    assert chances[-1] < chances[0]


def test_a_chance_falls_with_the_goal_and_grows_with_the_time() -> None:
    curve = CURVES["power"]
    falling = chance(curve, 8, 50, 0.2, 0.15, 0.1, 0.0, -1.0)
    assert falling == sorted(falling, reverse=True)
    growing = [chance(curve, 8, end, 0.12)[0] for end in (8, 16, 64, 512)]
    assert growing == sorted(growing)


def test_units_and_the_spacing_of_steps_do_not_matter() -> None:
    losses = [1.0, 0.6, 0.45, 0.4, 0.36]
    one = chance_below([0, 1, 2, 3, 4], losses, 20, np.array([0.3]))
    scaled = [1000.0 * each + 7.0 for each in losses]
    other = chance_below([100, 110, 120, 130, 140], scaled, 300, np.array([307.0]))
    assert one == pytest.approx(other)


def test_what_never_moved_will_not() -> None:
    assert list(chance_below(range(5), [1.0] * 5, 50, np.array([0.9, 1.1]))) == [0.0, 1.0]


def test_a_long_curve_is_thinned() -> None:
    losses = [CURVES["power"](t + 1.0) for t in range(5000)]
    (near,) = chance_below(range(5000), losses, 5100, np.array([0.05]))
    assert near < 0.01


def test_low_chances_are_as_rare_as_they_say() -> None:
    """Over noisy curves with all kinds of ends: what was given less than 5 % comes in less than 10 %."""
    chance_of = np.random.default_rng(0)
    came, given = 0, 0
    for _ in range(400):
        level, rate = chance_of.uniform(0, 1), chance_of.uniform(0.2, 2.0)
        noisy = level + np.arange(1, 31) ** -rate + chance_of.normal(0, 0.02, 30)
        best = np.minimum.accumulate(noisy)
        goal = best[-1] + chance_of.normal(0, 0.1)
        seen = int(chance_of.integers(5, 20))
        if goal >= best[seen - 1]:
            continue
        (p,) = chance_below(range(seen), list(best[:seen]), 29, np.array([goal]))
        if p < 0.05:
            given += 1
            came += int(best[-1] < goal)
    assert given > 50
    assert came < 0.1 * given
