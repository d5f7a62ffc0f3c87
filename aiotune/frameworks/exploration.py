"""Which builds it takes to meet the names of every scope that an earlier build has told of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from aiotune.executors.context import RunContext
from aiotune.space import Condition, HyperParameter, Scalar

__all__ = ["explore"]

MOST_BUILDS = 64  # a scope that is left out is met by the first trial that enters it

Scope = tuple[Condition, ...]


def explore(run: RunContext, given: Mapping[str, Scalar], build: Callable[[], None]) -> None:
    """Build once for each scope that was not active yet. `given`: values that hold throughout."""
    hp = run.hyperparameters
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
        hp.values.update({**given, **aim})
        build()


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
