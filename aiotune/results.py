"""What a search found: the best trials, the result object, and the printed summaries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from aiotune.events import EndReason
from aiotune.hyperparameters import HyperParameters
from aiotune.objective import Objective
from aiotune.ranking import best_trials
from aiotune.space import HyperParameter, Int, Space
from aiotune.trial import Trial, trial_text

__all__ = ["SearchResult", "SearchStatus", "results_text", "space_text"]


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

    def __str__(self) -> str:
        best = self.best_trial
        found = (
            f"best {self.objective.name} {_score_text(best)} in trial {best.trial_id}"
            if best
            else "no score"
        )
        return f"{len(self.trials)} trials, {found}; ended by {self.reason.value}"


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
    yield f"Showing {count} best trials"
    yield str(objective)
    for trial in best_trials(trials, objective, count):
        yield ""
        yield from trial_text(trial)


def space_text(space: Space) -> Iterator[str]:
    """Yield the lines of `search_space_summary`."""
    yield "Search space summary"
    yield f"Default search space size: {len(space)}"
    for each in space:
        yield f"{each.name} ({type(each).__name__})"
        yield str(_config(each))


def _config(hyperparameter: HyperParameter) -> dict[str, object]:
    """Return the config as KerasTuner prints it: an Int whose default is its minimum shows None."""
    config = {key: value for key, value in hyperparameter.get_config().items() if key != "name"}
    if isinstance(hyperparameter, Int) and hyperparameter.default == hyperparameter.min_value:
        config["default"] = None
    return config
