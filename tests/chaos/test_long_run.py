"""It lasts: after thousands of trials, or hundreds of searches, a process holds no more than it did before.

Each program of `support/lasting_programs.py` runs in an interpreter of its own, where nothing else grows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from tests.support.chaos import Chaos
from tests.support.lasting import Helper, Snapshot, snapshot_from
from tests.support.lasting_leaks import MOST_GROWTH_BYTES, Findings, growing, left_over, swollen

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")

PROMISE = "It lasts"
ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 600.0  # far above what any program takes; reaching it is a failure
MOST_SLOWDOWN = 1.10


def run(program: str, count: int, seed: int, directory: Path) -> Findings:
    """Run it to its end and return what it has found. AssertionError if it breaks."""
    command = [sys.executable, "-m", "tests.support.lasting_programs"]
    done = subprocess.run(
        [*command, program, str(count), str(seed), str(directory)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stderr[-10_000:]}"
    told: dict[str, Any] = json.loads(done.stdout)
    return Findings(
        faults=told["faults"],
        wrong=told["wrong"],
        before=snapshot_from(told["before"]),
        between=[snapshot_from(each) for each in told["between"]],
        after=snapshot_from(told["after"]),
        times=[tuple(each) for each in told.get("times", ())],
    )


def judge(chaos: Chaos, found: Findings, what: str, leaks: list[str]) -> None:
    """Count what the program has gone through, note its figures, and fail if it has lost or kept anything."""
    leaks += swollen(found)
    for fault, number in found.faults.items():
        chaos.count(PROMISE, fault, number)
    losses = len(found.wrong) + len(leaks)
    chaos.count(PROMISE, "look at what the process holds", 2 + len(found.between), losses=losses)
    if chaos.is_long:
        measure(chaos, found, what)
    assert found.wrong == []
    assert leaks == []


def measure(chaos: Chaos, found: Findings, what: str) -> None:
    """Note the figures beside their targets."""
    first, last = found.between[0], found.between[-1]
    growth = last.rss_bytes - first.rss_bytes
    chaos.measure(
        PROMISE,
        f"{what}, from {first.done} to {last.done}: growth of the caller's memory",
        f"{growth / 1e6:.1f} MB",
        target="20 MB",
        is_met=growth < MOST_GROWTH_BYTES,
    )
    if found.times:
        young, old = (median(each) for each in zip(*found.times, strict=True))
        ratio = median(old / young for young, old in found.times)
        chaos.measure(
            PROMISE,
            f"{what}: time of one of the last tenth, in turns with the first ones of another search",
            f"{ratio:.2f} times as long ({young:.1f} ms, {old:.1f} ms)",
            target=f"{MOST_SLOWDOWN:.2f}",
            is_met=ratio <= MOST_SLOWDOWN,
        )


# --- the tests ---


CALM = Snapshot(
    done=0,
    rss_bytes=50_000_000,
    descriptors={"socket:[#]": 4},
    threads=["MainThread"],
    workers=2,
    tasks=1,
    runs=0,
    helpers={"fork server": Helper(40_000_000, 10, 1)},
    objects={"builtins.dict": 1000},
)


@pytest.mark.parametrize(
    ("held", "word"),
    [
        ({"descriptors": {"socket:[#]": 4, "pipe:[#]": 90}}, "descriptors"),
        ({"threads": ["MainThread", "aiotune-server"]}, "threads"),
        ({"tasks": 9}, "tasks"),
        ({"runs": 1}, "1 processes"),
        ({"workers": 41}, "41 threads"),
        ({"helpers": {}}, "helpers"),
        ({"helpers": {"fork server": Helper(40_000_000, 90, 1)}}, "fork server"),
        ({"objects": {"builtins.dict": 1100}}, "100 more of builtins.dict"),
        ({"rss_bytes": 80_000_000}, "the caller has grown by 30.0 MB"),
        ({"helpers": {"fork server": Helper(60_000_000, 10, 1)}}, "has grown by 20.0 MB"),
    ],
)
def test_what_is_kept_shows(held: Mapping[str, Any], word: str) -> None:
    """The measure itself: it names what is there more, and nothing where all is as it was."""

    def findings(after: Snapshot) -> Findings:
        return Findings({}, [], before=CALM, between=[CALM, after], after=after, times=[])

    after = replace(CALM, done=150)
    assert [*left_over(findings(after)), *growing(findings(after)), *swollen(findings(after))] == []
    found = findings(replace(after, **held))
    shown = [*left_over(found), *swollen(found)]
    assert any(word in each for each in shown)


def test_what_a_search_gathers_shows() -> None:
    """Facts may become more, and nothing else."""
    objects = {"aiotune.trial.Trial": 150, "_asyncio.Task": 150}
    sockets = {"socket:[#]": 150}
    late = replace(CALM, done=150, objects=objects, descriptors=sockets, tasks=150)
    late = replace(late, helpers={"fork server": Helper(40_000_000, 90, 1)})
    found = Findings({}, [], before=CALM, between=[CALM, late], after=CALM, times=[])

    assert list(growing(found)) == [
        "150 more of _asyncio.Task in the search",
        "descriptors in the search: 4, and later 150",
        "tasks in the search: 1, and later 150",
        "descriptors of the fork server: 10, and later 90",
    ]


SEARCHES = {
    "in_loop": "trials in the loop",
    "in_children": "trials in children",
    "in_brackets": "trials of Hyperband",
}


@pytest.mark.parametrize("program", SEARCHES)
def test_a_search_of_many_trials(chaos: Chaos, tmp_path: Path, program: str) -> None:
    found = run(program, chaos.pick(150, 2000), chaos.seed, tmp_path)

    judge(chaos, found, SEARCHES[program], [*left_over(found), *growing(found)])


# How often in the quick version, and in the long one.
REPEATED = {
    "one_after_the_other": ("searches", 8, 200),
    "with_one_server": ("searches with one fork server", 8, 200),
    "at_once": ("rounds of 20 searches at once", 8, 200),
}


@pytest.mark.parametrize("program", REPEATED)
def test_many_searches(chaos: Chaos, tmp_path: Path, program: str) -> None:
    words, quick, long = REPEATED[program]
    found = run(program, chaos.pick(quick, long), chaos.seed, tmp_path)

    judge(chaos, found, words, list(left_over(found)))
