"""The space before the first trial: build with defaults, then once for each scope that was not active yet.

Nothing is trained. Names below a plain `if` are met here only if a build happens to reach them; the others
are met by the trials.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from aiotune.errors import FailedTrialError, FatalError, InfeasibleTrialError
from aiotune.executors.context import RunContext
from aiotune.frameworks.keras_build import ModelOptions, build_model, require_compiled
from aiotune.hypermodel import HyperModel
from aiotune.space import Condition, HyperParameter, Scalar

__all__ = ["discover"]

MOST_BUILDS = 64  # a scope that is left out is met by the first trial that enters it

_LOG = logging.getLogger("aiotune.keras")

Scope = tuple[Condition, ...]


def discover(hypermodel: HyperModel, run: RunContext, options: ModelOptions) -> None:
    """Announce the names that `hypermodel` declares, building its model with as many values as it takes.

    Each build aims at another scope, so that their number is at most 1 + the number of scopes. Raises the
    errors of `build_model`; a point that user code calls impossible is no error.
    """
    hp = run.hyperparameters
    given = dict(hp.values)
    hypermodel.declare_hyperparameters(hp)
    _build(hypermodel, run, options)
    tried: set[Scope] = set()
    for _ in range(MOST_BUILDS - 1):
        scope = next(iter(_unseen_scopes(run, tried)), None)
        if scope is None:
            return
        tried.add(scope)
        aim = _values_entering(scope, hp.declared)
        if aim is None:
            continue
        hp.values.clear()
        hp.values.update(given | aim)
        _try_build(hypermodel, run, options)


def _build(hypermodel: HyperModel, run: RunContext, options: ModelOptions) -> None:
    try:
        model = build_model(hypermodel, run.hyperparameters, options, seed=run.seed)
        require_compiled(hypermodel, model)
    except (InfeasibleTrialError, FailedTrialError) as error:
        _LOG.info("the search space is explored on: %s", error)
    run.announce(is_complete=False)
    run.raise_if_stopped()


def _try_build(hypermodel: HyperModel, run: RunContext, options: ModelOptions) -> None:
    """Build at a point that was chosen only to enter a scope: that it breaks says little about the search."""
    try:
        _build(hypermodel, run, options)
    except FatalError:
        raise
    except Exception:
        values = dict(run.hyperparameters.values)
        _LOG.warning("the search space is explored on, without %s", values, exc_info=True)
        run.announce(is_complete=False)


def _unseen_scopes(run: RunContext, tried: set[Scope]) -> Iterable[Scope]:
    """Yield the scopes that exist but were never active, in the order in which they were met."""
    hp = run.hyperparameters
    active = {*map(tuple, hp.active_scopes), *(each.conditions for each in hp.met)}
    known = [*map(tuple, hp.inactive_scopes), *(each.conditions for each in hp.declared)]
    return (scope for scope in known if scope and scope not in active and scope not in tried)


def _values_entering(scope: Scope, declared: Sequence[HyperParameter]) -> dict[str, Scalar] | None:
    """Return values of the parents, and of their parents, with which the scope is active; None if none are."""
    demands: dict[str, list[Condition]] = {}
    open_conditions = list(scope)
    while open_conditions:
        condition = open_conditions.pop(0)
        demanded = demands.setdefault(condition.name, [])
        if condition in demanded:
            continue
        demanded.append(condition)
        parent = _parent(condition, declared)
        open_conditions.extend(parent.conditions if parent is not None else ())
    try:
        return {name: _common_value(conditions) for name, conditions in demands.items()}
    except LookupError:
        return None


def _parent(condition: Condition, declared: Sequence[HyperParameter]) -> HyperParameter | None:
    """Return the first hyperparameter of that name that can have a value which the condition asks for."""
    for each in declared:
        if each.name == condition.name and any(map(each.contains, condition.values)):
            return each
    return None


def _common_value(conditions: Sequence[Condition]) -> Scalar:
    """Return a value that fulfils all these conditions on one name. LookupError if none does."""
    name = conditions[0].name
    for value in conditions[0].values:
        if all(each.holds({name: value}) for each in conditions):
            return value
    raise LookupError(name)
