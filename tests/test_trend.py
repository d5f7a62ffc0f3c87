"""What earlier searches taught: a first guess, how far it is trusted, and what remains to be learnt."""

from __future__ import annotations

import numpy as np
import pytest

from aiotune.learning.gaussian_process import GaussianProcess
from aiotune.learning.kernel import KernelParameters
from aiotune.learning.trend import Shifted, Trend
from tests.support.differences import slopes_of

AXES = np.arange(2)
POINTS = np.random.default_rng(9).random((6, 2))


def process(seed: int, count: int = 15, lengthscale: float = 0.5) -> GaussianProcess:
    x = np.random.default_rng(seed).random((count, 2))
    y = np.cos(4.0 * x[:, 0] + seed) + x[:, 1]
    y -= y.mean()
    parameters = KernelParameters(np.full(2, lengthscale), 1e-2, 0.2)
    return GaussianProcess(x, y / (y.std() or 1.0), parameters, groups=AXES)


def trend() -> Trend:
    return Trend([process(1), process(2), process(3)])


def shifted(factor: float, lengthscale: float = 0.5) -> tuple[Shifted, GaussianProcess]:
    rest = process(4, 8, lengthscale)
    return Shifted(rest, trend(), factor), rest


# --- the guess ---


def test_the_guess_is_the_mean_of_what_each_search_predicts() -> None:
    means = [process(seed).predict(POINTS)[0] for seed in (1, 2, 3)]
    assert trend().mean(POINTS) == pytest.approx(sum(means) / 3.0)


def test_its_slope_is_that_of_its_mean() -> None:
    guess = trend()
    assert guess.slope(POINTS) == pytest.approx(slopes_of(guess.mean, POINTS), abs=1e-5)


# --- how far it is trusted ---


def test_without_data_it_is_trusted_as_it_is() -> None:
    none = np.empty(0)
    assert trend().factor(none, none) == 1.0


def test_where_the_present_agrees_the_factor_stays_1() -> None:
    guesses = trend().mean(POINTS)
    assert trend().factor(guesses, guesses) == pytest.approx(1.0)


def test_it_is_a_ridge_regression_towards_1() -> None:
    guesses = trend().mean(POINTS)
    squares, product = float(guesses @ guesses), 3.0 * float(guesses @ guesses)
    ridge = 5.0 * squares / len(guesses)  # as much as five observations
    assert trend().factor(guesses, 3.0 * guesses) == pytest.approx(
        (product + ridge) / (squares + ridge)
    )


def test_many_data_that_agree_decide_it() -> None:
    guesses = np.random.default_rng(0).normal(size=5000)
    assert trend().factor(guesses, 0.3 * guesses) == pytest.approx(0.3, abs=0.01)
    unrelated = np.random.default_rng(1).normal(size=5000)
    assert trend().factor(guesses, unrelated) == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize("against", [1.0, 3.0, 100.0])
def test_where_the_present_disagrees_it_is_0_and_never_below(against: float) -> None:
    guesses = np.random.default_rng(0).normal(size=40)
    assert trend().factor(guesses, -against * guesses) == 0.0


def test_a_guess_that_says_nothing_does_no_harm() -> None:
    assert np.isfinite(trend().factor(np.zeros(5), np.arange(5.0)))
    assert trend().factor(np.zeros(5), np.zeros(5)) == pytest.approx(1.0)


# --- what remains ---


def test_the_prediction_is_rest_and_trend() -> None:
    model, rest = shifted(0.7)
    mean, std = model.predict(POINTS)
    assert mean == pytest.approx(rest.predict(POINTS)[0] + 0.7 * trend().mean(POINTS))
    assert std.tolist() == rest.predict(POINTS)[1].tolist()
    assert model.x is rest.x
    assert model.parameters is rest.parameters


@pytest.mark.parametrize("factor", [0.0, 0.7])
def test_its_slopes_are_those_of_its_prediction(factor: float) -> None:
    model, _ = shifted(factor)
    slope = model.predict_slope(POINTS)
    mean, std = model.predict(POINTS)
    assert slope.mean == pytest.approx(mean)
    assert slope.std == pytest.approx(std)
    by_mean = slopes_of(lambda at: model.predict(at)[0], POINTS)
    by_std = slopes_of(lambda at: model.predict(at)[1], POINTS)
    assert slope.mean_slope == pytest.approx(by_mean, abs=1e-5)
    assert slope.std_slope == pytest.approx(by_std, abs=1e-5)


def test_far_from_its_points_it_predicts_the_trend() -> None:
    guess = trend()
    x = np.array([[0.0, 0.0]])
    near = KernelParameters(np.full(2, 0.02), 1e-6)
    rest = GaussianProcess(x, np.array([5.0]), near, groups=AXES)
    model = Shifted(rest, guess, 0.8)
    away = np.array([[0.9, 0.9], [0.5, 0.7]])
    mean, std = model.predict(away)
    assert mean == pytest.approx(0.8 * guess.mean(away))
    assert std == pytest.approx(1.0)
    assert model.predict(x)[0] == pytest.approx(5.0 + 0.8 * guess.mean(x), abs=1e-3)


def test_an_earlier_search_of_one_trial_or_of_equal_scores_says_nothing() -> None:
    parameters = KernelParameters(np.full(2, 0.5), 1e-2)
    one = GaussianProcess(np.full((1, 2), 0.5), np.zeros(1), parameters, groups=AXES)
    equal = GaussianProcess(np.full((9, 2), 0.5), np.zeros(9), parameters, groups=AXES)
    assert Trend([one, equal]).mean(POINTS).tolist() == [0.0] * 6
    assert not Trend([one, equal]).slope(POINTS).any()
