"""What points promise, against the textbook's formulas and finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad

from aiotune.learning.acquisition import Acquisition, confidence_bound, log_expected_improvement

MEANS = np.array([-1.0, 0.0, 0.3, 2.0, 5.0])
STDS = np.array([0.5, 1.0, 0.01, 0.3, 0.9])


def test_the_confidence_bound_is_so_many_deviations_below_the_mean() -> None:
    assert confidence_bound(2.6)(MEANS, STDS)[0] == pytest.approx(-(MEANS - 2.6 * STDS))
    assert confidence_bound(0.0)(MEANS, STDS)[0] == pytest.approx(-MEANS)


def test_the_improvement_is_the_mean_of_what_lies_below_the_best() -> None:
    def expected(mean: float, std: float) -> float:
        def density(y: float) -> float:
            return math.exp(-0.5 * ((y - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))

        return float(quad(lambda y: (0.2 - y) * density(y), mean - 12 * std, 0.2)[0])

    found = log_expected_improvement(0.2)(MEANS[:4], STDS[:4])[0]
    wanted = [math.log(expected(m, s)) for m, s in zip(MEANS[:4], STDS[:4], strict=True)]
    assert found == pytest.approx(wanted, rel=1e-3)


def test_the_logarithm_goes_on_where_the_improvement_is_too_small_for_a_float() -> None:
    means = np.array([0.9, 1.1, 10.0, 40.0, 49.9, 50.1, 60.0, 1e3, 1e6])
    promise, by_mean, _ = log_expected_improvement(0.0)(means, np.ones_like(means))
    assert np.isfinite(promise).all()
    assert (np.diff(promise) < 0).all()
    assert (by_mean < 0).all()
    assert by_mean[-1] == pytest.approx(-1e6, rel=1e-6)
    assert np.diff(promise)[4] == pytest.approx(-0.2 * 50.04, rel=1e-3)  # no step at the seam


@pytest.mark.parametrize("acquisition", [confidence_bound(2.6), log_expected_improvement(0.2)])
def test_the_slopes_are_those_of_the_promise(acquisition: Acquisition) -> None:
    mean, std = np.append(MEANS, 80.0), np.append(STDS, 0.7)
    step = 1e-6
    _, by_mean, by_std = acquisition(mean, std)
    across = (acquisition(mean + step, std)[0] - acquisition(mean - step, std)[0]) / (2 * step)
    along = (acquisition(mean, std + step)[0] - acquisition(mean, std - step)[0]) / (2 * step)
    assert by_mean == pytest.approx(across, rel=1e-3, abs=1e-6)
    assert by_std == pytest.approx(along, rel=1e-3, abs=1e-6)
