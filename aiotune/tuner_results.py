"""What a tuner found: its best trials, their points and models, and what it says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiotune.hyperparameters import HyperParameters
from aiotune.objective import Objective
from aiotune.pareto import pareto_front
from aiotune.printable import printable
from aiotune.results import optuna_study, results_text
from aiotune.trial import Trial

if TYPE_CHECKING:
    from aiotune.optuna_study import BaseStorage, Study
    from aiotune.project import Project

__all__ = ["TunerResults"]


class TunerResults:
    """The part of a tuner that reads from its project what was found; also during a search, and before one."""

    if TYPE_CHECKING:  # of the tuner
        project_name: str
        _project: Project

        @property
        def objective(self) -> Objective: ...

        @property
        def trials(self) -> tuple[Trial, ...]: ...

        @property
        def project_dir(self) -> str: ...

        def load_model(self, trial: Trial) -> Any: ...

    def get_best_trials(self, num_trials: int = 1) -> list[Trial]:
        """Return the best trials, best first. Trials without a score are never among them."""
        return self._project.history().best_trials(self.objective, num_trials)

    def get_best_hyperparameters(self, num_trials: int = 1) -> list[HyperParameters]:
        """Return the hyperparameters of the best trials, best first."""
        return [trial.hyperparameters for trial in self.get_best_trials(num_trials)]

    def get_pareto_front(self) -> list[Trial]:
        """Return the trials that no other one beats in every objective, best in the first objective first."""
        return pareto_front(self.trials, self.objective)

    def get_best_models(self, num_models: int = 1) -> list[Any]:
        """Return the best trials' models with the weights of their best epoch, best first.

        This imports the framework and builds the models in this process: it may take seconds.
        """
        return [self.load_model(trial) for trial in self.get_best_trials(num_models)]

    def to_optuna(
        self, study_name: str | None = None, storage: str | BaseStorage | None = None
    ) -> Study:
        """Return the trials of the project as a study of Optuna; see `SearchResult.to_optuna`.

        study_name: by default that of the project.
        """
        name = study_name or self.project_name
        return optuna_study(self.trials, self.objective, name, storage)

    def results_summary(self, num_trials: int = 10) -> None:
        """Print the best trials."""
        for line in results_text(self.trials, self.objective, self.project_dir, num_trials):
            print(printable(line))
