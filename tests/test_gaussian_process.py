"""The Gaussian process against closed forms and finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest

from aiotune.learning.gaussian_process import Array, GaussianProcess, factorised, inverted
from aiotune.learning.kernel import KernelParameters
from aiotune.learning.likelihood import fit
from tests.support.differences import slopes_of

GROUPS = np.array([0, 1, 1, 2])  # the second axis has two columns
SHARES = [0.0, 0.4]


def data(count: int = 20, seed: int = 0) -> tuple[Array, Array]:
    x = np.random.default_rng(seed).random((count, 4))
    y = np.sin(6.0 * x[:, 0]) + x[:, 1] - x[:, 2]
    return x, (y - y.mean()) / y.std()


def process(noise: float = 1e-3, share: float = 0.0) -> GaussianProcess:
    x, y = data()
    parameters = KernelParameters(np.array([0.3, 0.8, 2.0]), noise, share)
    return GaussianProcess(x, y, parameters, groups=GROUPS)


def matern(distance: float) -> float:
    root = math.sqrt(5.0) * distance
    return (1.0 + root + root**2 / 3.0) * math.exp(-root)


def test_one_observation_gives_the_closed_form() -> None:
    parameters = KernelParameters(np.array([0.5]), 0.25)
    one = GaussianProcess(
        np.array([[0.2]]), np.array([2.0]), parameters, groups=np.array([0]), alpha=0.05
    )
    mean, std = one.predict(np.array([[0.2], [0.7]]))
    kernel = np.array([1.0, matern(1.0)])
    assert mean == pytest.approx(kernel * 2.0 / 1.3, abs=1e-7)
    assert std == pytest.approx(np.sqrt(1.0 - kernel**2 / 1.3), abs=1e-7)


def test_two_observations_give_the_closed_form() -> None:
    parameters = KernelParameters(np.array([0.5]), 0.1)
    two = GaussianProcess(
        np.array([[0.0], [1.0]]),
        np.array([-1.0, 3.0]),
        parameters,
        groups=np.array([0]),
        alpha=np.array([0.0, 0.4]),  # the second is the less certain
    )
    mean, std = two.predict(np.array([[0.25]]))
    a, b, c = 1.1, 1.5, matern(2.0)  # the kernel matrix [[a, c], [c, b]]
    one, other = matern(0.5), matern(1.5)
    determinant = a * b - c * c
    weights = (b * one - c * other) / determinant, (a * other - c * one) / determinant
    assert mean[0] == pytest.approx(-weights[0] + 3.0 * weights[1], abs=1e-6)
    assert std[0] == pytest.approx(math.sqrt(1.0 - weights[0] * one - weights[1] * other), abs=1e-6)


def test_without_observations_it_is_the_prior() -> None:
    parameters = KernelParameters(np.array([0.3, 0.8, 2.0]), 1e-3, 0.4)
    none = GaussianProcess(np.empty((0, 4)), np.empty(0), parameters, groups=GROUPS)
    mean, std = none.predict(data(3)[0])
    assert mean.tolist() == [0.0] * 3
    assert std.tolist() == [1.0] * 3


def test_without_noise_it_goes_through_the_points_and_is_sure_there() -> None:
    exact = process(noise=1e-6)
    mean, std = exact.predict(exact.x)
    assert mean == pytest.approx(exact.y, abs=1e-3)
    assert std.max() < 2e-3
    far, unsure = exact.predict(np.full((1, 4), 50.0))
    assert far == pytest.approx(0.0, abs=1e-6)
    assert unsure == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("share", SHARES)
def test_the_slopes_are_those_of_the_prediction(share: float) -> None:
    model = process(share=share)
    points = data(4, seed=7)[0]
    slope = model.predict_slope(points)
    mean, std = model.predict(points)
    assert slope.mean == pytest.approx(mean)
    assert slope.std == pytest.approx(std)
    by_mean = slopes_of(lambda at: model.predict(at)[0], points)
    by_std = slopes_of(lambda at: model.predict(at)[1], points)
    assert slope.mean_slope == pytest.approx(by_mean, abs=1e-5)
    assert slope.std_slope == pytest.approx(by_std, abs=1e-5)


def test_what_is_known_by_an_axis_alone_reaches_further() -> None:
    """Far away in one axis and the same in the others: a sum of functions still knows its other terms."""
    x = np.array([[0.0, 0.0, 0.0, 0.0]])
    away = np.array([[0.0, 0.0, 0.0, 100.0]])
    stds = [
        GaussianProcess(
            x, np.ones(1), KernelParameters(np.ones(3), 1e-6, share), groups=GROUPS
        ).predict(away)[1][0]
        for share in (0.0, 1.0)
    ]
    assert stds[0] == pytest.approx(1.0)
    assert stds[1] == pytest.approx(math.sqrt(1.0 - (2.0 / 3.0) ** 2), abs=1e-4)


@pytest.mark.parametrize("share", SHARES)
def test_further_points_count_as_if_they_had_been_there(share: float) -> None:
    x, y = data()
    parameters = KernelParameters(np.array([0.3, 0.8, 2.0]), 1e-3, share)
    first = GaussianProcess(x[:15], y[:15], parameters, groups=GROUPS, alpha=1e-4)
    whole = GaussianProcess(x, y, parameters, groups=GROUPS, alpha=1e-4)
    points = data(7, seed=3)[0]
    for one, other in zip(
        first.extended(x[15:], y[15:]).predict(points), whole.predict(points), strict=True
    ):
        assert one.tolist() == other.tolist()


def test_further_points_are_as_certain_as_the_most_certain() -> None:
    x, y = data(3)
    parameters = KernelParameters(np.array([0.3, 0.8, 2.0]), 1e-3)
    first = GaussianProcess(x[:2], y[:2], parameters, groups=GROUPS, alpha=np.array([0.1, 0.01]))
    whole = GaussianProcess(x, y, parameters, groups=GROUPS, alpha=np.array([0.1, 0.01, 0.01]))
    points = data(7, seed=3)[0]
    extended = first.extended(x[2:], y[2:])
    assert extended.predict(points)[1] == pytest.approx(whole.predict(points)[1])


def test_a_matrix_that_rounding_made_indefinite_has_a_factor() -> None:
    kernel = np.ones((3, 3)) - 1e-6 * np.eye(3)  # eigenvalues below 0
    factor = factorised(kernel)
    assert factor @ factor.T == pytest.approx(kernel, abs=1e-4)
    assert inverted(factor) @ (factor @ factor.T) == pytest.approx(np.eye(3), abs=1e-6)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("target", [np.zeros(6), np.arange(6.0)])
def test_equal_points_and_equal_targets_do_no_harm(target: Array, share: float) -> None:
    x = np.repeat([[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.5, 0.5]], 3, axis=0)
    model = GaussianProcess(
        x, target, fit(x, target, groups=GROUPS, is_additive=bool(share)), groups=GROUPS
    )
    for each in model.predict_slope(x):
        assert np.isfinite(each).all()


def test_where_rounding_takes_the_variance_to_0_the_std_is_least_and_has_no_slope() -> None:
    x, y = data(100)
    parameters = KernelParameters(np.full(3, 1e3), 0.0)  # all points are nearly one
    model = GaussianProcess(x, y, parameters, groups=GROUPS)
    slope = model.predict_slope(data(50, seed=1)[0])
    is_least = slope.std <= 1e-6
    assert is_least.any()
    assert (slope.std > 0.0).all()
    assert not slope.std_slope[is_least].any()
    assert np.isfinite(slope.std_slope).all()


def test_many_columns_do_no_harm() -> None:
    x = np.random.default_rng(0).random((30, 200))
    parameters = KernelParameters(np.full(200, 5e-3), 1e-6, 0.5)
    model = GaussianProcess(x, x[:, 0] - 0.5, parameters, groups=np.arange(200))
    for each in model.predict_slope(np.vstack([x, np.zeros((1, 200))])):
        assert np.isfinite(each).all()
    assert model.predict(x)[0] == pytest.approx(x[:, 0] - 0.5, abs=1e-4)
