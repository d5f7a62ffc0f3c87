"""Bayesian optimisation: a model of the scores says where to look next.

Mockus et al. 1978; Jones et al. 1998; Snoek et al. 2012. After some points at random, each trial is put where a
Gaussian process over all results so far (`gaussian_process`) promises most. Trials in flight count as if they
had ended as expected, so that those that run side by side differ; where trials broke, a second model learns to
stay away (`feasibility`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from aiotune.history import History
from aiotune.hyperparameters import HyperParameters
from aiotune.objective import Objective
from aiotune.oracles.model_based import ModelBasedOracle
from aiotune.oracles.options import number_from
from aiotune.space import Space, Values

if TYPE_CHECKING:
    import numpy as np

    from aiotune.learning.lessons import Lessons
    from aiotune.learning.scout import Scout

__all__ = ["BayesianOptimizationOracle"]


class BayesianOptimizationOracle(ModelBasedOracle):
    """Puts each trial where a Gaussian process of the results so far promises most. No point is tried twice.

    num_initial_points: so many trials come from the sequence of random search before the model is asked,
    failed ones included; None: three for each hyperparameter, but at most 6, and one more for each option of
    the largest category, at most 10 in all and at most a third of `max_trials`; after `warm_start` 1. alpha:
    the least noise of a score that is assumed, as a share of the scores' variance; more is learnt. beta: None:
    a point is judged by its expected improvement. A number: by its mean less so many standard deviations, as
    in KerasTuner: 0 takes what looks best, more goes to what is unknown.
    """

    def __init__(
        self,
        objective: Objective | str | Sequence[Objective | str] | None = None,
        max_trials: int | None = 10,
        num_initial_points: int | None = None,
        alpha: float = 1e-6,
        beta: float | None = None,
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
            num_initial_points=num_initial_points,
            hyperparameters=hyperparameters,
            allow_new_entries=allow_new_entries,
            tune_new_entries=tune_new_entries,
            seed=seed,
            max_retries_per_trial=max_retries_per_trial,
            max_consecutive_failed_trials=max_consecutive_failed_trials,
        )
        self.alpha = number_from(0.0, "alpha", alpha)
        self.beta = None if beta is None else number_from(0.0, "beta", beta)
        self._scout: tuple[Lessons, Scout] | None = None

    def proposals(
        self, history: History, lessons: Lessons, chance: np.random.Generator
    ) -> Iterator[Values]:
        pending = lessons.pending(history)
        scout = self._scout_of(lessons)
        places = scout.best_first(
            pending, history.next_number, chance, self.places_allowed(history)
        )
        yield from map(lessons.encoding.values, places.tolist())

    def initial_points(self, space: Space) -> int:
        if self.earlier and self.num_initial_points is None:
            return 1  # what earlier searches taught is a model already
        return super().initial_points(space)

    def _scout_of(self, lessons: Lessons) -> Scout:
        """Return what looks for points by these lessons: made anew where they were, for the space has grown."""
        from aiotune.learning.scout import Scout
        from aiotune.learning.surrogate import Surrogate, SurrogateOptions

        if self._scout is None or self._scout[0] is not lessons:
            earlier = self._earlier_lessons(lessons.encoding.space)
            options = SurrogateOptions(self.alpha, self.beta, self.priors, earlier)
            self._scout = lessons, Scout(lessons, Surrogate(lessons, options))
        return self._scout[1]

    def _earlier_lessons(self, space: Space) -> tuple[Lessons, ...]:
        """Return what each of the earlier searches taught that has a score: see `warm_start` of a tuner."""
        from aiotune.learning.lessons import Lessons

        found = []
        for trials in self.earlier:
            lessons = Lessons(space, self.objective)
            lessons.take(trials)
            if lessons.has_scores:
                found.append(lessons)
        return tuple(found)
