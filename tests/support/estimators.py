"""What SklearnTuner searches: estimators that fit in milliseconds, and functions that measure them."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from aiotune import HyperModel, HyperParameters

__all__ = [
    "Cut",
    "Majority",
    "build_bare",
    "build_class",
    "build_forgetful",
    "build_majority",
    "build_neighbours",
    "build_number",
    "build_pipeline",
    "build_tree",
    "by_kerastuner",
    "error_rate",
    "f1",
    "seen",
]


def build_tree(hp: HyperParameters) -> Any:
    return DecisionTreeClassifier(max_depth=hp.Int("depth", 1, 6), random_state=0)


def build_pipeline(hp: HyperParameters) -> Any:
    """A scaler and a model whose kind, and what it then has, are searched."""
    kind = hp.Choice("kind", ["tree", "linear"])
    with hp.conditional_scope("kind", ["tree"]):
        if kind == "tree":
            return make_pipeline(
                StandardScaler(), DecisionTreeClassifier(max_depth=hp.Int("depth", 1, 6))
            )
    with hp.conditional_scope("kind", ["linear"]):
        return make_pipeline(
            StandardScaler(), LogisticRegression(C=hp.Float("C", 0.1, 10.0, sampling="log"))
        )


def build_neighbours(hp: HyperParameters) -> Any:
    return KNeighborsClassifier(hp.Int("neighbours", 1, 9, step=2))


class Majority(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Weighs the classes: what it predicts, and how it scores, follows from weights alone."""

    def __init__(self, broken_above: int = 10**9, note: Any = None) -> None:
        self.broken_above = broken_above
        self.note = note

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Majority:
        if np.max(X) < self.broken_above <= 10**8:
            raise ValueError("the largest row is held out")
        self.classes_, classes = np.unique(y, return_inverse=True)
        self.counts_ = np.bincount(classes, weights=sample_weight)
        return self

    def predict(self, X: Any) -> Any:
        return np.full(len(X), self.classes_[np.argmax(self.counts_)])


def build_majority(hp: HyperParameters) -> Any:
    return Majority(hp.Fixed("broken_above", 10**9))


class Cut(HyperModel):
    """Trains in its own way: on a part of the rows that is searched, too."""

    def build(self, hp: HyperParameters) -> Any:
        return build_tree(hp)

    def fit(self, hp: HyperParameters, model: Any, *args: Any, **kwargs: Any) -> Any:
        X, y = args
        rows = hp.Choice("rows", [20, 40])
        return model.fit(X[:rows], y[:rows], **kwargs)


def build_class(hp: HyperParameters) -> Any:
    return DecisionTreeClassifier


def build_forgetful(hp: HyperParameters) -> None:
    build_tree(hp)


def build_number(hp: HyperParameters) -> Any:
    return 3


class Bare:
    """An estimator without a score."""

    def fit(self, X: Any, y: Any = None) -> Bare:
        return self


def build_bare(hp: HyperParameters) -> Any:
    return Bare()


# Measures


def by_kerastuner(model: Any, X: Any, y: Any, sample_weight: Any) -> float:
    """A scoring as KerasTuner calls it, with all four arguments."""
    return float(accuracy_score(y, model.predict(X), sample_weight=sample_weight))


def f1(y: Any, prediction: Any, sample_weight: Any = None) -> float:
    return float(f1_score(y, prediction, average="macro", sample_weight=sample_weight))


def error_rate(y: Any, prediction: Any) -> float:
    return float(np.mean(np.asarray(y) != prediction))


def seen(model: Any, X: Any, y: Any) -> dict[str, float]:
    """Tell what the run's process has imported."""
    return {
        "score": model.score(X, y),
        "keras": float("keras" in sys.modules or "tensorflow" in sys.modules),
        "rows": float(len(y)),
    }
