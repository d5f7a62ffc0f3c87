from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.schedule import Schedule, Stage, schedule_of
from aiotune.space import Scalar
from aiotune.trial import Budget, Observation, RunState, Trial
from tests.support.records import run, trial

SCHEDULE = Schedule((Stage(0, 2, {"rate": 0.1}, 3), Stage(2, 6, {"rate": 0.08}, 11)), seed=5)


def member(trial_id: str, parent: str | None, rate: float, *budgets: Budget) -> Trial:
    """Return a trial that was trained under each of the budgets."""
    runs = [
        replace(run(index=index, score=rate), budget=budget) for index, budget in enumerate(budgets)
    ]
    values: dict[str, Scalar] = {"rate": rate}
    stream = 2 * int(trial_id)
    return replace(
        trial(*runs),
        trial_id=trial_id,
        stream=stream,
        parent=parent,
        values=values,
        budget=budgets[-1],
    )


FIRST = member("0000", None, 0.1, Budget(2), Budget(4, 2))
SECOND = member("0001", "0000", 0.2, Budget(6, 4), Budget(8, 6))
OTHER = member("0002", None, 0.3, Budget(2))


def test_a_schedule_is_the_line_that_leads_to_a_trial() -> None:
    found = schedule_of([OTHER, FIRST, SECOND], SECOND, seed=9)
    assert found == Schedule((Stage(0, 4, {"rate": 0.1}, 0), Stage(4, 8, {"rate": 0.2}, 2)), 9)


def test_an_ancestor_counts_up_to_where_its_descendant_began() -> None:
    further = replace(FIRST, runs=(*FIRST.runs, replace(run(index=2), budget=Budget(6, 4))))
    assert schedule_of([further, SECOND], SECOND).stages[0].to_epoch == 4


def test_a_trial_that_broke_counts_up_to_what_it_had_reached() -> None:
    broken = replace(run(state=RunState.FAILED, index=2), budget=Budget(10, 8))
    failed = replace(SECOND, runs=(*SECOND.runs, broken), budget=Budget(10, 8))
    assert schedule_of([FIRST, failed], failed).epochs == 8


def test_a_trial_that_was_stopped_counts_up_to_its_last_epoch() -> None:
    reports = [Observation(4, {"score": 0.2}), Observation(5, {"score": 0.1})]
    cut = replace(run(state=RunState.STOPPED, score=0.1), budget=Budget(8, 4), observations=reports)
    stopped = replace(SECOND, runs=(cut,))
    assert schedule_of([FIRST, stopped], stopped).stages[-1].to_epoch == 6


def test_a_trial_without_a_budget_has_none() -> None:
    with pytest.raises(FatalValueError, match="0000 has no budget of epochs"):
        schedule_of([], trial(run(score=1.0)))


def test_it_is_plain_json_and_back(tmp_path: Path) -> None:
    assert Schedule.from_config(json.loads(json.dumps(SCHEDULE.get_config()))) == SCHEDULE
    SCHEDULE.save(tmp_path / "schedule.json")
    assert Schedule.load(tmp_path / "schedule.json") == SCHEDULE


@pytest.mark.parametrize("text", ["no json", "[1]", "{}", '{"stages": [{"from": 1}]}'])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(FatalValueError, match="is no schedule"):
        Schedule.load(path)


def test_it_knows_the_values_of_each_epoch() -> None:
    assert [SCHEDULE.at(epoch)["rate"] for epoch in range(6)] == [0.1, 0.1, 0.08, 0.08, 0.08, 0.08]
    assert (SCHEDULE.epochs, len(SCHEDULE), list(SCHEDULE)) == (6, 2, list(SCHEDULE.stages))
    assert str(SCHEDULE).splitlines() == [
        "epochs 0 to 2: {'rate': 0.1}",
        "epochs 2 to 6: {'rate': 0.08}",
    ]
    with pytest.raises(FatalValueError, match="has the epochs 0 to 5, not 6"):
        SCHEDULE.at(6)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], "needs a stage"),
        ([Stage(1, 2, {}, 0)], "must begin at epoch 0"),
        ([Stage(0, 0, {}, 0)], "end later"),
        ([Stage(0, 2, {}, 0), Stage(3, 4, {}, 1)], "must begin at epoch 2"),
        ([Stage(0, 2.0, {}, 0)], "must be whole numbers"),  # type: ignore[arg-type]
        ([Stage(0, 2, {"x": [1]}, 0)], "values must be"),  # type: ignore[dict-item]
    ],
)
def test_stages_must_follow_on_each_other(stages: list[Stage], message: str) -> None:
    with pytest.raises((FatalValueError, FatalTypeError), match=message):
        Schedule(tuple(stages))
