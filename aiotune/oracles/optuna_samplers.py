"""What a user passes as a sampler of Optuna, checked when it is passed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
from optuna.samplers import (
    BaseSampler,
    BruteForceSampler,
    GPSampler,
    GridSampler,
    RandomSampler,
    TPESampler,
)

from aiotune.errors import FatalError, FatalRuntimeError, FatalTypeError, FatalValueError
from aiotune.objective import Objective
from aiotune.oracles.optuna_quiet import quiet
from aiotune.oracles.optuna_storage import RewindableStorage, open_study
from aiotune.oracles.optuna_trials import directions_of

__all__ = ["Samplers"]

# All that they go by are values and states. Others may be, and then ask once more than they need to.
_WITHOUT_NOTES = (TPESampler, GPSampler, RandomSampler)

_PASS_THE_SEED = "write lambda seed: TPESampler(seed=seed, ...), or pass the sampler itself"


class Samplers:
    """Gives a sampler for each seed: made for it where that is possible, else always the one that was passed.

    are_fresh: whether it is made. make_notes: whether it may keep in a study what the values do not tell.
    """

    def __init__(
        self, given: BaseSampler | Callable[[int], BaseSampler] | None, objective: Objective
    ) -> None:
        self._given = TPESampler if given is None else given
        self.are_fresh = not isinstance(self._given, BaseSampler)
        if not callable(self._given) and not isinstance(self._given, BaseSampler):
            raise _refusal(given)
        with quiet():
            sampler = self.get(0)
            if isinstance(sampler, GridSampler | BruteForceSampler):
                raise FatalValueError(
                    f"{type(sampler).__name__} is not for OptunaOracle, which learns the names of the space "
                    "from the trials: use aiotune.GridSearch, which tries every point"
                )
            if self.are_fresh:
                self._check_seeds(objective)
        self.make_notes = type(sampler) not in _WITHOUT_NOTES

    def get(self, seed: int) -> BaseSampler:
        """Return the sampler for a seed of 32 bits. FatalTypeError if what was passed makes none."""
        if isinstance(self._given, BaseSampler):
            return self._given
        sampler = self._made(seed)
        if not isinstance(sampler, BaseSampler):
            raise _refusal(self._given, f", which returned a {type(sampler).__name__}")
        return sampler

    def _made(self, seed: int) -> object:
        make: Any = self._given
        try:
            return make(seed=seed) if isinstance(make, type) else make(seed)
        except FatalError:
            raise
        except Exception as error:
            raise FatalTypeError(
                f"sampler={self._given!r} makes no sampler for a seed ({type(error).__name__}: {error}); "
                f"{_PASS_THE_SEED}"
            ) from error

    def _check_seeds(self, objective: Objective) -> None:
        """Refuse a function that makes no use of its seed: a search could not be resumed as it would go on."""
        first, again, other = (_draw(self.get(seed), objective) for seed in (0, 0, 1))
        if first != again:
            raise FatalValueError(
                f"sampler={self._given!r} draws otherwise each time, for the same seed: {_PASS_THE_SEED}"
            )
        if first == other:
            raise FatalValueError(
                f"sampler={self._given!r} draws the same for every seed, and would for every trial: "
                f"{_PASS_THE_SEED}"
            )


def _draw(sampler: BaseSampler, objective: Objective) -> list[int]:
    """Return what the sampler chooses first in an empty study."""
    study = open_study(RewindableStorage(directions_of(objective)))
    study.sampler = sampler
    try:
        trial = study.ask()
        return [trial.suggest_int(f"aiotune/{name}", 0, 999) for name in ("first", "second")]
    except Exception as error:
        raise FatalRuntimeError(
            f"Optuna's {type(sampler).__name__} finds no point for {objective}: {error}"
        ) from error


def _refusal(given: object, more: str = "") -> FatalTypeError:
    return FatalTypeError(
        f"sampler={given!r}{more}: a class of optuna.samplers is needed, a function of a seed that returns "
        f"a sampler, or a sampler (Optuna {optuna.__version__})"
    )
