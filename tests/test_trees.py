"""Forest: near what it learnt, unsure where trees differ."""

from __future__ import annotations

import numpy as np

from aiotune.learning.trees import Forest


def forest(columns: np.ndarray, targets: np.ndarray, seed: int = 0, trees: int = 30) -> Forest:
    return Forest(columns, targets, trees=trees, chance=np.random.default_rng(seed))


def test_it_predicts_what_it_learnt_and_is_less_sure_elsewhere() -> None:
    x = np.concatenate([np.linspace(0.0, 0.4, 30), [1.0]])[:, None]
    y = np.where(x[:, 0] < 0.2, -1.0, 1.0)
    y[-1] = 5.0
    mean, std = forest(x, y).predict(np.array([[0.05], [0.35], [0.7]]))
    assert abs(mean[0] + 1.0) < 0.1
    assert abs(mean[1] - 1.0) < 0.2
    assert std[2] > 5 * max(std[0], std[1])


def test_equal_targets_leave_a_little_doubt() -> None:
    x = np.random.default_rng(0).random((12, 3))
    mean, std = forest(x, np.zeros(12)).predict(x)
    assert not mean.any()
    assert (std > 0).all()


def test_one_point_and_one_tree() -> None:
    mean, _ = forest(np.array([[0.5]]), np.array([2.0]), trees=1).predict(np.array([[0.1]]))
    assert mean == [2.0]


def test_its_chance_is_the_one_that_is_given() -> None:
    generator = np.random.default_rng(1)
    x, y = generator.random((20, 2)), generator.random(20)
    at = generator.random((9, 2))
    one, same, other = (forest(x, y, seed).predict(at)[0] for seed in (3, 3, 4))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
