"""What the user tells a tuner between its making and its search: points to try first, and earlier searches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiotune.errors import FatalRuntimeError, FatalTypeError, FatalValueError
from aiotune.history import History
from aiotune.hyperparameters import HyperParameters
from aiotune.layout import Layout
from aiotune.objective import Objective
from aiotune.ranking import best_trials
from aiotune.results import SearchResult
from aiotune.store.reader import read_facts
from aiotune.trial import Trial, TrialState

if TYPE_CHECKING:
    from aiotune.oracles.base import Oracle

__all__ = ["TunerKnowledge"]


class TunerKnowledge:
    """The part of a tuner that passes on what is known beforehand."""

    if TYPE_CHECKING:  # of the tuner

        @property
        def oracle(self) -> Oracle: ...

        @property
        def objective(self) -> Objective: ...

        @property
        def trials(self) -> tuple[Trial, ...]: ...

        @property
        def project_dir(self) -> str: ...

    def enqueue(self, *points: Mapping[str, Any] | HyperParameters) -> None:
        """Let these points be tried first, in this order: before a search, or next in one that is on.

            tuner.enqueue({"units": 64, "learning_rate": 1e-3}, {"units": 128})

        A part of a point is completed as any trial is. A point that a trial of the project has is passed over,
        so that a program which enqueues at each start can be resumed. They count in `max_trials`.
        FatalValueError for unknown names, values out of range, and what the constraint refuses: at once where
        the space is known, else before the first trial.
        """
        self.oracle.enqueue(*points)

    def warm_start(
        self, source: SearchResult | TunerKnowledge | Iterable[Trial] | str | Path, best: int = 3
    ) -> None:
        """Begin with what an earlier search of the same objective has found; to be called before the search.

            tuner.warm_start("results/last_week")
            tuner.warm_start(await other_tuner.search(x, y))

        source: the directory of a project (it is read now, which blocks for moments, and never changed), a
        tuner, a result, or trials. best: so many of the best points are tried again here, first of all, as far
        as they fit this space. An oracle that learns learns from all of them. They are no trials of this
        project: they count in nothing, and are not stored with it. FatalValueError for another objective.
        """
        if self.oracle.is_searching:
            raise FatalRuntimeError(
                "warm_start() is for before the search, and one is on: stop it first"
            )
        if isinstance(best, bool) or not isinstance(best, int) or best < 0:
            raise FatalValueError(f"best={best!r}: it must be a whole number, 0 or more")
        trials = self._trials_of(source)
        known = [each for each in trials if each.values and _teaches(each)]
        if not known:
            raise FatalValueError(f"warm_start(): no trial of {_named(source)} has ended")
        self.oracle.earlier = (*self.oracle.earlier, tuple(known))
        for trial in best_trials(known, self.objective, best):
            self.oracle.enqueue(trial.values, is_wish=True)

    def _trials_of(
        self, source: SearchResult | TunerKnowledge | Iterable[Trial] | str | Path
    ) -> tuple[Trial, ...]:
        """Return the trials of a source, whose objective is this tuner's."""
        match source:
            case str() | Path():
                trials = self._stored(Path(source))
            case TunerKnowledge():
                self._refuse_own(source.project_dir)
                trials = source.trials
            case SearchResult():
                trials = source.trials
            case Trial():
                raise FatalTypeError("warm_start() needs several trials: pass [trial]")
            case _:
                trials = tuple(source)
        for each in trials:
            self._check_trial(each)
        return trials

    def _check_trial(self, trial: object) -> None:
        if not isinstance(trial, Trial):
            raise FatalTypeError(
                "warm_start() needs a SearchResult, a tuner, trials, or the directory of a project, not "
                f"{trial!r:.100}"
            )
        if trial.objective is not None and trial.objective != self.objective:
            raise FatalValueError(
                f"warm_start(): the earlier search was for {trial.objective}, this one is for "
                f"{self.objective}: their scores do not compare"
            )

    def _stored(self, path: Path) -> tuple[Trial, ...]:
        """Return the trials of a stored project. FatalValueError if there is none, StoreUnreadable."""
        root = (path.parent if path.is_file() else path).absolute()
        self._refuse_own(str(root))
        store = Layout(root.parent, root.name).store
        if not store.exists() and (root / "oracle.json").exists():
            raise FatalValueError(
                f"{path} is a project of KerasTuner: `aiotune import {path} --to {path}_aiotune` makes one of "
                "aiotune, to start from"
            )
        if not store.exists():
            raise FatalValueError(f"{path} has no {store.name}: it is no project of aiotune")
        return tuple(History(read_facts(store)).trials.values())

    def _refuse_own(self, project_dir: str) -> None:
        if Path(project_dir).absolute() == Path(self.project_dir).absolute():
            raise FatalValueError(
                f"{project_dir} is this tuner's own project, which goes on with its trials by itself: drop "
                "warm_start()"
            )


def _teaches(trial: Trial) -> bool:
    """Tell whether something came of a trial, if only a failure."""
    return trial.has_score or (trial.is_over and trial.state is not TrialState.DUPLICATE)


def _named(source: object) -> str:
    return str(source) if isinstance(source, str | Path) else f"the {type(source).__name__}"
