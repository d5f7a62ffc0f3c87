from __future__ import annotations

from dataclasses import replace

import pytest

from aiotune.conclusion import Conclusion, conclude, cut_off
from aiotune.executors.base import Failed, Finished
from aiotune.objective import Objective
from aiotune.trial import FailureKind, Observation, Run, RunState, StopCause
from tests.support.records import run

SCORE = Objective("score", "min")
RUNNING = run(state=RunState.RUNNING, scores=(3.0, 1.0, 2.0))
SILENT = run(state=RunState.RUNNING)


def ended_by(outcome: Finished | Failed, of: Run) -> Conclusion:
    """Return how a run ends that goes on from no other one."""
    return conclude(outcome, of, SCORE, of.observations)


def test_a_run_that_returns_metrics_is_finished() -> None:
    ended = ended_by(Finished({"score": 0.5}, 7), RUNNING)
    assert (ended.state, ended.metrics, ended.best_step) == (RunState.FINISHED, {"score": 0.5}, 7)


def test_a_run_that_only_reported_has_the_metrics_of_its_best_step() -> None:
    ended = ended_by(Finished(), RUNNING)
    assert (ended.state, ended.metrics, ended.best_step) == (RunState.FINISHED, {"score": 1.0}, 1)


def test_a_run_without_the_objective_fails_and_says_what_there_is() -> None:
    ended = ended_by(Finished({"loss": 1.0}), SILENT)
    assert (ended.state, ended.failure) == (RunState.FAILED, FailureKind.USER_ERROR)
    assert "the objective 'score' is not among the metrics" in (ended.message or "")
    assert "loss" in (ended.message or "")


def test_a_score_that_is_no_number_fails() -> None:
    ended = ended_by(Finished({"score": float("nan")}), SILENT)
    assert (ended.state, ended.failure) == (RunState.FAILED, FailureKind.NAN)


@pytest.mark.parametrize(
    ("cause", "state", "score"),
    [
        (StopCause.RULE, RunState.STOPPED, 1.0),
        (StopCause.LIMIT, RunState.STOPPED, 1.0),
        (StopCause.PAUSE, RunState.FINISHED, 1.0),
        (StopCause.USER, RunState.CANCELLED, None),
        (StopCause.SIBLING, RunState.CANCELLED, None),
        (StopCause.DUPLICATE, RunState.CANCELLED, None),
        (StopCause.CONSTRAINT, RunState.CANCELLED, None),
        (StopCause.TIMEOUT, RunState.FAILED, None),
        (None, RunState.CANCELLED, None),
    ],
)
def test_how_a_stopped_run_ends_depends_on_what_it_was_stopped_for(
    cause: StopCause | None, state: RunState, score: float | None
) -> None:
    ended = ended_by(Finished(is_stopped=True), replace(RUNNING, stop_cause=cause))
    assert (ended.state, ended.metrics.get("score")) == (state, score)


def test_a_limit_that_stops_a_run_before_its_first_report_leaves_it_to_a_resumed_search() -> None:
    ended = ended_by(Finished(is_stopped=True), replace(SILENT, stop_cause=StopCause.LIMIT))
    assert ended.state is RunState.CANCELLED


def test_a_run_that_finished_before_the_stop_took_effect_is_finished() -> None:
    ended = ended_by(Finished({"score": 0.5}), replace(RUNNING, stop_cause=StopCause.USER))
    assert ended.state is RunState.FINISHED


def test_a_failure_keeps_its_kind_its_traceback_and_the_log() -> None:
    failed = Failed(FailureKind.USER_ERROR, "ValueError: no", "Traceback ...\nValueError: no")
    ended = ended_by(failed, RUNNING)
    assert (ended.state, ended.failure) == (RunState.FAILED, FailureKind.USER_ERROR)
    assert ended.message == (
        "Traceback ...\nValueError: no\nIts log: /project/trial_0000/run-0.log"
    )


@pytest.mark.parametrize(
    ("failed", "cause", "state", "failure"),
    [
        (Failed(FailureKind.CRASH, "x", is_lost=True), None, RunState.LOST, FailureKind.CRASH),
        (Failed(FailureKind.USER_ERROR, "x", is_fatal=True), None, RunState.CANCELLED, None),
        (Failed(FailureKind.CRASH, "x"), StopCause.TIMEOUT, RunState.FAILED, FailureKind.TIMEOUT),
        (Failed(FailureKind.CRASH, "x"), StopCause.USER, RunState.CANCELLED, None),
        (Failed(FailureKind.CRASH, "x"), StopCause.LIMIT, RunState.STOPPED, None),
        (Failed(FailureKind.CRASH, "x"), StopCause.PAUSE, RunState.FAILED, FailureKind.CRASH),
    ],
)
def test_how_a_broken_run_ends(
    failed: Failed, cause: StopCause | None, state: RunState, failure: FailureKind | None
) -> None:
    ended = ended_by(failed, replace(RUNNING, stop_cause=cause))
    assert (ended.state, ended.failure) == (state, failure)


def test_a_run_counts_what_those_that_it_continues_have_reported() -> None:
    ended = conclude(
        Finished(), SILENT, SCORE, [*RUNNING.observations, Observation(3, {"score": 0.5})]
    )
    assert (ended.metrics, ended.best_step) == ({"score": 0.5}, 3)


def test_a_rule_gives_its_reason() -> None:
    stopped = replace(RUNNING, stop_cause=StopCause.RULE, stop_reason="below the median")
    assert ended_by(Finished(is_stopped=True), stopped).message == "below the median"


@pytest.mark.parametrize(
    "outcome",
    [
        Failed(FailureKind.CRASH, "SIGKILL"),
        Failed(FailureKind.CRASH, "gone", is_lost=True),
        Failed(FailureKind.USER_ERROR, "no disk", is_fatal=True),
    ],
    ids=["crashed", "lost", "fatal"],
)
def test_what_a_rule_has_ended_keeps_what_it_had_however_its_process_ended(outcome: Failed) -> None:
    asked = replace(RUNNING, stop_cause=StopCause.RULE, stop_reason="too slow")
    ended = ended_by(outcome, asked)
    assert (ended.state, ended.metrics, ended.message) == (
        RunState.STOPPED,
        {"score": 1.0},
        "too slow",
    )


@pytest.mark.parametrize(
    ("cause", "state"),
    [
        (None, RunState.LOST),
        (StopCause.USER, RunState.LOST),
        (StopCause.RULE, RunState.STOPPED),
        (StopCause.LIMIT, RunState.STOPPED),
        (StopCause.TIMEOUT, RunState.FAILED),
        (StopCause.STALL, RunState.FAILED),
    ],
)
def test_a_run_that_told_no_end_is_run_again_unless_a_request_had_decided(
    cause: StopCause | None, state: RunState
) -> None:
    asked = replace(RUNNING, stop_cause=cause, stop_reason="too slow")
    observations = asked.observations
    ended = cut_off(asked, SCORE, observations, state=RunState.LOST, message="it is gone")
    assert ended.state is state
    if state is RunState.STOPPED:
        assert ended.metrics == {"score": 1.0}
    elif state is RunState.LOST:
        assert ended == Conclusion(RunState.LOST, message="it is gone")
