"""What is simulated: an oracle, and the options that bear on its search."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from aiotune.errors import FatalTypeError
from aiotune.history import History
from aiotune.hyperparameters import HyperParameters
from aiotune.oracles.base import Oracle
from aiotune.pruners.base import Pruner
from aiotune.resources import Limits, Resources

__all__ = ["Simulable", "Subject", "copied", "subject_of"]


@dataclass(frozen=True, slots=True)
class Subject:
    """A search without its program. repeats: runs of each trial, over all folds."""

    oracle: Oracle
    repeats: int = 1
    folds: int = 1
    limits: Limits = field(default_factory=Limits)
    pruner: Pruner | None = None
    resources: Resources | Callable[[HyperParameters], Resources] = field(default_factory=Resources)


@runtime_checkable
class Simulable(Protocol):
    """What can be simulated: every tuner."""

    def to_simulate(self) -> Subject:
        """Return the search that the owner would make."""
        ...


def subject_of(given: object) -> Subject:
    """Return what an oracle or a tuner stands for. FatalTypeError for anything else."""
    match given:
        case Oracle():
            return Subject(given)
        case Simulable() if not isinstance(given, type):
            return given.to_simulate()
        case _:
            raise FatalTypeError(f"simulate() needs a tuner or an oracle first, not {given!r:.100}")


def copied(oracle: Oracle) -> Oracle:
    """Return an oracle like this one, that has seen no search. FatalTypeError if it cannot be copied."""
    former = oracle.follow(History)  # else the project behind it would be copied, too
    try:
        return deepcopy(oracle)
    except Exception as error:
        raise FatalTypeError(
            f"{type(oracle).__name__} cannot be copied, so that its own search is left alone "
            f"({type(error).__name__}: {error}): keep what cannot be copied out of its attributes"
        ) from error
    finally:
        oracle.follow(former)
