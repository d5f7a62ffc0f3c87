"""The base of all oracles: what it knows of the search, and oracles that were written for KerasTuner."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from aiotune import EndReason, HyperParameters, Objective, Oracle, Tuner
from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.executors.context import RunContext
from aiotune.history import History
from aiotune.oracles.base import Exhausted, Suggest, Wait


class Answering(Oracle):
    """Answers what it is told."""

    answer: Any = None

    def populate_space(self, trial_id: str) -> Mapping[str, Any]:
        return self.answer  # type: ignore[no-any-return]


def asked(answer: object) -> Any:
    oracle = Answering(objective="loss")
    oracle.answer = answer
    return oracle.ask(History(), 7)


def test_what_populate_space_returns_is_an_answer() -> None:
    assert asked({"status": "RUNNING", "values": {"x": 1}}) == Suggest({"x": 1}, stream=7)
    assert asked({"status": "RUNNING", "values": None}) == Suggest({}, stream=7)
    assert asked({"status": "IDLE"}) == Wait()
    assert asked({"status": "STOPPED", "values": None}) == Exhausted()


def test_anything_else_is_refused_by_name() -> None:
    with pytest.raises(FatalTypeError, match=r"Answering.populate_space\(\) must return"):
        asked(None)
    with pytest.raises(FatalValueError, match="status 'DONE'"):
        asked({"status": "DONE"})


def test_an_oracle_that_proposes_nothing_says_what_to_define() -> None:
    with pytest.raises(NotImplementedError, match="must define ask"):
        Oracle(objective="loss").ask(History(), 0)


class Ladder(Oracle):
    """Climbs: each trial is one above the best one so far."""

    def populate_space(self, trial_id: str) -> Mapping[str, Any]:
        (x,) = self.get_space().space
        best = self.get_best_trials()
        value = x.default if not best else best[0].values["x"] + 1
        if not x.contains(value):
            return {"status": "STOPPED", "values": None}
        return {"status": "RUNNING", "values": {"x": value}}


class Climber(Tuner):
    def run_trial(self, trial: RunContext) -> float:
        return float(trial.hyperparameters.get("x"))


async def test_an_oracle_of_the_users_own_searches_and_answers_afterwards(tmp_path: Path) -> None:
    hp = HyperParameters()
    hp.Int("x", 0, 3)
    oracle = Ladder(objective=Objective("x", "max"), hyperparameters=hp, max_trials=20)
    tuner = Climber(oracle, directory=tmp_path, gpus=0, max_concurrent_trials=1)
    result = await tuner.search(verbose=0)
    assert result.reason is EndReason.EXHAUSTED
    assert [trial.values["x"] for trial in oracle.trials.values()] == [0, 1, 2, 3]
    assert oracle.get_trial("0002").score == 2
    assert oracle.get_best_trials(1)[0].trial_id == "0003"
    assert oracle.remaining_trials() == 16
    reopened = Ladder(objective=oracle.objective, max_trials=4)
    Climber(reopened, directory=tmp_path)
    assert list(reopened.trials) == list(oracle.trials)
    assert reopened.remaining_trials() == 0
    assert [each.name for each in reopened.get_space().space] == ["x"]
