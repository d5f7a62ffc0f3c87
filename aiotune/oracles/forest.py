"""Random forest: trees that were grown on the results so far say where to look next.

Hutter et al. 2011, "Sequential model-based optimization for general algorithm configuration" (SMAC), section 4,
with scikit-learn's trees. They take categories, conditions and many hyperparameters easily, and cost the same
for any of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Unpack

from aiotune.errors import MissingFramework
from aiotune.history import History
from aiotune.objective import Objective
from aiotune.oracles.model_based import ModelBasedOracle, OracleOptions
from aiotune.oracles.options import whole_number
from aiotune.space import Values

if TYPE_CHECKING:
    import numpy as np

    from aiotune.learning.lessons import Lessons

__all__ = ["RandomForestOracle"]


class RandomForestOracle(ModelBasedOracle):
    """Puts each trial where a forest of regression trees promises most. No point is tried twice.

    Needs scikit-learn. num_initial_points: so many trials come from the sequence of random search before the
    model is asked, failed ones included; None: three for each hyperparameter, but at most ten and at most a
    third of `max_trials`. num_trees: more are smoother, and cost more time.
    """

    def __init__(
        self,
        objective: Objective | str | Sequence[Objective | str] | None = None,
        max_trials: int | None = 10,
        num_initial_points: int | None = None,
        num_trees: int = 30,
        **options: Unpack[OracleOptions],
    ) -> None:
        super().__init__(
            objective=objective,
            max_trials=max_trials,
            num_initial_points=num_initial_points,
            **options,
        )
        self.num_trees = whole_number("num_trees", num_trees)
        _load_forest()

    def proposals(
        self, history: History, lessons: Lessons, chance: np.random.Generator
    ) -> Iterator[Values]:
        from aiotune.learning.woodland import Woodland

        woodland = Woodland(
            lessons, lessons.pending(history), self.priors, trees=self.num_trees, chance=chance
        )
        return map(lessons.encoding.values, woodland.best_first().tolist())


def _load_forest() -> None:
    """Import the model when an oracle is made, not in the first `ask`. MissingFramework with the remedy."""
    from aiotune.learning import woodland  # noqa: F401
    from aiotune.learning.trees import load_trees

    try:
        load_trees()
    except ImportError as error:
        raise MissingFramework(
            f'scikit-learn cannot be imported ({error}); run: pip install "aiotune[sklearn]"'
        ) from error
