"""TPE, the tree-structured Parzen estimator: look where good trials are dense and others are not.

Bergstra et al. 2011, section 4. After some points at random, the trials are split by score into good ones and
others (`contrast`), and each of the two groups is described by a density over whole points (`parzen`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Unpack

from aiotune.history import History
from aiotune.objective import Objective
from aiotune.oracles.model_based import ModelBasedOracle, OracleOptions
from aiotune.oracles.options import number_above, whole_number
from aiotune.space import Values

if TYPE_CHECKING:
    import numpy as np

    from aiotune.learning.lessons import Lessons

__all__ = ["TPEOracle"]


class TPEOracle(ModelBasedOracle):
    """Puts each trial where good trials lie denser than others. No point is tried twice.

    num_initial_points: so many trials come from the sequence of random search before the model is asked, failed
    ones included; None: three for each hyperparameter, but at most ten and at most a third of `max_trials`.
    gamma: the share of the trials that count as good, 25 of them at most. num_candidates: so many points are
    drawn where good trials are, and the most promising one is taken: fewer explore more. prior_weight: what a
    uniform density counts beside the trials, each of which counts 1: more explores more.
    """

    def __init__(
        self,
        objective: Objective | str | Sequence[Objective | str] | None = None,
        max_trials: int | None = 10,
        num_initial_points: int | None = None,
        gamma: float = 0.1,
        num_candidates: int = 24,
        prior_weight: float = 1.0,
        **options: Unpack[OracleOptions],
    ) -> None:
        super().__init__(
            objective=objective,
            max_trials=max_trials,
            num_initial_points=num_initial_points,
            **options,
        )
        self.gamma = number_above(0, "gamma", gamma, at_most=1)
        self.num_candidates = whole_number("num_candidates", num_candidates)
        self.prior_weight = number_above(0, "prior_weight", prior_weight)
        from aiotune.learning import contrast  # noqa: F401  # not in the first `ask`

    def proposals(
        self, history: History, lessons: Lessons, chance: np.random.Generator
    ) -> Iterator[Values]:
        from aiotune.learning.contrast import Contrast

        contrast = Contrast(
            lessons,
            lessons.pending(history),
            self.priors,
            gamma=self.gamma,
            prior_weight=self.prior_weight,
        )
        points = contrast.best_first(self.num_candidates, chance)
        return map(lessons.encoding.values, points.tolist())
