"""Quasi-random search: the points of a Sobol sequence, which leave no gaps and form no clusters.

Sobol 1967; scrambled as Matoušek 1998 (a random linear scrambling and a digital shift, a form of Owen's), with
scipy.stats.qmc; Bergstra and Bengio 2012, section 4, on its use for hyperparameters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from aiotune.history import History
from aiotune.hyperparameters import HyperParameters
from aiotune.objective import Objective
from aiotune.oracles.base import Answer, Suggest
from aiotune.oracles.sampling import SamplingOracle
from aiotune.space import HyperParameter, Scalar, Space, Values, unit_draw

if TYPE_CHECKING:
    from aiotune.learning.gaussian_process import Array

__all__ = ["QuasiRandomOracle"]

_MOST_DIMENSIONS = (
    64  # beyond, a sequence of some hundred points is hardly better spread than drawn ones
)
_MOST_MISSES = 200  # in a row, before a point is drawn, or a small space listed
_LEAST_KEPT = 64


class QuasiRandomOracle(SamplingOracle):
    """Spreads trials evenly over the space. No point is tried twice; a finite space is exhausted exactly.

    A trial's point follows from the seed and its stream, which is its index in the sequence; results change
    nothing. The first 64 names that can vary are dimensions of the sequence, in the order in which they became
    known; others are drawn as in random search, and so are all names while none is known.
    """

    def __init__(
        self,
        objective: Objective | str | Sequence[Objective | str] | None = None,
        max_trials: int | None = 10,
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
        import scipy.stats.qmc  # noqa: F401  # a second, too long for the first `ask`

        self._kept: Array | None = None  # the beginning of the sequence: (2**k, 64)

    def ask(self, history: History, number: int) -> Answer:
        space = self.tunable(history)
        if any(each.size != 1 for each in space):
            first = self.fresh_stream(history)
            for stream in range(first, first + _MOST_MISSES):
                point = self._point(space, stream)
                for values in self.new_ones(history, [point], stream):
                    return Suggest(values, stream=stream)
        return self.draw(history)

    def _point(self, space: Space, index: int) -> Values:
        """Return point number `index` of the sequence."""
        varied = [each.identity for each in space if each.size != 1]
        units = dict(zip(varied, self._units(index), strict=False))  # of the first 64
        drawn, priors = self.drawn(index), self.priors

        def fill(each: HyperParameter) -> Scalar:
            unit = units.get(each.identity)
            if unit is None:
                return drawn(each)
            return each.from_unit(unit if priors is None else priors.warp(each, unit))

        return space.complete(fill)

    def _units(self, index: int) -> list[float]:
        """Return point number `index` in the unit cube of 64 dimensions.

        Always of so many, for the scrambling of a dimension depends on their number, and names may be added.
        """
        if self._kept is None or len(self._kept) <= index:
            self._kept = _sequence(max(_LEAST_KEPT, 2 * index), self.chance)
        units: list[float] = self._kept[index].tolist()
        return units


def _sequence(count: int, seed: int) -> Array:
    """Return the first `count` points, or some more: a longer sequence begins as a shorter one does."""
    import numpy as np
    from scipy.stats import qmc

    chance = np.random.default_rng(int(unit_draw(seed, "sobol") * 2**53))
    sequence = qmc.Sobol(_MOST_DIMENSIONS, scramble=True, seed=chance)
    points: Array = sequence.random_base2(math.ceil(math.log2(count)))
    return points
