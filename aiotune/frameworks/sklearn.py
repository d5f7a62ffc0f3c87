"""scikit-learn estimators in a run: build, fit on all folds but one, measure on that one; fit on all data.

Everything here is called in a child process. scikit-learn is imported when a function is called, never with the
module.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aiotune.arguments import takes_keyword
from aiotune.errors import (
    FailedTrialError,
    FatalError,
    FatalTypeError,
    FatalValueError,
    InfeasibleTrialError,
    MissingFramework,
)
from aiotune.executors.base import Finished
from aiotune.executors.context import RunContext
from aiotune.executors.sealed import write_sealed
from aiotune.folds import Folds, Sample
from aiotune.frameworks.exploration import explore
from aiotune.frameworks.rows import count_rows, take_rows
from aiotune.frameworks.shares import rows_of_share
from aiotune.frameworks.sklearn_scoring import Scoring
from aiotune.hypermodel import HyperModel, defines_fit
from aiotune.lazy import Lazy, resolved

__all__ = [
    "SKLEARN_MODULES",
    "Estimators",
    "Refit",
    "TableData",
    "cross_validate",
    "discover",
]

# What most estimators import: the fork server does so once for all runs.
SKLEARN_MODULES = (
    "sklearn",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "sklearn.metrics",
    "sklearn.model_selection",
    "sklearn.pipeline",
    "sklearn.svm",
)

_LOG = logging.getLogger("aiotune.sklearn")


@dataclass(frozen=True, slots=True)
class TableData:
    """The arguments of a search: each has a row for every sample, or is None."""

    X: Any
    y: Any = None
    sample_weight: Any = None
    groups: Any = None

    @property
    def named(self) -> dict[str, Any]:
        given = {
            "X": self.X,
            "y": self.y,
            "sample_weight": self.sample_weight,
            "groups": self.groups,
        }
        return {name: each for name, each in given.items() if each is not None or name == "X"}

    def sample(self) -> Sample:
        """Return what is split. FatalTypeError for what has no rows, FatalValueError for unequal numbers."""
        if any(isinstance(each, Lazy) for each in self.named.values()):
            return Sample()
        lengths = {name: _require_rows(name, each) for name, each in self.named.items()}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name} has {length}" for name, length in lengths.items())
            raise FatalValueError(f"a row for every sample is needed in each argument: {listed}")
        return Sample(lengths["X"], self.X, self.y, self.groups)

    def rows(self, rows: npt.NDArray[np.intp]) -> TableData:
        return TableData(**{name: take_rows(each, rows) for name, each in self.named.items()})

    def made(self) -> TableData:
        """Return the data with what is Lazy among them."""
        return TableData(**resolved((), self.named)[1])


@dataclass(frozen=True, slots=True)
class Estimators:
    """What a tuner was told about its estimators."""

    hypermodel: HyperModel
    scoring: Scoring
    folds: Folds


def cross_validate(estimators: Estimators, run: RunContext, data: TableData) -> dict[str, Any]:
    """Fit the estimator of this run's hyperparameters without the run's fold; return its metrics on that."""
    require_sklearn()
    hypermodel, scoring = estimators.hypermodel, estimators.scoring
    estimator = _build(estimators, run)
    run.announce(is_complete=not defines_fit(hypermodel))
    run.raise_if_stopped()
    train, test = estimators.folds.split(data.sample(), run.fold, run.assignment.seed)
    _fit(hypermodel, run, estimator, _share_of(data.rows(train), run))
    run.raise_if_stopped()
    held_out = data.rows(test)
    return scoring.measure(estimator, held_out.X, held_out.y, held_out.sample_weight, run)


def _share_of(data: TableData, run: RunContext) -> TableData:
    """Return what the run is to train with, where the search lets the data grow."""
    count = count_rows(data.X)
    if run.share >= 1 or count is None:
        return data
    return data.rows(rows_of_share(count, run.share, run.assignment.seed, data.y))


def discover(estimators: Estimators, run: RunContext, data: TableData) -> None:
    """Announce the names that the hypermodel declares, and check what can be checked without fitting.

    Raises what its first build raises; a point that user code calls impossible is no error.
    """
    require_sklearn()
    estimators.scoring.check()
    sample = data.sample()
    if sample.length is not None:
        estimators.folds.split(sample, 0, run.assignment.seed)
    given = dict(run.hyperparameters.values)
    estimators.hypermodel.declare_hyperparameters(run.hyperparameters)
    _rehearse(estimators, run)
    explore(run, given, lambda: _rehearse_leniently(estimators, run))


@dataclass(frozen=True, slots=True)
class Refit:
    """The program that fits the estimator of its run's hyperparameters on all data, for the caller to load.

    `key` belongs to this one run: see `executors.sealed`.
    """

    estimators: Estimators
    data: TableData
    file: Path
    key: bytes

    def __call__(self, run: RunContext) -> Finished:
        require_sklearn()
        estimator = _build(self.estimators, run)
        _fit(self.estimators.hypermodel, run, estimator, self.data.made())
        write_sealed(self.file, estimator, self.key)
        return Finished()


def require_sklearn() -> None:
    """Import scikit-learn. MissingFramework, with the extra to install, where that fails."""
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise MissingFramework(
            f'scikit-learn cannot be imported ({error}); run: pip install "aiotune[sklearn]"'
        ) from error


def _require_rows(name: str, thing: Any) -> int:
    length = count_rows(thing)
    if length is None:
        raise FatalTypeError(
            f"{name} is of type {type(thing).__qualname__}, which has no rows: pass an array, a "
            "table, a sparse matrix or a list"
        )
    return length


# --- estimators


def _build(estimators: Estimators, run: RunContext) -> Any:
    """Return a new estimator. FatalTypeError if `build` returns none, FatalValueError if it has no score."""
    estimator = estimators.hypermodel.build(run.hyperparameters)
    if isinstance(estimator, type) or not callable(getattr(estimator, "fit", None)):
        raise FatalTypeError(f"build returned {_no_estimator(estimator)}")
    is_own = None in estimators.scoring.scorers.values()
    if is_own and not callable(getattr(estimator, "score", None)):
        raise FatalValueError(
            f"build returned a {type(estimator).__name__}, which has no method score: pass scoring= to the "
            "tuner"
        )
    return estimator


def _no_estimator(thing: Any) -> str:
    if thing is None:
        return "None: did you forget `return estimator`?"
    if isinstance(thing, type):
        return f"the class {thing.__name__}: return an instance, {thing.__name__}(...)"
    return f"{type(thing).__name__}, which has no method fit: return a scikit-learn estimator"


def _fit(hypermodel: HyperModel, run: RunContext, estimator: Any, data: TableData) -> None:
    values = (data.X,) if data.y is None else (data.X, data.y)
    keyword = None
    if data.sample_weight is not None:
        fit = hypermodel.fit if defines_fit(hypermodel) else None
        keyword = _weight_keyword(estimator, fit)
        if keyword is None:
            run.note(f"{type(estimator).__name__} takes no sample_weight: it is fitted without")
    weights = {} if keyword is None else {keyword: data.sample_weight}
    hypermodel.fit(run.hyperparameters, estimator, *values, **weights)


def _weight_keyword(estimator: Any, fit: Callable[..., Any] | None = None) -> str | None:
    """Return the name under which `fit` takes weights, or None if it takes none.

    A pipeline hands them to its last step, which is named for it, unless scikit-learn routes them itself.
    """
    import sklearn
    from sklearn.pipeline import Pipeline

    is_routed = sklearn.get_config().get("enable_metadata_routing", False)
    if fit is None and isinstance(estimator, Pipeline) and not is_routed:
        name, last = estimator.steps[-1]
        inner = None if isinstance(last, str) or last is None else _weight_keyword(last)
        return None if inner is None else f"{name}__{inner}"
    return "sample_weight" if takes_keyword(fit or estimator.fit, "sample_weight") else None


# --- discovery


def _rehearse(estimators: Estimators, run: RunContext) -> None:
    try:
        _build(estimators, run)
    except (InfeasibleTrialError, FailedTrialError) as error:
        _LOG.info("the search space is explored on: %s", error)
    run.announce(is_complete=False)
    run.raise_if_stopped()


def _rehearse_leniently(estimators: Estimators, run: RunContext) -> None:
    """Build at a point that was chosen only to enter a scope: that it breaks says little about the search."""
    try:
        _rehearse(estimators, run)
    except FatalError:
        raise
    except Exception:
        values: Mapping[str, Any] = dict(run.hyperparameters.values)
        _LOG.warning("the search space is explored on, without %s", values, exc_info=True)
        run.announce(is_complete=False)
