"""What a search found: the best trials, the result object, and the printed summaries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiotune.events import EndReason
from aiotune.hyperparameters import HyperParameters
from aiotune.objective import MultiObjective, Objective, numbers_of
from aiotune.oracles.optuna import require_optuna
from aiotune.pareto import goals, hypervolume, pareto_front, reference_beyond
from aiotune.printable import one_line
from aiotune.ranking import best_trials
from aiotune.space import HyperParameter, Int, Space
from aiotune.trial import Trial, trial_text
from aiotune.usage import Usage, total_usage, usage_text

if TYPE_CHECKING:
    from aiotune.optuna_study import BaseStorage, Study

__all__ = ["SearchResult", "SearchStatus", "optuna_study", "results_text", "space_text"]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What `await tuner.search(...)` returns."""

    reason: EndReason  # why the search ended
    message: str | None  # the same in words, where there is more to say
    trials: tuple[Trial, ...]  # all of the project, in the order of asking
    objective: Objective = field(repr=False)

    def best_trials(self, num_trials: int = 1) -> list[Trial]:
        """Return the best trials, best first; fewer if fewer have a score."""
        return best_trials(self.trials, self.objective, num_trials)

    @property
    def best_trial(self) -> Trial | None:
        """The best trial, or None if no trial has a score."""
        return next(iter(self.best_trials(1)), None)

    @property
    def best_score(self) -> float | None:
        return self.best_trial.score if self.best_trial else None

    @property
    def best_standard_error(self) -> float | None:
        """Of the best score, where that is a mean over several runs."""
        return self.best_trial.standard_error if self.best_trial else None

    @property
    def best_hyperparameters(self) -> HyperParameters | None:
        return self.best_trial.hyperparameters if self.best_trial else None

    @property
    def usage(self) -> Usage | None:
        """What all runs took of GPUs, in all sessions; None: they had none, or nothing is known."""
        return total_usage(trial.usage for trial in self.trials)

    @property
    def pareto_front(self) -> list[Trial]:
        """The trials that no other one beats in every objective, best in the first objective first.

        Of trials with the same values, the oldest. With a single objective, the best trial alone.
        """
        return pareto_front(self.trials, self.objective)

    def hypervolume(self, reference: Sequence[float] | None = None) -> float:
        """Return the volume between the front and a reference, a value of each objective in its own units.

        The larger, the better, where the reference is the same. By default it is the objective's; if that has
        none, it lies a little beyond this front. 0 without a front.
        """
        objective = self.objective
        front = [goals(objective, each) for each in self.pareto_front]
        if reference is None and isinstance(objective, MultiObjective):
            reference = objective.reference
        if reference is not None:
            reference = numbers_of("reference", reference, objective.parts)
            return hypervolume(front, objective.minimised(reference))
        return hypervolume(front, reference_beyond(front)) if front else 0.0

    def to_optuna(
        self, study_name: str | None = None, storage: str | BaseStorage | None = None
    ) -> Study:
        """Return the trials as a study of Optuna: `optuna.visualization.plot_optimization_history(study)`.

        storage: where to keep it, "sqlite:///study.db" for optuna-dashboard; a study that is there under
        `study_name` gets what is new. By default it is kept in memory. It blocks while it writes, some
        hundredths of a second for each new trial. Needs the extra `optuna`.
        """
        return optuna_study(self.trials, self.objective, study_name, storage)

    def __str__(self) -> str:
        used = "" if self.usage is None else f"; {usage_text(self.usage)}"
        return f"{len(self.trials)} trials, {self._found()}; ended by {self.reason.value}{used}"

    def _found(self) -> str:
        best = self.best_trial
        if best is None:
            return "no score"
        if self.objective.seeks_front:
            return f"{len(self.pareto_front)} on the Pareto front"
        return f"best {self.objective.name} {_score_text(best)} in trial {best.trial_id}"


def optuna_study(
    trials: Sequence[Trial],
    objective: Objective,
    study_name: str | None,
    storage: str | BaseStorage | None,
) -> Study:
    """Return a study of Optuna as `SearchResult.to_optuna` does. MissingFramework without Optuna."""
    require_optuna()
    from aiotune.optuna_study import to_study

    return to_study(trials, objective, study_name, storage)


def _score_text(trial: Trial) -> str:
    error = trial.standard_error
    return f"{trial.score:g}" if error is None else f"{trial.score:g} ± {error:.2g}"


@dataclass(frozen=True, slots=True)
class SearchStatus:
    """A search as it stands: `search.status()`."""

    counts: Mapping[str, int]  # trials by status
    running: tuple[str, ...]  # trials with a run in progress
    waiting: Mapping[str, str]  # trials that wait for a device, each with its reason
    best: Trial | None
    ended: EndReason | None  # None while the search is on


def results_text(
    trials: Iterable[Trial], objective: Objective, where: str, count: int
) -> Iterator[str]:
    """Yield the lines of `results_summary`."""
    yield "Results summary"
    yield f"Results in {where}"
    trials = list(trials)
    if objective.seeks_front:
        yield from _front_text(trials, objective)
    yield f"Showing {count} best trials"
    yield one_line(str(objective))
    for trial in best_trials(trials, objective, count):
        yield ""
        yield from trial_text(trial)


def _front_text(trials: Sequence[Trial], objective: Objective) -> Iterator[str]:
    """Yield a line for each trial of the front, all of them."""
    front = pareto_front(trials, objective)
    yield f"Pareto front: {len(front)} trials"
    for trial in front:
        values = [f"{each.name} {trial.final_metrics[each.name]:g}" for each in objective.parts]
        yield f"  {trial.trial_id}: {', '.join(values)}"


def space_text(space: Space) -> Iterator[str]:
    """Yield the lines of `search_space_summary`."""
    yield "Search space summary"
    yield f"Default search space size: {len(space)}"
    for each in space:
        yield one_line(f"{each.name} ({type(each).__name__})")
        yield str(_config(each))


def _config(hyperparameter: HyperParameter) -> dict[str, object]:
    """Return the config as KerasTuner prints it: an Int whose default is its minimum shows None."""
    config = {key: value for key, value in hyperparameter.get_config().items() if key != "name"}
    if isinstance(hyperparameter, Int) and hyperparameter.default == hyperparameter.min_value:
        config["default"] = None
    return config
