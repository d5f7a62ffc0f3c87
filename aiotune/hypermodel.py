"""HyperModel: a model as a function of its hyperparameters, with an optional `fit` of its own.

A build function is enough for most searches; subclass `HyperModel` to keep parameters, or to tune training:

    class Digits(HyperModel):
        def build(self, hp):
            model = keras.Sequential([keras.layers.Dense(hp.Int("units", 32, 256, step=32)), ...])
            model.compile(...)
            return model

        def fit(self, hp, model, *args, **kwargs):
            return model.fit(*args, batch_size=hp.Choice("batch_size", [16, 32, 64]), **kwargs)
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from aiotune.errors import FatalTypeError
from aiotune.hyperparameters import HyperParameters

__all__ = [
    "DefaultHyperModel",
    "HyperModel",
    "as_hypermodel",
    "defines_fit",
    "require_fit_takes",
]


def _respecting_tunable(build: Callable[..., Any]) -> Callable[..., Any]:
    """Return `build`, given a copy of the hyperparameters where the HyperModel is not tunable."""

    @functools.wraps(build)
    def respecting_tunable(self: HyperModel, hp: HyperParameters, *args: Any, **kwargs: Any) -> Any:
        return build(self, hp if self.tunable else _untracked(hp), *args, **kwargs)

    return respecting_tunable


def _untracked(hp: HyperParameters) -> HyperParameters:
    """Return a copy that nobody searches: known values hold, every other name takes its default."""
    return HyperParameters(space=hp.space, values=dict(hp.values))


class HyperModel:
    """Builds models, and trains them. Subclasses define `build`; they need not call `super().__init__()`.

    `tunable=False` builds with the values and defaults as they are: its names join no search space.
    """

    # On the class, so that a subclass without `super().__init__()` has them, too.
    name: str | None = None
    tunable: bool = True

    def __init__(self, name: str | None = None, tunable: bool = True) -> None:
        self.name = name
        self.tunable = tunable

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Here and not in `__init__`: a bound method kept on the instance would tie it up for pickling.
        if "build" in cls.__dict__:
            cls.build = _respecting_tunable(cls.__dict__["build"])  # type: ignore[method-assign]

    def build(self, hp: HyperParameters) -> Any:
        """Return a new, compiled model for the values of `hp`."""
        raise NotImplementedError(f"{type(self).__name__} must define build(self, hp)")

    def declare_hyperparameters(self, hp: HyperParameters) -> None:
        """Declare names before the first build, where `build` alone does not reach them all."""

    def fit(self, hp: HyperParameters, model: Any, *args: Any, **kwargs: Any) -> Any:
        """Train the model; `args` and `kwargs` are those of `search()`, and `callbacks`.

        Return a number, a dict of metrics, or what `model.fit` returns. Pass `callbacks` on to `model.fit`:
        through them epochs are reported, the best weights kept, and a stop takes effect.
        """
        return model.fit(*args, **kwargs)


class DefaultHyperModel(HyperModel):
    """A build function as a HyperModel."""

    def __init__(
        self, build: Callable[[HyperParameters], Any], name: str | None = None, tunable: bool = True
    ) -> None:
        super().__init__(name=name, tunable=tunable)
        self.build_function = build

    def build(self, hp: HyperParameters) -> Any:
        return self.build_function(hp)


def as_hypermodel(hypermodel: object) -> HyperModel | None:
    """Return the argument as a HyperModel: None, a HyperModel, or a function of the hyperparameters.

    FatalTypeError for anything else, with what to pass instead.
    """
    match hypermodel:
        case None | HyperModel():
            return hypermodel
        case type() if issubclass(hypermodel, HyperModel):
            name = hypermodel.__name__
            raise FatalTypeError(f"hypermodel={name} is a class; pass an instance: {name}()")
        case _ if _is_keras_model(hypermodel):
            raise FatalTypeError(
                f"hypermodel is one finished model ({type(hypermodel).__name__}); pass the function "
                "that builds it: def build(hp): ...; return model"
            )
        case _ if inspect.iscoroutinefunction(hypermodel):
            raise FatalTypeError(
                "hypermodel is an async function, but models are built in a child process without "
                "an event loop; write `def build(hp)`"
            )
        case _ if callable(hypermodel):
            return DefaultHyperModel(hypermodel)
        case _:
            raise FatalTypeError(
                "hypermodel must be a function of the hyperparameters that returns a model, or a "
                f"HyperModel; it is a {type(hypermodel).__name__}"
            )


def defines_fit(hypermodel: HyperModel) -> bool:
    """Return whether it trains in its own way: then names may be met in `fit`, too."""
    return "fit" in vars(hypermodel) or type(hypermodel).fit is not HyperModel.fit


def require_fit_takes(
    hypermodel: HyperModel | None,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    call: str = "search()",
) -> None:
    """Raise FatalTypeError for arguments of the call that a `fit` of the user's own does not take."""
    if hypermodel is None or not defines_fit(hypermodel):
        return
    signature = inspect.signature(hypermodel.fit)
    try:
        signature.bind(None, None, *args, **{"callbacks": [], **kwargs})
    except TypeError as error:
        raise FatalTypeError(
            f"{call} passes its arguments, and `callbacks`, to {type(hypermodel).__name__}.fit{signature}: "
            f"{error}"
        ) from error


def _is_keras_model(value: object) -> bool:
    """Tell by name, so that no framework need be imported. Keras models are callable."""
    if isinstance(value, type):
        return False  # a model class that takes `hp` builds one model for each point
    return any(
        kind.__name__ == "Model" and kind.__module__.split(".")[0] in {"keras", "tf_keras"}
        for kind in type(value).__mro__
    )
