from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wilcoxon

from aiotune.pruners.signed_rank import least_p, p_value


@pytest.mark.parametrize("pairs", [1, 2, 5, 12, 40])
def test_without_ties_it_is_scipys_exact_test(pairs: int) -> None:
    chance = np.random.default_rng(pairs)
    for _ in range(10):
        differences = chance.normal(0.2, 1.0, pairs)
        theirs = wilcoxon(differences, alternative="greater", method="exact").pvalue
        assert p_value(list(differences)) == pytest.approx(theirs, abs=1e-12)


@settings(derandomize=True, max_examples=40)
@given(st.lists(st.sampled_from([-2.0, -1.0, 0.0, 1.0, 2.0, 3.0]), min_size=1, max_size=7))
def test_with_ties_and_zeros_it_counts_every_choice_of_signs(differences: list[float]) -> None:
    sizes = [abs(each) for each in differences]
    ranks = [
        sum(other < each for other in sizes) + (1 + sum(other == each for other in sizes)) / 2
        for each in sizes
    ]
    nonzero = [rank for rank, size in zip(ranks, sizes, strict=True) if size]
    observed = sum(rank for rank, each in zip(ranks, differences, strict=True) if each > 0)
    sums = [
        sum(rank for rank, sign in zip(nonzero, signs, strict=True) if sign)
        for signs in itertools.product([False, True], repeat=len(nonzero))
    ]
    expected = sum(each >= observed for each in sums) / len(sums)
    assert p_value(differences) == pytest.approx(expected)


def test_all_worse_is_the_least_that_can_be() -> None:
    assert [p_value([1.0 + k for k in range(n)]) for n in (1, 3, 5)] == [0.5, 0.125, 0.03125]
    assert [least_p(n) for n in (1, 3, 5)] == [0.5, 0.125, 0.03125]


def test_no_difference_shows_nothing() -> None:
    assert p_value([0.0, 0.0]) == p_value([]) == 1.0


def test_many_pairs_take_no_longer_than_a_hundred() -> None:
    assert p_value([1.0] * 10_000) == p_value([1.0] * 100)
