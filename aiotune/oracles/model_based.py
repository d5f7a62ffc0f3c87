"""Oracles that learn: points by chance at first, then those that a model of the results favours.

A subclass says what it favours, in `proposals`. Here is what they share: when the model is asked, that a
suggestion follows from seed and facts, and that no point is proposed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypedDict

from aiotune.history import History
from aiotune.hyperparameters import HyperParameters
from aiotune.objective import Objective
from aiotune.oracles.base import Answer, Suggest
from aiotune.oracles.options import whole_number
from aiotune.oracles.sampling import SamplingOracle
from aiotune.space import Space, Values, unit_draw

if TYPE_CHECKING:
    import numpy as np

    from aiotune.learning.encoding import Flags
    from aiotune.learning.fidelity import Fidelities
    from aiotune.learning.gaussian_process import Array
    from aiotune.learning.lessons import Lessons

__all__ = ["ModelBasedOracle", "OracleOptions"]

_FEWEST_INITIAL = 3
_INITIAL_OF_NUMBERS = 6  # names want a look each besides
_MOST_INITIAL = 10
_SHARE_INITIAL = 3  # at most one trial of so many is an initial one


class OracleOptions(TypedDict, total=False):
    """What every oracle takes by name, whatever else it takes."""

    seed: int | None
    hyperparameters: HyperParameters | None
    allow_new_entries: bool
    tune_new_entries: bool
    max_retries_per_trial: int
    max_consecutive_failed_trials: int


class ModelBasedOracle(SamplingOracle):
    """Puts each trial where what was learnt promises most. No point is tried twice.

    num_initial_points: so many trials come from the sequence of random search before the model is asked,
    failed ones included; None: three for each hyperparameter, but at most 6, and one more for each option of
    the largest category, at most 10 in all and at most a third of `max_trials`; after `warm_start` 1.
    """

    asks_in_thread = True

    # Where trials have budgets: what they scored under each. What else would be read is their last score.
    fidelities: Fidelities | None = None

    def __init__(
        self,
        objective: Objective | str | Sequence[Objective | str] | None = None,
        max_trials: int | None = 10,
        num_initial_points: int | None = None,
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
        if num_initial_points is not None:
            whole_number("num_initial_points", num_initial_points)
        self.num_initial_points = num_initial_points
        _load_numerics()
        self._lineage: object = None
        self._lessons: Lessons | None = None

    def proposals(
        self, history: History, lessons: Lessons, chance: np.random.Generator
    ) -> Iterator[Values]:
        """Yield points of the tunable space, the most promising first; as many or few as there are.

        `lessons` are those of `history`, with at least one score. The same facts and the same `chance` must
        give the same points; what is kept between calls may only save work. Called on one thread of BLAS.
        """
        raise NotImplementedError

    def ask(self, history: History, number: int) -> Answer:
        from aiotune.learning.one_thread import one_thread

        space = self.tunable(history)
        if history.counted() < self.initial_points(space):
            return self.draw(history)
        lessons = self._lessons_of(history, space)
        if not (lessons.has_scores and lessons.encoding.axes):
            return self.draw(history)
        stream = self.fresh_stream(history)
        with one_thread():
            proposals = self.proposals(history, lessons, self._generator(stream))
            values = next(self.new_ones(history, proposals, stream), None)
        return self.draw(history) if values is None else Suggest(values, stream=stream)

    def places_allowed(self, history: History) -> Callable[[Array], Flags] | None:
        """Return what tells which places the constraint takes: (m, p) -> (m,); None without a constraint."""
        if self.constraint is None:
            return None
        import numpy as np

        encoding = self._lessons_of(history, self.tunable(history)).encoding
        return lambda places: np.array(
            [self.allows(history, encoding.values(each)) for each in places.tolist()], dtype=bool
        )

    def initial_points(self, space: Space) -> int:
        """Return how many trials are drawn before the model is asked."""
        if self.num_initial_points is not None:
            return self.num_initial_points
        varied = [each for each in space if each.size != 1]
        options = max((each.finite_size() for each in varied if each.is_nominal), default=0)
        count = min(3 * len(varied), _INITIAL_OF_NUMBERS + options, _MOST_INITIAL)
        if self.max_trials is not None:
            count = min(count, self.max_trials // _SHARE_INITIAL)
        return max(count, _FEWEST_INITIAL)

    def _generator(self, stream: int) -> np.random.Generator:
        import numpy as np

        return np.random.default_rng(int(unit_draw(self.chance, "proposals", stream) * 2**53))

    def _lessons_of(self, history: History, space: Space) -> Lessons:
        """Return what the history teaches; begun anew if the space has grown."""
        from aiotune.learning.lessons import Lessons

        if self.fidelities is not None:
            return self.fidelities.lessons(history, space)
        lessons = self._lessons
        if (
            lessons is None
            or self._lineage is not history.lineage
            or lessons.encoding.space != space
        ):
            lessons = self._lessons = Lessons(space, self.objective)
            self._lineage = history.lineage
        lessons.read(history)
        return lessons


def _load_numerics() -> None:
    """Import NumPy and SciPy when an oracle is made: a second, too long for `import aiotune` or `ask`."""
    from aiotune.learning import scout

    del scout
