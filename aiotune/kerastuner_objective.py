"""Which metric a search of KerasTuner's was for: its files have the scores, but do not name it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from aiotune.errors import FatalValueError
from aiotune.kerastuner_files import SourceProject, SourceTrial
from aiotune.objective import (
    DefaultObjective,
    Direction,
    MultiObjective,
    Objective,
    infer_direction,
)

__all__ = ["objective_of"]

_NEARLY = 1e-6  # relative: chief and workers of KerasTuner exchange 32-bit numbers


def objective_of(
    source: SourceProject, names: Sequence[str] = (), direction: Direction | None = None
) -> Objective:
    """Return the objective of the search: the one that is named, else the metric that the scores are of.

    KerasTuner's files do not name it. FatalValueError if it cannot be told, or is another one.
    """
    directions = _directions(source)
    if names:
        return _checked(_chosen(names, direction, directions), source)
    found = [name for name in directions if _has_scores_of(source, name)]
    if found == ["multi_objective"]:
        raise FatalValueError(
            "this search had several objectives, which the files do not name: give each of them, "
            "--objective val_loss --objective val_accuracy"
        )
    if len(found) != 1:
        raise FatalValueError(f"which metric is the objective? {_candidates(source)}")
    return _named(found[0], None, directions)


def _chosen(
    names: Sequence[str], direction: Direction | None, known: Mapping[str, Direction]
) -> Objective:
    if direction is not None and len(names) > 1:
        raise FatalValueError(
            "--direction is for one objective; those of several are read from the trials: drop it"
        )
    chosen = [_named(name, direction, known) for name in names]
    return chosen[0] if len(chosen) == 1 else MultiObjective(chosen, by="sum")


def _checked(objective: Objective, source: SourceProject) -> Objective:
    """Return the objective. FatalValueError if the trials have other scores, or another direction."""
    if not _has_scores_of(source, objective.name):
        raise FatalValueError(
            f"the scores in {source.directory} are not those of {objective}: {_candidates(source)}"
        )
    stored = _directions(source).get(objective.name, objective.direction)
    if stored != objective.direction:
        raise FatalValueError(
            f'KerasTuner searched for direction "{stored}" of {objective.name}: drop --direction'
        )
    return objective


def _directions(source: SourceProject) -> dict[str, Direction]:
    return {
        name: metric.direction for trial in source.trials for name, metric in trial.metrics.items()
    }


def _named(name: str, direction: Direction | None, known: Mapping[str, Direction]) -> Objective:
    if name == DefaultObjective().name:
        return DefaultObjective()
    direction = direction or known.get(name) or infer_direction(name)
    if direction is None:
        raise FatalValueError(
            f"is {name} to be made small or large? Add --direction min, or --direction max"
        )
    return Objective(name, direction)


def _has_scores_of(source: SourceProject, name: str) -> bool:
    """Tell whether every score is the best value of that metric."""
    return all(_is_score_of(trial, name) for trial in source.trials if trial.is_scored)


def _is_score_of(trial: SourceTrial, name: str) -> bool:
    best = trial.metrics[name].best() if name in trial.metrics else None
    return (
        best is not None
        and trial.score is not None
        and math.isclose(best, trial.score, rel_tol=_NEARLY)
    )


def _candidates(source: SourceProject) -> str:
    known = _directions(source)
    fitting = [name for name in known if _has_scores_of(source, name)]
    if not known:
        return "no trial has a metric; name it with --objective NAME --direction min, or max"
    if not fitting:
        return f"no metric has the scores' values; there are {', '.join(known)}"
    return f"name it with --objective; these have the scores' values: {', '.join(fitting)}"
