"""CMA-ES: a normal distribution of points that moves, and takes the shape of the valley that it lies in.

Hansen 2016; the steps of the algorithm are the package `cmaes`'s (`evolution`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Unpack

from aiotune.errors import MissingFramework
from aiotune.history import History
from aiotune.objective import Objective
from aiotune.oracles.model_based import ModelBasedOracle, OracleOptions
from aiotune.oracles.options import number_above, whole_number
from aiotune.space import Values

if TYPE_CHECKING:
    import numpy as np

    from aiotune.learning.evolution import Evolution
    from aiotune.learning.lessons import Lessons

__all__ = ["CmaEsOracle"]

_MOST_PROPOSED = 40


class CmaEsOracle(ModelBasedOracle):
    """Draws each trial from a normal distribution that moves towards the best ones and takes their shape.

    Needs the package `cmaes`. It suits numbers, and searches of some hundred trials; with names and conditions
    others find more. num_initial_points: so many trials come from the sequence of random search; the
    distribution begins at the best of them; None: three for each hyperparameter, but at most ten and at most a
    third of `max_trials`. sigma: its standard deviation then, as a share of each range. population_size: so
    many trials move it together, in the order of their ends, and none waits for them; None: 4 + 3 ln(d) for d
    numbers.

    Numbers evolve, with steps and without, conditional ones too: where one is inactive, the distribution
    learns nothing of it. Names that have no order are passed on from the best quarter of the trials, one in
    five is drawn. Failed trials are the worst of their generation.
    """

    def __init__(
        self,
        objective: Objective | str | Sequence[Objective | str] | None = None,
        max_trials: int | None = 10,
        num_initial_points: int | None = None,
        sigma: float = 0.15,
        population_size: int | None = None,
        **options: Unpack[OracleOptions],
    ) -> None:
        super().__init__(
            objective=objective,
            max_trials=max_trials,
            num_initial_points=num_initial_points,
            **options,
        )
        self.sigma = number_above(0, "sigma", sigma, at_most=1)
        self.population_size = (
            None
            if population_size is None
            else whole_number("population_size", population_size, at_least=2)
        )
        _load_evolution()
        self._evolution: tuple[Lessons, Evolution] | None = None

    def proposals(
        self, history: History, lessons: Lessons, chance: np.random.Generator
    ) -> Iterator[Values]:
        from aiotune.learning.side_terms import likely_first

        points = self._evolution_of(lessons).points(_MOST_PROPOSED, chance)
        points = likely_first(points, lessons, self.priors, chance)
        return map(lessons.encoding.values, points.tolist())

    def _evolution_of(self, lessons: Lessons) -> Evolution:
        from aiotune.learning.evolution import Evolution

        if self._evolution is None or self._evolution[0] is not lessons:
            evolution = Evolution(
                lessons,
                seed=self.chance,
                initial=self.initial_points(lessons.encoding.space),
                sigma=self.sigma,
                population=self.population_size,
            )
            self._evolution = lessons, evolution
        return self._evolution[1]


def _load_evolution() -> None:
    """Import the algorithm when an oracle is made, not in the first `ask`. MissingFramework with the remedy."""
    try:
        from aiotune.learning import evolution  # noqa: F401
    except ImportError as error:
        raise MissingFramework(
            f'the package cmaes cannot be imported ({error}); run: pip install "aiotune[cmaes]"'
        ) from error
