from __future__ import annotations

from collections.abc import Sequence

import pytest

from aiotune.errors import FatalTypeError, FatalValueError, StoreMismatch
from aiotune.events import Event
from aiotune.hyperparameters import HyperParameters
from aiotune.objective import Objective
from aiotune.oracles.population import PopulationBasedTrainingOracle
from aiotune.oracles.replay import ReplayOracle
from aiotune.ranking import best_trials
from aiotune.schedule import Schedule, Stage, schedule_of
from aiotune.trial import Budget
from tests.support.evolving import Evolution

SCORE = Objective("score", "min")
SCHEDULE = Schedule((Stage(0, 2, {"rate": 0.1}, 3), Stage(2, 6, {"rate": 0.08}, 11)), seed=5)


def declare(hp: HyperParameters) -> None:
    hp.Float("rate", 0.0, 1.0)


def replayed(
    schedule: Schedule = SCHEDULE, facts: Sequence[Event] = (), fails: int | None = None
) -> Evolution:
    return Evolution(
        ReplayOracle(schedule, SCORE),
        declare,
        slots=3,
        facts=list(facts),
        fails=lambda trial: trial.stream == fails,
    ).run()


def test_each_stage_goes_on_from_the_one_before() -> None:
    search = replayed()
    assert search.message == "the schedule is done"
    assert [
        (dict(t.values), t.stream, t.parent, t.budget, t.status)
        for t in search.history.trials.values()
    ] == [
        ({"rate": 0.1}, 3, None, Budget(2, 0, rung=0, is_last=False), "COMPLETED"),
        ({"rate": 0.08}, 11, "0000", Budget(6, 2, rung=1), "COMPLETED"),
    ]
    assert search.oracle.seed == 5


def test_no_other_point_is_taken() -> None:
    with pytest.raises(FatalTypeError, match="its schedule has the values"):
        ReplayOracle(SCHEDULE, SCORE).enqueue({"rate": 0.5})


def test_the_winner_of_a_population_is_trained_again() -> None:
    oracle = PopulationBasedTrainingOracle(SCORE, 6, 12, 2, seed=4)
    found = Evolution(oracle, declare, slots=2).run()
    winner = max(found.trials, key=lambda each: each.number)
    schedule = schedule_of(found.trials, winner, oracle.seed)
    again = replayed(Schedule.from_config(schedule.get_config()))
    last = again.trials[-1]
    assert len(again.trials) == len(schedule) > 1
    assert (last.values, last.stream) == (winner.values, winner.stream)
    scores = [
        [each.metrics for run in it.runs for each in run.observations] for it in (last, winner)
    ]
    assert scores[0] == scores[1]
    assert best_trials(again.trials, SCORE, 1)


def test_it_resumes_after_any_fact() -> None:
    whole = replayed()
    for cut in range(1, len(whole.facts)):
        resumed = replayed(facts=whole.facts[:cut])
        assert [(t.values, t.parent, t.status, t.score) for t in resumed.trials] == [
            (t.values, t.parent, t.status, t.score) for t in whole.trials
        ]


def test_it_ends_with_a_stage_that_fails() -> None:
    assert replayed(fails=3).message == "trial 0000 ended as FAILED: nothing goes on from it"


def test_a_project_of_something_else_is_refused() -> None:
    facts = replayed().facts
    other = Schedule((Stage(0, 2, {"rate": 0.2}, 3),))
    with pytest.raises(StoreMismatch, match="trial 0000 of this project is none of this schedule"):
        replayed(other, facts)


def test_a_value_that_the_program_does_not_have_is_refused() -> None:
    with pytest.raises(FatalValueError, match=r"rate = 7\.0 is not in Float"):
        replayed(Schedule((Stage(0, 2, {"rate": 7.0}, 3),)))


def test_it_needs_a_schedule() -> None:
    with pytest.raises(FatalTypeError, match=r"an aiotune\.Schedule is needed"):
        ReplayOracle("schedule.json")  # type: ignore[arg-type]
