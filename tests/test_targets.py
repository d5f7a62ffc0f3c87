"""Scores as targets: failures, infinities and outliers among them."""

from __future__ import annotations

import numpy as np
import pytest

from aiotune.learning.gaussian_process import Array
from aiotune.learning.targets import standardised


def test_they_have_mean_0_and_variance_1_and_keep_their_order() -> None:
    scores = np.random.default_rng(0).normal(5.0, 30.0, size=40)
    targets = standardised(scores)
    assert targets.mean() == pytest.approx(0.0, abs=1e-12)
    assert targets.std() == pytest.approx(1.0)
    assert np.argsort(targets).tolist() == np.argsort(scores).tolist()


def test_a_failure_and_an_infinity_count_as_the_worst() -> None:
    targets = standardised(np.array([1.0, np.nan, 3.0, np.inf, 2.0, -np.inf]))
    assert targets[1] == targets[2] == targets[3] == targets.max()
    assert targets[5] == targets[0] == targets.min()


@pytest.mark.parametrize("count", [12, 60])
def test_an_outlier_does_not_flatten_the_rest(count: int) -> None:
    scores = np.append(np.linspace(0.0, 1.0, count - 1), 1e9)
    targets = standardised(scores)
    assert targets[-1] == targets.max()
    assert targets[count // 2] - targets[0] > 0.3


@pytest.mark.parametrize(
    "scores",
    [
        np.full(5, 3.0),
        np.zeros(3),
        np.full(4, np.nan),
        np.full(4, np.inf),
        np.full(4, -np.inf),
        np.array([-1.7e308, 1.7e308, 0.0]),
        np.array([7.0]),
    ],
)
def test_there_is_always_a_number(scores: Array) -> None:
    targets = standardised(scores)
    assert targets.shape == scores.shape
    assert np.isfinite(targets).all()
    assert np.abs(targets).max() < 10
