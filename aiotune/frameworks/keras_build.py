"""From hyperparameters to a Keras model that can be trained: build, compile overrides, checks."""

from __future__ import annotations

import inspect
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from aiotune.constraints import Bound
from aiotune.errors import (
    FatalTypeError,
    FatalValueError,
    InfeasibleTrialError,
    MissingFramework,
)
from aiotune.executors.keras_settings import SessionSettings, backend_by
from aiotune.executors.libraries import seed_keras
from aiotune.hypermodel import HyperModel, defines_fit
from aiotune.hyperparameters import HyperParameters
from aiotune.objective import Objective

__all__ = [
    "ModelOptions",
    "build_model",
    "configured_backend",
    "distributed",
    "model_size",
    "require_arguments",
    "require_compiled",
    "require_keras",
    "require_size",
]

OLDEST_KERAS = (3, 5)


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """What a tuner was told about its models. `optimizer`, `loss`, `metrics` override the model's own.

    `max_model_size` is a number of trainable parameters. `distribution` makes a `tf.distribute` strategy or a
    `keras.distribution` one. `checkpoint_every`: how often a state is written to go on from after a crash.
    """

    objective: Objective
    max_model_size: int | None = None
    optimizer: Any = None
    loss: Any = None
    metrics: Any = None
    distribution: Callable[[], Any] | None = None
    bounds: tuple[Bound, ...] = ()  # on metrics
    checkpoint_every: float = 10.0  # seconds, at least
    is_durable: bool = False  # checkpoints survive a loss of power

    @property
    def overrides(self) -> dict[str, Any]:
        """The arguments of `compile` that replace the model's own."""
        given = {"optimizer": self.optimizer, "loss": self.loss, "metrics": self.metrics}
        return {name: value for name, value in given.items() if value is not None}


def require_keras() -> ModuleType:
    """Import Keras and return it. MissingFramework, with the extra to install, where that fails."""
    try:
        import keras
    except ImportError as error:
        raise MissingFramework(f"Keras cannot be imported ({error}); {_install_hint()}") from error
    version = tuple(int(part) for part in keras.__version__.split(".")[:2])
    if version < OLDEST_KERAS:
        raise MissingFramework(
            f"Keras {keras.__version__} is installed, but aiotune needs 3.5 or newer; "
            f"{_install_hint()}"
        )
    return keras  # type: ignore[no-any-return]


@contextmanager
def distributed(options: ModelOptions) -> Iterator[None]:
    """Make the distribution that the tuner was given, if any; models inside are built and trained by it.

    Without this, models of such options are not distributed, and Keras's state is not cleared for them.
    """
    if options.distribution is None:
        yield
        return
    _start_afresh(require_keras())  # now: clearing inside of the scope would break it
    distribution = options.distribution()
    if not callable(getattr(distribution, "scope", None)):
        raise FatalTypeError(
            f"distribution_strategy() returned {type(distribution).__name__}, which has no scope(): return a "
            "tf.distribute strategy, or a distribution of keras.distribution"
        )
    with distribution.scope():
        yield


def build_model(
    hypermodel: HyperModel, hp: HyperParameters, options: ModelOptions, *, seed: int | None = None
) -> Any:
    """Return the model for `hp`, compiled with the tuner's overrides.

    `seed`, if given, becomes the seed of Python, numpy and the framework. FatalTypeError if `build` returns no
    model, InfeasibleTrialError if the model is larger than allowed.
    """
    keras = require_keras()
    if options.distribution is None:
        _start_afresh(keras)
    if seed is not None:
        seed_keras(keras, seed)
    model = hypermodel.build(hp)
    if not isinstance(model, keras.Model):
        raise FatalTypeError(_not_a_model(model))
    if options.overrides:
        _recompile(keras, model, options.overrides)
    require_size(model, options.max_model_size)
    return model


def require_size(model: Any, limit: int | None) -> None:
    """Raise InfeasibleTrialError if the model has more trainable parameters than `limit`.

    A model that is not built yet has none to count: ask again once training has built it.
    """
    if limit is None:
        return
    size = model_size(model)
    if size > limit:
        raise InfeasibleTrialError(
            f"the model has {size} trainable parameters, more than max_model_size={limit}"
        )


def model_size(model: Any) -> int:
    """Return how many trainable parameters a model has, as far as it is built."""
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def require_compiled(hypermodel: HyperModel, model: Any) -> None:
    """Raise FatalValueError for a model that Keras's own `fit` would refuse."""
    keras = require_keras()
    uses_keras_fit = not defines_fit(hypermodel) and type(model).fit is keras.Model.fit
    if uses_keras_fit and not model.compiled:
        raise FatalValueError(
            "the model is not compiled: call model.compile(...) in build before `return model`, "
            "or pass optimizer= and loss= to the tuner"
        )


def require_arguments(
    method: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], call: str
) -> None:
    """Raise FatalTypeError for arguments of `call` that the model's method does not take."""
    signature = inspect.signature(method)
    try:
        signature.bind_partial(*args, **kwargs)
    except TypeError as error:
        takes = ", ".join(signature.parameters)
        raise FatalTypeError(
            f"{call} passes its arguments to model.{method.__name__}: {error}; it takes {takes}"
        ) from error


def _start_afresh(keras: ModuleType) -> None:
    """Clear Keras's state, so that generated names begin anew, but not the settings it drops as well."""
    policy = keras.config.dtype_policy()
    distribution = keras.distribution.distribution()
    settings = SessionSettings.current(keras)
    keras.utils.clear_session(free_memory=False)
    keras.config.set_dtype_policy(policy)
    settings.apply(keras)
    if distribution is not None:
        keras.distribution.set_distribution(distribution)


def _not_a_model(result: object) -> str:
    kind = type(result)
    if result is None:
        remedy = "did you forget `return model`?"
    elif kind.__module__.startswith("tf_keras"):
        remedy = "it is a model of tf_keras (Keras 2); build it with `keras`, version 3"
    else:
        remedy = "return a keras.Model"
    return f"build returned {kind.__name__}: {remedy}"


def _recompile(keras: ModuleType, model: Any, overrides: Mapping[str, Any]) -> None:
    """Compile the model again: the overrides, and everything else as it was."""
    arguments = {**_compile_arguments(keras, model), **overrides}
    if isinstance(arguments.get("optimizer"), keras.optimizers.Optimizer):
        # A new one for each model: an optimizer belongs to the variables that it was built for.
        optimizer = arguments["optimizer"]
        arguments["optimizer"] = type(optimizer).from_config(optimizer.get_config())
    model.compile(**arguments)


def _compile_arguments(keras: ModuleType, model: Any) -> dict[str, Any]:
    """Return what the model was compiled with, as the objects themselves where Keras still has them.

    A configuration cannot bring back a custom loss or metric that is not registered with Keras.
    """
    if not model.compiled:
        return {}
    recorded = getattr(getattr(model, "_compile_config", None), "config", None)
    if isinstance(recorded, dict):
        return dict(recorded)
    return dict(keras.saving.deserialize_keras_object(model.get_compile_config()))


def _install_hint() -> str:
    return f'run: pip install "aiotune[{configured_backend()}]"'


def configured_backend() -> str:
    """Return the backend of a Keras that is loaded, else the one that it would use."""
    config: Any = getattr(sys.modules.get("keras"), "config", None)
    return str(config.backend()) if hasattr(config, "backend") else backend_by(os.environ)
