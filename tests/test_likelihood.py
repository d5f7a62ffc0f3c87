"""The posterior of the kernel's parameters against its formula, and what a fit finds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from aiotune.learning.kernel import Array, KernelParameters
from aiotune.learning.likelihood import NOISE_PRIOR, NegativePosterior, fit
from aiotune.learning.one_thread import one_thread
from tests.support.differences import differences

GROUPS = np.array([0, 1, 1, 2])  # the second axis has two columns
EACH_ALONE = np.arange(4)


def standardised(y: Array) -> Array:
    scaled: Array = (y - y.mean()) / y.std()
    return scaled


def data(count: int = 20, seed: int = 0) -> tuple[Array, Array]:
    x = np.random.default_rng(seed).random((count, 4))
    return x, standardised(np.sin(6.0 * x[:, 0]) + x[:, 1] - x[:, 2])


def matern(distance: float) -> float:
    root = math.sqrt(5.0) * distance
    return (1.0 + root + root**2 / 3.0) * math.exp(-root)


def bounds_hold(found: KernelParameters) -> bool:
    return bool(
        np.isfinite(found.lengthscales).all()
        and (found.lengthscales > 0.0).all()
        and 0.0 < found.noise <= 2.0
        and 0.0 <= found.share < 1.0
    )


@pytest.mark.parametrize("is_additive", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_the_gradient_is_the_slope(seed: int, is_additive: bool) -> None:
    x, y = data(12, seed)
    posterior = NegativePosterior(x, y, GROUPS, 1e-4, is_additive=is_additive)
    logs = np.random.default_rng(seed).uniform(-2.0, 1.0, size=4 + is_additive)
    _, gradient = posterior(logs)
    expected = differences(lambda at: posterior(at)[0], logs)
    assert gradient == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_a_gradient_is_right_where_points_are_equal() -> None:
    x, y = np.repeat(data(4)[0], 2, axis=0), data(8)[1]
    posterior = NegativePosterior(x, y, GROUPS, is_additive=True)
    logs = np.array([-1.0, -0.5, 0.0, -3.0, 0.5])
    expected = differences(lambda at: posterior(at)[0], logs)
    assert posterior(logs)[1] == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("is_additive", [False, True])
def test_it_is_likelihood_times_priors(is_additive: bool) -> None:
    x, y = data(3)
    modes = np.array([math.log(0.5)] * 3 + [NOISE_PRIOR[0]] + [0.0] * is_additive)
    kernel = np.zeros((3, 3))
    for i, a in enumerate(x):
        for j, b in enumerate(x):
            d = np.abs(a - b) / 0.5
            along = [d[0], math.hypot(d[1], d[2]), d[3]]
            alone = sum(matern(each) for each in along) / 3.0
            kernel[i, j] = matern(math.hypot(*along))
            if is_additive:
                kernel[i, j] = 0.5 * kernel[i, j] + 0.5 * alone
    kernel += np.eye(3) * (math.exp(NOISE_PRIOR[0]) + 1e-8)
    expected = 0.5 * (
        y @ np.linalg.solve(kernel, y) + np.linalg.slogdet(kernel)[1] + 3 * math.log(2 * math.pi)
    )
    posterior = NegativePosterior(x, y, GROUPS, is_additive=is_additive)
    assert posterior(modes)[0] == pytest.approx(expected, rel=1e-9)


def test_a_width_off_the_noises_mode_costs_half() -> None:
    x, y = data(6)
    mode, width = NOISE_PRIOR
    logs = np.array([math.log(0.5)] * 3 + [mode])
    off, _ = NegativePosterior(x, y, GROUPS)(logs + np.array([0.0, 0.0, 0.0, width]))
    alpha = math.exp(mode + width) - math.exp(mode)  # as much noise, from elsewhere
    on, _ = NegativePosterior(x, y, GROUPS, alpha)(logs)
    assert off - on == pytest.approx(0.5, rel=1e-6)


def test_a_variance_of_each_point_counts_at_that_point() -> None:
    x, y = data(5)
    logs = np.array([-0.5, -0.5, -0.5, -4.0])
    even, _ = NegativePosterior(x, y, GROUPS, 0.2)(logs)
    same, _ = NegativePosterior(x, y, GROUPS, np.full(5, 0.2))(logs)
    order = np.array([3, 1, 4, 0, 2])
    alphas = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    one, _ = NegativePosterior(x, y, GROUPS, alphas)(logs)
    other, _ = NegativePosterior(x[order], y[order], GROUPS, alphas[order])(logs)
    assert same == pytest.approx(even, rel=1e-12)
    assert one == pytest.approx(other, rel=1e-12)
    assert one != pytest.approx(even, rel=1e-3)


def test_a_fit_is_a_minimum() -> None:
    x, y = data(15)
    with one_thread():
        found = fit(x, y, groups=GROUPS, is_additive=True)
    posterior = NegativePosterior(x, y, GROUPS, is_additive=True)
    logit = math.log(found.share / (1.0 - found.share))
    best = np.append(np.log(found.lengthscales), [math.log(found.noise), logit])
    value, gradient = posterior(best)
    assert np.abs(gradient).max() < 0.1
    for step in np.vstack([np.eye(5), -np.eye(5)]):
        assert posterior(best + 0.3 * step)[0] > value


@pytest.mark.parametrize("is_additive", [False, True])
def test_an_axis_that_does_not_matter_gets_a_long_lengthscale(is_additive: bool) -> None:
    x, y = data(40)
    with one_thread():
        found = fit(x, y, groups=GROUPS, is_additive=is_additive)
    assert found.lengthscales[0] < found.lengthscales[1] < found.lengthscales[2]
    assert found.lengthscales[2] > 1.0
    assert found.noise < 1e-2


def test_it_sees_how_much_noise_there_is() -> None:
    x, y = data(40)
    noisy = np.tile(y, 2) + np.random.default_rng(1).normal(0.0, 0.5, size=80)
    with one_thread():
        found = fit(np.tile(x, (2, 1)), standardised(noisy), groups=GROUPS)
    assert 0.1 < found.noise < 0.4  # 0.25 of 1.25


def test_a_sum_gets_a_larger_share_of_single_axes_than_a_product() -> None:
    x = np.random.default_rng(2).random((50, 4))
    waves = np.sin(6.0 * x[:, :2] + 0.5)
    with one_thread():
        by_sum = fit(x, standardised(waves.sum(axis=1)), groups=EACH_ALONE, is_additive=True)
        by_product = fit(x, standardised(waves.prod(axis=1)), groups=EACH_ALONE, is_additive=True)
    assert by_sum.share > 0.7 > 0.5 > by_product.share


def test_without_single_axes_their_share_is_0() -> None:
    assert fit(*data(), groups=GROUPS).share == 0.0


def test_a_fit_depends_on_the_data_alone() -> None:
    x, y = data()
    one = fit(x, y, groups=GROUPS, is_additive=True)
    other = fit(x.copy(), y.copy(), groups=GROUPS, is_additive=True)
    assert one.lengthscales.tolist() == other.lengthscales.tolist()
    assert (one.noise, one.share) == (other.noise, other.share)


@pytest.mark.parametrize("is_additive", [False, True])
@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.full((1, 4), 0.3), np.zeros(1)),
        (np.full((2, 4), 0.3), np.array([-1.0, 1.0])),
        (np.full((9, 4), 0.3), np.zeros(9)),
        (np.full((9, 4), 0.3), standardised(np.arange(9.0))),
        (data(9)[0], np.zeros(9)),
        (np.eye(9)[:, :4], np.array([1e3] + [0.0] * 8)),
    ],
    ids=["one", "two equal", "equal", "equal but their scores", "constant", "outlier"],
)
def test_extremes_give_parameters_and_no_warning(x: Array, y: Array, is_additive: bool) -> None:
    assert bounds_hold(fit(x, y, groups=EACH_ALONE, is_additive=is_additive))


@pytest.mark.parametrize("groups", [np.arange(200), np.repeat([0, 1], 100)])
def test_many_columns_give_parameters_and_no_warning(groups: Array) -> None:
    x = np.random.default_rng(0).random((10, 200))
    y = standardised(x[:, 0])
    with one_thread():
        found = fit(x, y, groups=groups.astype(np.intp), is_additive=True, steps=10)
    assert found.lengthscales.shape == (groups.max() + 1,)
    assert bounds_hold(found)


def test_of_a_space_without_axes_only_the_noise_is_fitted() -> None:
    found = fit(np.empty((3, 0)), np.array([-1.0, 0.0, 1.0]), groups=np.empty(0, np.intp))
    assert found.lengthscales.size == 0
    assert found.noise > 0.1
