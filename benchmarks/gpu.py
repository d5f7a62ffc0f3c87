"""Real GPUs: training in children, several runs per card, enforced shares, memory after SIGKILL, energy.

Each backend is measured in a process of its own, part by part (`gpu_part.py`). A part that breaks, hangs or
takes its process with it is noted, and the others are measured without it. Without a GPU that is free, or a
CUDA build of a backend, it says so and ends.

    python benchmarks/gpu.py [--quick] [--backends jax torch] [--parts trains start ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from common import Figure, publish
from gpu_part import PARTS, Result, seconds_of

from aiotune.cli_gpus import Row, gpus_text, look
from aiotune.devices.locks import open_locks

BACKENDS = ("jax", "torch", "tensorflow")
SCRIPT = Path(__file__).with_name("gpu_part.py")
GRACE_SECONDS = 20.0  # for a part to end by itself after its time is over
CHECK_SECONDS = 120.0
# Prints what is wrong, or nothing. A backend must see a GPU before it is worth measuring.
CHECKS: Mapping[str, str] = {
    "jax": "import jax; jax.devices('gpu')",
    "torch": "import torch; torch.cuda.init()",
    "tensorflow": "import tensorflow as tf; assert tf.config.list_physical_devices('GPU'), 'no GPU is seen'",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured, and until when (by the monotonic clock)."""

    card: str  # UUID; empty: a rehearsal without one
    backends: Sequence[str]
    parts: Sequence[str]
    is_quick: bool
    deadline: float
    is_rehearsal: bool = False
    script: Path = SCRIPT

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    def divided(self, number: int) -> Plan:
        """Return a plan that leaves as much time to each of the others, of so many backends in all."""
        return replace(self, deadline=time.monotonic() + self.seconds_left / number)


class Skipped(Exception):
    """There is nothing to measure on; the message says why."""


def environment_of(backend: str, plan: Plan) -> dict[str, str]:
    rehearsal = {"AIOTUNE_GPU_REHEARSAL": "1"} if plan.is_rehearsal else {}
    return {**os.environ, "KERAS_BACKEND": backend, "PYTHONUNBUFFERED": "1", **rehearsal}


def free_card() -> Row:
    """Return the first card that is free. Skipped: there is none. It takes 10 s at most."""
    machine = look(os.environ, open_locks(os.environ))
    for row in machine.rows:
        if row.state == "free":
            return row
    raise Skipped("\n".join(gpus_text(machine)))


def missing_build(backend: str, plan: Plan) -> str | None:
    """Return why the backend cannot use a GPU here, or None."""
    code = f"import keras; {CHECKS[backend]}"
    environment = environment_of(backend, plan) | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            timeout=min(CHECK_SECONDS, max(1.0, plan.seconds_left)),
        )
    except subprocess.TimeoutExpired:
        return f"its import and a first look at the GPU took over {CHECK_SECONDS:g} s"
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return lines[-1]


# --- one backend ---


def run_backend(backend: str, plan: Plan) -> list[Result]:
    """Measure the parts; after one that took the process with it, go on with the next in another process."""
    results: list[Result] = []
    rest = list(plan.parts)
    while rest:
        if plan.seconds_left <= 0:
            results += [Result(part, error="not begun: the time was over") for part in rest]
            break
        done, problem = run_process(backend, rest, plan)
        results += done
        rest = rest[len(done) :]
        if rest:
            results.append(Result(rest.pop(0), error=problem))
    return results


def run_process(backend: str, parts: Sequence[str], plan: Plan) -> tuple[list[Result], str]:
    """Return what a process gave for the first of the parts, and why it ended."""
    with tempfile.TemporaryDirectory(prefix="aiotune-gpu-") as name:
        path = Path(name) / "results"
        command = [sys.executable, str(plan.script), *parts]
        command += ["--result", str(path), "--card", plan.card]
        process = subprocess.Popen(
            [*command, "--quick"] if plan.is_quick else command,
            env=environment_of(backend, plan),
            start_new_session=True,
        )
        try:
            problem = follow(process, path, parts, plan)
        finally:
            end(process)
        return read(path), problem


def follow(process: subprocess.Popen[bytes], path: Path, parts: Sequence[str], plan: Plan) -> str:
    """Wait until the process ends, or a part takes too long; return why no further part can come."""
    number, since = 0, time.monotonic()
    while process.poll() is None:
        results = read(path)
        if len(results) > number:
            for result in results[number:]:
                print(f"{result.part}: {result.error or f'{result.seconds:.1f} s'}", flush=True)
            number, since = len(results), time.monotonic()
        part = parts[min(number, len(parts) - 1)]
        if time.monotonic() - since > seconds_of(part, is_quick=plan.is_quick) + GRACE_SECONDS:
            return "it hung, and was killed"
        if plan.seconds_left <= 0:
            return "the time was over"
        time.sleep(0.1)
    return f"its process ended with code {process.returncode}"


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and what is in its group; its fork server ends with it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def read(path: Path) -> list[Result]:
    """Return the results so far. A line that is not ended yet does not count."""
    text = path.read_text() if path.exists() else ""
    return [
        Result.from_json(line) for line in text.splitlines(keepends=True) if line.endswith("\n")
    ]


# --- all of it ---


def measure(plan: Plan) -> tuple[list[Figure], list[str]]:
    """Return the figures, with their backend's name before them, and what could not be measured."""
    figures: list[Figure] = []
    notes: list[str] = []
    for place, backend in enumerate(plan.backends):
        own = plan.divided(len(plan.backends) - place)
        problem = None if plan.is_rehearsal else missing_build(backend, own)
        if problem is not None:
            notes.append(f"{backend}: skipped, it cannot use a GPU here: {problem}")
            print(notes[-1], flush=True)
            continue
        print(f"--- {backend} ---", flush=True)
        for result in run_backend(backend, own):
            figures += [replace(each, name=f"{backend}: {each.name}") for each in result.figures]
            notes += [f"{backend}: {result.part}: {note}" for note in result.notes]
            if result.error is not None:
                notes.append(f"{backend}: {result.part}: NOT MEASURED: {result.error}")
    return figures, notes


def main() -> None:
    given = parsed()
    card = None
    try:
        card = free_card()
    except Skipped as error:
        if not given.rehearsal:
            print(f"skipped: there is no free GPU to measure on\n{error}")
            return
    plan = Plan(
        "" if card is None else card.device.uuid,
        given.backends,
        given.parts,
        given.quick,
        time.monotonic() + 60 * (given.minutes or (3 if given.quick else 15)),
        given.rehearsal,
    )
    figures, notes = measure(plan)
    if not figures:
        print("skipped: nothing could be measured\n" + "\n".join(notes))
        return
    name = "no GPU" if card is None else card.device.name
    what = "GPU, a rehearsal of which no figure counts" if given.rehearsal else "GPU"
    publish(f"{what}: {name}", figures, given.json, notes)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="all of it in 3 minutes")
    parser.add_argument("--minutes", type=float, help="the most that it may take (15; quick: 3)")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=["jax", "torch"])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument(
        "--rehearsal",
        action="store_true",
        help="try the script out on the processor; no figure counts",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
