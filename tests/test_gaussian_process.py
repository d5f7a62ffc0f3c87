"""The Gaussian process against closed forms, finite differences and what a fit should find."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from aiotune.oracles.gaussian_process import (
    Array,
    GaussianProcess,
    KernelParameters,
    NegativePosterior,
    fit,
)
from aiotune.oracles.one_thread import one_thread

GROUPS = np.array([0, 1, 1, 2])  # the second parameter has two columns


def data(count: int = 20, seed: int = 0) -> tuple[Array, Array]:
    x = np.random.default_rng(seed).random((count, 4))
    y = np.sin(6.0 * x[:, 0]) + x[:, 1] - x[:, 2]
    return x, (y - y.mean()) / y.std()


def process(noise: float = 1e-3) -> GaussianProcess:
    x, y = data()
    parameters = KernelParameters(np.array([0.3, 0.8, 2.0]), noise)
    return GaussianProcess(x, y, parameters, groups=GROUPS)


def differences(function: Callable[[Array], float], at: Array, step: float = 1e-5) -> list[float]:
    """Return the slopes of a function, from its values beside a point."""
    return [
        (function(at + step * axis) - function(at - step * axis)) / (2 * step)
        for axis in np.eye(len(at))
    ]


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


def test_without_noise_it_goes_through_the_points_and_is_sure_there() -> None:
    exact = process(noise=1e-6)
    mean, std = exact.predict(exact.x)
    assert mean == pytest.approx(exact.y, abs=1e-3)
    assert std.max() < 2e-3
    far, unsure = exact.predict(np.full((1, 4), 50.0))
    assert far == pytest.approx(0.0, abs=1e-6)
    assert unsure == pytest.approx(1.0, abs=1e-6)


def test_the_slopes_are_those_of_the_prediction() -> None:
    model = process()
    point = np.array([0.4, 0.1, 0.9, 0.3])
    slope = model.predict_slope(point[None])
    mean, std = model.predict(point[None])
    assert slope.mean == pytest.approx(mean)
    assert slope.std == pytest.approx(std)
    by_mean = differences(lambda at: float(model.predict(at[None])[0][0]), point)
    by_std = differences(lambda at: float(model.predict(at[None])[1][0]), point)
    assert slope.mean_slope[0] == pytest.approx(by_mean, abs=1e-4)
    assert slope.std_slope[0] == pytest.approx(by_std, abs=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_the_likelihoods_gradient_is_its_slope(seed: int) -> None:
    x, y = data(12, seed)
    posterior = NegativePosterior(x, y, GROUPS, 1e-4)
    logs = np.random.default_rng(seed).uniform(-2.0, 1.0, size=4)
    _, gradient = posterior(logs)
    expected = differences(lambda at: posterior(at)[0], logs)
    assert gradient == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_the_posterior_is_likelihood_times_priors() -> None:
    x, y = data(3)
    logs = np.array([math.log(0.5), math.log(0.5), math.log(0.5), -7.0])  # the priors' modes
    kernel = np.array(
        [[matern(float(np.linalg.norm(a - b)) / 0.5) for b in x] for a in x]
    ) + np.eye(3) * (math.exp(-7.0) + 1e-8)
    expected = 0.5 * (
        y @ np.linalg.solve(kernel, y)
        + np.linalg.slogdet(kernel)[1]
        + 3.0 * math.log(2.0 * math.pi)
    )
    posterior = NegativePosterior(x, y, GROUPS, 0.0)
    assert posterior(logs)[0] == pytest.approx(expected, rel=1e-6)
    off, _ = posterior(logs + np.array([0.0, 0.0, 0.0, 2.0]))
    on = NegativePosterior(x, y, GROUPS, math.exp(-5.0) - math.exp(-7.0))
    assert off - on(logs)[0] == pytest.approx(0.5, rel=1e-6)  # one width off the noise's mode


def test_a_fit_tells_what_matters_from_what_does_not_and_sees_the_noise() -> None:
    x, y = data(40)
    noisy = np.tile(y, 2) + np.random.default_rng(1).normal(0.0, 0.5, size=80)
    with one_thread():
        clean = fit(x, y, groups=GROUPS)
        rough = fit(np.tile(x, (2, 1)), noisy / noisy.std(), groups=GROUPS)
    assert clean.lengthscales[0] < clean.lengthscales[1] < clean.lengthscales[2]
    assert clean.noise < 1e-2
    assert 0.1 < rough.noise < 0.4


def test_a_fit_depends_on_the_data_alone() -> None:
    x, y = data()
    one, other = fit(x, y, groups=GROUPS), fit(x.copy(), y.copy(), groups=GROUPS)
    assert one.lengthscales.tolist() == other.lengthscales.tolist()
    assert one.noise == other.noise


def test_further_points_count_as_if_they_had_been_there() -> None:
    x, y = data()
    parameters = KernelParameters(np.array([0.3, 0.8, 2.0]), 1e-3)
    first = GaussianProcess(x[:15], y[:15], parameters, groups=GROUPS, alpha=1e-4)
    whole = GaussianProcess(x, y, parameters, groups=GROUPS, alpha=1e-4)
    points = data(7, seed=3)[0]
    assert first.extended(x[15:], y[15:]).predict(points)[0].tolist() == (
        whole.predict(points)[0].tolist()
    )


@pytest.mark.parametrize("target", [np.zeros(6), np.arange(6.0)])
def test_equal_points_and_equal_targets_do_no_harm(target: Array) -> None:
    x = np.repeat([[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.5, 0.5]], 3, axis=0)
    model = GaussianProcess(x, target, fit(x, target, groups=GROUPS), groups=GROUPS)
    slope = model.predict_slope(x)
    for each in slope:
        assert np.isfinite(each).all()
