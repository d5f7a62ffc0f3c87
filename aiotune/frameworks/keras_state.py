"""The variables of a model and of its optimizer on disk, and back into a model: every bit of them.

Dropout's seeds are among the model's variables, and a learning rate that a callback changed among the
optimizer's. A model is always built anew and its variables assigned: Keras's own files lack the seeds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aiotune.frameworks.array_file import ArrayFile, write_arrays
from aiotune.frameworks.keras_build import require_keras

__all__ = [
    "StateMismatch",
    "build_config",
    "build_from",
    "restore_model",
    "why_inexact",
    "write_model",
]

Array = np.ndarray[Any, Any]

# What `build` sets for its hyperparameters and a state of other ones must not undo.
_SETTINGS = frozenset({"learning_rate"})


class StateMismatch(ValueError):
    """A state belongs to a model of another kind."""


def write_model(
    path: Path, model: Any, record: dict[str, Any] | None = None, arrays: Iterable[Array] = ()
) -> None:
    """Write a model's variables, with a record and arrays of the caller's own after them."""
    variables, slots = _variables(model), _optimizer_variables(model)
    content = {
        "build": build_config(model),
        "variables": len(variables),
        "optimizer": [each.name for each in slots],
        "record": record or {},
    }
    write_arrays(path, content, (*_arrays(variables), *_arrays(slots), *arrays))


def restore_model(model: Any, file: ArrayFile, *, is_foreign: bool = False) -> list[Array]:
    """Assign a file's variables to a model, built if it is not yet; return the arrays after them.

    is_foreign: the state was reached with other hyperparameters. Then the learning rate stays as the model was
    compiled, and an optimizer of another kind begins anew. StateMismatch if the model is of another kind; it is
    then as it was.
    """
    build_from(model, file.record["build"])
    values = file.arrays()
    count, names = file.record["variables"], file.record["optimizer"]
    own, slots, rest = values[:count], values[count:][: len(names)], values[count + len(names) :]
    variables = _variables(model)
    _require_shapes(variables, own)
    _restore_optimizer(model, names, slots, is_foreign=is_foreign)
    for variable, value in zip(variables, own, strict=True):
        variable.assign(value)
    return rest


def why_inexact(model: Any) -> str | None:
    """Return in words what of a model's state is not in its file; None if nothing is known of that."""
    kind = require_keras().optimizers.Optimizer
    own = getattr(model, "optimizer", None)
    others = [
        name for name, each in vars(model).items() if isinstance(each, kind) and each is not own
    ]
    if not others:
        return None
    return f"the optimizers {', '.join(others)}, which the model has beside the compiled one, begin anew"


def build_from(model: Any, config: Any) -> None:
    """Create the variables that values are loaded into, the optimizer's included. config: the input shapes."""
    if not model.built and config is not None:
        model.build_from_config(_shapes(config))
        model.built = True  # Keras marks it so when it does the same; loading checks each layer
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None and not optimizer.built:
        optimizer.build(model.trainable_variables)


def build_config(model: Any) -> Any:
    """Return the model's input shapes as JSON values, tuples marked as Keras marks them.

    None where a custom `get_build_config` returns what JSON cannot hold: such a model must build itself.
    """
    try:
        config = require_keras().saving.serialize_keras_object(model.get_build_config())
        _shapes(json.loads(json.dumps(config)))
    except (TypeError, ValueError):
        return None
    return config


def _shapes(config: Any) -> Any:
    """Return shapes from what a file says of them. ValueError for anything else.

    Keras itself would import what a file names, and make objects of it: here are numbers, names and tuples.
    """
    match config:
        case None | bool() | int() | float() | str():
            return config
        case list() | tuple():
            return [_shapes(each) for each in config]
        case {"class_name": "__tuple__", "items": list(items)}:
            return tuple(_shapes(each) for each in items)
        case dict() if "class_name" not in config:
            return {name: _shapes(each) for name, each in config.items()}
        case _:
            raise ValueError(f"{config!r:.100} is no shape of an input")


def _variables(model: Any) -> list[Any]:
    return list(model.variables)


def _optimizer_variables(model: Any) -> list[Any]:
    optimizer = getattr(model, "optimizer", None)
    return list(optimizer.variables) if optimizer is not None and optimizer.built else []


def _arrays(variables: Iterable[Any]) -> Iterator[Array]:
    for variable in variables:
        yield np.asarray(variable.numpy())


def _require_shapes(variables: Sequence[Any], values: Sequence[Array]) -> None:
    shapes = [tuple(each.shape) for each in variables]
    saved = [each.shape for each in values]
    if shapes == saved:
        return
    if len(shapes) != len(saved):
        raise StateMismatch(f"the model has {len(shapes)} variables, and {len(saved)} were saved")
    name, shape, other = next(
        (variable.path, shape, other)
        for variable, shape, other in zip(variables, shapes, saved, strict=True)
        if shape != other
    )
    raise StateMismatch(f"{name} has the shape {shape}, and {other} was saved")


def _restore_optimizer(
    model: Any, names: Sequence[str], values: Sequence[Array], *, is_foreign: bool
) -> None:
    """Assign the optimizer's variables; one of another kind, which a program may choose, begins anew."""
    variables = _optimizer_variables(model)
    shapes = [(each.name, tuple(each.shape)) for each in variables]
    if shapes != [(name, each.shape) for name, each in zip(names, values, strict=True)]:
        return
    for variable, value in zip(variables, values, strict=True):
        if not (is_foreign and variable.name in _SETTINGS):
            variable.assign(value)
