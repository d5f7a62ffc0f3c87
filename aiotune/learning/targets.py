"""Scores as a model's targets: of one scale, without outliers, and with a number for what has none."""

from __future__ import annotations

import numpy as np

from aiotune.learning.gaussian_process import Array

__all__ = ["slope_of", "standardised"]

_FEW = 30
_BEND_OF_FEW = 1.0
_BEND_OF_MANY = 5.0
_ROOM = 4.0  # above the bend; what would rise higher is all the same


def standardised(scores: Array) -> Array:
    """Return targets of mean 0 and variance 1, smaller is better; NaN and inf become the worst: (n,) -> (n,).

    Far above the median they are compressed: t > b becomes b (1 + ln(t / b)), t being the distance from the
    median in units of what the better half is below it. A steep wall would else hide the shape of the valley.
    b is 1 for few points, where it was measured to help most, and 5 for many, where only outliers should bend.
    """
    is_known = np.isfinite(scores) | (scores == -np.inf)
    if not is_known.any():
        return np.zeros_like(scores)
    known = _finite(scores[is_known])
    bend = _BEND_OF_FEW if len(scores) < _FEW else _BEND_OF_MANY
    known = _compressed(known, bend)
    targets = np.full_like(scores, known.max())
    targets[is_known] = known
    targets -= targets.mean()
    spread = float(targets.std())
    return (
        targets / spread if spread > 1e-12 * max(1.0, float(np.abs(known).max())) else 0 * targets
    )


def slope_of(scores: Array) -> float:
    """Return by how much targets rise with scores from the best to the median one; 0 where these are equal."""
    finite = scores[np.isfinite(scores)]
    if not finite.size:
        return 0.0
    targets = standardised(finite)
    extent = float(np.median(finite) - finite.min())
    return float(np.median(targets) - targets.min()) / extent if extent > 0.0 else 0.0


def _finite(scores: Array) -> Array:
    """Return scores without -inf, which become the best of the others, on a scale that cannot overflow."""
    finite = scores[np.isfinite(scores)]
    lowest = float(finite.min()) if finite.size else 0.0
    clipped = np.maximum(scores, lowest)
    largest = float(np.abs(clipped).max())
    return clipped / largest if largest > 0.0 else clipped


def _compressed(scores: Array, bend: float) -> Array:
    """Return distances from the median, in units of the better half's, bent above `bend`."""
    off = scores - np.median(scores)
    better = off[off < 0.0]
    unit = float(np.sqrt(np.mean(better * better))) if better.size else float(np.abs(off).max())
    if unit == 0.0:
        return off
    off = off / unit
    bent = bend * (1.0 + np.log(np.maximum(off, bend) / bend))
    return np.where(off > bend, np.minimum(bent, bend + _ROOM), off)
