"""Whole sweeps of Hyperband beside KerasTuner's: two programs, each started, timed and awaited from here."""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from common import Figure, scratch
from multifidelity_part import Part, Rows
from multifidelity_sweep_picture import picture
from multifidelity_task import GOAL, OBJECTIVE, TRAINED_ON
from multifidelity_timeline import PARTS, Sweep, sweep_of

import aiotune

__all__ = ["OURS", "THEIRS", "measure", "part_of"]

OURS, THEIRS = "aiotune", "KerasTuner"
TARGET, STRETCH = 0.70, 0.55
LONGEST_SECONDS = 1200.0
_HERE = Path(__file__).parent
_PROGRAMS = {OURS: "multifidelity_ours.py", THEIRS: "multifidelity_kerastuner.py"}


def measure(max_epochs: int, seeds: int, kerastuner: Path | None) -> Part:
    """Run both sides seed by seed, in alternation; one that breaks is left out, and said."""
    pythons = {OURS: Path(sys.executable)} | ({THEIRS: kerastuner} if kerastuner else {})
    found, failures = [], []
    for seed in range(seeds):
        order = list(pythons) if seed % 2 == 0 else list(reversed(pythons))
        for side in order:
            try:
                sweep = run(side, pythons[side], max_epochs, seed)
            except (RuntimeError, ValueError) as error:
                failures.append(f"{side}, seed {seed}, left out: {error}")
                print(failures[-1], flush=True)
            else:
                found.append(sweep)
                print(_line(sweep), flush=True)
    if not found:
        raise SystemExit("no sweep could be measured")
    return part_of(found, max_epochs, failures)


def run(side: str, python: Path, max_epochs: int, seed: int) -> Sweep:
    """Run one sweep in a fresh process. RuntimeError if it breaks."""
    with scratch() as directory:
        log = directory / "log"
        begun, used = time.monotonic(), _cpu_of_children()
        with log.open("wb") as output:
            command = [python, _HERE / _PROGRAMS[side], directory, str(max_epochs), str(seed)]
            try:
                ended = subprocess.run(
                    command,
                    env=_environment(side),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    timeout=LONGEST_SECONDS,
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise RuntimeError(str(error)) from error
        span = begun, time.monotonic()
        if ended.returncode:
            last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise RuntimeError(f"it ended with {ended.returncode}:\n{last}")
        stamps = [json.loads(line) for line in (directory / "stamps").read_text().splitlines()]
        return sweep_of(side, seed, stamps, span, _cpu_of_children() - used, GOAL)


def _environment(side: str) -> Mapping[str, str]:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("PYTHONPATH", None)
    if side == OURS:
        environment["PYTHONPATH"] = str(Path(aiotune.__file__).parents[1])
    return environment


def _cpu_of_children() -> float:
    """Return the CPU seconds of all processes that were started from here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# --- what was found ---


def part_of(found: Sequence[Sweep], max_epochs: int, failures: Sequence[str] = ()) -> Part:
    """Return tables, figures and picture of the sweeps of one or both sides."""
    sides = {side: [each for each in found if each.side == side] for side in (OURS, THEIRS)}
    sides = {side: sweeps for side, sweeps in sides.items() if sweeps}
    name = "sweep" if max_epochs == 9 else f"sweep{max_epochs}"
    title = f"Hyperband, digits CNN, max_epochs={max_epochs}: from the start of the program"
    notes = [
        f"{TRAINED_ON} images to train, a random split for each seed; goal: {GOAL:.0%} {OBJECTIVE}",
        "the parts are medians over the seeds; of several slots, their time divided by their number",
        *(f"{part}: {meaning}" for part, meaning in PARTS.items()),
        *failures,
    ]
    return Part(
        name,
        title,
        _figures(sides),
        [_seed_rows(found), _part_rows(sides)],
        notes,
        {"sweeps": [_kept(each) for each in found]},
        picture(title, sides, GOAL),
    )


def _figures(sides: Mapping[str, Sequence[Sweep]]) -> list[Figure]:
    figures = []
    if len(sides) == 2:
        ratios = _ratios(sides[OURS], sides[THEIRS])
        if ratios:
            figures += [
                Figure(
                    "whole sweep, ours / KerasTuner's, median of pairs", median(ratios), "", TARGET
                ),
                Figure("the same, stretch goal", median(ratios), "", STRETCH),
            ]
        ours, theirs = (_goal_median(sides[side]) for side in (OURS, THEIRS))
        if math.isfinite(theirs):
            figures.append(
                Figure("until 99 %, ours / KerasTuner's, of medians", ours / theirs, "", TARGET)
            )
    for side, sweeps in sides.items():
        figures += [
            Figure(f"{side}: whole sweep", median(each.seconds for each in sweeps), "s"),
            Figure(f"{side}: until 99 %", _goal_median(sweeps), "s"),
            Figure(f"{side}: CPU time", median(each.cpu_seconds for each in sweeps), "s"),
        ]
    return figures


def _ratios(ours: Sequence[Sweep], theirs: Sequence[Sweep]) -> list[float]:
    """Return the ratios of those seeds that both sides have."""
    seconds = {each.seed: each.seconds for each in theirs}
    return [each.seconds / seconds[each.seed] for each in ours if each.seed in seconds]


def _goal_median(sweeps: Sequence[Sweep]) -> float:
    """Return the median of the times to the goal; a sweep that did not reach it counts as infinitely long."""
    return median(math.inf if each.goal_seconds is None else each.goal_seconds for each in sweeps)


def _seed_rows(found: Sequence[Sweep]) -> Rows:
    head = ("side", "seed", "sweep s", "99 % s", "CPU s", "best", "trials", "runs", "epochs")
    return [head, *(_row(each) for each in found)]


def _row(each: Sweep) -> tuple[str, ...]:
    reached = "never" if each.goal_seconds is None else f"{each.goal_seconds:.1f}"
    times = f"{each.seconds:.1f}", reached, f"{each.cpu_seconds:.1f}"
    counts = str(each.trials), str(each.runs), str(each.epochs)
    return each.side, str(each.seed), *times, f"{each.best:.4f}", *counts


def _part_rows(sides: Mapping[str, Sequence[Sweep]]) -> Rows:
    columns = [
        [f"{median(each.parts[part] for each in sweeps):.1f}" for part in PARTS]
        for sweeps in sides.values()
    ]
    return [("seconds", *sides), *zip(PARTS, *columns, strict=True)]


def _line(each: Sweep) -> str:
    parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in each.parts.items())
    return f"{'  '.join(_row(each))}: {parts}"


def _kept(each: Sweep) -> dict[str, Any]:
    """Return what is kept of a sweep: not what was drawn."""
    kept = asdict(each)
    del kept["lanes"]
    kept["parts"] = {name: round(seconds, 3) for name, seconds in each.parts.items()}
    kept["curve"] = [(round(at, 2), round(score, 4)) for at, score in each.curve]
    return kept
