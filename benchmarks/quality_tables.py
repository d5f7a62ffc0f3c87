"""Tasks that are real models, recorded once: every point of a finite grid with the loss that it had.

The files in `quality/tables` are made by `quality_record.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from quality_tasks import Hyper, Kind, Task

__all__ = ["TABLES", "Point", "Table"]

Point = Mapping[str, Any]

_FOLDER = Path(__file__).parent / "quality" / "tables"


@dataclass(frozen=True, slots=True)
class Table:
    """A grid with a loss at each point.

    declare: asks for the names of a point and returns their values. points: all of them, in a fixed order,
    which is that of the losses in the file.
    """

    name: str
    kind: Kind
    declare: Callable[[Any], Point]
    points: Callable[[], Iterator[Point]]

    @property
    def path(self) -> Path:
        return _FOLDER / f"{self.name}.json"

    def task(self) -> Task:
        """Return the task that looks its values up. FileNotFoundError if the table was not recorded."""
        losses = json.loads(self.path.read_text())["losses"]
        points = list(self.points())
        found = {_key(point): loss for point, loss in zip(points, losses, strict=True)}
        best = min(points, key=lambda point: found[_key(point)])
        declare = self.declare

        def program(hp: Hyper) -> float:
            return float(found[_key(declare(hp))])

        return Task(self.name, self.kind, program, min(losses), best)


def _key(point: Point) -> tuple[tuple[str, Any], ...]:
    # Steps of a Float are sums that differ in the last digit.
    rounded = ((name, round(v, 6) if isinstance(v, float) else v) for name, v in point.items())
    return tuple(sorted(rounded))


def _grid(**axes: Any) -> Iterator[Point]:
    """Yield every combination; the last axis changes fastest."""
    for values in product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


# --- a support vector machine on handwritten digits: share of errors ---


def _svm(hp: Hyper) -> Point:
    kernel = hp.Choice("kernel", ["rbf", "poly", "sigmoid"])
    point = {
        "kernel": kernel,
        "log2_c": hp.Int("log2_c", -5, 10),
        "log2_gamma": hp.Int("log2_gamma", -10, 4),
    }
    with hp.conditional_scope("kernel", ["poly"]):
        degree = hp.Int("degree", 2, 4)
    return point if kernel != "poly" else {**point, "degree": degree}


def _svm_points() -> Iterator[Point]:
    axes = {"log2_c": range(-5, 11), "log2_gamma": range(-10, 5)}
    yield from _grid(kernel=["rbf", "sigmoid"], **axes)
    yield from _grid(kernel=["poly"], **axes, degree=range(2, 5))


# --- boosted trees on the diabetes set: root of the mean squared error, in standard deviations ---


def _gbr(hp: Hyper) -> Point:
    return {
        "max_depth": hp.Int("max_depth", 1, 4),
        "log2_rate": hp.Int("log2_rate", -7, -1),
        "subsample": hp.Float("subsample", 0.4, 1.0, step=0.2),
        "min_samples_leaf": hp.Int("min_samples_leaf", 1, 21, step=10),
        "n_estimators": hp.Int("n_estimators", 20, 160, step=20),
    }


def _gbr_points() -> Iterator[Point]:
    return _grid(
        max_depth=range(1, 5),
        log2_rate=range(-7, 0),
        subsample=(0.4, 0.6, 0.8, 1.0),
        min_samples_leaf=range(1, 22, 10),
        n_estimators=range(20, 161, 20),
    )


# --- scikit-learn's neural network on the wine set: log loss ---


def _mlp(hp: Hyper) -> Point:
    return {
        "activation": hp.Choice("activation", ["relu", "tanh", "logistic"]),
        "log2_rate": hp.Int("log2_rate", -13, -3),
        "log10_alpha": hp.Int("log10_alpha", -5, 0),
        "log2_units": hp.Int("log2_units", 2, 6),
        "log2_batch": hp.Int("log2_batch", 3, 5),
    }


def _mlp_points() -> Iterator[Point]:
    return _grid(
        activation=["relu", "tanh", "logistic"],
        log2_rate=range(-13, -2),
        log10_alpha=range(-5, 1),
        log2_units=range(2, 7),
        log2_batch=range(3, 6),
    )


# --- a Keras model on handwritten digits: log loss ---


def _keras(hp: Hyper) -> Point:
    return {
        "optimizer": hp.Choice("optimizer", ["adam", "rmsprop", "sgd"]),
        "log2_units": hp.Int("log2_units", 4, 7),
        "dropout": hp.Float("dropout", 0.0, 0.4, step=0.2),
        "log2_batch": hp.Int("log2_batch", 5, 6),
        "log2_rate": hp.Int("log2_rate", -12, -2, step=2),
    }


def _keras_points() -> Iterator[Point]:
    return _grid(
        optimizer=["adam", "rmsprop", "sgd"],
        log2_units=range(4, 8),
        dropout=(0.0, 0.2, 0.4),
        log2_batch=range(5, 7),
        log2_rate=range(-12, -1, 2),
    )


TABLES = (
    Table("svm_digits", Kind.CONDITIONAL, _svm, _svm_points),
    Table("gbr_diabetes", Kind.ORDINARY, _gbr, _gbr_points),
    Table("mlp_wine", Kind.ORDINARY, _mlp, _mlp_points),
    Table("keras_digits", Kind.ORDINARY, _keras, _keras_points),
)
