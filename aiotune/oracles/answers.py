"""What an oracle answers to the question what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aiotune.space import Scalar
from aiotune.trial import Budget

__all__ = ["Answer", "Exhausted", "Promote", "Retire", "Suggest", "Wait"]


@dataclass(frozen=True, slots=True)
class Suggest:
    """A new trial at `values`.

    Names that the program declares beyond them get their value from (seed, `stream`, name), and so do the
    seeds of its runs: a trial's chance depends on nothing else, however many run beside it.

    parent: a trial that is paused where `budget` begins. The new one goes on from its training state.
    """

    values: Mapping[str, Scalar]
    stream: int
    budget: Budget | None = None
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class Promote:
    """A further run of a paused trial, up to a larger budget."""

    trial_id: str
    budget: Budget


@dataclass(frozen=True, slots=True)
class Retire:
    """A paused trial that will never be promoted: it ends COMPLETED, and its checkpoints need not stay."""

    trial_id: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to propose before something that is in flight ends. Never an answer with nothing in flight."""


@dataclass(frozen=True, slots=True)
class Exhausted:
    """Nothing more to propose, ever. `message` says why, if not every point of the space was tried."""

    message: str | None = None


Answer = Suggest | Promote | Retire | Wait | Exhausted
