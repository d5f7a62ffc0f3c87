"""Trials and runs with few words."""

from __future__ import annotations

from aiotune.trial import FailureKind, Observation, Run, RunState, Trial, TrialState, Usage

__all__ = ["run", "trial"]


def run(
    index: int = 0,
    *,
    repeat: int = 0,
    attempt: int = 0,
    state: RunState = RunState.FINISHED,
    score: float | None = None,
    scores: tuple[float, ...] = (),
    best_step: int | None = None,
    failure: FailureKind | None = None,
    may_retry: bool = True,
    message: str | None = None,
    gpu_memory: int | None = None,
    usage: Usage | None = None,
) -> Run:
    """Return a run with `score` as its final metric, and `scores` as its reports."""
    return Run(
        index=index,
        repeat=repeat,
        attempt=attempt,
        started_at=0.0,
        devices=("cpu:0",),
        log="/project/trial_0000/run-0.log",
        state=state,
        observations=[Observation(step, {"score": each}) for step, each in enumerate(scores)],
        metrics={} if score is None else {"score": score},
        best_step=best_step,
        failure=failure,
        may_retry=may_retry,
        message=message,
        gpu_memory=gpu_memory,
        usage=usage,
    )


def trial(
    *runs: Run,
    number: int = 0,
    state: TrialState = TrialState.RUNNING,
    score: float | None = None,
    values: dict[str, int] | None = None,
    message: str | None = None,
) -> Trial:
    return Trial(
        trial_id=f"{number:04d}",
        number=number,
        stream=number,
        values=values or {},
        asked_after=0,
        created_at=0.0,
        state=state,
        runs=runs,
        score=score,
        message=message,
    )
