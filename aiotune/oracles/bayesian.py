"""Bayesian optimisation: a model of the scores says where to look next.

Mockus et al. 1978; Jones et al. 1998; Snoek et al. 2012. After some points at random, each trial is put where a
Gaussian process over all results so far (`gaussian_process`) has its lowest plausible score. Trials in flight
count as if they had ended as expected, so that those that run side by side differ; failed ones count as the
worst result, so that their surroundings are left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.history import History
from aiotune.hyperparameters import HyperParameters
from aiotune.objective import Objective
from aiotune.oracles.base import Answer, Suggest
from aiotune.oracles.sampling import SamplingOracle
from aiotune.space import Space, unit_draw

if TYPE_CHECKING:
    from aiotune.oracles.surrogate import Surrogate

__all__ = ["BayesianOptimizationOracle"]

_FEWEST_INITIAL = 3
_MOST_INITIAL = 10
_SHARE_INITIAL = 3  # at most one trial of so many is an initial one


class BayesianOptimizationOracle(SamplingOracle):
    """Puts each trial where a model of the results so far promises most. No point is tried twice.

    num_initial_points: so many trials come from the sequence of random search before the model is asked, failed
    ones included; None: three for each hyperparameter, but at most ten and at most a third of `max_trials`.
    alpha: the least noise of a score that is assumed, as a share of the scores' variance; more is learnt.
    beta: a point is judged by its mean less so many standard deviations: 0 takes what looks best, more goes to
    what is unknown. None: it is judged by its expected improvement.
    """

    def __init__(
        self,
        objective: Objective | str | Sequence[Objective | str] | None = None,
        max_trials: int | None = 10,
        num_initial_points: int | None = None,
        alpha: float = 0.0001,
        beta: float | None = 2.6,
        seed: int | None = None,
        hyperparameters: HyperParameters | None = None,
        allow_new_entries: bool = True,
        tune_new_entries: bool = True,
        max_retries_per_trial: int = 0,
        max_consecutive_failed_trials: int = 3,
    ) -> None:
        super().__init__(
            objective=objective,
            max_trials=max_trials,
            hyperparameters=hyperparameters,
            allow_new_entries=allow_new_entries,
            tune_new_entries=tune_new_entries,
            seed=seed,
            max_retries_per_trial=max_retries_per_trial,
            max_consecutive_failed_trials=max_consecutive_failed_trials,
        )
        self.num_initial_points = _whole("num_initial_points", num_initial_points)
        self.alpha = _at_least_0("alpha", alpha)
        self.beta = None if beta is None else _at_least_0("beta", beta)
        _load_numerics()
        self._surrogate: Surrogate | None = None

    def ask(self, history: History, number: int) -> Answer:
        space = self.tunable(history)
        if history.counted() < self._initial_points(space):
            return self.draw(history)
        stream = self.fresh_stream(history)
        chance = int(unit_draw(self.chance, "proposals", stream) * 2**53)
        proposals = self._surrogate_of(history).proposals(space, chance)
        values = next(self.new_ones(history, proposals, stream), None)
        return self.draw(history) if values is None else Suggest(values, stream=stream)

    def _initial_points(self, space: Space) -> int:
        """Return how many trials are drawn before the model is asked."""
        if self.num_initial_points is not None:
            return self.num_initial_points
        count = min(3 * sum(each.size != 1 for each in space), _MOST_INITIAL)
        if self.max_trials is not None:
            count = min(count, self.max_trials // _SHARE_INITIAL)
        return max(count, _FEWEST_INITIAL)

    def _surrogate_of(self, history: History) -> Surrogate:
        from aiotune.oracles.surrogate import Surrogate

        if self._surrogate is None or self._surrogate.history is not history:
            self._surrogate = Surrogate(history, self.objective, alpha=self.alpha, beta=self.beta)
        return self._surrogate


def _load_numerics() -> None:
    """Import NumPy and SciPy when an oracle is made: a second, too long for `import aiotune` or `ask`."""
    from aiotune.oracles import surrogate

    del surrogate


def _whole(name: str, value: int | None) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise FatalTypeError(f"{name}={value!r}: a whole number is needed, or None")
    if value < 1:
        raise FatalValueError(f"{name}={value}: it must be 1 or more, or None")
    return value


def _at_least_0(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FatalTypeError(f"{name}={value!r}: a number is needed")
    if not 0.0 <= value < math.inf:
        raise FatalValueError(f"{name}={value}: it must be 0 or more, and finite")
    return float(value)
