"""What a search has learnt: its trials as a Gaussian process over its space, and points that this favours.

Everything here follows from the history: what is kept between calls saves work and changes nothing. In
particular each fit starts from the same parameters, not from those of the fit before, and runs on the first so
many trials that are over; a resumed search therefore proposes what the uninterrupted one would have.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from aiotune.history import History
from aiotune.objective import Objective
from aiotune.oracles.acquisition import Acquisition, confidence_bound, log_expected_improvement
from aiotune.oracles.encoding import Encoding
from aiotune.oracles.gates import Gates
from aiotune.oracles.gaussian_process import Array, GaussianProcess, Indices, KernelParameters, fit
from aiotune.oracles.landscape import Landscape
from aiotune.oracles.one_thread import one_thread
from aiotune.oracles.targets import standardised
from aiotune.space import Space, Values, unit_draw
from aiotune.trial import Trial, TrialState

__all__ = ["Surrogate"]

_MOST_POINTS = 200  # of the model: half of them the best, half of them any
_MOST_FITTED_ALWAYS = 50  # beyond so many trials, the parameters are fitted after every fifth only
_FITTED_EVERY = 5
_MOST_LISTED = 300  # a space with no more points is looked at as a whole
_BEST = 5
_BROKEN = frozenset({TrialState.FAILED, TrialState.INFEASIBLE})


class Surrogate:
    """Learns from the trials of one history. alpha: the least noise, as a share of the scores' variance.

    beta: how many standard deviations the confidence bound lies below the mean; None: log expected improvement.
    """

    def __init__(
        self, history: History, objective: Objective, *, alpha: float, beta: float | None
    ) -> None:
        self.history = history
        self._objective = objective
        self._alpha = alpha
        self._beta = beta
        self._memory = _Memory(Space(), objective)
        self._listed: Array | None = None  # the places of all points of a small space
        self._fitted: tuple[int, KernelParameters] | None = None

    def proposals(self, space: Space, seed: int) -> Iterator[Values]:
        """Yield points of the space, the most promising first; none if nothing is known to compare them by."""
        self._catch_up(space)
        memory = self._memory
        if not memory.has_scores or not memory.encoding.axes:
            return
        with one_thread():
            places = self._best_first(np.random.default_rng(seed))
        yield from map(memory.encoding.values, places.tolist())

    def _best_first(self, chance: np.random.Generator) -> Array:
        """Return points, the most promising first; all that there are, if they are few."""
        memory = self._memory
        landscape = self._landscape()
        if self._listed is not None:
            order = np.argsort(-landscape.promise(self._listed), kind="stable")
            return self._listed[order]
        best = memory.places[np.argsort(memory.targets(), kind="stable")[:_BEST]]
        return landscape.best_first(chance, best)

    def _catch_up(self, space: Space) -> None:
        """Read the trials that ended since the last call; all of them again if the space has grown."""
        if space != self._memory.encoding.space:
            self._memory = _Memory(space, self._objective)
            self._fitted = None
            self._listed = _listed(self._memory.encoding)
        self._memory.read(self.history)

    def _landscape(self) -> Landscape:
        memory = self._memory
        gates, columns, targets = memory.lesson(memory.count)
        process = GaussianProcess(
            columns,
            targets,
            self._parameters(),
            groups=memory.encoding.groups,
            alpha=self._alpha,
        )
        pending = self._pending(gates)
        if len(pending):
            # The kriging believer of Ginsbourger et al. 2010, section 4.1: each is taken to end as expected.
            process = process.extended(pending, process.predict(pending)[0])
        return Landscape(memory.encoding, gates, process, self._acquisition(process, len(targets)))

    def _acquisition(self, process: GaussianProcess, count: int) -> Acquisition:
        if self._beta is not None:
            return confidence_bound(self._beta)
        return log_expected_improvement(float(process.predict(process.x[:count])[0].min()))

    def _parameters(self) -> KernelParameters:
        """Return the kernel's parameters, fitted to the first so many trials that ended."""
        memory = self._memory
        count = memory.count
        if count > _MOST_FITTED_ALWAYS:
            count -= count % _FITTED_EVERY
        if self._fitted is None or self._fitted[0] != count:
            _, columns, targets = memory.lesson(count)
            is_small = count <= _MOST_FITTED_ALWAYS
            parameters = fit(
                columns,
                targets,
                groups=memory.encoding.groups,
                alpha=self._alpha,
                starts=2 if is_small else 1,
                steps=50 if is_small else 20,
            )
            self._fitted = count, parameters
        return self._fitted[1]

    def _pending(self, gates: Gates) -> Array:
        """Return the columns of the trials that are in flight, by what is known of them: (k, c)."""
        encoding = self._memory.encoding
        places = [
            places
            for trial in self.history.trials_in_flight()
            if (places := _places(encoding, trial)) is not None
        ]
        if not places:
            return np.empty((0, len(encoding.groups)))
        return encoding.columns(gates.masked(np.array(places)))


class _Memory:
    """The trials that are over, as arrays in the order of their ends.

    places: (n, p), NaN where a trial met nothing. scores: (n,), smaller is better, NaN for a failure.
    is_settled: (n,), whether all that the trial met is known.
    """

    def __init__(self, space: Space, objective: Objective) -> None:
        self.encoding = Encoding(space)
        self._sign = 1.0 if objective.direction == "min" else -1.0
        self._ends_read = 0
        self._draws: list[float] = []
        self.places = np.empty((0, len(self.encoding.axes)))
        self.scores = np.empty(0)
        self.is_settled = np.empty(0, dtype=bool)

    @property
    def count(self) -> int:
        return len(self.scores)

    @property
    def has_scores(self) -> bool:
        return bool(np.isfinite(self.scores).any())

    def read(self, history: History) -> None:
        """Take in the trials that ended since the last call, but for duplicates and those that met nothing."""
        ended = history.ended_trials(after=self._ends_read)
        self._ends_read += len(ended)
        rows = [
            (trial, places)
            for trial in ended
            if trial.state is not TrialState.DUPLICATE
            and (places := _places(self.encoding, trial)) is not None
        ]
        if not rows:
            return
        self.places = np.vstack([self.places, *(places for _, places in rows)])
        self.scores = np.append(self.scores, [self._score(trial) for trial, _ in rows])
        self.is_settled = np.append(self.is_settled, [each.is_path_complete for each, _ in rows])
        self._draws += [unit_draw(0, "chosen", trial.number) for trial, _ in rows]

    def lesson(self, count: int) -> tuple[Gates, Array, Array]:
        """Return what the first `count` trials teach: gates, columns (k, c) and targets (k,), at most 200."""
        gates = Gates(self.encoding, self.places[:count][self.is_settled[:count]])
        chosen = self._chosen(count)
        columns = self.encoding.columns(gates.masked(self.places[chosen]))
        return gates, columns, standardised(self.scores[chosen])

    def _chosen(self, count: int) -> Indices:
        """Return which of the first `count` trials a model learns from, at most 200: the best, and others."""
        if count <= _MOST_POINTS:
            return np.arange(count)
        order = np.argsort(np.where(np.isnan(self.scores[:count]), np.inf, self.scores[:count]))
        best, others = order[: _MOST_POINTS // 2], order[_MOST_POINTS // 2 :]
        any_others = others[np.argsort(np.array(self._draws)[others])][: _MOST_POINTS // 2]
        return np.sort(np.concatenate([best, any_others]))

    def targets(self) -> Array:
        return standardised(self.scores)

    def _score(self, trial: Trial) -> float:
        if trial.score is None or trial.state in _BROKEN:
            return float("nan")
        return self._sign * trial.score


def _listed(encoding: Encoding) -> Array | None:
    """Return the places of every point of a space that is small enough: (m, p)."""
    space = encoding.space
    if not encoding.axes or space.size is None or space.size > _MOST_LISTED:
        return None
    return np.array([encoding.places(each, space.active(each)) for each in space.points()])


def _places(encoding: Encoding, trial: Trial) -> Array | None:
    """Return where a trial is on the axes, by what it met, or else by what was proposed; None if nowhere."""
    if trial.is_path_complete:
        return encoding.places(trial.values, trial.space)
    places = encoding.places(trial.values, encoding.space.active(trial.values))
    return None if np.isnan(places).all() else places
