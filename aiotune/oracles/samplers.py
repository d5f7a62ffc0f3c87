"""The oracle that says at which points, where another one says how far its trials are trained."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.objective import DefaultObjective
from aiotune.oracles.base import Oracle

__all__ = ["SAMPLERS", "adopt", "inform", "sampler_of"]


def _random() -> Oracle:
    from aiotune.oracles.random_search import RandomSearchOracle

    return RandomSearchOracle(max_trials=None)


def _quasi_random() -> Oracle:
    from aiotune.oracles.quasi_random import QuasiRandomOracle

    return QuasiRandomOracle(max_trials=None)


def _tpe() -> Oracle:
    from aiotune.oracles.tpe import TPEOracle

    return TPEOracle(max_trials=None)


def _bayesian() -> Oracle:
    from aiotune.oracles.bayesian import BayesianOptimizationOracle

    return BayesianOptimizationOracle(max_trials=None)


def _random_forest() -> Oracle:
    from aiotune.oracles.forest import RandomForestOracle

    return RandomForestOracle(max_trials=None)


def _cmaes() -> Oracle:
    from aiotune.oracles.cmaes import CmaEsOracle

    return CmaEsOracle(max_trials=None)


SAMPLERS: Mapping[str, Callable[[], Oracle]] = {
    "random": _random,
    "quasi_random": _quasi_random,
    "tpe": _tpe,
    "bayesian": _bayesian,
    "random_forest": _random_forest,
    "cmaes": _cmaes,
}


def sampler_of(sampler: str | Oracle) -> Oracle:
    """Return the oracle of that name, or the one given. FatalTypeError, FatalValueError for anything else."""
    if isinstance(sampler, Oracle):
        return sampler
    if not isinstance(sampler, str):
        raise FatalTypeError(
            f"sampler={sampler!r}: one of {_names()} is needed, or an oracle (not a class, nor a tuner): "
            "sampler=TPEOracle(gamma=0.2)"
        )
    if sampler not in SAMPLERS:
        close = difflib.get_close_matches(sampler, SAMPLERS, n=1)
        hint = (
            f"did you mean {close[0]!r}?" if close else f"there are {_names()}, or pass an oracle"
        )
        raise FatalValueError(f"sampler={sampler!r} is not known; {hint}")
    return SAMPLERS[sampler]()


def _names() -> str:
    return ", ".join(map(repr, SAMPLERS))


def adopt(sampler: Oracle, owner: Oracle) -> None:
    """Let the sampler search what its owner does. FatalValueError for one that was told otherwise."""
    told = {
        "objective": not isinstance(sampler.objective, DefaultObjective)
        and sampler.objective != owner.objective,
        "hyperparameters": bool(sampler.hyperparameters.space),
        "seed": sampler.seed is not None,
    }
    for name, is_told in told.items():
        if is_told:
            raise FatalValueError(
                f"{name}= was given to the sampler, {type(sampler).__name__}: give it to "
                f"{type(owner).__name__.removesuffix('Oracle')} alone, which tells the sampler"
            )
    sampler.hyperparameters = owner.hyperparameters  # one object, whoever declares on it
    sampler.allow_new_entries = owner.allow_new_entries
    sampler.tune_new_entries = owner.tune_new_entries
    inform(sampler, owner)


def inform(sampler: Oracle, owner: Oracle) -> None:
    """Let the sampler know what its owner was told since it was made."""
    sampler.objective = owner.objective
    sampler.max_trials = owner.max_trials
    sampler.seed = owner.seed
    sampler.constraint, sampler.bounds = owner.constraint, owner.bounds
    sampler.priors, sampler.earlier = owner.priors, owner.earlier
