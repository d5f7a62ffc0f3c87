"""AshaOracle and its tuner: arguments, plan, and searches through the real scheduler."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import aiotune
from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.events import EndReason, StopRequested
from aiotune.executors.base import Finished, Observed, RunEvent
from aiotune.objective import Objective
from aiotune.oracles.asha import AshaOracle
from aiotune.oracles.base import Oracle
from aiotune.oracles.stopping import AshaStoppingOracle
from aiotune.pruners.percentile import MedianPruner
from aiotune.space import unit_draw
from aiotune.trial import RunState, StopCause, TrialState
from tests.support.fake_executor import FakeExecutor, Script
from tests.support.rungs import one_name, rungs_of
from tests.support.searches import SearchOfFakes

SCORE = Objective("score", "min")


def oracle(mode: str = "promote", **given: Any) -> AshaOracle:
    options: dict[str, Any] = {"max_epochs": 9, "max_trials": 20, "seed": 3} | given
    return AshaStoppingOracle(SCORE, **options) if mode == "stop" else AshaOracle(SCORE, **options)


async def training(script: Script) -> AsyncIterator[RunEvent]:
    """Train up to the budget, or until asked to stop; the score falls with the epochs."""
    assignment = script.assignment
    budget = assignment.budget
    assert budget is not None
    yield script.met(one_name)
    level = unit_draw(assignment.seed, "score", assignment.stream)
    for epoch in range(budget.initial_epoch, budget.epochs):
        if script.stop.is_set():
            yield Finished(is_stopped=True)
            return
        yield Observed(epoch, {"score": level - epoch / 100})
    yield Finished()


def search_of(asked: AshaOracle, root: Path, **options: Any) -> SearchOfFakes:
    return SearchOfFakes(asked, FakeExecutor(training), root, **options)


@pytest.mark.parametrize("slots", [1, 4])
async def test_trials_are_promoted_and_all_end(tmp_path: Path, slots: int) -> None:
    search = search_of(oracle(), tmp_path, slots=slots)
    ended = await search.run()
    assert ended.reason is EndReason.MAX_TRIALS
    assert {trial.status for trial in search.history.trials.values()} == {"COMPLETED"}
    sizes = [len(trials) for _, trials in sorted(rungs_of(search.history).items())]
    assert sizes[0] == 20
    assert sizes[1] >= 20 // 3
    assert sizes[2] >= 2
    best = min(search.history.trials.values(), key=lambda trial: trial.score or 0.0)
    assert best.budget is not None
    assert best.budget.epochs == 9


async def test_stopped_trials_keep_what_they_reached(tmp_path: Path) -> None:
    search = search_of(oracle(mode="stop"), tmp_path, slots=2)
    ended = await search.run()
    assert ended.reason is EndReason.MAX_TRIALS
    pruned = [t for t in search.history.trials.values() if t.state is TrialState.PRUNED]
    completed = [t for t in search.history.trials.values() if t.state is TrialState.COMPLETED]
    assert len(pruned) + len(completed) == 20
    assert pruned
    assert completed
    for trial in pruned:
        assert trial.runs[0].state is RunState.STOPPED
        assert trial.has_score
    causes = {fact.cause for fact in search.store.facts if isinstance(fact, StopRequested)}
    assert causes == {StopCause.RULE}


@pytest.mark.parametrize("mode", ["promote", "stop"])
async def test_every_cut_resumes_to_an_end(tmp_path: Path, mode: Any) -> None:
    search = search_of(oracle(mode=mode, max_trials=5), tmp_path, slots=2)
    await search.run()
    async for cut, history in search.resumed_at_every_cut(lambda: oracle(mode=mode, max_trials=5)):
        assert history.counted() == 5, f"after fact {cut}"
        assert not history.open_trials()


def test_a_report_waits_for_no_oracle_that_promotes() -> None:
    """A search calls `judge`, in turn with an oracle that thinks in a thread, where a class defines it."""
    promoting, stopping = oracle(sampler="bayesian"), oracle("stop", sampler="bayesian")
    assert type(promoting).judge is Oracle.judge
    assert type(stopping).judge is not Oracle.judge
    assert promoting.asks_in_thread


# --- arguments ---


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"factor": 1}, FatalValueError, "factor=1: it must be 2 or more"),
        ({"max_epochs": 2, "min_epochs": 3}, FatalValueError, "less than min_epochs=3"),
        ({"max_epochs": "9"}, FatalTypeError, "max_epochs='9': a whole number is needed"),
        ({"brackets": 9}, FatalValueError, "brackets=9: .* no more than 3"),
        ({"brackets": 0}, FatalValueError, "brackets=0: it must be 1 or more"),
        ({"mode": "halt"}, FatalValueError, "mode='halt'"),
        ({"resource": "time"}, FatalValueError, "resource='time'"),
        ({"mode": "stop", "resource": "data"}, FatalValueError, 'mode="stop" cannot be had with'),
        ({"mode": "stop", "brackets": 9}, FatalValueError, "brackets=9: .* no more than 3"),
        ({"sampler": "baysian"}, FatalValueError, "did you mean 'bayesian'"),
        ({"keep_checkpoints": "none"}, FatalValueError, 'keep_checkpoints="none" cannot be had'),
        (
            {"resource": "data", "pruner": MedianPruner()},
            FatalValueError,
            "pruner= compares trials step by step",
        ),
    ],
)
def test_bad_arguments_are_refused(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    given: dict[str, Any] = {"max_epochs": 9, "directory": tmp_path} | options
    with pytest.raises(error, match=text):
        aiotune.ASHA(lambda hp: None, "val_loss", **given)


def test_a_search_that_promotes_nothing_needs_no_checkpoints(tmp_path: Path) -> None:
    fixed: dict[str, Any] = {"directory": tmp_path, "keep_checkpoints": "none", "max_epochs": 9}
    aiotune.ASHA(lambda hp: None, "val_loss", mode="stop", **fixed)
    aiotune.ASHA(lambda hp: None, "val_loss", resource="data", **fixed)
    with pytest.raises(FatalValueError, match="Hyperband: a promoted trial goes on"):
        aiotune.Hyperband(lambda hp: None, "val_loss", **fixed)


def test_the_plan_is_about_what_happens(tmp_path: Path) -> None:
    tuner = aiotune.ASHA(
        lambda hp: None, "val_loss", max_epochs=9, max_trials=90, directory=tmp_path
    )
    plan = tuner.plan()
    assert [(rung.size, rung.epochs) for rung in plan.brackets[0].rungs] == [
        (90, 1),
        (30, 3),
        (10, 9),
    ]
    assert str(plan).splitlines()[-1] == "About 90 trials, 130 runs, 210 epochs"
    endless = aiotune.ASHA(
        lambda hp: None, "val_loss", max_epochs=9, max_trials=None, directory=tmp_path
    )
    with pytest.raises(FatalValueError, match="needs max_trials"):
        endless.plan()
