"""What oracles share that give trials budgets, and leave to a sampler at which points: Hyperband, ASHA.

With a sampler that learns, these are BOHB (Falkner et al. 2018) and MOBSTER (Klein et al. 2020): it is shown
what the trials scored at one fidelity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.history import History
from aiotune.learning.fidelity import Fidelities
from aiotune.objective import Objective
from aiotune.oracles.base import Answer, Oracle
from aiotune.oracles.brackets import BracketPlan, Resource
from aiotune.oracles.model_based import ModelBasedOracle, OracleOptions
from aiotune.oracles.population import PopulationBasedTrainingOracle
from aiotune.oracles.replay import ReplayOracle
from aiotune.oracles.samplers import adopt, inform, sampler_of
from aiotune.space import Space
from aiotune.trial import Trial

__all__ = ["BudgetedOracle"]


class BudgetedOracle(Oracle):
    """Says how far trials are trained. Which points it tries, its sampler says.

    sampler: "random", "quasi_random", "tpe", "bayesian", "random_forest", "cmaes", or an oracle. resource: what
    a larger budget has more of, "epochs" or "data".
    """

    def __init__(
        self,
        objective: Objective | str | Sequence[Objective | str] | None = None,
        max_trials: int | None = None,
        sampler: str | Oracle = "random",
        resource: Resource = "epochs",
        **options: Unpack[OracleOptions],
    ) -> None:
        super().__init__(objective=objective, max_trials=max_trials, **options)
        if resource not in ("epochs", "data"):
            raise FatalValueError(f'resource={resource!r}: "epochs" or "data" is needed')
        self.resource: Resource = resource
        self.sampler = sampler_of(sampler)
        if isinstance(self.sampler, (BudgetedOracle, PopulationBasedTrainingOracle, ReplayOracle)):
            raise FatalTypeError(
                f"sampler={type(self.sampler).__name__}: it gives trials budgets, too; a sampler only says at "
                "which points"
            )
        adopt(self.sampler, self)
        self.asks_in_thread = self.sampler.asks_in_thread

    def plan(self) -> BracketPlan:
        """Return the rungs, trials and epochs of a search that goes to its end."""
        raise NotImplementedError(f"{type(self).__name__} must define plan()")

    @property
    def needs_checkpoints(self) -> bool:
        """Whether trials go on from what an earlier run of theirs has left."""
        return self.resource == "epochs"

    def suggestion(self, history: History, number: int) -> Answer:
        """Return what the sampler proposes. It has no budget yet."""
        sampler = self._informed()
        sampler.seed = self.chance
        return sampler.ask(history, number)

    def is_duplicate(self, history: History, trial: Trial) -> bool:
        sampler = self._informed()
        sampler.seed = self.chance
        return sampler.is_duplicate(history, trial)

    def tunable(self, history: History) -> Space:
        return self._informed().tunable(history)

    @property
    def draws_new_names(self) -> bool:
        return self.sampler.draws_new_names

    def fidelities(self) -> Fidelities:
        """Return what shows a sampler that learns the scores of one fidelity."""
        return Fidelities(self.objective)

    def _informed(self) -> Oracle:
        """Return the sampler, with what this oracle was given since it was made."""
        inform(self.sampler, self)
        if isinstance(self.sampler, ModelBasedOracle) and self.sampler.fidelities is None:
            self.sampler.fidelities = self.fidelities()
        return self.sampler
