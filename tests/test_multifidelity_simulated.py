"""The simulated part of the multi-fidelity benchmark: rules are what they are called, the picture is one."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from aiotune import SimulationResult, simulate

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from multifidelity_rules import contenders, curves, failing
from multifidelity_spans_picture import picture


@pytest.fixture(scope="module")
def results() -> dict[str, SimulationResult]:
    return {name: simulate(oracle, curves, 4) for name, oracle in contenders(9).items()}


def lives(result: SimulationResult) -> dict[int | None, tuple[float, float]]:
    """Return when the first run of each bracket started, and when its last one ended."""
    spans: dict[int | None, tuple[float, float]] = {}
    for trial in result.trials:
        for run in trial.runs:
            assert run.budget is not None
            assert run.ended_at is not None
            first, last = spans.get(run.budget.bracket, (run.started_at, run.ended_at))
            spans[run.budget.bracket] = min(first, run.started_at), max(last, run.ended_at)
    return spans


def test_all_train_as_much_as_hyperband_but_asha(results: dict[str, SimulationResult]) -> None:
    epochs = {name: result.epochs for name, result in results.items()}
    assert epochs.pop("ASHA") < 75
    assert set(epochs.values()) == {75}
    assert {len(result.trials) for result in results.values()} == {17}


def test_brackets_overlap_unless_one_runs_at_a_time(results: dict[str, SimulationResult]) -> None:
    def overlap(name: str) -> bool:
        ordered = sorted(lives(results[name]).values())
        return any(late < end for (_, end), (late, _) in pairwise(ordered))

    assert not overlap("one bracket at a time")
    assert overlap("Hyperband")
    assert overlap("KerasTuner's rule")


def test_no_device_is_free_before_the_tail(results: dict[str, SimulationResult]) -> None:
    for name in ("Hyperband", "ASHA"):
        assert results[name].utilisation(results[name].last_trial_start) == pytest.approx(1)
    slow = results["one bracket at a time"]
    assert slow.utilisation(slow.last_trial_start) < 0.9


def test_failures_cost_kerastuners_rule_its_promotions() -> None:
    runs = {
        name: len(simulate(oracle, failing, 4, seed=2).runs)
        for name, oracle in contenders(27).items()
        if name in ("Hyperband", "KerasTuner's rule")
    }
    assert runs["KerasTuner's rule"] < runs["Hyperband"]


def test_the_picture_has_a_bar_for_each_run(results: dict[str, SimulationResult]) -> None:
    tree = ElementTree.fromstring(picture("Runs", results))
    bars = sum(path.get("d", "").count("M") for path in tree.iter() if path.get("stroke-width"))
    assert bars == sum(len(result.runs) for result in results.values())
