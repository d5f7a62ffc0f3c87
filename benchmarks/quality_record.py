"""Records the tables of `quality_tables`: trains the model at every point of its grid.

    python benchmarks/quality_record.py [NAME ...]

All of them take about a quarter of an hour on one core. The files are committed: make them again only if a grid
is changed.
"""

from __future__ import annotations

import argparse
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

os.environ.setdefault("KERAS_BACKEND", "jax")  # before Keras is imported

from quality_tables import TABLES, Point, Table

if TYPE_CHECKING:
    import numpy as np

_DIGITS = 5  # significant ones


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all tables")
    names = parser.parse_args().names
    for table in TABLES:
        if not names or table.name in names:
            record(table)


def record(table: Table) -> None:
    """Write the table's file: one loss for each point."""
    losses = [float(f"{loss:.{_DIGITS}g}") for loss in _RECORDERS[table.name](table.points())]
    content = {"table": table.name, "versions": _versions(), "losses": losses}
    table.path.parent.mkdir(parents=True, exist_ok=True)
    table.path.write_text(json.dumps(content, separators=(",", ":")) + "\n")
    print(f"{table.name}: {len(losses)} points, {min(losses)} to {max(losses)}", flush=True)


def _versions() -> Mapping[str, str]:
    return {name: version(name) for name in ("scikit-learn", "keras", "jax", "numpy")}


def _svm_digits(points: Iterator[Point]) -> Iterator[float]:
    """Yield the share of errors, over three splits."""
    from sklearn.datasets import load_digits
    from sklearn.svm import SVC

    x, y = load_digits(return_X_y=True)
    splits = [_split(x / 16, y, seed, train=600) for seed in range(3)]
    for point in points:
        model = SVC(
            kernel=point["kernel"],
            C=2.0 ** point["log2_c"],
            gamma=2.0 ** point["log2_gamma"],
            degree=point.get("degree", 3),
        )
        yield _mean(1 - model.fit(x1, y1).score(x2, y2) for x1, x2, y1, y2 in splits)


def _gbr_diabetes(points: Iterator[Point]) -> Iterator[float]:
    """Yield the error over three folds; the predictions at each number of trees come from one fit."""
    from sklearn.datasets import load_diabetes
    from sklearn.ensemble import GradientBoostingRegressor
    from sklearn.model_selection import KFold

    x, y = load_diabetes(return_X_y=True)
    y = (y - y.mean()) / y.std()
    folds = list(KFold(3, shuffle=True, random_state=0).split(x))

    def errors(point: Point, fold: int) -> Mapping[int, float]:
        kept, held_out = folds[fold]
        model = GradientBoostingRegressor(
            n_estimators=160,
            learning_rate=2.0 ** point["log2_rate"],
            max_depth=point["max_depth"],
            subsample=point["subsample"],
            min_samples_leaf=point["min_samples_leaf"],
            random_state=fold,
        ).fit(x[kept], y[kept])
        staged = model.staged_predict(x[held_out])
        return {
            count: float(((predicted - y[held_out]) ** 2).mean() ** 0.5)
            for count, predicted in enumerate(staged, start=1)
        }

    for point in points:
        if point["n_estimators"] == 20:  # the first of a run of points that share their fits
            by_fold = [errors(point, fold) for fold in range(3)]
        yield _mean(each[point["n_estimators"]] for each in by_fold)


def _mlp_wine(points: Iterator[Point]) -> Iterator[float]:
    """Yield the log loss after twenty epochs, over two splits."""
    from sklearn.datasets import load_wine
    from sklearn.metrics import log_loss
    from sklearn.neural_network import MLPClassifier
    from sklearn.preprocessing import StandardScaler

    x, y = load_wine(return_X_y=True)
    x = StandardScaler().fit_transform(x)
    splits = [_split(x, y, seed, train=100) for seed in range(2)]
    warnings.filterwarnings("ignore", message="Stochastic Optimizer: Maximum iterations")
    for point in points:
        losses = []
        for seed, (x1, x2, y1, y2) in enumerate(splits):
            model = MLPClassifier(
                (2 ** point["log2_units"],),
                activation=point["activation"],
                alpha=10.0 ** point["log10_alpha"],
                batch_size=2 ** point["log2_batch"],
                learning_rate_init=2.0 ** point["log2_rate"],
                max_iter=20,
                random_state=seed,
            )
            losses.append(log_loss(y2, model.fit(x1, y1).predict_proba(x2)))
        yield _mean(losses)


def _keras_digits(points: Iterator[Point]) -> Iterator[float]:
    """Yield the validation loss after six epochs, over two seeds."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x1, x2, y1, y2 = _split((x / 16).astype("float32"), y, 0, train=1024)
    data = (x1, y1), (x2, y2)
    model = None
    for point in points:
        if model is None or point["log2_rate"] == -12:
            model = _keras_model(point)  # compiled once for all learning rates
            _keras_loss(
                model, point, 0, *data
            )  # a model's first fit draws other numbers than later ones
        yield _mean(_keras_loss(model, point, seed, *data) for seed in range(2))


def _keras_model(point: Point) -> Any:
    import keras

    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(2 ** point["log2_units"], activation="relu"),
            keras.layers.Dropout(point["dropout"]),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(optimizer=point["optimizer"], loss="sparse_categorical_crossentropy")
    return model


def _keras_loss(model: Any, point: Point, seed: int, train: Any, held_out: Any) -> float:
    """Train the model from new weights and a new optimizer's state."""
    import keras

    keras.utils.set_random_seed(seed)
    model.set_weights(keras.models.clone_model(model).get_weights())
    model.optimizer.build(model.trainable_variables)
    for variable in model.optimizer.variables:
        variable.assign(variable.numpy() * 0)
    model.optimizer.learning_rate = 2.0 ** point["log2_rate"]
    model.fit(*train, batch_size=2 ** point["log2_batch"], epochs=6, verbose=0)
    return float(model.evaluate(*held_out, batch_size=773, verbose=0))


def _split(x: Any, y: Any, seed: int, *, train: int) -> tuple[np.ndarray, ...]:
    from sklearn.model_selection import train_test_split

    return tuple(train_test_split(x, y, train_size=train, random_state=seed, stratify=y))


def _mean(losses: Iterable[float]) -> float:
    values = list(losses)
    return sum(values) / len(values)


_RECORDERS: Mapping[str, Callable[[Iterator[Point]], Iterator[float]]] = {
    "svm_digits": _svm_digits,
    "gbr_diabetes": _gbr_diabetes,
    "mlp_wine": _mlp_wine,
    "keras_digits": _keras_digits,
}

if __name__ == "__main__":
    main()
