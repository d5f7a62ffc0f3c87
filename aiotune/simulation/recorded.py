"""Curves that were recorded: a search simulated with what earlier trials reported."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.history import History
from aiotune.hyperparameters import HyperParameters
from aiotune.layout import Layout
from aiotune.learning.encoding import Encoding
from aiotune.simulation.curve import Curve
from aiotune.space import Scalar, Space
from aiotune.store.reader import read_facts
from aiotune.trial import FailureKind, Run, RunState, Trial

__all__ = ["HasTrials", "RecordedCurves"]

Point = Mapping[str, Scalar]
_UNFINISHED = frozenset({RunState.RUNNING, RunState.LOST, RunState.CANCELLED})


@runtime_checkable
class HasTrials(Protocol):
    """A tuner, or the result of a search."""

    @property
    def trials(self) -> Sequence[Trial]: ...


class RecordedCurves:
    """The curve of the recorded point that is nearest; each name counts the same.

        aiotune.RecordedCurves("results/last_week")
        aiotune.RecordedCurves([({"units": 32}, aiotune.Curve(...)), ...], hyperparameters=hp)

    source: the directory of a project, a tuner, the result of a search, or trials: of each the longest run, its
    time spread evenly over its epochs, and its failure. A curve that was not trained further stays at its last
    value. Or pairs of values and `Curve`; then `hyperparameters` declares the names.
    """

    def __init__(
        self,
        source: HasTrials | Iterable[Trial] | Iterable[tuple[Point, Curve]] | str | Path,
        hyperparameters: HyperParameters | None = None,
    ) -> None:
        given = list(_given(source))
        trials = [each for each in given if isinstance(each, Trial)]
        space = Space() if hyperparameters is None else Space(hyperparameters.space)
        for trial in trials:
            space = space.grow(trial.space)
        self.space = space
        self._encoding = Encoding(space)
        recorded = [*_recorded(trials), *(_pair(each) for each in given if each not in trials)]
        if not recorded:
            raise FatalValueError(
                f"{source!r:.100} has no trial that reported anything: nothing to simulate with"
            )
        if not len(space):
            raise FatalValueError(
                "RecordedCurves: nothing declares the names: pass hyperparameters=HyperParameters()"
            )
        self._curves = [curve for _, curve in recorded]
        self._points = np.stack([self._columns(values) for values, _ in recorded])  # (n, c)

    def __call__(self, hp: HyperParameters) -> Curve:
        """Return the curve of the recorded point that is nearest to `hp`; of equal ones the first."""
        known = {each.name: hp.values[each.name] for each in self.space if each.name in hp.values}
        distances = ((self._points - self._columns(known)) ** 2).sum(axis=1)
        return self._curves[int(distances.argmin())]

    def _columns(self, values: Point) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return a point as numbers: (c,)."""
        places = self._encoding.places(values, self.space.active(values))
        columns: np.ndarray[Any, np.dtype[np.float64]] = self._encoding.columns(places[None, :])[0]
        return columns


def _given(source: object) -> Iterable[object]:
    match source:
        case str() | Path():
            return _stored(Path(source))
        case HasTrials():
            return source.trials
        case Iterable():
            return source
        case _:
            raise FatalTypeError(
                "recorded curves come from a project's directory, a tuner, a SearchResult, trials, or pairs of "
                f"values and Curve, not from {source!r:.100}"
            )


def _stored(path: Path) -> Iterable[Trial]:
    root = (path.parent if path.is_file() else path).absolute()
    store = Layout(root.parent, root.name).store
    if not store.exists():
        raise FatalValueError(f"{path} has no {store.name}: it is no project of aiotune")
    return History(read_facts(store)).trials.values()


def _pair(given: object) -> tuple[Point, Curve]:
    match given:
        case (Mapping() as values, Curve() as curve):
            return values, curve
        case _:
            raise FatalTypeError(
                f"RecordedCurves needs pairs ({{name: value}}, Curve), not {given!r:.100}"
            )


def _recorded(trials: Iterable[Trial]) -> Iterator[tuple[Point, Curve]]:
    for trial in trials:
        runs = [each for each in trial.runs if each.state not in _UNFINISHED]
        if runs:
            longest = max(runs, key=lambda run: len(trial.curve(run)))
            curve = _curve(trial, longest)
            if curve is not None:
                yield trial.values, curve


def _curve(trial: Trial, run: Run) -> Curve | None:
    """Return what a run and those that it continues reported; None for a success without a report."""
    observations = trial.curve(run)
    steps = [each.step for each in observations]
    metrics = [each.metrics for each in observations]
    epochs = steps[-1] + 1 - steps[0] if steps else 1
    has_broken = run.failure is not None and run.state is RunState.FAILED
    if not (steps or has_broken):
        return None
    return Curve(
        partial(_metrics_at, steps, metrics),
        seconds=sum(_seconds(each) for each in _chain(trial, run)) / epochs,
        breaks_at=(steps[-1] + 1 if steps else 0) if has_broken else None,
        failure=run.failure or FailureKind.CRASH,
    )


def _metrics_at(
    steps: Sequence[int], metrics: Sequence[Mapping[str, float]], epoch: int
) -> Mapping[str, float]:
    """Return what was reported last at an epoch; before the first report, the first."""
    return metrics[max(0, bisect_right(steps, epoch) - 1)]


def _chain(trial: Trial, run: Run) -> Iterator[Run]:
    """Yield the run and those that it goes on from."""
    yield run
    if run.continues is not None:
        yield from _chain(trial, trial.runs[run.continues])


def _seconds(run: Run) -> float:
    return run.seconds or 0.0
