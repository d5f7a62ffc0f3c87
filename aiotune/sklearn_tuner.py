"""SklearnTuner: cross-validation of scikit-learn estimators, a run for each fold."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import anyio.from_thread

from aiotune.errors import FatalRuntimeError, FatalTypeError, FatalValueError
from aiotune.executors.context import RunContext
from aiotune.folds import EvenFolds, Folds, Sample, as_folds
from aiotune.frameworks.sklearn import Estimators, TableData, cross_validate, discover
from aiotune.frameworks.sklearn_scoring import SCORE, Scoring
from aiotune.hypermodel import HyperModel
from aiotune.hyperparameters import HyperParameters
from aiotune.objective import DefaultObjective, MultiObjective, Objective, absent
from aiotune.oracles.base import Oracle
from aiotune.processes import refuse_to_block
from aiotune.project import Project
from aiotune.pruners.base import Pruner
from aiotune.trial import Trial
from aiotune.tuner import Tuner

if TYPE_CHECKING:
    from aiotune.observers.progress import Verbose
    from aiotune.results import SearchResult
    from aiotune.search import Search

__all__ = ["SklearnTuner"]

_KERAS_ONLY = ("max_model_size", "optimizer", "loss", "distribution_strategy")


class SklearnTuner(Tuner):
    """Tunes scikit-learn estimators and pipelines: `await tuner.search(X, y)`.

    hypermodel: a function `build(hp) -> estimator`, or a `HyperModel`. scoring: the name of a scorer, a
    function of (estimator, X, y), a list of names, or a dict of these by name; None: the estimator's own
    `score`. A single scorer's metric is "score". metrics: further functions of (y, prediction), one or a list;
    each is a metric by its `__name__`. cv: how many folds, a scikit-learn splitter, or a list of (train, test)
    pairs of row numbers; None: `KFold(5, shuffle=True, random_state=1)`.

    The oracle's objective is one of these metrics: `Objective("score", "max")` if it has none. Each fold is a
    run of its own; the trial's score is the mean.

    Further keywords are those of `Tuner` and `aiotune.Settings`.
    """

    model_framework = "sklearn"

    def __init__(
        self,
        oracle: Oracle,
        hypermodel: HyperModel | Callable[[HyperParameters], Any] | None,
        scoring: Any = None,
        metrics: Any = None,
        cv: Any = None,
        **kwargs: Any,
    ) -> None:
        _refuse_others(kwargs)
        super().__init__(oracle, hypermodel, **kwargs)
        if self.hypermodel is None and not self._has_own_trials():
            raise FatalValueError(
                "hypermodel is missing: pass a function that builds the estimator, or override run_trial"
            )
        self.scoring = scoring
        self.metrics = metrics
        self._scoring = Scoring.of(scoring, metrics)
        self._cv: Folds = as_folds(cv, "cv") or EvenFolds(5, state=1)
        self._searched: TableData | None = None  # what the last search() was given
        if isinstance(oracle.objective, DefaultObjective):
            oracle.objective = Objective(SCORE, "max")
        if not self._has_own_trials():
            _require_objective(oracle.objective, self._scoring.names)
            _refuse_reports(kwargs.get("pruner"))

    # --- searching ---

    def search(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        groups: Any = None,
        *,
        verbose: Verbose | None = None,
        **options: Any,
    ) -> Coroutine[Any, Any, SearchResult]:
        """Run the search: `result = await tuner.search(X, y)`.

        X, y, sample_weight, groups: arrays, tables, sparse matrices or lists, with a row for every sample. The
        weights count in fitting and in scoring, the groups for the splitter. verbose: as for `Tuner.search`.
        options: those of an overridden `run_trial`.
        """
        self._searched = TableData(X, y, sample_weight, groups)
        return super().search(**self._searched.named, **_given(verbose), **options)

    def start(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        groups: Any = None,
        *,
        verbose: Verbose | None = None,
        **options: Any,
    ) -> Search:
        """Return the search as an async context manager, as `Tuner.start` does."""
        self._searched = TableData(X, y, sample_weight, groups)
        return super().start(**self._searched.named, **_given(verbose), **options)

    def run_trial(
        self,
        trial: RunContext,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        groups: Any = None,
    ) -> Any:
        """Fit the estimator without the rows of the run's fold; return its metrics on these."""
        return cross_validate(self._estimators(), trial, TableData(X, y, sample_weight, groups))

    # --- estimators ---

    async def retrain(
        self, hp: HyperParameters | Trial, /, *fit_args: Any, **fit_kwargs: Any
    ) -> Any:
        """Return the estimator for `hp`, values or a trial, fitted on all the data that are given:

            model = await tuner.retrain(tuner.get_best_hyperparameters()[0], X, y)

        X, y=None, sample_weight=None: as for `search`. It is fitted in a child process, and no file of it
        stays. It may run beside a search; cancelling it ends the child.
        """
        return await super().retrain(hp, *fit_args, **fit_kwargs)

    async def train_apart(
        self,
        project: Project,
        hp: HyperParameters,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Any:
        """Do what `retrain` says."""
        from aiotune.refitting import refit

        data = _data_of("retrain()", args, kwargs)
        data.sample()  # for its errors
        return await refit(self, project, self._estimators(), hp, data)

    async def evaluate(self, model: Any, /, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Not for estimators: they are here once `retrain` returns them. FatalTypeError."""
        raise FatalTypeError(
            "SklearnTuner has no evaluate(): model = await tuner.retrain(hp, X, y), then model.score(X_test, "
            "y_test). What a trial had in cross-validation is in trial.metrics"
        )

    def load_model(self, trial: Trial) -> Any:
        """Return the trial's estimator, fitted on all the data of the last `search()` of this tuner.

        Blocks while a child process fits it; `await tuner.retrain(trial, X, y)` does not.
        """
        return self._refitted([trial])[0]

    def get_best_models(self, num_models: int = 1) -> list[Any]:
        """Return the best trials' estimators, best first, fitted on all the data of the last `search()`.

        Blocks while a child process fits them; `await tuner.retrain(trial, X, y)` does not.
        """
        return self._refitted(self.get_best_trials(num_models))

    def save_model(self, trial_id: str, model: Any, step: int = 0) -> None:
        """Not for estimators: no pickle of one is kept. FatalTypeError."""
        raise FatalTypeError(
            "SklearnTuner keeps no estimators: get_best_models() and retrain() fit them again; to keep one of "
            "those write it yourself, with joblib.dump(model, path)"
        )

    def _refitted(self, trials: list[Trial]) -> list[Any]:
        data = self._searched
        if data is None:
            raise FatalRuntimeError(
                "the estimators are fitted on the data of search(), which this tuner has not been given yet: "
                "model = await tuner.retrain(tuner.get_best_hyperparameters()[0], X, y)"
            )
        refuse_to_block("await tuner.retrain(trial, X, y)")
        given = {name: each for name, each in data.named.items() if name != "groups"}

        async def refit_all() -> list[Any]:
            async with self:  # one fork server for all of them
                return [await self.retrain(trial, **given) for trial in trials]

        with anyio.from_thread.start_blocking_portal() as portal:
            return portal.call(refit_all)

    # --- what a search needs of a tuner ---

    def for_child(self) -> SklearnTuner:
        """Return a slim copy, as `Tuner.for_child` does; the data travel as arguments."""
        slim = super().for_child()
        assert isinstance(slim, SklearnTuner)
        object.__setattr__(slim, "_searched", None)
        return slim

    def count_folds(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
        """Return into how many folds the data of `search()` are split. FatalError if they cannot be."""
        if self._has_own_trials():
            return self._cv.count(Sample())
        return self._cv.count(_data_of("search()", args, kwargs).sample())

    def _count_folds_without_data(self) -> int:
        return self._cv.count(Sample())

    def declare(
        self,
        run: RunContext,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Meet the names of the space in a child, without fitting, and check the arguments of `search()`."""
        if self._has_own_trials():
            super().declare(run, args, kwargs)
        else:
            discover(self._estimators(), run, _data_of("search()", args, kwargs))

    def _estimators(self) -> Estimators:
        if self.hypermodel is None:
            raise FatalValueError(
                f"{type(self).__name__} has no hypermodel that builds estimators: pass hypermodel="
            )
        return Estimators(self.hypermodel, self._scoring, self._cv)

    def _has_own_trials(self) -> bool:
        return type(self).run_trial is not SklearnTuner.run_trial


def _refuse_others(kwargs: Mapping[str, Any]) -> None:
    """Raise FatalTypeError for keywords of `Tuner` that mean nothing to estimators."""
    for name in _KERAS_ONLY:
        if kwargs.get(name) is not None:
            raise FatalTypeError(
                f"{name} is for Keras models and has no effect on estimators: drop it"
            )
    if kwargs.get("folds") is not None:
        raise FatalTypeError("SklearnTuner splits by cv: pass cv=... instead of folds=...")


def _refuse_reports(pruner: Pruner | None) -> None:
    """Raise FatalValueError for a rule that waits for what a fit never tells."""
    if pruner is not None and not pruner.judges_ends:
        raise FatalValueError(
            f"pruner={pruner!r} has no effect: estimators report nothing while they are fitted. Pass "
            "aiotune.WilcoxonPruner(), which compares trials fold by fold"
        )


def _require_objective(objective: Objective, names: tuple[str, ...] | None) -> None:
    """Raise FatalValueError if the objective is none of the metrics, as far as these are known."""
    if names is None:
        return
    parts = objective.objectives if isinstance(objective, MultiObjective) else (objective,)
    for each in parts:
        if each.name not in names:
            raise FatalValueError(
                f"{absent(each.name, names)}. They come from scoring= and metrics=; the oracle names the "
                f'objective: objective=aiotune.Objective("{names[0]}", "max")'
            )


def _given(verbose: Verbose | None) -> dict[str, Any]:
    return {} if verbose is None else {"verbose": verbose}


def _data_of(call: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> TableData:
    """Return the arguments as data. FatalTypeError for others."""
    known = {name: each for name, each in kwargs.items() if name != "verbose"}
    try:
        return TableData(*args, **known)
    except TypeError as error:
        takes = "X, y=None, sample_weight=None" + (", groups=None" if call == "search()" else "")
        raise FatalTypeError(f"{call} takes {takes}: {error}") from error
