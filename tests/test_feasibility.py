"""What is learnt from trials that broke: where to stay away from, and how far."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtri_exp

from aiotune.learning.encoding import Flags
from aiotune.learning.feasibility import Feasibility
from aiotune.learning.gaussian_process import Array
from aiotune.learning.one_thread import one_thread
from tests.support.differences import slopes_of

AXES = np.arange(2)


def trials(count: int = 24, broken: int = 6) -> tuple[Array, Flags]:
    """Return trials of which so many broke: those of the largest first column."""
    x = np.random.default_rng(0).random((count, 2))
    return x, x[:, 0] >= np.sort(x[:, 0])[count - broken]


def feasibility(x: Array, is_broken: Flags) -> Feasibility:
    with one_thread():
        return Feasibility(x, is_broken, groups=AXES)


def test_it_is_lower_where_trials_broke() -> None:
    term = feasibility(*trials(24, 3))
    ended, broke = term.value(np.array([[0.1, 0.5], [0.95, 0.5]]))
    assert ended > -1.0
    assert broke < ended - 20.0


def test_it_is_the_logarithm_of_a_probability() -> None:
    x, is_broken = trials()
    term = feasibility(x, is_broken)
    everywhere = np.random.default_rng(1).random((200, 2))
    assert (term.value(everywhere) <= 0.0).all()
    assert np.median(term.value(x[~is_broken])) > np.median(term.value(x[is_broken]))


def test_the_slope_is_that_of_the_value() -> None:
    term = feasibility(*trials())
    points = np.random.default_rng(2).random((8, 2))
    value, slope = term.slope(points)
    assert value == pytest.approx(term.value(points), rel=1e-6, abs=1e-9)
    assert slope == pytest.approx(slopes_of(term.value, points), rel=1e-3, abs=1e-3)
    assert slope[:, 0].min() < -1.0  # away from what breaks


def test_the_margin_rises_with_the_failures_beyond_a_small_share() -> None:
    """At a trial that ended the label is 1 whatever breaks far away: what falls is 1 - margin."""
    above = []
    for broken in (1, 2, 3, 4, 5, 9):
        ended = np.column_stack([np.zeros(10), np.linspace(0.0, 1.0, 10)])
        broke = np.column_stack([np.ones(broken), np.linspace(0.0, 1.0, broken)])
        term = feasibility(np.vstack([ended, broke]), np.arange(10 + broken) >= 10)
        above.append(ndtri_exp(term.value(ended[5:6])[0] / 40.0))
    margins = 1.0 - np.array(above) / above[0]
    # One, and a tenth of all, are free; each beyond costs 0.5, up to 0.9.
    assert margins == pytest.approx([0.0, 0.0, 0.35, 0.8, 0.9, 0.9], abs=0.05)


def test_few_failures_are_the_price_of_learning() -> None:
    """Of 20 trials three may break: next to those that ended, none of that is held against a point."""
    x, _ = trials(20, 3)
    allowed = feasibility(*trials(20, 3))
    beyond = feasibility(*trials(20, 6))
    ended = x[np.argsort(x[:, 0])[:5]]
    assert allowed.value(ended).min() > beyond.value(ended).max()


@pytest.mark.parametrize(
    ("x", "is_broken"),
    [
        (np.full((1, 2), 0.5), np.array([True])),
        (np.full((6, 2), 0.5), np.array([True, False] * 3)),
        (np.random.default_rng(0).random((8, 2)), np.ones(8, dtype=np.bool_)),
        (np.random.default_rng(0).random((8, 2)), np.zeros(8, dtype=np.bool_)),
    ],
    ids=["one", "equal", "all broke", "none broke"],
)
def test_extremes_give_numbers_and_no_warning(x: Array, is_broken: Flags) -> None:
    term = feasibility(x, is_broken)
    value, slope = term.slope(np.vstack([x, np.zeros((1, 2))]))
    assert np.isfinite(value).all()
    assert np.isfinite(slope).all()


def test_many_columns_give_numbers_and_no_warning() -> None:
    x = np.random.default_rng(0).random((12, 200))
    with one_thread():
        term = Feasibility(x, x[:, 0] > 0.7, groups=np.arange(200))
    value, slope = term.slope(x)
    assert np.isfinite(value).all()
    assert np.isfinite(slope).all()


def test_it_depends_on_the_trials_alone() -> None:
    points = np.random.default_rng(3).random((5, 2))
    one, other = feasibility(*trials()), feasibility(*trials())
    assert one.value(points).tolist() == other.value(points).tolist()
