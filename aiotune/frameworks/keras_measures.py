"""Metrics that are measured of a Keras model itself, where the objective or a bound names them.

`model_size`: the number of trainable parameters, as `max_model_size` counts them. `latency`: seconds that one
step of `predict` takes on one sample, the median of several after a warm-up, on the device of the run.

They are measured once, as soon as the model is built, before it is trained: of a model that breaks a bound on
them nothing more need be known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from aiotune.clock import SystemClock
from aiotune.constraints import breach_of
from aiotune.errors import FatalValueError, InfeasibleTrialError
from aiotune.frameworks.keras_build import ModelOptions, model_size, require_keras
from aiotune.frameworks.rows import count_rows, take_rows
from aiotune.frameworks.tf_data import is_tf_dataset
from aiotune.objective import MultiObjective

__all__ = ["Measures"]

_WARM_UPS = 3
_FEWEST_STEPS, _MOST_STEPS = 5, 50
_LONGEST_SECONDS = 1.0


class Measures:
    """What is measured of one run's model. `metrics` is empty until it was, or if nothing was asked for.

    x: the data that the model is fitted to, as given to `fit`; a sample of it is read only where the model does
    not say what it takes.
    """

    def __init__(self, options: ModelOptions, x: Any = None) -> None:
        self.metrics: dict[str, float] = {}
        self._bounds = options.bounds
        takers: Mapping[str, Callable[[Any], float]] = {
            "model_size": model_size,
            "latency": partial(_latency, x=x),
        }
        asked = _asked(options)
        self._takers = {name: take for name, take in takers.items() if name in asked}

    def take(self, model: Any) -> None:
        """Measure a model that is built, once. InfeasibleTrialError if it breaks a bound."""
        while self._takers:
            name = next(iter(self._takers))
            self.metrics[name] = float(self._takers.pop(name)(model))
            breach = breach_of(self._bounds, self.metrics)
            if breach is not None:
                raise InfeasibleTrialError(f"{breach}: it was not trained")

    def join(self, logs: dict[str, Any]) -> None:
        """Add them to the logs of an epoch, in place: the History that `fit` returns has them, too."""
        for name, value in self.metrics.items():
            logs.setdefault(name, value)

    def added_to(self, result: Any) -> Any:
        """Return what a `fit` of the user's own returned, a dict of metrics or a number, with these."""
        if self.metrics and isinstance(result, Mapping):
            return {**self.metrics, **result}
        return result


def _asked(options: ModelOptions) -> frozenset[str]:
    """Return the names of the metrics that somebody wants to know."""
    objective = options.objective
    objectives = objective.objectives if isinstance(objective, MultiObjective) else (objective,)
    return frozenset(each.name for each in (*objectives, *options.bounds))


def _latency(model: Any, x: Any) -> float:
    """Return the median seconds of one step of `predict` on one sample."""
    sample, clock = _sample(model, x), SystemClock()
    for _ in range(_WARM_UPS):
        model.predict_on_batch(sample)
    seconds: list[float] = []
    while len(seconds) < _FEWEST_STEPS or (
        len(seconds) < _MOST_STEPS and math.fsum(seconds) < _LONGEST_SECONDS
    ):
        begun = clock.monotonic()
        model.predict_on_batch(sample)
        seconds.append(clock.monotonic() - begun)
    return median(seconds)


def _sample(model: Any, x: Any) -> Any:
    """Return one sample that the model takes: zeros where it says their shape, else the first of the data."""
    inputs = getattr(model, "inputs", None) or ()
    if inputs and all(None not in each.shape[1:] and each.dtype != "string" for each in inputs):
        zeros = [np.zeros((1, *each.shape[1:]), dtype=each.dtype) for each in inputs]
        return zeros[0] if len(zeros) == 1 else zeros
    keras = require_keras()
    if is_tf_dataset(x):
        x = next(iter(x.take(1)))
        x = x[0] if isinstance(x, tuple) else x
    if x is None or any(count_rows(each) in (None, 0) for each in keras.tree.flatten(x)):
        raise FatalValueError(
            "latency cannot be measured: the model does not say the shape of its input, and no sample of the "
            "data is at hand. Begin the model with keras.Input(...), or report a metric of your own"
        )
    return keras.tree.map_structure(lambda each: take_rows(each, np.arange(1)), x)
