"""How a point learns, and how long it takes: what a simulated run follows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.trial import FailureKind

__all__ = ["Curve"]


@dataclass(frozen=True, slots=True)
class Curve:
    """The metrics of one point by epoch, and the time that its training takes.

        Curve({"val_accuracy": [0.61, 0.74, 0.79]}, seconds=20)
        Curve(lambda epoch: {"val_loss": 0.2 + 1 / (epoch + 1)}, seconds=20, startup=8)

    metrics: by name, a value for each epoch; or a function of the epoch, counted from 0, that returns them by
    name, for any number of epochs. seconds: of one epoch, or of each. startup: seconds that each run takes
    before its first epoch, also one that goes on after a promotion. breaks_at: an epoch in which the training
    breaks; `failure` says how ("crash", "out of memory", "user error", ...). An objective that is NaN fails the
    trial, too.
    """

    metrics: Mapping[str, Sequence[float]] | Callable[[int], Mapping[str, float]]
    seconds: float | Sequence[float] = 1.0
    startup: float = 0.0
    breaks_at: int | None = None
    failure: str = FailureKind.CRASH

    def __post_init__(self) -> None:
        if not callable(self.metrics):
            self._check_metrics(self.metrics)
        for each in self._all_seconds():
            if not (each >= 0 and math.isfinite(each)):
                raise FatalValueError(
                    f"Curve: seconds={self.seconds!r}, startup={self.startup!r}: times must be finite, and "
                    "0 or more"
                )
        if self.failure not in list(FailureKind):
            known = ", ".join(repr(each.value) for each in FailureKind)
            raise FatalValueError(f"Curve(failure={self.failure!r}): there are {known}")

    def _check_metrics(self, metrics: object) -> None:
        if not isinstance(metrics, Mapping) or not metrics:
            raise FatalTypeError(
                'Curve needs {"name": [value of each epoch]} or a function of the epoch, not '
                f"{metrics!r:.100}"
            )
        lengths = {name: len(values) for name, values in metrics.items()}
        if len({*lengths.values()}) > 1 or 0 in lengths.values():
            raise FatalValueError(
                f"Curve: each metric needs as many epochs as the others, and one at least: {lengths}"
            )

    def _all_seconds(self) -> Sequence[float]:
        seconds = self.seconds
        return [*seconds, self.startup] if isinstance(seconds, Sized) else [seconds, self.startup]

    @property
    def epochs(self) -> int | None:
        """How many epochs it has; None: any number."""
        known = [] if callable(self.metrics) else [len(each) for each in self.metrics.values()]
        if isinstance(self.seconds, Sized):
            known.append(len(self.seconds))
        return min(known) if known else None

    def at(self, epoch: int) -> dict[str, float]:
        """Return the metrics of an epoch, counted from 0."""
        if callable(self.metrics):
            return {name: float(value) for name, value in self.metrics(epoch).items()}
        return {name: float(values[epoch]) for name, values in self.metrics.items()}

    def seconds_of(self, epoch: int) -> float:
        """Return how long an epoch takes."""
        return float(self.seconds[epoch] if isinstance(self.seconds, Sized) else self.seconds)
