"""Any sampler of Optuna as an oracle.

Akiba et al. 2019. The search is Optuna's to steer and aiotune's to run: the trials so far are mirrored in a
study in memory (`optuna_mirror`), the sampler is asked there for a point of the space that is known, and no
point is tried twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from aiotune.errors import MissingFramework
from aiotune.history import History
from aiotune.hyperparameters import HyperParameters
from aiotune.learning.one_thread import one_thread
from aiotune.objective import Objective
from aiotune.oracles.base import Answer, Suggest
from aiotune.oracles.sampling import SamplingOracle
from aiotune.space import Values, unit_draw

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from aiotune.oracles.optuna_mirror import Mirror

__all__ = ["OptunaOracle"]

_ATTEMPTS = (
    10  # for one trial: a sampler that finds known points again and again is left for a draw
)


class OptunaOracle(SamplingOracle):
    """Puts each trial where a sampler of Optuna wants it. No point is tried twice.

    sampler: a class of `optuna.samplers`, or a function `lambda seed: TPESampler(seed=seed)` for one with
    options: each question gets a sampler of its own, with a seed of its own, so that the answers follow from
    the facts and a resumed search goes on as it would have. Or a sampler, which is kept: it has a state that a
    resumed search does not know. None: `TPESampler`.
    """

    asks_in_thread = True

    def __init__(
        self,
        sampler: BaseSampler | Callable[[int], BaseSampler] | None = None,
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
        require_optuna()
        from aiotune.oracles.optuna_samplers import Samplers

        self._samplers = Samplers(sampler, self.objective)
        self._mirror: Mirror | None = None

    def ask(self, history: History, number: int) -> Answer:
        from aiotune.oracles.optuna_quiet import quiet
        from aiotune.oracles.optuna_threads import torch_on_one_thread

        if all(each.size == 1 for each in self.tunable(history)):
            return self.draw(history)
        stream = self.fresh_stream(history)
        with quiet(), one_thread(), torch_on_one_thread():
            values = self._new_point(history, stream)
        return self.draw(history) if values is None else Suggest(values, stream=stream)

    def _new_point(self, history: History, stream: int) -> Values | None:
        """Return a point that no trial has had, or None if the sampler finds none in some attempts."""
        mirror = self._mirror_of(history)
        mirror.catch_up(history, self.tunable(history))
        with mirror.trying():
            points = islice(mirror.attempts(stream), _ATTEMPTS)
            return next(self.new_ones(history, points, stream), None)

    def _mirror_of(self, history: History) -> Mirror:
        from aiotune.oracles.optuna_mirror import Mirror

        if self._mirror is None or self._mirror.lineage is not history.lineage:
            attempts = _ATTEMPTS if self._samplers.are_fresh else 1
            self._mirror = Mirror(
                history.lineage,
                self.objective,
                self._sampler_of,
                replays=attempts if self._samplers.make_notes else 0,
                earlier=[trial for trials in self.earlier for trial in trials],
            )
        return self._mirror

    def _sampler_of(self, stream: int, attempt: int) -> BaseSampler:
        """Return the sampler of one attempt at a trial. Optuna's seeds have 32 bits."""
        return self._samplers.get(int(unit_draw(self.chance, "optuna", stream, attempt) * 2**32))


def require_optuna() -> None:
    """Import Optuna. MissingFramework, naming the extra, where it is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise MissingFramework(
            f"Optuna cannot be imported ({error}): pip install 'aiotune[optuna]'"
        ) from error
