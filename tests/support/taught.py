"""Trials that are over, with few words: what an oracle learns from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from aiotune.learning.lessons import Lessons
from aiotune.objective import Objective
from aiotune.space import Space, Values
from aiotune.trial import Run, RunState, Trial, TrialState

__all__ = ["SCORE", "ended", "lessons_of"]

SCORE = Objective("score", "min")


def ended(
    number: int,
    space: Space,
    values: Values,
    score: float | None = None,
    state: TrialState = TrialState.COMPLETED,
    *,
    repeats: Sequence[float] = (),
    metrics: Mapping[str, float] | None = None,
    objective: Objective = SCORE,
) -> Trial:
    """Return a trial that met all its names. repeats: the score of each of its runs."""
    return Trial(
        trial_id=f"{number:04d}",
        number=number,
        stream=number,
        values=values,
        asked_after=0,
        created_at=0.0,
        state=state,
        space=tuple(space.active(values)),
        is_path_complete=True,
        runs=tuple(_run(index, each) for index, each in enumerate(repeats)),
        score=score,
        final_metrics=metrics or {},
        objective=objective,
        proposed=values,
    )


def lessons_of(
    space: Space, rows: Iterable[tuple[Values, float]], repeats: Sequence[float] = ()
) -> Lessons:
    """Return what points and their scores teach; NaN for a failure. repeats: of each score, off its mean."""
    lessons = Lessons(space, SCORE)
    for number, (values, score) in enumerate(rows):
        is_failure = math.isnan(score)
        trial = ended(
            number,
            space,
            values,
            None if is_failure else score,
            TrialState.FAILED if is_failure else TrialState.COMPLETED,
            repeats=[score + each for each in repeats],
        )
        lessons.take([trial])
    return lessons


def _run(index: int, score: float) -> Run:
    return Run(
        index=index,
        repeat=index,
        attempt=0,
        started_at=0.0,
        devices=("cpu:0",),
        log=None,
        state=RunState.FINISHED,
        metrics={"score": score},
    )
