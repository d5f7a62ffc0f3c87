"""How much the front of several objectives is expected to gain by a point: an exact sum over boxes.

The expected hypervolume improvement of Emmerich et al. 2006. What a point y adds to the volume that the front
dominates is the volume of all `a` that the front leaves open and y dominates. The processes say how likely it
is that y does: the expectation is the integral of Π_i P(y_i <= a_i) over the open region. With that region cut
into boxes (l, u], as by Yang et al. 2019, and G(a) = E[max(a - y, 0)], whose derivative is P(y <= a), it is

    Σ_boxes Π_i (G_i(u_i) - G_i(l_i)).

All of it is computed in logarithms, so that it keeps its slope far from the front: Ament et al. 2023.

Shapes: d objectives, each to be minimised; k points of the front; b boxes; m points of the space; c columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import logsumexp

from aiotune.learning.acquisition import log_improvement
from aiotune.learning.gaussian_process import Array, Process
from aiotune.pareto import reference_beyond

__all__ = [
    "HypervolumeImprovement",
    "expected_front",
    "non_dominated",
    "open_boxes",
    "reference_point",
]

# The number of boxes is linear in the number of points with two and three objectives, and rises with its square
# beyond. Of a larger front, points that are spread evenly stand for all.
_MOST_POINTS = {2: 200, 3: 60, 4: 30}
_FEWEST_POINTS = 12
_LEAST_GAP = 1e-16  # between logarithms that rounding has made equal


class HypervolumeImprovement:
    """The logarithm of the expected hypervolume improvement; a `Term`.

    processes: one for each objective, on the same columns. front: (k, d), in the units of the processes; points
    that others dominate change nothing. Trials in flight belong to it too, with the values that are expected of
    them. reference: (d,); what is not below it is no improvement.
    """

    def __init__(self, processes: Sequence[Process], front: Array, reference: Array) -> None:
        lower, upper = open_boxes(front, reference)
        self._processes = processes
        self._edges = [_Edges(*each) for each in zip(lower.T, upper.T, strict=True)]

    def value(self, columns: Array) -> Array:
        pairs = zip(self._edges, self._processes, strict=True)
        by_box = [edges.expected(*process.predict(columns)) for edges, process in pairs]
        value: Array = logsumexp(np.sum(by_box, axis=0), axis=0)
        return value

    def slope(self, columns: Array) -> tuple[Array, Array]:
        predicted = [process.predict_slope(columns) for process in self._processes]
        pairs = list(zip(self._edges, predicted, strict=True))
        by_box = np.sum([edges.expected(each.mean, each.std) for edges, each in pairs], axis=0)
        value = logsumexp(by_box, axis=0)
        share = np.exp(by_box - value)
        slope = np.zeros_like(columns)
        for edges, each in pairs:
            by_mean, by_std = edges.slopes(each.mean, each.std)
            slope += (share * by_mean).sum(axis=0)[:, None] * each.mean_slope
            slope += (share * by_std).sum(axis=0)[:, None] * each.std_slope
        return value, slope


class _Edges:
    """The boxes along one objective: lower, upper (b,), of which few differ; -inf is a lower one."""

    def __init__(self, lower: Array, upper: Array) -> None:
        pairs, self._of_box = np.unique(np.stack([lower, upper]), axis=1, return_inverse=True)
        self._of_box = self._of_box.ravel()
        levels, places = np.unique(pairs, return_inverse=True)
        self._levels = levels[np.isfinite(levels)]
        # Place 0 is that of -inf, also where no box has it.
        self._lower, self._upper = places.reshape(pairs.shape) + (len(self._levels) == len(levels))

    def expected(self, mean: Array, std: Array) -> Array:
        """Return ln(G(u) - G(l)) of each box at each point: (m,), (m,) -> (b, m)."""
        log_h, _ = log_improvement((self._levels[:, None] - mean) / std)
        log_h, gap = self._upper_and_gap(log_h)
        expected: Array = np.log(std) + log_h + np.log(-np.expm1(gap))
        return expected[self._of_box]

    def slopes(self, mean: Array, std: Array) -> tuple[Array, Array]:
        """Return the slopes of `expected` by mean and by std: (m,), (m,) -> (b, m), (b, m).

        G = σ h((a - μ) / σ), so that its slopes are -Φ and φ; both are taken relative to h.
        """
        u = (self._levels[:, None] - mean) / std
        log_h, hazard = log_improvement(u)  # Φ / h; φ / h is 1 - u Φ / h
        _, gap = self._upper_and_gap(log_h)
        scale = -std * np.expm1(gap)
        by_mean = -self._differences(hazard, gap) / scale
        by_std = self._differences(1.0 - u * hazard, gap) / scale
        return by_mean[self._of_box], by_std[self._of_box]

    def _upper_and_gap(self, log_h: Array) -> tuple[Array, Array]:
        """Return ln h at the upper edges, and how far ln h at the lower ones is below it, negative."""
        log_h = np.vstack([np.full_like(log_h[:1], -np.inf), log_h])
        upper = log_h[self._upper]
        return upper, np.minimum(log_h[self._lower] - upper, -_LEAST_GAP)

    def _differences(self, relative: Array, gap: Array) -> Array:
        """Return (f(u) - f(l)) / h(u), given f / h at each level."""
        relative = np.vstack([np.zeros_like(relative[:1]), relative])
        differences: Array = relative[self._upper] - relative[self._lower] * np.exp(gap)
        return differences


def expected_front(processes: Sequence[Process]) -> Array:
    """Return what the processes say of their own points, noise left out, as far as not dominated: (k, d)."""
    means = [process.predict(process.x)[0] for process in processes]
    return non_dominated(np.column_stack(means))


def reference_point(values: Array, targets: Array, given: Sequence[float] | None) -> Array:
    """Return the reference in the units of the targets: (n, d), (n, d) -> (d,).

    values: what the trials measured. targets: what a model learns of it, which rises with it. given: one in the
    units of the values. By default it lies a little beyond the worst trial. Beyond the worst of the front
    (Ishibuchi et al. 2018), where the ends of the front are not found yet, they never are: measured on ZDT1,
    ZDT3 and two bowls.
    """
    if given is None:
        return np.array(reference_beyond(targets.tolist()))
    columns = zip(given, values.T, targets.T, strict=True)
    return np.array([_translated(*each) for each in columns])


def _translated(value: float, values: Array, targets: Array) -> float:
    """Return a value as a target: linear between two known ones, and beyond them at the slope of all."""
    order = np.argsort(values, kind="stable")
    values, targets = values[order], targets[order]
    extent = values[-1] - values[0]
    slope = (targets[-1] - targets[0]) / extent if extent > 0.0 else 1.0
    beyond = max(value - values[-1], 0.0) + min(value - values[0], 0.0)
    return float(np.interp(value, values, targets) + slope * beyond)


def non_dominated(values: Array) -> Array:
    """Return the points that no other one dominates, each once, sorted: (n, d) -> (k, d)."""
    points = np.unique(values, axis=0)
    is_no_worse = (points[:, None] <= points[None]).all(axis=2)
    front: Array = points[is_no_worse.sum(axis=0) == 1]  # but for itself
    return front


def open_boxes(front: Array, reference: Array) -> tuple[Array, Array]:
    """Return the region below the reference that a front leaves open as disjoint boxes: lower, upper (b, d)."""
    inside = non_dominated(front[(front < reference).all(axis=1)])
    inside = _spread(inside, _MOST_POINTS.get(len(reference), _FEWEST_POINTS))
    if len(reference) == 2:
        return _stripes(inside, reference)
    # The open region is the union of all that lies below one of the local upper bounds. Turned upside down it
    # is what these bounds dominate, for which there is a decomposition.
    corners, _ = _upper_bounds(inside, reference)
    far = np.full_like(reference, np.inf)
    lower, upper = _dominated_boxes(-corners, far)
    return -upper, -lower


def _stripes(front: Array, reference: Array) -> tuple[Array, Array]:
    """Return the boxes of a staircase, `front` being sorted by the first of two objectives."""
    edges = np.concatenate([[-np.inf], front[:, 0], reference[:1]])
    tops = np.append(reference[1], front[:, 1])
    lower = np.stack([edges[:-1], np.full_like(tops, -np.inf)], axis=1)
    return lower, np.stack([edges[1:], tops], axis=1)


def _dominated_boxes(points: Array, reference: Array) -> tuple[Array, Array]:
    """Return the region between points and reference as disjoint boxes: lower, upper (b, d).

    Lacour et al. 2017: each local upper bound is the corner of one box, which its defining points close.
    """
    upper, defining = _upper_bounds(points, reference)
    upper[:, 0] = reference[0]
    lower = np.empty_like(upper)
    lower[:, 0] = defining[:, 0, 0]
    for j in range(1, len(reference)):
        lower[:, j] = defining[:, :j, j].max(axis=1)
    has_extent = (lower < upper).all(axis=1)
    return lower[has_extent], upper[has_extent]


def _upper_bounds(points: Array, reference: Array) -> tuple[Array, Array]:
    """Return the local upper bounds of a set of points, (b, d), and the points that define them, (b, d, d).

    Below none of these bounds is a point; what no point dominates, and is below the reference, is below one of
    them. Lacour et al. 2017, algorithm 1: a point below a bound replaces it by up to d smaller ones, each with
    one coordinate of the point. The point at [i, j] has coordinate j of bound i.
    """
    d = len(reference)
    bounds, defining = reference[None], np.full((1, d, d), -np.inf)
    defining[0][np.diag_indices(d)] = reference
    for point in points:
        is_hit = (point < bounds).all(axis=1)
        new, by = [bounds[~is_hit]], [defining[~is_hit]]
        for j in range(d):
            others = np.delete(defining[is_hit], j, axis=1)[:, :, j]
            is_kept = point[j] >= others.max(axis=1, initial=-np.inf)
            for store, old, coordinate in ((new, bounds, point[j]), (by, defining, point)):
                changed = old[is_hit][is_kept]
                changed[:, j] = coordinate
                store.append(changed)
        bounds, defining = np.concatenate(new), np.concatenate(by)
    return bounds, defining


def _spread(front: Array, count: int) -> Array:
    """Return at most `count` points of the front, each in turn the farthest from those before it."""
    if len(front) <= count:
        return front
    extent = np.ptp(front, axis=0)
    scaled = (front - front.min(axis=0)) / np.where(extent > 0.0, extent, 1.0)
    chosen = [int(scaled.sum(axis=1).argmin())]
    apart = np.full(len(front), np.inf)
    while len(chosen) < count:
        apart = np.minimum(apart, np.linalg.norm(scaled - scaled[chosen[-1]], axis=1))
        chosen.append(int(apart.argmax()))
    spread: Array = front[np.sort(chosen)]
    return spread
