from __future__ import annotations

import dataclasses
import itertools
import math

import pytest

from aiotune.errors import FatalRuntimeError
from aiotune.trial import (
    RUN_MOVES,
    TRIAL_MOVES,
    Observation,
    Run,
    RunState,
    Trial,
    TrialState,
    Usage,
    trial_text,
)
from tests.support.facts import RATE, UNITS

FINAL_TRIAL_STATES = {
    TrialState.COMPLETED,
    TrialState.PRUNED,
    TrialState.FAILED,
    TrialState.INFEASIBLE,
    TrialState.DUPLICATE,
}


def trial(state: TrialState = TrialState.QUEUED, score: float | None = None) -> Trial:
    return Trial(
        "0000",
        number=0,
        stream=0,
        values={"units": 64},
        asked_after=0,
        created_at=1.0,
        state=state,
        space=(UNITS,),
        score=score,
    )


def run(index: int = 0, state: RunState = RunState.RUNNING) -> Run:
    return Run(index, 0, 0, started_at=1.0, devices=("GPU-1",), log=None, state=state)


@pytest.mark.parametrize(("old", "new"), list(itertools.product(TrialState, TrialState)))
def test_trial_moves_as_its_table_says(old: TrialState, new: TrialState) -> None:
    if new in TRIAL_MOVES.get(old, ()):
        assert trial(old).moved(new, score=0.5) == trial(new, score=0.5)
    else:
        with pytest.raises(FatalRuntimeError, match=f"trial 0000 cannot go from {old} to {new}"):
            trial(old).moved(new)


@pytest.mark.parametrize(("old", "new"), list(itertools.product(RunState, RunState)))
def test_run_moves_as_its_table_says(old: RunState, new: RunState) -> None:
    if new in RUN_MOVES.get(old, ()):
        assert run(state=old).moved(new, ended_at=2.0).ended_at == 2.0
    else:
        with pytest.raises(FatalRuntimeError, match=f"run 0 cannot go from {old} to {new}"):
            run(state=old).moved(new)


def test_final_states_are_those_absent_from_the_tables() -> None:
    assert {state for state in TrialState if trial(state).is_over} == FINAL_TRIAL_STATES
    assert {state for state in RunState if run(state=state).is_over} == set(RunState) - {
        RunState.RUNNING
    }


def test_every_state_can_be_reached_and_every_open_one_left() -> None:
    reached = {TrialState.QUEUED}.union(*TRIAL_MOVES.values())
    assert reached == set(TrialState)
    assert {RunState.RUNNING}.union(*RUN_MOVES.values()) == set(RunState)
    assert all(TRIAL_MOVES.values())
    assert all(RUN_MOVES.values())


@pytest.mark.parametrize(
    ("score", "has_score"),
    [(None, False), (math.nan, False), (math.inf, True), (0.0, True), (-1.5, True)],
)
def test_score_that_is_no_number_is_none(score: float | None, has_score: bool) -> None:
    assert trial(score=score).has_score is has_score


def test_status_is_the_public_word() -> None:
    assert trial(TrialState.COMPLETED).status == "COMPLETED"
    assert type(trial().status) is str


def test_run_is_appended_or_replaced_by_its_index() -> None:
    first, second = run(0), run(1)
    both = trial().with_run(first).with_run(second)
    assert both.runs == (first, second)
    over = first.moved(RunState.LOST)
    assert both.with_run(over).runs == (over, second)
    assert both.runs == (first, second)


@pytest.mark.parametrize(
    ("devices", "gpus"),
    [(("GPU-1", "MIG-2"), ("GPU-1", "MIG-2")), (("cpu:0-3,8",), ()), ((), ())],
)
def test_gpus_of_a_run_are_no_cores(devices: tuple[str, ...], gpus: tuple[str, ...]) -> None:
    assert dataclasses.replace(run(), devices=devices).gpus == gpus


def test_a_run_has_a_share_of_a_card_if_it_has_a_bound() -> None:
    assert not run().has_share
    assert dataclasses.replace(run(), gpu_memory=1).has_share
    assert dataclasses.replace(run(), gpu_fraction=0.5).has_share


def test_usage_of_a_trial_is_that_of_its_runs() -> None:
    used = [
        dataclasses.replace(run(index), usage=usage)
        for index, usage in enumerate([Usage(10, 5, 2.0), None, Usage(20, 7, 3.0)])
    ]
    subject = dataclasses.replace(trial(), runs=tuple(used))
    assert subject.usage == Usage(30, 7, 5.0)
    assert trial().with_run(run()).usage is None
    lines = list(trial_text(subject))
    assert lines[-1].startswith("GPUs: 30 GPU seconds")


def test_records_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        trial().score = 1.0  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        run().state = RunState.LOST  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Observation(0, {}).step = 1  # type: ignore[misc]


def test_hyperparameters_are_a_new_object_that_cannot_change_the_trial() -> None:
    subject = trial()
    hp = subject.hyperparameters
    assert hp.get("units") == 64
    hp.values["units"] = 128
    assert subject.values == {"units": 64}
    assert subject.hyperparameters.get("units") == 64
    assert RATE.name not in subject.hyperparameters.values
