"""What a point promises: terms that add up, and slopes that are those of the values."""

from __future__ import annotations

import numpy as np
import pytest

from aiotune.learning.acquisition import Acquisition, confidence_bound, log_expected_improvement
from aiotune.learning.criterion import Criterion, Improvement, Term
from aiotune.learning.gaussian_process import Array, GaussianProcess
from aiotune.learning.kernel import KernelParameters
from tests.support.differences import slopes_of

POINTS = np.random.default_rng(1).random((5, 2))


class Bowl:
    """A term that is known: -weight |x - 1/2|²."""

    def __init__(self, weight: float) -> None:
        self._weight = weight

    def value(self, columns: Array) -> Array:
        value: Array = -self._weight * ((columns - 0.5) ** 2).sum(axis=1)
        return value

    def slope(self, columns: Array) -> tuple[Array, Array]:
        return self.value(columns), -2.0 * self._weight * (columns - 0.5)


def process() -> GaussianProcess:
    x = np.random.default_rng(0).random((12, 2))
    y = np.sin(5.0 * x[:, 0]) + x[:, 1]
    parameters = KernelParameters(np.array([0.4, 0.9]), 1e-2, 0.3)
    return GaussianProcess(x, (y - y.mean()) / y.std(), parameters, groups=np.arange(2))


def assert_slope_is_of_value(term: Term, tolerance: float) -> None:
    value, slope = term.slope(POINTS)
    assert value == pytest.approx(term.value(POINTS), rel=1e-6)
    assert slope == pytest.approx(slopes_of(term.value, POINTS), rel=tolerance, abs=tolerance)


@pytest.mark.parametrize(
    "acquisition",
    [
        log_expected_improvement(-0.5),
        log_expected_improvement(-30.0),  # next to nothing is expected
        confidence_bound(0.0),
        confidence_bound(2.6),
    ],
)
def test_the_slope_of_an_improvement_is_that_of_its_value(acquisition: Acquisition) -> None:
    assert_slope_is_of_value(Improvement(process(), acquisition), 1e-4)


def test_an_improvement_is_what_the_acquisition_makes_of_the_prediction() -> None:
    model = process()
    mean, std = model.predict(POINTS)
    promised = Improvement(model, confidence_bound(2.0)).value(POINTS)
    assert promised == pytest.approx(2.0 * std - mean)


def test_a_criterion_is_the_sum_of_its_terms() -> None:
    both = Criterion([Bowl(1.0), Bowl(3.0)])
    assert both.value(POINTS) == pytest.approx(Bowl(4.0).value(POINTS))
    assert both.slope(POINTS)[1] == pytest.approx(Bowl(4.0).slope(POINTS)[1])


def test_its_slope_is_that_of_its_value_and_it_is_itself_a_term() -> None:
    improvement = Improvement(process(), log_expected_improvement(-0.5))
    assert_slope_is_of_value(Criterion([Criterion([improvement, Bowl(2.0)]), Bowl(1.0)]), 1e-4)


def test_without_terms_every_point_promises_the_same() -> None:
    value, slope = Criterion([]).slope(POINTS)
    assert value.tolist() == Criterion([]).value(POINTS).tolist() == [0.0] * 5
    assert not slope.any()
    assert slope.shape == POINTS.shape
