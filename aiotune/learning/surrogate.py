"""What a search has learnt: its trials as Gaussian processes over its space, and what these promise.

Everything here follows from the history: what is kept between calls saves work and changes nothing. In
particular each fit starts from the same parameters, not from those of the fit before, and runs on the first so
many trials that are over; a resumed search therefore proposes what the uninterrupted one would have.

Shapes: n trials, k of them chosen, b in flight, c columns, d objectives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aiotune.learning.acquisition import Acquisition, confidence_bound, log_expected_improvement
from aiotune.learning.criterion import Criterion, Improvement, Term
from aiotune.learning.focus import Boldly, Category, Focus
from aiotune.learning.gates import Gates
from aiotune.learning.gaussian_process import Array, GaussianProcess, Indices, Process
from aiotune.learning.hypervolume import HypervolumeImprovement, expected_front, reference_point
from aiotune.learning.kernel import KernelParameters
from aiotune.learning.lessons import Lessons
from aiotune.learning.likelihood import fit
from aiotune.learning.priors import Priors
from aiotune.learning.side_terms import side_terms
from aiotune.learning.targets import slope_of, standardised
from aiotune.learning.trend import Shifted, Trend

__all__ = ["Surrogate", "SurrogateOptions", "chosen_of"]

_MOST_POINTS = 200  # of a model: half of them the best, half of them any
# Beyond so many points, a kernel of all axes together learns as well, and is faster.
_MOST_ADDITIVE = 100
_MOST_STARTS = 25  # points up to which a fit has a second start
_MOST_FITTED_ALWAYS = 50  # beyond so many trials, the parameters are fitted after every fifth only
_FITTED_EVERY = 5
_BOLD_BETA = 2.0


@dataclass(frozen=True, slots=True)
class SurrogateOptions:
    """alpha: the least noise, as a share of the scores' variance. earlier: what earlier searches taught.

    beta: how many standard deviations the confidence bound lies below the mean; None: log expected improvement.
    """

    alpha: float
    beta: float | None
    priors: Priors | None = None
    earlier: tuple[Lessons, ...] = ()


class Surrogate:
    """Learns from lessons, which may grow."""

    def __init__(self, lessons: Lessons, options: SurrogateOptions) -> None:
        self._lessons = lessons
        self._options = options
        self._fitted: dict[int, tuple[int, KernelParameters]] = {}  # of each objective
        goals = range(lessons.goals.shape[1])
        self._trends = [self._trend(goal) for goal in goals] if options.earlier else []

    def processes(self, gates: Gates, pending: Array) -> list[Process]:
        """Return what is known of each objective. pending: (b, c), columns of the trials in flight."""
        goals = range(self._lessons.goals.shape[1])
        return [self._process(gates, pending, goal) for goal in goals]

    def criterion(self, gates: Gates, processes: Sequence[Process], focus: Focus) -> Criterion:
        """Return what points promise to one who looks there."""
        gain = self._gain(processes, focus)
        return Criterion([gain, side_terms(self._lessons, gates, self._options.priors)])

    # --- what is promised ---

    def _gain(self, processes: Sequence[Process], focus: Focus) -> Term:
        if len(processes) > 1:
            return self._front_gain(processes)
        return Improvement(processes[0], self._acquisition(processes[0], focus))

    def _front_gain(self, processes: Sequence[Process]) -> Term:
        lessons = self._lessons
        chosen = self._chosen(lessons.count)
        targets = np.column_stack([standardised(each) for each in lessons.goals[chosen].T])
        reference = reference_point(lessons.goals[chosen], targets, lessons.reference)
        return HypervolumeImprovement(processes, expected_front(processes), reference)

    def _acquisition(self, process: Process, focus: Focus) -> Acquisition:
        if self._options.beta is not None:
            return confidence_bound(self._options.beta)
        if isinstance(focus, Boldly):
            return confidence_bound(_BOLD_BETA)
        return log_expected_improvement(self._incumbent(process, focus))

    def _incumbent(self, process: Process, focus: Focus) -> float:
        """Return the lowest mean at a point that was tried: of noisy scores the lowest is luck.

        Of one category, that of its own points: compared with a better one it would promise nothing anywhere.
        """
        chosen = self._chosen(self._lessons.count)
        means = process.predict(process.x[: len(chosen)])[0]
        if isinstance(focus, Category):
            is_own = self._lessons.places[chosen, focus.axis] == focus.place
            means = means[is_own] if is_own.any() else means
        return float(means.min())

    # --- what is known ---

    def _process(self, gates: Gates, pending: Array, goal: int) -> Process:
        columns, targets = self._lesson(gates, self._lessons.count, goal)
        rest, factor = self._rest(columns, targets, goal)
        process = GaussianProcess(
            columns,
            rest,
            self._parameters(goal),
            groups=self._lessons.encoding.groups,
            alpha=self._alpha(self._lessons.count, goal),
        )
        if len(pending):
            # The kriging believer of Ginsbourger et al. 2010, section 4.1: each is taken to end as expected.
            process = process.extended(pending, process.predict(pending)[0])
        return Shifted(process, self._trends[goal], factor) if self._trends else process

    def _rest(self, columns: Array, targets: Array, goal: int) -> tuple[Array, float]:
        """Return what earlier searches leave unexplained, and the factor of what they explain."""
        if not self._trends:
            return targets, 0.0
        guesses = self._trends[goal].mean(columns)
        factor = self._trends[goal].factor(guesses, targets)
        return targets - factor * guesses, factor

    def _parameters(self, goal: int) -> KernelParameters:
        """Return the kernel's parameters, fitted to the first so many trials that ended."""
        count = self._lessons.count
        if count > _MOST_FITTED_ALWAYS:
            count -= count % _FITTED_EVERY
        if goal not in self._fitted or self._fitted[goal][0] != count:
            columns, targets = self._lesson(self._lessons.gates(count), count, goal)
            rest, _ = self._rest(columns, targets, goal)
            self._fitted[goal] = count, self._fit(columns, rest, self._alpha(count, goal))
        return self._fitted[goal][1]

    def _fit(self, columns: Array, targets: Array, alpha: float) -> KernelParameters:
        count = len(targets)
        return fit(
            columns,
            targets,
            groups=self._lessons.encoding.groups,
            alpha=alpha,
            is_additive=count <= _MOST_ADDITIVE and len(self._lessons.encoding.axes) > 1,
            starts=2 if count <= _MOST_STARTS else 1,
            steps=50 if count <= _MOST_FITTED_ALWAYS else 20,
        )

    def _alpha(self, count: int, goal: int) -> float:
        """Return the variance that targets are known to have: that of a mean of several runs, on average."""
        lessons = self._lessons
        variances = lessons.variances[:count]
        known = variances[np.isfinite(variances)]
        if not known.size or lessons.goals.shape[1] > 1:
            return self._options.alpha
        scores = lessons.goals[self._chosen(count), goal]
        return self._options.alpha + float(known.mean()) * slope_of(scores) ** 2

    def _lesson(self, gates: Gates, count: int, goal: int) -> tuple[Array, Array]:
        """Return what the first `count` trials teach: columns (k, c) and targets (k,), at most 200."""
        lessons = self._lessons
        chosen = self._chosen(count)
        columns = lessons.encoding.columns(gates.masked(lessons.places[chosen]))
        return columns, standardised(lessons.goals[chosen, goal])

    def _chosen(self, count: int) -> Indices:
        """Return which of the first `count` trials a model learns from, at most 200: the best, and others."""
        return chosen_of(self._lessons, count)

    def _trend(self, goal: int) -> Trend:
        """Return what the earlier searches taught of an objective."""
        return Trend([self._earlier(lessons, goal) for lessons in self._options.earlier])

    def _earlier(self, lessons: Lessons, goal: int) -> GaussianProcess:
        chosen = chosen_of(lessons, lessons.count)
        gates = lessons.gates(lessons.count)
        columns = lessons.encoding.columns(gates.masked(lessons.places[chosen]))
        targets = standardised(lessons.goals[chosen, goal])
        parameters = self._fit(columns, targets, self._options.alpha)
        return GaussianProcess(
            columns, targets, parameters, groups=lessons.encoding.groups, alpha=self._options.alpha
        )


def chosen_of(lessons: Lessons, count: int) -> Indices:
    """Return which of the first `count` trials a model learns from, at most 200: the best, and others."""
    scored = np.flatnonzero(~np.isnan(lessons.scores[:count]))
    if len(scored) <= _MOST_POINTS:
        return scored
    order = scored[np.argsort(lessons.scores[scored], kind="stable")]
    best, others = order[: _MOST_POINTS // 2], order[_MOST_POINTS // 2 :]
    any_others = others[np.argsort(lessons.draws[others])][: _MOST_POINTS // 2]
    return np.sort(np.concatenate([best, any_others]))
