"""Where to look this time: near the best, anywhere, or where one tends to forget to look.

A model that is fitted to good points takes them for typical, and after some time promises nothing that it does
not already have: it settles, perhaps at the wrong place, perhaps in the wrong category. So after some trials
without a gain, which the scores alone tell, most turns go elsewhere.

Shapes: n trials, p axes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from aiotune.learning.encoding import Axis, Encoding
from aiotune.learning.gaussian_process import Array
from aiotune.learning.lessons import Lessons

__all__ = ["Anywhere", "Boldly", "Category", "Focus", "NearBest", "foci", "side_length"]

_FIRST, _LONGEST, _SHORTEST = 0.8, 1.6, 0.5**7
_SUCCESSES_TO_GROW = 3
_LEAST_GAIN = 1e-3  # of the best score's size: less is no success

_EARLIEST_STALE = 10  # trials before those that may be stale
_FEWEST_STALE = 5
_STALE_GAIN = 0.01  # in units of what the better half of the scores is below the median
_MOST_OPTIONS = 12  # of a category, for each of them to be looked at in turn
_TURNS = 4  # of which all but one go to categories, when stale


@dataclass(frozen=True, slots=True)
class Anywhere:
    """The whole space."""


@dataclass(frozen=True, slots=True)
class Boldly:
    """The whole space, and there what might be good rather than what is likely to be better."""


@dataclass(frozen=True, slots=True)
class NearBest:
    """A box of this length about the best point."""

    length: float


@dataclass(frozen=True, slots=True)
class Category:
    """All that has one option of one nominal axis, for the best of its own kind."""

    axis: int
    place: float


Focus = Anywhere | Boldly | NearBest | Category


def foci(lessons: Lessons, turn: int) -> Iterator[Focus]:
    """Yield where to look for the trial that is asked for as number `turn`, the most wanted first.

    The last one is never a category; those before may be passed over where nothing can be hoped for.
    """
    encoding = lessons.encoding
    toured = [index for index, axis in enumerate(encoding.axes) if _is_toured(axis)]
    is_stale = _is_stale(lessons.scores, len(encoding.axes))
    if is_stale and toured and turn % _TURNS:
        yield from _neglected(lessons, toured[turn % len(toured)])
    if is_stale and not toured and turn % 2 == 0:
        yield Boldly()
    elif turn % 2 == 0 or _is_plain(encoding):
        yield NearBest(side_length(lessons.scores, len(encoding.axes)))
    else:
        yield Anywhere()


def side_length(scores: Iterable[float], axes: int) -> float:
    """Return the length of the box about the best point after these scores, NaN for a failure, in their order.

    Eriksson et al. 2019 (TuRBO), section 3 and appendix D: twice as long after three successes in a row, half
    as long after max(4, axes) failures in a row; as at first when it has become too short, for then nothing
    more is to be found there. Replayed from the scores, it follows from the history alone.
    """
    most_failures = max(4, axes)
    length, best, successes, failures = _FIRST, np.inf, 0, 0
    for score in scores:
        if score < best - _LEAST_GAIN * abs(best) or (best == np.inf and score < np.inf):
            successes, failures = successes + 1, 0
        else:
            successes, failures = 0, failures + 1
        best = min(best, score) if score == score else best
        if successes == _SUCCESSES_TO_GROW:
            length, successes = min(2.0 * length, _LONGEST), 0
        elif failures == most_failures:
            length, failures = length / 2.0, 0
        if length < _SHORTEST:
            length = _FIRST
    return length


def _is_plain(encoding: Encoding) -> bool:
    """Tell whether a point is near another as numbers say: no categories, no conditions."""
    return not any(axis.is_nominal or axis.declared.conditions for axis in encoding.axes)


def _is_toured(axis: Axis) -> bool:
    return axis.is_nominal and axis.width <= _MOST_OPTIONS


def _is_stale(scores: Array, axes: int) -> bool:
    """Tell whether the last trials have gained nothing worth the name: max(5, p) of them."""
    is_known = np.isfinite(scores)
    count = len(scores) - max(_FEWEST_STALE, axes)
    if count <= _EARLIEST_STALE or not is_known[:count].any():
        return False
    # Squares must not overflow.
    scores = scores / max(float(np.abs(scores[is_known]).max()), 1e-300)
    known = scores[is_known]
    gain = scores[:count][is_known[:count]].min() - known.min()
    below = np.median(known) - known
    unit = np.sqrt(np.mean(below[below > 0.0] ** 2)) if (below > 0.0).any() else 0.0
    return bool(gain <= _STALE_GAIN * unit)


def _neglected(lessons: Lessons, index: int) -> Iterator[Category]:
    """Yield the options of an axis, those first that were tried least, in proportion to how good they are."""
    levels = lessons.encoding.axes[index].levels
    assert levels is not None
    has_level = lessons.places[:, index] == levels[:, None]
    counts = has_level.sum(axis=1)
    scores = np.where(np.isnan(lessons.scores), np.inf, lessons.scores)
    best = np.where(has_level, scores, np.inf).min(axis=1)
    ranks = np.argsort(np.argsort(best, kind="stable"), kind="stable")
    for each in np.argsort(counts * (1.0 + ranks), kind="stable"):
        yield Category(index, float(levels[each]))
