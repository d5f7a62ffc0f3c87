"""The benchmark of real GPUs, without one: it skips, and no part that breaks costs the others."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from common import Figure, Outcome
from gpu import Plan, run_backend
from gpu_part import PARTS, Result, most_at_once, one_line

from aiotune.events import RunEnded, RunStarted
from aiotune.trial import RunState
from tests.support import nvml_standin
from tests.support.programs import ROOT

# Takes the command line of gpu_part.py, and does to each part what its name says.
SCRIPT = """
import json, pathlib, sys, time
parts = sys.argv[1 : sys.argv.index("--result")]
result = pathlib.Path(sys.argv[sys.argv.index("--result") + 1])
for part in parts:
    if part == "hangs":
        time.sleep(600)
    if part == "dies":
        sys.exit(3)
    figure = {"name": "a figure", "value": 1.0, "unit": "s", "at_most": None}
    line = {"part": part, "figures": [figure], "notes": [], "error": None, "seconds": 0.1}
    with result.open("a") as file:
        file.write(json.dumps(line) + "\\n")
"""


def plan_of(folder: Path, *parts: str, seconds: float = 60.0) -> Plan:
    script = folder / "part.py"
    script.write_text(textwrap.dedent(SCRIPT))
    return Plan("GPU-1", ["jax"], parts, True, time.monotonic() + seconds, script=script)


def test_every_part_is_told_of(tmp_path: Path) -> None:
    results = run_backend("jax", plan_of(tmp_path, "one", "two"))
    assert [(each.part, each.error) for each in results] == [("one", None), ("two", None)]
    assert results[0].figures == [Figure("a figure", 1.0, "s")]


def test_a_part_that_takes_its_process_with_it_does_not_cost_the_others(tmp_path: Path) -> None:
    results = run_backend("jax", plan_of(tmp_path, "one", "dies", "two"))
    assert [(each.part, each.error) for each in results] == [
        ("one", None),
        ("dies", "its process ended with code 3"),
        ("two", None),
    ]


def test_a_part_that_hangs_ends_with_the_time(tmp_path: Path) -> None:
    results = run_backend("jax", plan_of(tmp_path, "hangs", "two", seconds=0.5))
    assert [(each.part, each.error) for each in results] == [
        ("hangs", "the time was over"),
        ("two", "not begun: the time was over"),
    ]


def test_each_backend_has_its_part_of_the_time(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "one", seconds=100.0)
    assert plan.divided(2).deadline < plan.deadline
    assert plan.divided(2).seconds_left <= 50.0


def test_a_result_travels_as_json() -> None:
    result = Result("start", [Figure("x", 1.5, "s", 2.0)], ["a note"], None, 3.0)
    assert Result.from_json(result.to_json()) == result


def test_an_error_is_one_line() -> None:
    inner = RuntimeError("the first line\nand another")
    group = ExceptionGroup("of a task group", [ExceptionGroup("of another", [inner])])
    assert one_line(group) == "RuntimeError: the first line"


def test_runs_at_a_time_are_counted() -> None:
    def started(run: int) -> RunStarted:
        return RunStarted(0.0, "0000", run, 0, 0, ("GPU-1",), None)

    def ended(run: int) -> RunEnded:
        return RunEnded(0.0, "0000", run, RunState.FINISHED, {})

    events = (started(0), started(1), ended(0), started(2), ended(1), ended(2))
    assert most_at_once(Outcome(None, events)) == 2  # type: ignore[arg-type]


def test_there_is_a_part_for_each_promise() -> None:
    assert list(PARTS) == [
        *("trains", "enforced", "killed", "start", "accounting", "sharing", "packing")
    ]


@pytest.mark.parametrize("arguments", [[], ["--quick"]])
def test_without_a_gpu_it_says_so(machine: nvml_standin.Machine, arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu.py", *arguments],
        cwd=ROOT,
        env={**os.environ, **nvml_standin.environment(machine)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith("skipped: there is no free GPU to measure on\n")
    assert "NVML finds no GPU on this machine" in done.stdout
