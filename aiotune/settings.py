"""The keywords that every tuner takes beyond KerasTuner's."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from aiotune.constraints import as_constraint
from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.executors.base import Executor
from aiotune.folds import as_folds
from aiotune.hyperparameters import HyperParameters
from aiotune.learning.priors import Priors
from aiotune.oracles.base import Oracle
from aiotune.pruners.base import Pruner
from aiotune.recorder import Observer
from aiotune.resources import Limits, Resources, parse_memory

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a search uses the machine. Everything is optional.

    max_concurrent_trials: runs at a time; None: one for each GPU, as many as may share the GPUs, or as many as
    the processor allows.
    gpus: "auto", "require" (an error if there is none), 0 (the processor only), or a list of UUIDs.
    resources: what one run needs, or a function of its hyperparameters that returns that.
    priority: of the searches of this process that wait for devices, the one with the highest comes first; among
    equals the one with fewer runs.
    busy_gpus: "skip" leaves GPUs alone while another program uses their memory, or while runs with
    `gpus="shared"` keep them busy; "use" does not look.
    limits: when the search ends by itself. pruner: a rule that ends trials early which have no chance, such
    as `aiotune.MedianPruner()`; rules are joined with `&` and `|`.
    executor: "auto" (an `async def run_trial` runs in the loop, all else in child processes), "process",
    "inline" (in the caller's thread, blocking it: for a debugger), or an Executor.
    preload: modules that the fork server imports before it forks; None: found out.
    setup: a function without arguments that each child calls first of all user code, to set up its world.
    start_method: "fork" (from a server that has the frameworks imported; Linux), "spawn" (a new interpreter
    for each run), "auto": fork where that is safe.
    grace_seconds: what a run that is asked to stop may take for its current batch and its checkpoint.
    checkpoint_every: seconds between two states of a Keras model in training, at least, that a run goes on from
    after a crash; rarer where writing takes long. 0: after each epoch.
    keep_checkpoints: "best:3", or 3: of so many best trials, and of those that are not over. "promotable": only
    of the latter, what a promotion or a retry needs. "all": of every trial. "none": as "promotable", for tuners
    that promote nothing.
    max_disk: what all checkpoints of the project may take, in bytes or as "20GB". Beyond it the worst that are
    kept go first, never the best one; then those of the trials least likely to be promoted, which begin
    anew if they are; if that does not suffice, no new run starts until there is room.
    durability: "process" (facts survive `kill -9`), "full" (they survive a power loss, at the price of a disk
    flush for each).
    observers: functions `(event, history)` that are shown every fact; they must not block.
    folds: cross-validation of each point, a run for each fold: how many (2 or more), a scikit-learn splitter,
    or a list of (train, test) pairs of row numbers.
    constraint: what trials must fulfil. A function of the hyperparameters that returns True or False: no point
    is tried that it refuses. `aiotune.AtMost("latency", 0.02)`, `aiotune.AtLeast("val_recall", 0.9)`: a trial
    whose final metrics are beyond is INFEASIBLE. Or a list of these.
    priors: where good values are believed to lie, by name: `aiotune.Near(1e-3, factor=10)`,
    `aiotune.Near(128, within=64)`, or a weight for each option, `{"adam": 3, "sgd": 1}`.
    """

    max_concurrent_trials: int | None = None
    gpus: Literal["auto", "require", 0] | Sequence[str] = "auto"
    resources: Resources | Callable[[HyperParameters], Resources] = field(default_factory=Resources)
    priority: int = 0
    busy_gpus: Literal["skip", "use"] = "skip"
    limits: Limits = field(default_factory=Limits)
    pruner: Pruner | None = None
    executor: Literal["auto", "inline", "process"] | Executor = "auto"
    preload: Sequence[str] | None = None
    setup: Callable[[], object] | None = None
    start_method: Literal["auto", "fork", "spawn"] = "auto"
    grace_seconds: float = 10.0
    checkpoint_every: float = 10.0
    keep_checkpoints: int | str = 10
    max_disk: int | str | None = None
    durability: Literal["process", "full"] = "process"
    observers: Sequence[Observer] = ()
    folds: Any = None
    constraint: Any = None
    priors: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        # A generator of splits gives them once only.
        object.__setattr__(self, "folds", as_folds(self.folds))
        as_constraint(self.constraint)  # for their errors
        Priors(self.priors or {})
        self._check_kinds()
        self._check_values()
        self._check_contradictions()

    def _check_kinds(self) -> None:
        _check_count("max_concurrent_trials", self.max_concurrent_trials)
        _check_keep(self.keep_checkpoints)
        self._check_disk()
        if not isinstance(self.limits, Limits):
            raise FatalTypeError(f"limits={self.limits!r}: pass aiotune.Limits(max_time=..., ...)")
        if self.pruner is not None and not isinstance(self.pruner, Pruner):
            raise FatalTypeError(
                f"pruner={self.pruner!r}: pass one of aiotune's, such as aiotune.MedianPruner(), or a subclass "
                "of aiotune.Pruner"
            )
        if self.setup is not None and not callable(self.setup):
            raise FatalTypeError(
                f"setup={self.setup!r}: pass a function without arguments, not its result"
            )
        if inspect.iscoroutinefunction(self.setup):
            raise FatalTypeError(
                "setup is an async function, but it is called in child processes without an event loop: write "
                "`def`"
            )
        if not (isinstance(self.resources, Resources) or callable(self.resources)):
            raise FatalTypeError(
                f"resources={self.resources!r}: pass aiotune.Resources(gpus=..., ...)"
            )
        if isinstance(self.priority, bool) or not isinstance(self.priority, int):
            raise FatalTypeError(f"priority={self.priority!r}: a whole number is needed")

    def _check_disk(self) -> None:
        if self.max_disk is not None and not self.max_disk_bytes:
            raise FatalValueError(f'max_disk={self.max_disk!r}: it must be above 0, such as "20GB"')

    @property
    def max_disk_bytes(self) -> int | None:
        """Bytes that all checkpoints may take; None: no limit. FatalValueError if it is no amount."""
        if self.max_disk is None:
            return None
        try:
            return parse_memory(self.max_disk)
        except FatalValueError as error:
            raise FatalValueError(
                f'max_disk={self.max_disk!r}: write bytes as an int, or "20GB", "500MiB"'
            ) from error

    def _check_values(self) -> None:
        words = ("auto", "process", "inline")
        if not (isinstance(self.executor, Executor) or self.executor in words):
            raise FatalValueError(
                f'executor={self.executor!r}: "auto", "process" or "inline" is needed'
            )
        if self.start_method not in ("auto", "fork", "spawn"):
            raise FatalValueError(
                f'start_method={self.start_method!r}: "auto", "fork" or "spawn" is needed'
            )
        if self.durability not in ("process", "full"):
            raise FatalValueError(f'durability={self.durability!r}: "process" or "full" is needed')
        if self.busy_gpus not in ("skip", "use"):
            raise FatalValueError(f'busy_gpus={self.busy_gpus!r}: "skip" or "use" is needed')
        if not self.grace_seconds > 0:
            raise FatalValueError(f"grace_seconds={self.grace_seconds!r}: it must be above 0")
        if not self.checkpoint_every >= 0:
            raise FatalValueError(
                f"checkpoint_every={self.checkpoint_every!r}: it must be 0 or more seconds"
            )

    def _check_contradictions(self) -> None:
        if self.gpus == 0 and isinstance(self.resources, Resources):
            for name, asked in (
                ("gpus", self.resources.gpus),
                ("gpu_memory", self.resources.gpu_memory),
            ):
                if asked:
                    raise FatalValueError(
                        f"gpus=0 contradicts resources=Resources({name}=...): drop one of them"
                    )
        if self.gpus == 0 and self.busy_gpus != "skip":
            raise FatalValueError("busy_gpus=... has no effect with gpus=0: drop one of them")
        self._check_gpu_limits()
        self._check_children()

    def _check_gpu_limits(self) -> None:
        """Refuse limits of GPUs where none is wanted. Where there just is none, the search warns."""
        asks_none = isinstance(self.resources, Resources) and self.resources.gpus == 0
        if self.gpus != 0 and not asks_none:
            return
        what = "gpus=0" if self.gpus == 0 else "Resources(gpus=0)"
        for name in ("max_gpu_hours", "max_energy"):
            if getattr(self.limits, name) is not None:
                raise FatalValueError(
                    f"Limits({name}=...) has no effect with {what}: drop one of them"
                )

    def inform(self, oracle: Oracle) -> None:
        """Give the oracle what the user knows beforehand. What the settings leave out stays as it is."""
        if self.constraint is not None:
            oracle.constraint, oracle.bounds = as_constraint(self.constraint)
        if self.priors is not None:
            oracle.priors = Priors(self.priors)

    @property
    def for_children(self) -> list[str]:
        """The names of the settings given that only child processes take."""
        given = {
            "preload": self.preload is not None,
            "setup": self.setup is not None,
            "start_method": self.start_method != "auto",
        }
        return [name for name, is_given in given.items() if is_given]

    def _check_children(self) -> None:
        """Refuse what only children take, where there are none."""
        idle = self.for_children
        if self.executor == "inline" and idle:
            raise FatalValueError(
                f'{idle[0]} is for child processes and has no effect with executor="inline": drop it'
            )
        if self.start_method == "spawn" and self.preload is not None:
            raise FatalValueError('preload has no effect with start_method="spawn": drop it')

    @classmethod
    def names(cls) -> list[str]:
        """Return the keywords."""
        return [each.name for each in fields(cls)]

    @classmethod
    def of(cls, keywords: Mapping[str, Any], known: Sequence[str] = ()) -> Settings:
        """Return settings from a tuner's keywords; FatalTypeError for one that is not known.

        `known` are the tuner's other keywords: they only help to name what was meant.
        """
        names = cls.names()
        for name in keywords:
            if name not in names:
                close = difflib.get_close_matches(name, [*names, *known], n=1)
                hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(names)}"
                raise FatalTypeError(f"a tuner takes no keyword {name!r}; {hint}")
        given = {name: value for name, value in keywords.items() if value is not None}
        return cls(**given)


def _check_keep(keep: object) -> None:
    if not isinstance(keep, str):
        return _check_count("keep_checkpoints", keep)
    if keep in ("promotable", "all", "none"):
        return None
    kind, _, number = keep.partition(":")
    if kind != "best":
        raise FatalTypeError(
            f'keep_checkpoints={keep!r}: a number is needed, or "best:3", "promotable", "all" or "none"'
        )
    if not (number.isascii() and number.isdecimal() and int(number) >= 1):
        raise FatalValueError(
            f'keep_checkpoints={keep!r}: write "best:3" for those of the three best trials, 1 or more'
        )
    return None


def _check_count(name: str, value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise FatalTypeError(f"{name}={value!r}: a whole number is needed")
    if value < 1:
        raise FatalValueError(f"{name}={value}: it must be 1 or more")
