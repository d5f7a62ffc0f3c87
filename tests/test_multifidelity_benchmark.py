"""The benchmark of multi-fidelity search: stamps become phases that add up, and the figures follow."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from multifidelity_part import Part, keep
from multifidelity_pruner import Found, Pair
from multifidelity_pruner import part_of as pruner_part
from multifidelity_stop import Stop
from multifidelity_stop import part_of as stop_part
from multifidelity_sweep import OURS, THEIRS, part_of
from multifidelity_task import stamp
from multifidelity_timeline import PARTS, Sweep, sweep_of, trainings

START = 100.0  # of the program, by the clock of the stamps
GOAL = 0.99
STEPS = (  # of one training of two epochs: what, and how long after its build
    ("built", 1.0, {}),
    ("fit", 2.0, {}),
    ("epoch begins", 2.0, {}),
    ("second batch", 4.0, {}),
    ("validation", 5.0, {}),
    ("second validation batch", 6.0, {}),
    ("epoch", 6.5, {"epoch": 0, "score": 0.97}),
    ("epoch begins", 7.0, {}),
    ("epoch", 8.0, {"epoch": 1, "score": 0.995}),
    ("end", 8.5, {}),
)


def stamps_of(build: float, *, pid: int = 1, core: int = 0, lowered: float = 0.0) -> list[Any]:
    """Return the stamps of one training; its scores are lower by `lowered`."""
    made = [("build", 0.0, {"cores": [core]}), *STEPS]
    return [
        {"what": what, "at": START + build + after, "pid": pid, **lower(facts, lowered)}
        for what, after, facts in made
    ]


def lower(facts: dict[str, Any], by: float) -> dict[str, Any]:
    return {**facts, "score": facts["score"] - by} if "score" in facts else facts


def done(at: float, **facts: Any) -> Any:
    return {"what": "done", "at": START + at, "pid": 1, "best": 0.995, "trials": 2, **facts}


def discovery(at: float) -> list[Any]:
    return [
        {"what": "build", "at": START + at, "pid": 9, "cores": [0]},
        {"what": "built", "at": START + at + 0.5, "pid": 9},
    ]


# --- where the time went ---


def test_the_phases_of_one_process_add_up_to_the_whole_program() -> None:
    stamps = [*discovery(5), *stamps_of(10, lowered=0.1), *stamps_of(20), done(29)]
    sweep = sweep_of(THEIRS, 0, stamps, (START, START + 30), 40.0, GOAL)
    assert sweep.parts == pytest.approx(
        {
            "imports": 5,
            "opening": 5,
            "build": 2,
            "trace": 8,  # 1 to the fit, 2 in its first batch, 1 in the first validation
            "train": 5,
            "checkpoint": 2,
            "around": 1.5,  # between the two
            "idle": 0,
            "closing": 1.5,
        }
    )
    assert sum(sweep.parts.values()) == pytest.approx(sweep.seconds) == 30


def test_the_phases_of_two_slots_are_halved_and_gaps_are_idle() -> None:
    runs = [(START + 9, START + 20, "cpu:0"), (START + 9, START + 19, "cpu:1")]
    trained = [*stamps_of(10, pid=2), *stamps_of(10, pid=3, core=1)]
    stamps = [*discovery(5), *trained, done(20, runs=runs)]
    sweep = sweep_of(OURS, 0, stamps, (START, START + 21), 40.0, GOAL)
    assert sweep.parts["trace"] == pytest.approx(4)
    assert sweep.parts["around"] == pytest.approx((21 - 17) / 2)
    assert sweep.parts["idle"] == pytest.approx(0.5)
    assert sweep.parts["opening"] == pytest.approx(4)
    assert sum(sweep.parts.values()) == pytest.approx(21)
    assert list(sweep.lanes) == ["0", "1"]


def test_the_goal_is_reached_at_the_end_of_the_first_epoch_that_has_it() -> None:
    stamps = [*stamps_of(10, lowered=0.006), *stamps_of(20), done(29)]
    sweep = sweep_of(THEIRS, 0, stamps, (START, START + 30), 40.0, GOAL)
    assert sweep.goal_seconds == pytest.approx(28)
    assert (sweep.runs, sweep.epochs, sweep.trials) == (2, 4, 2)
    assert [score for _, score in sweep.curve] == pytest.approx([0.964, 0.989, 0.995])
    never = sweep_of(THEIRS, 0, stamps, (START, START + 30), 40.0, 0.999)
    assert never.goal_seconds is None


def test_a_build_without_a_training_is_none_and_one_cut_off_is_an_error() -> None:
    assert trainings(discovery(1), START) == []
    with pytest.raises(ValueError, match="did not end"):
        trainings(stamps_of(1)[:-1], START)
    with pytest.raises(ValueError, match="no model"):
        sweep_of(OURS, 0, [*discovery(1), done(2)], (START, START + 3), 1.0, GOAL)


def test_what_is_stamped_is_one_line_with_its_facts(tmp_path: Path) -> None:
    stamp(tmp_path / "stamps", "epoch", score=0.5)
    stamp(tmp_path / "stamps", "end")
    first, second = map(json.loads, (tmp_path / "stamps").read_text().splitlines())
    assert (first["what"], first["score"], second["what"]) == ("epoch", 0.5, "end")
    assert first["at"] <= second["at"]


# --- figures ---


def sweep(side: str, seed: int, seconds: float, goal: float | None) -> Sweep:
    parts = dict.fromkeys(PARTS, seconds / len(PARTS))
    curve = [(seconds / 2, 0.95), (0.9 * seconds, 0.995)]
    lanes = {"0": [("train", 1.0, 2.0)]}
    return Sweep(side, seed, seconds, 9.0, goal, 0.995, 17, 23, 75, parts, curve, lanes)


def figures(part: Part) -> dict[str, float]:
    return {each.name: each.value for each in part.figures}


def test_sides_are_compared_by_pairs_and_by_the_median_time_to_the_goal() -> None:
    ours = [sweep(OURS, 0, 50, 20), sweep(OURS, 1, 60, 30), sweep(OURS, 2, 10, None)]
    theirs = [sweep(THEIRS, 0, 100, 40), sweep(THEIRS, 1, 100, 60)]
    found = figures(part_of([*ours, *theirs], 9))
    assert found["whole sweep, ours / KerasTuner's, median of pairs"] == pytest.approx(0.55)
    assert found["until 99 %, ours / KerasTuner's, of medians"] == pytest.approx(30 / 50)


def test_one_side_alone_and_a_goal_never_reached_are_no_comparison() -> None:
    alone = figures(part_of([sweep(OURS, 0, 50, None)], 9))
    assert not any("KerasTuner" in name for name in alone)
    assert alone["aiotune: until 99 %"] == math.inf
    never = figures(part_of([sweep(OURS, 0, 50, 20), sweep(THEIRS, 0, 90, None)], 9))
    assert "until 99 %, ours / KerasTuner's, of medians" not in never


def test_a_part_is_kept_as_json_and_its_picture_is_xml(tmp_path: Path) -> None:
    part = part_of([sweep(OURS, 0, 50, 20), sweep(THEIRS, 0, 90, 60)], 27, ["a seed broke"])
    keep(part, tmp_path / "kept")
    kept = json.loads((tmp_path / "kept" / "sweep27.json").read_text())
    assert [each["side"] for each in kept["results"]["sweeps"]] == [OURS, THEIRS]
    assert "a seed broke" in kept["notes"]
    drawn = ElementTree.parse(tmp_path / "kept" / "sweep27.svg")
    assert len(drawn.findall("{*}polyline")) == 2


def test_a_pruner_is_judged_by_epochs_saved_and_points_lost() -> None:
    pairs = [
        Pair(0, Found(100, 0.99, 0), Found(40, 0.98, 9)),
        Pair(1, Found(100, 0.98, 0), Found(60, 0.99, 8)),
        Pair(2, Found(100, 0.99, 0), Found(45, 0.99, 8)),
    ]
    found = figures(pruner_part(pairs))
    assert found["epochs, pruned / whole, median"] == pytest.approx(0.45)
    assert found["epochs, worst seed"] == pytest.approx(0.6)
    assert found["score lost, worst seed"] == pytest.approx(1.0)  # points
    assert found["score lost, median"] == pytest.approx(0)


def test_a_stop_that_takes_longer_than_a_batch_fails() -> None:
    part = stop_part([Stop(0, 0.1), Stop(1, 0.2)], [Stop(2, 0.3), Stop(0, 0.1)], ["0003"])
    verdicts = {each.name: each.verdict for each in part.figures}
    assert verdicts["by a rule: batches that ended after it, max"] == "pass"
    assert verdicts["asked in mid-epoch: batches that ended after it, max"] == "FAIL"
    assert verdicts["pruned trials without metrics or best model"] == "FAIL"
