"""What one search is to do, apart from the oracle's own options."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiotune.hyperparameters import HyperParameters
from aiotune.layout import Layout
from aiotune.pruners.base import Pruner
from aiotune.resources import Limits, Resources
from aiotune.room import Room, Unlimited
from aiotune.settlement import Policy
from aiotune.trial import Trial

__all__ = ["Hooks", "Plan"]

Hook = Callable[[Trial], Awaitable[None]]


async def _nothing(*_: object) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the tuner's owner wants called in the caller's process, between facts.

    Those that come before something are cancelled where that is not to come: the search ends meanwhile.
    """

    on_trial_begin: Hook = _nothing
    on_trial_end: Hook = _nothing
    pre_create_trial: Callable[[], Awaitable[None]] = _nothing
    on_search_begin: Callable[[], Awaitable[None]] = _nothing


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the files go, how many runs a trial gets, what a run needs, and when the search ends."""

    layout: Layout
    policy: Policy = field(default_factory=Policy)
    limits: Limits = field(default_factory=Limits)
    resources: Resources | Callable[[HyperParameters], Resources] = field(default_factory=Resources)
    pruner: Pruner | None = None
    room: Room = field(default_factory=Unlimited)  # for checkpoints
    has_discovery: bool = False  # the program can tell its names without training
    hooks: Hooks = field(default_factory=Hooks)
    is_simulated: bool = False  # on a virtual clock: no thread is used, no file is written
