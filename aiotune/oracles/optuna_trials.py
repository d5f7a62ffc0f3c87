"""What became of a trial, in Optuna's terms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any, assert_never

from optuna.study import StudyDirection
from optuna.trial import TrialState as OptunaState

from aiotune.objective import Objective
from aiotune.trial import RunState, Trial, TrialState

__all__ = ["attributes_of", "curve_of", "directions_of", "goals_of", "outcome_of"]

# What such a run reported is told again by the one that repeats it.
_CUT_OFF = frozenset({RunState.LOST, RunState.CANCELLED})


def goals_of(objective: Objective) -> tuple[Objective, ...]:
    """Return what a study optimises: the single objectives where a front is looked for, else the objective."""
    return objective.parts if objective.seeks_front else (objective,)


def directions_of(objective: Objective) -> list[StudyDirection]:
    """Return the directions of a study of this objective."""
    return [
        StudyDirection.MINIMIZE if each.direction == "min" else StudyDirection.MAXIMIZE
        for each in goals_of(objective)
    ]


def outcome_of(trial: Trial, objective: Objective) -> tuple[OptunaState, list[float] | None]:
    """Return state and values. What has no number for each goal has failed, for Optuna takes no NaN."""
    match trial.state:
        case TrialState.QUEUED | TrialState.RUNNING | TrialState.PAUSED:
            return OptunaState.RUNNING, None
        case TrialState.FAILED | TrialState.INFEASIBLE | TrialState.DUPLICATE:
            return OptunaState.FAIL, None
        case TrialState.COMPLETED:
            values = _values_of(trial, objective)
            return (OptunaState.COMPLETE, values) if values else (OptunaState.FAIL, None)
        case TrialState.PRUNED:
            return OptunaState.PRUNED, _values_of(trial, objective)
        case _:
            assert_never(trial.state)


def _values_of(trial: Trial, objective: Objective) -> list[float] | None:
    if not trial.has_score:
        return None
    assert trial.score is not None
    if not objective.seeks_front:
        return [trial.score]
    if not all(each.has_value(trial.final_metrics) for each in objective.parts):
        return None
    values = [each.get_value(trial.final_metrics) for each in objective.parts]
    return None if any(map(math.isnan, values)) else values


def curve_of(trial: Trial, objective: Objective) -> dict[int, float]:
    """Return what was reported of a single objective by step: the mean over the repeats; {} for a front."""
    if objective.seeks_front:
        return {}
    repeats: dict[int, dict[int, float]] = {}
    for run in trial.runs:
        if run.state not in _CUT_OFF:
            # A retry, or a run that goes on after a promotion, tells what holds from its first step on.
            repeats.setdefault(run.repeat, {}).update(
                (each.step, objective.get_value(each.metrics))
                for each in run.observations
                if objective.has_value(each.metrics)
            )
    steps = sorted({step for repeat in repeats.values() for step in repeat})
    return {step: _mean_at(step, list(repeats.values())) for step in steps}


def _mean_at(step: int, repeats: Sequence[dict[int, float]]) -> float:
    return fmean(repeat[step] for repeat in repeats if step in repeat)


def attributes_of(trial: Trial) -> dict[str, Any]:
    """Return what Optuna has no place for: id, status, metrics, and of a failure its kind and message."""
    attributes: dict[str, Any] = {
        "trial_id": trial.trial_id,
        "status": trial.status,
        "metrics": dict(trial.final_metrics),
    }
    if trial.failure is not None:
        attributes["failure"] = trial.failure.value
    if trial.message is not None:
        attributes["message"] = trial.message
    return attributes
