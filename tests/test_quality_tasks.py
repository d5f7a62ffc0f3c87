"""The benchmark of quality: optima are what tasks say, contenders meet the same tasks, the figures add up."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from aiotune.hyperparameters import HyperParameters
from aiotune.oracles.base import Oracle
from aiotune.oracles.random_search import RandomSearchOracle
from aiotune.space import unit_draw

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from quality_driver import SCORE, run
from quality_functions import CORNER
from quality_peers import PEERS
from quality_scores import FLOOR, geometric_mean, mean_ranks, ratio, regrets, scale_of
from quality_tables import TABLES
from quality_tasks import Kind, Measured, Task, measure, tasks
from quality_traces import Outcome, Recorded, Trace, load, save, trace_of

TASKS = [*tasks(), CORNER]


def drawn(seed: int) -> HyperParameters:
    return HyperParameters(fill=lambda each: each.from_unit(unit_draw(seed, each.name)))


def named(task: Task) -> str:
    return task.name


def at_random(seed: int, trials: int) -> Oracle:
    return RandomSearchOracle(SCORE, trials, seed=seed)


def values(outcomes: list[Outcome]) -> list[float]:
    return sorted(each.measured.value for each in outcomes if each.measured.value is not None)


# --- tasks ---


@pytest.mark.parametrize("task", TASKS, ids=named)
def test_the_best_point_has_the_optimum_and_no_other_is_below(task: Task) -> None:
    hp = HyperParameters(values=dict(task.best))
    assert measure(task, hp, 0, 0).value == pytest.approx(task.optimum, abs=2e-6)
    assert hp.met_values() == dict(task.best)
    measured = [measure(task, drawn(seed), 0, seed).value for seed in range(200)]
    succeeded = [value for value in measured if value is not None]
    assert task.optimum <= min(succeeded) < max(succeeded)
    failed = 1 - len(succeeded) / len(measured)
    assert (0.25 < failed < 0.36) if task.kind is Kind.FAILING else failed == 0


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_point_that_a_program_can_declare_is_in_the_table(table: object) -> None:
    assert table in TABLES
    points = list(table.points())  # type: ignore[attr-defined]
    hp = HyperParameters()
    table.declare(hp)  # type: ignore[attr-defined]
    declared = {each.name: each for each in hp.declared}
    for point in points:
        assert all(declared[name].contains(value) for name, value in point.items())
    sizes = [len({point.get(name) for point in points} - {None}) for name in declared]
    assert sizes == [each.size for each in declared.values()]


def test_noise_is_of_task_seed_and_trial_alone() -> None:
    noisy = next(task for task in TASKS if task.noise)
    one, again, other = (measure(noisy, drawn(3), 5, trial) for trial in (7, 7, 8))
    assert one == again
    assert one.value == other.value
    assert one.observed != other.observed


def test_the_list_is_complete_and_knows_its_names() -> None:
    names = [task.name for task in tasks()]
    assert len(names) == len(set(names)) == 17
    assert [task.name for task in tasks(["mixed", "branin"])] == ["mixed", "branin"]
    with pytest.raises(ValueError, match="no task 'brannin'; there are: branin"):
        tasks(["brannin"])


# --- the driver ---


@pytest.mark.parametrize("name", ["conditional", "failing", "noisy_branin"])
def test_random_search_meets_the_same_trials_one_or_eight_at_a_time(name: str) -> None:
    [task] = tasks([name])
    one, eight, again, other = (
        run(at_random, task, 3, 30, parallel, order)
        for parallel, order in ((1, None), (8, 1), (8, 1), (8, 2))
    )
    points = [[each.measured for each in found] for found in (one, eight, again, other)]
    assert points[1] == points[2]
    assert points[0] != points[1] != points[3]
    assert values(one) == values(eight) == values(other)
    assert len(one) == 30
    assert any(each.measured.failure for each in one) == (task.kind is Kind.FAILING)


def test_duplicates_are_no_trials_and_a_small_space_ends_early() -> None:
    def twelve(hp: HyperParameters) -> float:
        count = hp.Int("count", 0, 2)
        return float(sum(hp.Int(f"x{index}_of_{count}", 0, 2) for index in range(count)) + count)

    task = Task("twelve", Kind.ORDINARY, twelve, 0.0, {})
    assert len(run(at_random, task, 0, 50, parallel=3)) == 1 + 3 + 9


# --- peers ---


class FixedOptuna:
    """Stands for a trial of Optuna's: the lowest value, or the last category."""

    def __init__(self) -> None:
        self.params: dict[str, object] = {}
        self.asked: dict[str, Mapping[str, object]] = {}

    def _give(self, name: str, value: object, options: Mapping[str, object]) -> object:
        self.params[name], self.asked[name] = value, options
        return value

    def suggest_float(self, name: str, low: float, high: float, **options: object) -> object:
        return self._give(name, low, options)

    def suggest_int(self, name: str, low: int, high: int, **options: object) -> object:
        return self._give(name, low, options)

    def suggest_categorical(self, name: str, choices: list[object]) -> object:
        return self._give(name, choices[-1], {})


def test_optuna_is_asked_for_what_is_active_in_its_own_terms() -> None:
    from quality_peers import OptunaNames

    trial = FixedOptuna()
    [task] = tasks(["conditional"])
    assert measure(task, OptunaNames(trial), 0, 0).value is not None
    assert trial.asked == {
        "model": {},
        "shared": {"step": None, "log": False},
        "rate": {"step": None, "log": True},
        "units": {"step": 8, "log": False},
        "momentum": {"step": None, "log": False},
    }


@pytest.mark.parametrize("peer", PEERS)
def test_what_was_recorded_of_a_peer_is_whole(peer: str) -> None:
    recorded = load(peer)
    assert set(recorded.versions) == set(PEERS[peer].packages)
    assert set(recorded.traces) == {task.name for task in TASKS}
    for task in TASKS:
        traces = recorded.traces[task.name]
        assert len(traces) == PEERS[peer].seeds
        assert {each.trials for each in traces} == {PEERS[peer].trials}
        assert all(value >= task.optimum - 1e-6 for each in traces for _, value in each.steps)


def test_random_search_finds_what_was_recorded() -> None:
    for name in ("hartmann6", "network", "failing"):
        [task] = tasks([name])
        assert trace_of(run(at_random, task, 1, 50)).steps == load("random").traces[name][1].steps


# --- traces and scores ---


def measured(*observed: float | None, noise: float = 0.0) -> list[Outcome]:
    return [
        Outcome(
            Measured(None, None, "nan") if value is None else Measured(value - noise, value), 0.1
        )
        for value in observed
    ]


def test_a_trace_has_the_true_value_of_the_best_observation() -> None:
    trace = trace_of(measured(None, 5.0, 7.0, None, 2.0, noise=1.0))
    assert [trace.at(count) for count in range(1, 6)] == [None, 4.0, 4.0, 4.0, 1.0]
    assert [trace.failed(count) for count in (1, 3, 5)] == [1, 1, 2]


def test_traces_are_read_as_they_were_written(tmp_path: Path) -> None:
    traces = {"branin": [trace_of(measured(3.0, None, 1.0)), trace_of(measured(2.0))]}
    save("me", Recorded({"me": "1"}, traces), tmp_path)
    assert load("me", tmp_path) == Recorded({"me": "1"}, traces)
    assert load("nobody", tmp_path) == Recorded({}, {})


def test_regret_is_a_share_of_what_random_search_leaves() -> None:
    [task] = tasks(["rosen4"])  # its optimum is 0
    scale = scale_of(task, [Trace(((0, 8.0), (30, best)), 50, (), 0.0) for best in (3.0, 4.0, 6.0)])
    assert [scale.regret(value) for value in (4.0, 1.0, 0.0, None)] == [1.0, 0.25, FLOOR, 2.0]
    traces = {"rosen4": [Trace(((1, 2.0), (4, 1.0)), 50, (), 0.0)] * 3}
    assert regrets(traces, {"rosen4": scale}, 1, 2)["rosen4"].tolist() == [2.0, 2.0]
    assert regrets(traces, {"rosen4": scale}, 5, 9)["rosen4"].tolist() == [0.25] * 3


def test_ratios_and_ranks() -> None:
    low = {"a": np.array([0.1, 0.2]), "b": np.array([0.01, 0.04])}
    high = {task: 4 * found for task, found in low.items()}
    assert geometric_mean(low) == pytest.approx((0.1 * 0.2 * 0.01 * 0.04) ** 0.25)
    found = ratio(low, high)
    assert found.value == pytest.approx(0.25)
    assert found.low < 0.25 < found.high
    ranks = mean_ranks({"low": low, "high": high, "too": low})
    assert [rank.value for rank in ranks.values()] == [1.5, 3.0, 1.5]
