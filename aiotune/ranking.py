"""Which trials are the best: the one place that sorts them."""

from __future__ import annotations

import functools
from collections.abc import Iterable

from aiotune.objective import Objective
from aiotune.trial import Trial

__all__ = ["best_trials"]


def best_trials(trials: Iterable[Trial], objective: Objective, count: int) -> list[Trial]:
    """Return the `count` best trials that have a score, best first; of equal ones the older first.

    Failed and unfinished trials are never among them, so that there may be fewer than `count`. But a trial that
    has used up a budget (Hyperband) keeps that score while it is paused, goes on, or breaks later.
    """

    def compare(a: Trial, b: Trial) -> int:
        assert a.score is not None
        assert b.score is not None
        return objective.better_than(b.score, a.score) - objective.better_than(a.score, b.score)

    scored = [each for each in trials if each.has_score]
    return sorted(scored, key=functools.cmp_to_key(compare))[:count]
