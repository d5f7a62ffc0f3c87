"""The space before the first trial: build with defaults, then once for each scope that was not active yet.

Nothing is trained, but the arguments of `fit` are checked, and one element is read of each dataset among them.
Names below a plain `if` are met here only if a build happens to reach them; the others are met by the trials.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from aiotune.errors import FailedTrialError, FatalError, InfeasibleTrialError
from aiotune.executors.context import RunContext
from aiotune.frameworks.exploration import explore
from aiotune.frameworks.keras_build import (
    ModelOptions,
    build_model,
    require_arguments,
    require_compiled,
)
from aiotune.frameworks.keras_data import check_data
from aiotune.hypermodel import HyperModel, defines_fit

__all__ = ["discover", "discover_leniently"]

_LOG = logging.getLogger("aiotune.keras")

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class _Rehearsal:
    """What every build takes. `args` and `kwargs` are those of `search()`."""

    hypermodel: HyperModel
    run: RunContext
    options: ModelOptions
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


def discover(
    hypermodel: HyperModel,
    run: RunContext,
    options: ModelOptions,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] = _NOTHING,
) -> None:
    """Announce the names that `hypermodel` declares, building its model with as many values as it takes.

    Each build aims at another scope, so that their number is at most 1 + the number of scopes. `args` and
    `kwargs` are those of `search()`: data that cannot be read here ends the search, and so does an argument
    that the model's `fit` does not take. Raises the errors of `build_model`; a point that user code calls
    impossible is no error.
    """
    check_data(args, kwargs)
    rehearsal = _Rehearsal(hypermodel, run, options, args, kwargs)
    given = dict(run.hyperparameters.values)
    hypermodel.declare_hyperparameters(run.hyperparameters)
    _build(rehearsal)
    explore(run, given, partial(_try_build, rehearsal))


def discover_leniently(hypermodel: HyperModel, run: RunContext) -> None:
    """Announce the names of a hypermodel that an overridden `run_trial` uses in its own way.

    What it builds may be anything, and that it fails is no error: the trials will tell.
    """
    hp = run.hyperparameters
    given = dict(hp.values)

    def build() -> None:
        try:
            hypermodel.build(hp)
        except Exception:
            _LOG.info("the search space is explored on, without %s", hp.values, exc_info=True)
        run.announce(is_complete=False)
        run.raise_if_stopped()

    try:
        hypermodel.declare_hyperparameters(hp)
    except Exception:
        _LOG.info("declare_hyperparameters() failed", exc_info=True)
    build()
    explore(run, given, build)


def _build(this: _Rehearsal) -> None:
    run = this.run
    try:
        model = build_model(this.hypermodel, run.hyperparameters, this.options, seed=run.seed)
        require_compiled(this.hypermodel, model)
        if not defines_fit(this.hypermodel):
            require_arguments(model.fit, this.args, this.kwargs, "search()")
    except (InfeasibleTrialError, FailedTrialError) as error:
        _LOG.info("the search space is explored on: %s", error)
    run.announce(is_complete=False)
    run.raise_if_stopped()


def _try_build(this: _Rehearsal) -> None:
    """Build at a point that was chosen only to enter a scope: that it breaks says little about the search."""
    run = this.run
    try:
        _build(this)
    except FatalError:
        raise
    except Exception:
        values = dict(run.hyperparameters.values)
        _LOG.warning("the search space is explored on, without %s", values, exc_info=True)
        run.announce(is_complete=False)
