"""Simulated searches: exact times, the same decisions as a real search, and no trace of them."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest

import aiotune
from aiotune import Curve, HyperParameters, Limits, Objective, Resources, simulate
from aiotune.errors import (
    DeviceError,
    FatalRuntimeError,
    FatalTypeError,
    FatalValueError,
    SearchFailed,
)
from aiotune.events import EndReason
from aiotune.executors.context import RunContext
from aiotune.history import History
from aiotune.oracles.base import Answer, Exhausted, Oracle, Suggest
from aiotune.oracles.hyperband import HyperbandOracle
from aiotune.oracles.random_search import RandomSearchOracle
from aiotune.pruners.base import Pruner
from aiotune.simulation.recorded import RecordedCurves
from aiotune.simulation.virtual_time import VirtualClock, run_virtually
from aiotune.trial import FailureKind, Run, RunState, Trial, TrialState

SCORE = Objective("score", "max")


def learning(hp: HyperParameters) -> Curve:
    """Return a curve that rises towards a value of the point."""
    final = hp.Float("x", 0.0, 1.0)
    return Curve(lambda epoch: {"score": final * (1 - 0.5 ** (epoch + 1))}, seconds=1 + 9 * final)


def even(hp: HyperParameters) -> Curve:
    """Return a curve of three epochs, 10 s each, whatever the point."""
    hp.Float("x", 0.0, 1.0)
    return Curve({"score": [0.1, 0.3, 0.2]}, seconds=10)


def random_oracle(max_trials: int = 6, **options: Any) -> RandomSearchOracle:
    return RandomSearchOracle(SCORE, max_trials=max_trials, **options)


def hyperband_oracle() -> HyperbandOracle:
    return HyperbandOracle(SCORE, max_epochs=9, factor=3)


def decisions(trials: Any) -> dict[tuple[Any, ...], list[Any]]:
    """Return the budgets that each point got."""
    return {tuple(trial.values.items()): [run.budget for run in trial.runs] for trial in trials}


# --- the same each time, and the same as a real search ---


def test_a_seed_gives_the_same_result_each_time() -> None:
    one, two = (simulate(hyperband_oracle(), learning, devices=4, seed=3) for _ in range(2))
    assert one == two
    other = simulate(hyperband_oracle(), learning, devices=4, seed=4)
    assert decisions(other.trials).keys() != decisions(one.trials).keys()


async def test_it_may_be_called_where_a_loop_runs() -> None:
    inside = simulate(hyperband_oracle(), learning, devices=4)
    assert inside == await asyncio.to_thread(simulate, hyperband_oracle(), learning, devices=4)


class Real(aiotune.Hyperband):
    """Reports the same curve in real time."""

    async def run_trial(self, trial: RunContext) -> None:
        curve = learning(trial.hyperparameters)
        assert trial.budget is not None
        for epoch in range(trial.budget.initial_epoch, trial.budget.epochs):
            trial.report(epoch, **curve.at(epoch))


async def test_it_decides_as_a_real_search_does(tmp_path: Path) -> None:
    tuner = Real(None, SCORE, max_epochs=9, seed=5, directory=tmp_path, max_concurrent_trials=2)
    simulated = simulate(tuner, learning, devices=2, seed=5)
    real = await tuner.search(verbose=0)
    assert decisions(simulated.trials) == decisions(real.trials)
    assert simulated.best_score == real.best_score
    assert simulated.reason == real.reason


def test_it_leaves_the_tuner_and_its_directory_alone(tmp_path: Path) -> None:
    tuner = aiotune.RandomSearch(
        lambda hp: None, SCORE, max_trials=3, directory=tmp_path, executions_per_trial=2
    )
    tuner.enqueue({"x": 0.25})
    result = simulate(tuner, learning, epochs=2)
    assert [len(trial.runs) for trial in result.trials] == [2, 2, 2]
    assert result.trials[0].values == {"x": 0.25}
    assert tuner.trials == ()
    assert tuner.oracle.seed is None
    assert list(tmp_path.iterdir()) == []


def test_an_oracle_that_would_ask_in_a_thread_is_asked_on_the_loop() -> None:
    threads: set[int] = set()

    class Slow(RandomSearchOracle):
        asks_in_thread = True

        def ask(self, history: History, number: int) -> Answer:
            threads.add(threading.get_ident())
            return super().ask(history, number)

    simulate(Slow(SCORE, max_trials=4), even, devices=2)
    assert threads == {threading.get_ident()}


# --- time and devices ---


def test_time_is_what_the_curves_say() -> None:
    def curves(hp: HyperParameters) -> Curve:
        hp.Float("x", 0.0, 1.0)
        return Curve({"score": [1, 2, 3]}, seconds=[1, 2, 4], startup=3)

    result = simulate(random_oracle(max_trials=5), curves, devices=1)
    assert [(run.start, run.end) for run in result.runs] == [
        (10 * n, 10 * n + 10) for n in range(5)
    ]
    assert (result.seconds, result.busy_seconds, result.idle_seconds) == (50, 50, 0)
    assert result.epochs == 15
    assert result.utilisation() == 1
    assert result.best_over_time == ((4, 1), (6, 2), (10, 3))
    assert result.seconds_to(2) == 6
    assert result.seconds_to(4) is None


def test_a_device_that_is_free_gets_the_next_trial_at_once() -> None:
    durations = {0: 5.0, 1: 1.0, 2: 1.0, 3: 10.0}

    class Listed(Oracle):
        def ask(self, history: History, number: int) -> Answer:
            return Suggest({"n": number}, number) if number in durations else Exhausted()

    def curves(hp: HyperParameters) -> Curve:
        return Curve({"score": [0.5]}, seconds=durations[hp.Int("n", 0, 9)])

    result = simulate(Listed(SCORE), curves, devices=2)
    assert [(run.start, run.end, run.devices) for run in result.runs] == [
        (0, 5, ("device 0",)),
        (0, 1, ("device 1",)),
        (1, 2, ("device 1",)),
        (2, 12, ("device 1",)),
    ]
    assert result.last_run_start == result.last_trial_start == 2
    assert result.utilisation(2) == 1
    assert result.idle_seconds == 7
    assert result.utilisation() == 17 / 24


def test_a_promoted_run_pays_its_startup_again_and_trains_what_is_missing() -> None:
    def curves(hp: HyperParameters) -> Curve:
        return Curve(learning(hp).metrics, seconds=1, startup=100)

    result = simulate(hyperband_oracle(), curves, devices=3)
    assert result.busy_seconds == 100 * len(result.runs) + result.epochs
    assert (len(result.trials), len(result.runs), result.epochs) == (17, 23, 75)
    best = result.best_trial
    assert best is not None
    steps = [step.step for run in best.runs for step in run.observations]
    assert steps == list(range(9))


def test_a_run_may_take_several_devices(tmp_path: Path) -> None:
    def tuner(gpus: int) -> aiotune.RandomSearch:
        resources = Resources(gpus=gpus)
        return aiotune.RandomSearch(
            lambda hp: None, SCORE, max_trials=4, resources=resources, directory=tmp_path
        )

    result = simulate(tuner(2), even, devices=5)
    assert result.seconds == 60
    assert result.busy_seconds == 240
    with pytest.raises(DeviceError, match="asks for 6 devices, and the simulation has 5"):
        simulate(tuner(6), even, devices=5)


def test_limits_count_virtual_time() -> None:
    result = simulate(random_oracle(100), even, devices=1, limits=Limits(max_time=1000))
    assert result.reason is EndReason.TIME
    assert result.seconds == 1000
    result = simulate(random_oracle(1), even, limits=Limits(trial_timeout=25))
    assert result.seconds == 25
    assert result.trials[0].failure is FailureKind.TIMEOUT


def test_a_pruner_ends_runs() -> None:
    class Second(Pruner):
        def judge(self, history: History, trial: Trial, run: Run) -> str | None:
            return "enough" if run.observations[-1].step == 1 else None

    result = simulate(random_oracle(max_trials=2), even, devices=1, pruner=Second())
    assert [trial.state for trial in result.trials] == [TrialState.PRUNED] * 2
    assert result.seconds == 40
    assert result.best_score == 0.3


def test_noise_is_the_runs_own_and_stays_with_it_through_promotions() -> None:
    def curves(hp: HyperParameters, chance: Random) -> Curve:
        hp.Float("x", 0.0, 1.0)
        level = chance.random()
        return Curve(lambda epoch: {"score": level}, seconds=chance.random())

    result = simulate(hyperband_oracle(), curves)
    levels = [{run.metrics["score"] for run in trial.runs} for trial in result.trials]
    assert all(len(each) == 1 for each in levels)
    assert len(set.union(*levels)) == len(levels)


def test_it_prints_a_table() -> None:
    text = str(simulate(random_oracle(max_trials=3), even, devices=2))
    lines = dict(line.split("  ", 1) for line in text.splitlines())
    assert lines["trials"].strip() == "3 (3 COMPLETED)"
    assert lines["devices busy"].strip() == "75.0% (90 device seconds)"
    assert "reached after 20 s" in lines["best score"]


# --- failures ---


def broken(**how: Any) -> Callable[[HyperParameters], Curve]:
    def curves(hp: HyperParameters) -> Curve:
        hp.Float("x", 0.0, 1.0)
        return Curve({"score": [0.1, 0.2, 0.3, 0.4]}, seconds=1, **how)

    return curves


def test_a_curve_may_break() -> None:
    curves = broken(breaks_at=2, failure="out of memory")
    (trial,) = simulate(random_oracle(max_trials=1), curves).trials
    assert (trial.state, trial.failure) == (TrialState.FAILED, FailureKind.OUT_OF_MEMORY)
    assert len(trial.runs[0].observations) == 2
    assert trial.message is not None
    assert "out of memory in epoch 2" in trial.message


def test_a_run_that_crashed_goes_on_where_it_was() -> None:
    oracle = random_oracle(max_trials=1, max_retries_per_trial=1)
    (trial,) = simulate(oracle, broken(breaks_at=3)).trials
    assert [run.state for run in trial.runs] == [RunState.FAILED] * 2
    assert [[each.step for each in run.observations] for run in trial.runs] == [[0, 1, 2], []]
    assert trial.ended_at == 5  # three epochs and the one that breaks; then that alone


def test_a_metric_that_is_nan_fails_the_trial() -> None:
    def curves(hp: HyperParameters) -> Curve:
        hp.Float("x", 0.0, 1.0)
        return Curve({"score": [math.nan, math.nan]})

    (trial,) = simulate(random_oracle(max_trials=1), curves).trials
    assert (trial.state, trial.failure) == (TrialState.FAILED, FailureKind.NAN)


def test_an_exception_fails_a_trial_but_not_the_look_at_the_names() -> None:
    def curves(hp: HyperParameters) -> Curve:
        if hp.Int("x", 0, 3) == 0:  # at its default, too
            raise MemoryError("no room")
        return Curve({"score": [0.5]})

    result = simulate(random_oracle(max_trials=4), curves, devices=1)
    assert {trial.values["x"]: trial.status for trial in result.trials} == {
        0: "FAILED",
        1: "COMPLETED",
        2: "COMPLETED",
        3: "COMPLETED",
    }


def test_failures_in_a_row_end_it_as_they_end_a_search() -> None:
    with pytest.raises(SearchFailed, match="3 trials failed in a row"):
        simulate(random_oracle(), broken(breaks_at=0))


def test_an_error_in_the_metrics_is_the_trials() -> None:
    def curves(hp: HyperParameters) -> Curve:
        hp.Float("x", 0.0, 1.0)
        return Curve(lambda epoch: {"score": 1 / (1 - epoch)})

    (trial,) = simulate(random_oracle(max_trials=1), curves, epochs=3).trials
    assert trial.failure is FailureKind.USER_ERROR
    assert "ZeroDivisionError" in str(trial.message)


# --- what was recorded ---


def test_recorded_trials_teach_their_nearest_neighbours() -> None:
    first = simulate(random_oracle(max_trials=40), learning, epochs=9)
    again = simulate(random_oracle(max_trials=40), first, epochs=9)
    assert [trial.score for trial in again.trials] == [trial.score for trial in first.trials]
    assert again.seconds == pytest.approx(first.seconds)
    other = simulate(random_oracle(max_trials=20), RecordedCurves(first), epochs=12, seed=8)
    recorded = {trial.score for trial in first.trials}
    assert {trial.score for trial in other.trials} <= recorded  # longer runs stay at the last value


def test_recorded_failures_happen_again() -> None:
    first = simulate(random_oracle(max_trials=2), broken(breaks_at=2))
    again = simulate(random_oracle(max_trials=2), first.trials, epochs=4)
    assert [trial.failure for trial in again.trials] == [FailureKind.CRASH] * 2
    assert [len(trial.runs[0].observations) for trial in again.trials] == [2, 2]


def test_a_promoted_trial_is_recorded_as_one_curve() -> None:
    first = simulate(hyperband_oracle(), learning)
    again = simulate(hyperband_oracle(), first)
    assert decisions(again.trials) == decisions(first.trials)


def test_a_table_of_curves_is_looked_up() -> None:
    hp = HyperParameters()
    hp.Choice("kind", ["dense", "conv"])
    hp.Int("units", 1, 100)
    table = [
        ({"kind": "dense", "units": 10}, Curve({"score": [0.1]})),
        ({"kind": "dense", "units": 90}, Curve({"score": [0.2]})),
        ({"kind": "conv", "units": 50}, Curve({"score": [0.3]})),
    ]
    recorded = RecordedCurves(table, hyperparameters=hp)

    def score(**values: Any) -> float:
        return recorded(HyperParameters(space=hp.space, values=values)).at(0)["score"]

    assert score(kind="dense", units=30) == 0.1
    assert score(kind="dense", units=70) == 0.2
    assert score(kind="conv", units=99) == 0.3
    result = simulate(random_oracle(max_trials=8), recorded)
    assert {trial.score for trial in result.trials} <= {0.1, 0.2, 0.3}
    assert all(set(trial.values) == {"kind", "units"} for trial in result.trials)


async def test_a_stored_project_is_read(tmp_path: Path) -> None:
    tuner = Real(None, SCORE, max_epochs=3, seed=5, directory=tmp_path, max_concurrent_trials=2)
    real = await tuner.search(verbose=0)
    simulated = simulate(HyperbandOracle(SCORE, max_epochs=3), tuner.project_dir, seed=5)
    assert decisions(simulated.trials) == decisions(real.trials)
    assert simulate(HyperbandOracle(SCORE, max_epochs=3), tuner, seed=5).trials == simulated.trials


# --- bad input ---


def no_curve(hp: HyperParameters) -> Any:
    return {"score": [1.0]}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"search": lambda: None}, FatalTypeError, "needs a tuner or an oracle first"),
        ({"search": RandomSearchOracle}, FatalTypeError, "needs a tuner or an oracle first"),
        ({"devices": 0}, FatalValueError, "devices=0"),
        ({"devices": 2.5}, FatalTypeError, "whole number"),
        ({"epochs": True}, FatalTypeError, "whole number"),
        ({"curves": no_curve}, FatalTypeError, "must return an aiotune.Curve"),
        ({"curves": lambda: None}, FatalTypeError, "write `def curves"),
        ({"curves": 3}, FatalTypeError, "recorded curves come from"),
        ({"curves": []}, FatalValueError, "nothing to simulate with"),
        ({"curves": ["a"]}, FatalTypeError, "needs pairs"),
        ({"curves": "no/such/project"}, FatalValueError, "no project of aiotune"),
        ({"epochs": 4}, FatalValueError, "has 3 epochs, and it is to train 4"),
        ({"curves": learning}, FatalValueError, "pass simulate\\(..., epochs=...\\)"),
    ],
)
def test_bad_arguments_are_refused(
    arguments: Mapping[str, Any], error: type[Exception], message: str
) -> None:
    given = {"search": random_oracle(), "curves": even, **arguments}
    with pytest.raises(error, match=message):
        simulate(**given)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"metrics": [1.0, 2.0]}, FatalTypeError, "a function of the epoch"),
        ({"metrics": {}}, FatalTypeError, "a function of the epoch"),
        ({"metrics": {"a": [1], "b": [1, 2]}}, FatalValueError, "as many epochs as the others"),
        ({"metrics": {"a": []}}, FatalValueError, "one at least"),
        ({"metrics": {"a": [1]}, "seconds": -1}, FatalValueError, "0 or more"),
        ({"metrics": {"a": [1]}, "startup": math.inf}, FatalValueError, "finite"),
        ({"metrics": {"a": [1]}, "failure": "boredom"}, FatalValueError, "'crash'"),
    ],
)
def test_bad_curves_are_refused(
    arguments: Mapping[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Curve(**arguments)


def test_pairs_without_names_are_refused() -> None:
    with pytest.raises(FatalValueError, match="pass hyperparameters="):
        RecordedCurves([({"x": 1}, Curve({"score": [1]}))])


def test_an_oracle_that_cannot_be_copied_is_refused() -> None:
    oracle = random_oracle()
    oracle.lock = threading.Lock()  # type: ignore[attr-defined]
    with pytest.raises(FatalTypeError, match="cannot be copied"):
        simulate(oracle, even)


# --- virtual time ---


def test_the_clock_jumps_to_what_is_due_next() -> None:
    async def main() -> list[tuple[float, str]]:
        clock, seen = VirtualClock(), []

        async def sleep(name: str, seconds: float) -> None:
            await clock.sleep(seconds)
            seen.append((clock.now(), name))

        await asyncio.gather(sleep("b", 2e6), sleep("a", 0.5), sleep("c", 2e6))
        return seen

    assert run_virtually(main) == [(0.5, "a"), (2e6, "b"), (2e6, "c")]


def test_waiting_for_what_never_comes_is_an_error() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(FatalRuntimeError, match="stands still"):
        run_virtually(main)
