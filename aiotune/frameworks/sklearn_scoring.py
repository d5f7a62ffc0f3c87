"""What a fitted estimator is measured by: scikit-learn's scorers, functions of the user's, metrics."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.executors.context import RunContext

__all__ = ["SCORE", "Scoring"]

SCORE = "score"  # the metric of a single scorer, as in KerasTuner


@dataclass(frozen=True, slots=True)
class Scoring:
    """The scorers by the names of their metrics, and functions of (y, prediction).

    A scorer is a name of scikit-learn's, a function of (estimator, X, y), or None: the estimator's own `score`.
    """

    scorers: Mapping[str, str | Callable[..., Any] | None]
    metrics: Mapping[str, Callable[..., Any]]

    @classmethod
    def of(cls, scoring: Any = None, metrics: Any = None) -> Scoring:
        """Return what a user gave as `scoring` and `metrics`. FatalTypeError for what is neither."""
        scorers, functions = dict(_scorers(scoring)), dict(_metrics(metrics))
        twice = sorted({*scorers, *functions} if {*scorers} & {*functions} else ())
        if twice:
            raise FatalValueError(f"scoring and metrics both measure {', '.join(twice)}: drop one")
        return cls(scorers, functions)

    @property
    def names(self) -> tuple[str, ...] | None:
        """The names of all metrics; None if they are not known before: a function may return a dict."""
        if callable(self.scorers.get(SCORE)):
            return None
        return (*self.scorers, *self.metrics)

    def check(self) -> None:
        """Raise FatalValueError for a name that scikit-learn does not have. Imports scikit-learn."""
        from sklearn.metrics import get_scorer_names

        known = get_scorer_names()
        for name in self.scorers.values():
            if isinstance(name, str) and name not in known:
                close = difflib.get_close_matches(name, known, n=3)
                hint = f"did you mean {' or '.join(map(repr, close))}?" if close else _ALL_NAMES
                raise FatalValueError(f"scoring={name!r} is no scorer of scikit-learn: {hint}")

    def measure(
        self, estimator: Any, X: Any, y: Any, sample_weight: Any, run: RunContext
    ) -> dict[str, Any]:
        """Return the metrics of a fitted estimator on these rows."""
        found: dict[str, Any] = {}
        for name, scorer in self.scorers.items():
            if name == scorer and self.scorers.get(SCORE) == scorer and SCORE in found:
                found[name] = found[SCORE]  # one scorer, under both names
                continue
            call = _Call(f"scoring {name!r}", *_resolved(scorer, estimator, X), run)
            value = call.measured(y, sample_weight)
            found |= value if isinstance(value, Mapping) else {name: value}
        if self.metrics:
            prediction = estimator.predict(X)
            for name, function in self.metrics.items():
                call = _Call(f"the metric {name!r}", function, (), run)
                found[name] = call.measured(y, sample_weight, prediction)
        return found


_ALL_NAMES = "sklearn.metrics.get_scorer_names() lists them"


@dataclass(frozen=True, slots=True)
class _Call:
    """A function, and what it gets before y."""

    name: str
    function: Callable[..., Any]
    first: tuple[Any, ...]
    run: RunContext

    def measured(self, y: Any, sample_weight: Any, *rest: Any) -> Any:
        values = self.first if y is None else (*self.first, y, *rest)
        takes = _sample_weight_of(self.function)
        if sample_weight is not None and takes is None:
            self.run.note(f"{self.name} takes no sample_weight: the rows held out count alike")
        # KerasTuner passes it always: a function written for that may have no default.
        is_due = takes is not None and (
            sample_weight is not None or takes.default is inspect.Parameter.empty
        )
        return self.function(*values, **{"sample_weight": sample_weight} if is_due else {})


def _resolved(
    scorer: str | Callable[..., Any] | None, estimator: Any, X: Any
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Return what to call, and what it gets before y."""
    if scorer is None:
        return estimator.score, (X,)
    if isinstance(scorer, str):
        from sklearn.metrics import get_scorer

        return get_scorer(scorer), (estimator, X)
    return scorer, (estimator, X)


def _scorers(scoring: Any) -> Iterator[tuple[str, str | Callable[..., Any] | None]]:
    match scoring:
        case None:
            yield SCORE, None
        case str():
            yield SCORE, scoring
            if scoring != SCORE:
                yield scoring, scoring
        case Mapping() if scoring:
            for name, scorer in scoring.items():
                yield _name(name), _scorer(scorer, f"scoring[{name!r}]")
        case list() | tuple() | set() | frozenset() if scoring:
            for name in sorted(scoring) if isinstance(scoring, set | frozenset) else scoring:
                yield _name(name), name
        case _ if callable(scoring):
            yield SCORE, _scorer(scoring, "scoring")
        case _:
            raise FatalTypeError(
                f"scoring={scoring!r:.100} is not understood: pass the name of a scorer, a function "
                "scoring(estimator, X, y), a list of names, or a dict of these by name"
            )


def _name(name: Any) -> str:
    if not isinstance(name, str):
        raise FatalTypeError(
            f"scoring: {name!r:.100} is no name: pass a list of scorers' names, or a dict "
            "{name: scorer} for functions"
        )
    return name


def _scorer(scorer: Any, where: str) -> str | Callable[..., Any]:
    if isinstance(scorer, type):
        raise FatalTypeError(
            f"{where}={scorer.__name__} is a class: pass a function or an instance"
        )
    if isinstance(scorer, str):
        return scorer
    if not callable(scorer):
        raise FatalTypeError(
            f"{where}={scorer!r:.100}: pass a scorer's name, or a function of (estimator, X, y)"
        )
    if _looks_like_metric(scorer):
        raise FatalTypeError(
            f"{where}={getattr(scorer, '__name__', scorer)} is a function of (y_true, y_pred), which knows no "
            "estimator: pass sklearn.metrics.make_scorer(...) of it, or give it as metrics="
        )
    function: Callable[..., Any] = scorer
    return function


def _looks_like_metric(function: Callable[..., Any]) -> bool:
    """Tell by the names of its first two parameters, as scikit-learn's own metrics have them."""
    return list(_parameters(function))[:2] in (["y_true", "y_pred"], ["y_true", "y_score"])


def _metrics(metrics: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    if metrics is None:
        return
    for each in metrics if isinstance(metrics, list | tuple) else (metrics,):
        if not callable(each):
            raise FatalTypeError(
                f"metrics: {each!r:.100} is no function of (y, prediction); scorers by name are given as "
                'scoring=["accuracy", ...]'
            )
        yield _name_of(each), each


def _name_of(function: Any) -> str:
    inner = getattr(function, "func", function)  # of a partial
    return str(getattr(inner, "__name__", type(inner).__name__))


def _sample_weight_of(function: Callable[..., Any]) -> inspect.Parameter | None:
    return _parameters(function).get("sample_weight")


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # native code does not always tell
        return {}
