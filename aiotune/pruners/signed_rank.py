"""Wilcoxon's signed-rank test of paired differences, exactly: also for few pairs, with ties and with zeros."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["least_p", "p_value"]

# Beyond, the distribution is as good as normal. An exact one takes a list of n (n + 1) numbers.
_MOST_PAIRS = 100


def p_value(differences: Sequence[float]) -> float:
    """Return how probable so large differences are if they are as often below 0 as above: one-sided.

    Wilcoxon 1945. Differences of equal size share their ranks; those that are 0 take part in the ranking, and
    half of their ranks counts (Pratt 1959, and the split of zeros). Of many pairs the first 100 count.
    """
    pairs = sorted(differences[:_MOST_PAIRS], key=abs)
    doubled = _doubled_ranks([abs(each) for each in pairs])
    ranks = [rank for rank, each in zip(doubled, pairs, strict=True) if each != 0]
    observed = sum(rank for rank, each in zip(doubled, pairs, strict=True) if each > 0)
    chances = np.ones(1)  # of each sum of the ranks above 0, if each sign is a coin's
    for rank in ranks:
        longer = np.zeros(len(chances) + rank)
        longer[: len(chances)] += chances / 2
        longer[rank:] += chances / 2
        chances = longer
    return float(chances[observed:].sum())


def least_p(pairs: int) -> float:
    """Return the least value that so many pairs can have: all differences above 0."""
    return float(0.5**pairs)


def _doubled_ranks(sizes: list[float]) -> list[int]:
    """Return twice the rank of each of some sorted numbers, from 1; equal ones share the mean of theirs."""
    ranks: list[int] = []
    while len(ranks) < len(sizes):
        first = len(ranks)
        count = sizes[first:].count(sizes[first])
        ranks += [2 * first + count + 1] * count
    return ranks
