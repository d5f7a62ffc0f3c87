"""The kernel against its formula, written out for two points at a time, and against finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest

from aiotune.learning.kernel import (
    Array,
    Kernel,
    KernelParameters,
    axis_squares,
    matern,
    steepness,
)
from tests.support.differences import slopes_of

GROUPS = np.array([0, 1, 1, 2])  # the second axis has two columns
LENGTHSCALES = np.array([0.3, 0.8, 2.0])
SHARES = [0.0, 0.4, 1.0]


def kernel_of(share: float) -> Kernel:
    return Kernel(KernelParameters(LENGTHSCALES, 1e-3, share), GROUPS)


def points(count: int, seed: int) -> Array:
    return np.random.default_rng(seed).random((count, 4))


def matern_52(distance: float) -> float:
    """Return Rasmussen and Williams 2006, eq. 4.17, at lengthscale 1."""
    root = math.sqrt(5.0) * distance
    return (1.0 + root + root**2 / 3.0) * math.exp(-root)


def by_hand(one: Array, other: Array, share: float) -> float:
    d = (one - other) / LENGTHSCALES[GROUPS]
    along = [abs(d[0]), math.hypot(d[1], d[2]), abs(d[3])]
    alone = sum(matern_52(each) for each in along) / 3.0
    return (1.0 - share) * matern_52(math.hypot(*along)) + share * alone


def test_matern_is_its_formula() -> None:
    distances = np.array([0.0, 1e-9, 0.1, 1.0, 5.0, 1e3])
    assert matern(distances) == pytest.approx([matern_52(each) for each in distances], abs=1e-15)


def test_steepness_is_the_slope_over_the_distance_and_finite_at_0() -> None:
    distances, step = np.array([0.05, 0.5, 1.0, 4.0]), 1e-6
    slope = (matern(distances + step) - matern(distances - step)) / (2 * step)
    assert steepness(distances) == pytest.approx(-slope / distances, rel=1e-6)
    assert steepness(np.zeros(1)) == pytest.approx(5.0 / 3.0)


def test_squares_along_an_axis_are_the_sum_over_its_columns() -> None:
    one, other = points(2, 0), points(3, 1)
    squares = axis_squares(one, other, GROUPS)
    assert squares.shape == (2, 3, 3)
    d = one[1] - other[2]
    assert squares[1, 2] == pytest.approx([d[0] ** 2, d[1] ** 2 + d[2] ** 2, d[3] ** 2])


@pytest.mark.parametrize("share", SHARES)
def test_the_kernel_is_its_formula(share: float) -> None:
    kernel, one, other = kernel_of(share), points(3, 0), points(5, 1)
    expected = [[by_hand(a, b, share) for b in other] for a in one]
    values = kernel.between(kernel.scaled(one), kernel.scaled(other))
    assert values == pytest.approx(np.array(expected), abs=1e-12)
    near = kernel.nearness(kernel.scaled(one), kernel.scaled(other))
    assert near.values == pytest.approx(np.array(expected), abs=1e-12)


@pytest.mark.parametrize("share", SHARES)
def test_of_a_set_with_itself_it_is_a_covariance(share: float) -> None:
    kernel = kernel_of(share)
    scaled = kernel.scaled(points(30, 2))
    values = kernel.between(scaled, scaled)
    assert np.diagonal(values) == pytest.approx(1.0, abs=1e-12)
    assert values == pytest.approx(values.T, abs=1e-12)
    assert np.linalg.eigvalsh(values).min() > -1e-10


@pytest.mark.parametrize("share", SHARES)
def test_a_pull_is_the_slope_of_a_weighted_sum(share: float) -> None:
    kernel, x, others = kernel_of(share), points(3, 3), points(6, 4)
    scaled, around = kernel.scaled(x), kernel.scaled(others)
    weights = np.random.default_rng(5).normal(size=(3, 6))
    pulled = kernel.pulled(scaled, around, kernel.nearness(scaled, around), weights)
    for row in range(3):

        def weighted(at: Array, row: int = row) -> Array:
            total: Array = kernel.between(kernel.scaled(at), around) @ weights[row]
            return total

        expected = slopes_of(weighted, x[row : row + 1])
        assert pulled[row] == pytest.approx(expected[0], abs=1e-7)


@pytest.mark.parametrize("share", SHARES)
def test_a_point_does_not_pull_at_itself(share: float) -> None:
    kernel = kernel_of(share)
    scaled = kernel.scaled(points(1, 6))
    near = kernel.nearness(scaled, scaled)
    assert near.values == pytest.approx(1.0)
    pull = kernel.pulled(scaled, scaled, near, np.ones((1, 1)))
    assert pull == pytest.approx(0.0, abs=1e-12)
