"""`self` in a trial's process: what a tuner is there, and what it is not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from aiotune.errors import FatalRuntimeError
from aiotune.executors.context import RunContext, StopRun
from aiotune.hyperparameters import HyperParameters
from aiotune.objective import Objective
from aiotune.oracles.base import Oracle
from aiotune.project import Project
from aiotune.space import Space

__all__ = ["AbsentProject", "OracleView", "attributes_of", "telling_of_writes"]

_REPORT = "report metrics with trial.report(step, loss=...), or return them from run_trial"
_BY_ITSELF = "the search does it by itself"
_KNOWN_THERE = "read it in the caller's process: in on_trial_end, or after the search"
_INSTEAD: Mapping[str, str] = {
    "update_metrics": _REPORT,
    "end_trial": _BY_ITSELF,
    "create_trial": _BY_ITSELF,
    "populate_space": _BY_ITSELF,
    "score_trial": _BY_ITSELF,
    "update_space": "declare names on trial.hyperparameters",
}


class AbsentProject(Project):
    """Stands for the project where it is not: whatever is asked of it raises FatalRuntimeError."""

    def __init__(self) -> None:
        pass

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__"):
            return object.__getattribute__(self, name)
        raise FatalRuntimeError(
            "this is a trial's process: the project, with its trials, results and searches, is known in "
            "the caller's process only. Use it there: in on_trial_begin and on_trial_end, or outside of "
            f"the search; here {_REPORT}, and write files in trial.directory"
        )


class OracleView:
    """What a run knows of the oracle: options to read, and the space and the trial as this run has them."""

    def __init__(self, oracle: Oracle) -> None:
        vars(self).update(
            objective=oracle.objective,
            max_trials=oracle.max_trials,
            seed=oracle.seed,
            hyperparameters=oracle.hyperparameters,
            allow_new_entries=oracle.allow_new_entries,
            tune_new_entries=oracle.tune_new_entries,
            max_retries_per_trial=oracle.max_retries_per_trial,
            max_consecutive_failed_trials=oracle.max_consecutive_failed_trials,
        )

    objective: Objective
    max_trials: int | None
    seed: int | None
    hyperparameters: HyperParameters
    allow_new_entries: bool
    tune_new_entries: bool
    max_retries_per_trial: int
    max_consecutive_failed_trials: int
    _run: RunContext | None = None

    def serve(self, run: RunContext) -> None:
        """Answer for this run from now on. Its search has chosen a seed, if the program has not."""
        vars(self).update(_run=run, seed=run.assignment.seed)

    def get_space(self) -> HyperParameters:
        """Return the names that this run knows, with their defaults: a copy."""
        run = self._run
        assert run is not None
        return HyperParameters(space=Space(run.assignment.space).grow(run.hyperparameters.declared))

    def update_trial(
        self, trial_id: str, metrics: Mapping[str, float], step: int | None = None
    ) -> None:
        """Report the metrics, as `trial.report` does; for programs that were written for KerasTuner."""
        run = self.get_trial(trial_id)
        run.report(step, **metrics)
        run.note("oracle.update_trial() is understood, but " + _REPORT)

    def get_trial(self, trial_id: str) -> RunContext:
        """Return this run's own trial. FatalRuntimeError for any other."""
        run = self._run
        assert run is not None
        if trial_id != run.trial_id:
            raise FatalRuntimeError(
                f"this is the process of trial {run.trial_id}, which knows nothing of trial {trial_id!r}: "
                f"{_KNOWN_THERE}"
            )
        return run

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):  # Python's own questions, and those of notebooks
            raise AttributeError(name)
        raise FatalRuntimeError(
            f"oracle.{name} is not known in a trial's process, where the oracle is a view of its options: "
            f"{_INSTEAD.get(name, _KNOWN_THERE)}"
        )

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise FatalRuntimeError(
            f"oracle.{name} cannot be set in a trial's process, where the oracle is a view of its "
            "options: set it before the search, or in on_trial_end"
        )


def attributes_of(thing: object) -> dict[str, Any]:
    """Return an object's own attributes, also those in `__slots__`."""
    slots = (name for kind in type(thing).__mro__ for name in _slots(kind))
    return {
        **{name: getattr(thing, name) for name in slots if hasattr(thing, name)},
        **vars(thing),
    }


@contextmanager
def telling_of_writes(owner: object, run: RunContext) -> Iterator[None]:
    """Tell the user, at the end, of each attribute of `owner` that was written meanwhile: it will be lost.

    Attributes are compared, not watched: setting one costs nothing, however the class does it. Of a list, dict
    or set it shows that it has grown.
    """
    before = {name: (value, _length(value)) for name, value in attributes_of(owner).items()}
    try:
        yield
    finally:
        with suppress(StopRun):  # the search is gone
            for name, value in attributes_of(owner).items():
                known, length = before.get(name, (_ABSENT, None))
                if value is not known or _length(value) != length:
                    run.note(_lost(type(owner).__name__, name))


_ABSENT = object()


def _lost(owner: str, name: str) -> str:
    return (
        f"{owner}.{name} was set in a trial's process and does not come back: return it as a metric, write a "
        "file in trial.directory, or set it in on_trial_end"
    )


def _length(value: object) -> int | None:
    return len(value) if isinstance(value, list | dict | set) else None


def _slots(kind: type) -> Iterator[str]:
    """Yield the names of the class's own slots, as they are to be asked for."""
    slots = vars(kind).get("__slots__", ())
    for name in (slots,) if isinstance(slots, str) else slots:
        if name in ("__dict__", "__weakref__"):
            continue
        is_private = name.startswith("__") and not name.endswith("__")
        yield f"_{kind.__name__.lstrip('_')}{name}" if is_private else name
