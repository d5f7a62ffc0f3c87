from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiotune.objective import Objective
from aiotune.settlement import (
    Policy,
    Work,
    broken_run,
    complete,
    has_nan,
    is_excused,
    origin,
    pending,
    settle,
)
from aiotune.trial import (
    Budget,
    FailureKind,
    Observation,
    Run,
    RunState,
    StopCause,
    Trial,
    TrialState,
)
from tests.support.records import run, trial

SCORE = Objective("score", "min")


def test_a_new_trial_needs_one_run_for_each_repeat() -> None:
    assert pending(trial(), Policy(repeats=2)) == [
        Work("0000", 0, 0, 0),
        Work("0000", 1, 1, 0),
    ]


@pytest.mark.parametrize("state", [RunState.RUNNING, RunState.FINISHED, RunState.STOPPED])
def test_a_repeat_in_progress_or_done_needs_no_run(state: RunState) -> None:
    assert pending(trial(run(state=state)), Policy()) == []


@pytest.mark.parametrize("state", [RunState.LOST, RunState.CANCELLED])
def test_a_repeat_that_was_cut_off_is_run_again_as_the_same_attempt(state: RunState) -> None:
    cut = trial(run(state=state, attempt=1))
    assert pending(cut, Policy(retries=2)) == [Work("0000", 1, 0, 1, continues=0)]


def test_a_failed_repeat_is_run_again_as_the_next_attempt() -> None:
    failed = trial(run(state=RunState.FAILED, failure=FailureKind.CRASH))
    assert pending(failed, Policy(retries=1)) == [Work("0000", 1, 0, 1, continues=0)]


@pytest.mark.parametrize(
    ("failure", "may_retry", "retries", "is_broken"),
    [
        (FailureKind.USER_ERROR, True, 0, True),
        (FailureKind.USER_ERROR, True, 1, False),
        (FailureKind.USER_ERROR, False, 1, True),
        (FailureKind.NAN, True, 1, False),
        (FailureKind.OUT_OF_MEMORY, True, 1, False),
        (FailureKind.TIMEOUT, True, 1, False),  # it hung
        (FailureKind.TIMEOUT, False, 1, True),  # it was slow
        (FailureKind.INFEASIBLE, True, 1, True),
    ],
)
def test_which_failures_end_a_trial(
    failure: FailureKind, may_retry: bool, retries: int, is_broken: bool
) -> None:
    failed = trial(run(state=RunState.FAILED, failure=failure, may_retry=may_retry))
    policy = Policy(retries=retries)
    assert (broken_run(failed, policy) is not None) == is_broken
    assert (settle(failed, policy, SCORE) is not None) == is_broken
    assert bool(pending(failed, policy)) != is_broken


OUT: dict[str, Any] = {"state": RunState.FAILED, "failure": FailureKind.OUT_OF_MEMORY}
SHARE = 2**30


def test_a_lack_of_memory_on_a_part_of_a_card_is_no_attempt_and_gets_a_whole_one() -> None:
    short = trial(run(**OUT, gpu_memory=SHARE))
    assert is_excused(short, short.runs[0])
    assert broken_run(short, Policy()) is None
    assert settle(short, Policy(), SCORE) is None
    assert pending(short, Policy()) == [Work("0000", 1, 0, 0, continues=0, alone=True)]
    fraction = trial(replace(run(**OUT), gpu_fraction=0.5))
    assert pending(fraction, Policy()) == [Work("0000", 1, 0, 0, continues=0, alone=True)]


def test_the_lack_of_memory_on_a_whole_card_counts() -> None:
    broken = trial(run(**OUT, gpu_memory=SHARE), run(1, **OUT))
    assert pending(broken, Policy()) == []
    settled = settle(broken, Policy(), SCORE)
    assert settled is not None
    assert (settled.status, settled.failure) == (TrialState.FAILED, FailureKind.OUT_OF_MEMORY)
    assert pending(broken, Policy(retries=1)) == [Work("0000", 2, 0, 1, alone=True)]


@pytest.mark.parametrize("state", [RunState.LOST, RunState.CANCELLED])
def test_what_was_cut_off_on_a_whole_card_gets_one_again(state: RunState) -> None:
    cut = trial(run(**OUT, gpu_memory=SHARE), run(1, state=state))
    assert pending(cut, Policy()) == [Work("0000", 2, 0, 0, continues=1, alone=True)]


def test_all_repeats_of_a_trial_that_lacked_memory_get_whole_cards() -> None:
    runs = [run(**OUT, gpu_memory=SHARE), run(1, repeat=1, state=RunState.RUNNING)]
    assert [(work.repeat, work.alone) for work in pending(trial(*runs), Policy(repeats=3))] == [
        (0, True),
        (2, True),
    ]


def test_a_repeat_is_excused_once() -> None:
    """As on a pool that never gives a whole card."""
    again = trial(run(**OUT, gpu_memory=SHARE), run(1, **OUT, gpu_memory=SHARE))
    assert [is_excused(again, each) for each in again.runs] == [True, False]
    assert broken_run(again, Policy()) == again.runs[1]


@pytest.mark.parametrize(
    ("failure", "may_retry"),
    [(FailureKind.OUT_OF_MEMORY, False), (FailureKind.CRASH, True), (FailureKind.NAN, True)],
)
def test_other_failures_on_a_part_of_a_card_count(failure: FailureKind, may_retry: bool) -> None:
    failed = trial(
        run(state=RunState.FAILED, failure=failure, may_retry=may_retry, gpu_memory=SHARE)
    )
    assert not is_excused(failed, failed.runs[0])
    assert broken_run(failed, Policy()) is not None


@given(st.data(), st.integers(1, 3), st.integers(0, 2))
def test_a_trial_whose_runs_all_lack_memory_ends(
    data: st.DataObject, repeats: int, retries: int
) -> None:
    policy = Policy(repeats=repeats, retries=retries)
    current = trial()
    while (works := pending(current, policy)) and settle(current, policy, SCORE) is None:
        work = data.draw(st.sampled_from(works))
        obeys = data.draw(st.booleans())
        share = None if work.alone and obeys else SHARE
        out = run(len(current.runs), repeat=work.repeat, attempt=work.attempt, **OUT)
        current = current.with_run(replace(out, gpu_memory=share))
        assert len(current.runs) <= repeats * (2 + retries)
    settled = settle(current, policy, SCORE)
    assert settled is not None
    assert settled.status is TrialState.FAILED


def test_the_score_is_the_mean_over_the_repeats() -> None:
    done = trial(
        run(0, repeat=0, score=1.0, best_step=2),
        run(1, repeat=1, state=RunState.FAILED, failure=FailureKind.CRASH),
        run(2, repeat=1, attempt=1, score=3.0, best_step=4),
    )
    settled = settle(done, Policy(repeats=2, retries=1), SCORE)
    assert settled is not None
    assert (settled.status, settled.score, settled.best_step) == (TrialState.COMPLETED, 2.0, 3)


def test_a_trial_waits_for_its_last_repeat() -> None:
    assert settle(trial(run(score=1.0)), Policy(repeats=2), SCORE) is None
    half = trial(run(score=1.0), run(1, repeat=1, state=RunState.RUNNING))
    assert settle(half, Policy(repeats=2), SCORE) is None


def test_a_stopped_run_prunes_the_trial_and_ends_its_queue() -> None:
    stopped = trial(run(state=RunState.STOPPED, score=0.5))
    settled = settle(stopped, Policy(repeats=3), SCORE)
    assert pending(stopped, Policy(repeats=3)) == []
    assert settled is not None
    assert (settled.status, settled.score) == (TrialState.PRUNED, 0.5)


def test_what_a_rule_has_decided_holds_before_the_run_has_ended_and_after() -> None:
    asked = {"stop_cause": StopCause.RULE, "stop_reason": "too slow"}
    policy = Policy(repeats=2)
    for state in (RunState.RUNNING, RunState.FINISHED, RunState.STOPPED, RunState.LOST):
        asked_run = replace(run(state=state, score=0.5), **asked)  # type: ignore[arg-type]
        assert pending(trial(asked_run), policy) == []
        settled = settle(trial(asked_run), policy, SCORE)
        if state is RunState.RUNNING:
            assert settled is None
        else:
            assert settled is not None
            assert (settled.status, settled.message) == (TrialState.PRUNED, "too slow")


def test_a_trial_that_is_over_needs_no_run() -> None:
    assert pending(trial(run(), state=TrialState.PRUNED), Policy(repeats=2)) == []


def test_a_failure_keeps_its_message() -> None:
    failed = trial(run(state=RunState.FAILED, failure=FailureKind.CRASH, message="SIGSEGV"))
    settled = settle(failed, Policy(), SCORE)
    assert settled is not None
    assert (settled.status, settled.failure, settled.message) == (
        TrialState.FAILED,
        FailureKind.CRASH,
        "SIGSEGV",
    )


def test_has_nan() -> None:
    assert has_nan({"score": float("nan")}, SCORE)
    assert not has_nan({"score": 0.0, "other": float("nan")}, SCORE)
    assert not has_nan({}, SCORE)


LOW, HIGH = Budget(1, is_last=False), Budget(3, 1)


def test_a_budget_that_is_not_the_last_pauses_the_trial_whose_runs_used_it_up() -> None:
    first = [replace(run(n, repeat=n, score=1.0 + n), budget=LOW) for n in (0, 1)]
    half = replace(trial(first[0]), budget=LOW)
    assert settle(half, Policy(repeats=2), SCORE) is None
    settled = settle(replace(trial(*first), budget=LOW), Policy(repeats=2), SCORE)
    assert settled is not None
    assert (settled.status, settled.score) == (TrialState.PAUSED, 1.5)


@pytest.mark.parametrize(("score", "best"), [(0.5, 0.5), (3.0, 2.0)])
def test_the_best_of_all_budgets_is_the_score_at_the_end(score: float, best: float) -> None:
    runs = [replace(run(score=2.0), budget=LOW), replace(run(1, score=score), budget=HIGH)]
    settled = settle(replace(trial(*runs), budget=HIGH), Policy(), SCORE)
    assert settled is not None
    assert (settled.status, settled.score) == (TrialState.COMPLETED, best)


def test_a_paused_trial_compares_by_its_last_budget_alone() -> None:
    middle = replace(HIGH, is_last=False)
    runs = [replace(run(score=2.0), budget=LOW), replace(run(1, score=3.0), budget=middle)]
    settled = settle(replace(trial(*runs), budget=middle), Policy(), SCORE)
    assert settled is not None
    assert (settled.status, settled.score) == (TrialState.PAUSED, 3.0)
    assert complete(replace(trial(*runs), budget=middle), Policy(), SCORE).score == 2.0


def test_a_failure_leaves_the_score_of_smaller_budgets() -> None:
    broken = run(2, repeat=1, state=RunState.FAILED, failure=FailureKind.CRASH, message="SIGSEGV")
    runs = [
        replace(run(0, score=2.0), budget=LOW),
        replace(run(1, repeat=0, score=1.0), budget=HIGH),
        replace(broken, budget=HIGH),
    ]
    settled = settle(replace(trial(*runs), budget=HIGH), Policy(repeats=2), SCORE)
    assert settled is not None
    assert (settled.status, settled.score) == (TrialState.FAILED, 2.0)
    assert (settled.failure, settled.message) == (FailureKind.CRASH, "SIGSEGV")


def promoted(*runs: Run) -> Trial:
    """Return a trial that trains for epochs 3 to 8, after a rung of 3."""
    return replace(trial(*runs), state=TrialState.QUEUED, budget=Budget(9, 3))


@pytest.mark.parametrize(
    ("runs", "continues"),
    [
        ([], 0),
        ([{"state": RunState.LOST}], 1),
        ([{"state": RunState.CANCELLED}], 1),
        ([{"state": RunState.FAILED, "failure": FailureKind.CRASH}], 1),
        ([{"state": RunState.FAILED, "failure": FailureKind.NAN}], 0),
    ],
    ids=["promoted", "lost", "cancelled", "crashed", "an error of its own"],
)
def test_what_the_next_run_of_a_promoted_trial_goes_on_from(
    runs: list[dict[str, Any]], continues: int
) -> None:
    first = replace(run(score=1.0), budget=Budget(3, is_last=False))
    later = [replace(run(index=1, **each), budget=Budget(9, 3)) for each in runs]
    (work,) = pending(promoted(first, *later), Policy(retries=1))
    assert work.continues == continues


def test_a_chain_of_runs_has_the_chance_of_its_first() -> None:
    first = run(attempt=1)
    second = replace(run(index=1), continues=0)
    third = replace(run(index=2, attempt=3), continues=1)
    assert origin(trial(first, second, third), third) == first


def test_a_curve_has_each_step_once_and_the_later_run_wins() -> None:
    lost = run(state=RunState.LOST, scores=(5.0, 4.0, 3.0))
    later = replace(run(index=1), continues=0, observations=[Observation(2, {"score": 2.5})])
    curve = trial(lost, later).curve(later)
    assert [(each.step, each.metrics["score"]) for each in curve] == [(0, 5.0), (1, 4.0), (2, 2.5)]


def test_a_curve_can_be_limited_to_one_budget() -> None:
    first = replace(run(scores=(5.0, 4.0)), budget=Budget(2, is_last=False))
    later = replace(
        run(index=1),
        continues=0,
        budget=Budget(4, 2),
        observations=[Observation(2, {"score": 1.0})],
    )
    assert [each.step for each in trial(first, later).curve(later)] == [0, 1, 2]
    assert [each.step for each in trial(first, later).curve(later, of_budget=True)] == [2]
