"""What the benchmarks share: figures and their table, the machine's noise, warm fork servers, a small task.

A child process imports this module with the programs below, so everything heavy is imported where it is used.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import aiotune

if TYPE_CHECKING:
    import numpy as np

    from aiotune import HyperParameters, SearchResult, Tuner
    from aiotune.events import Event
    from aiotune.executors.launch import Server

__all__ = [
    "KERAS_PRELOAD",
    "CpuTimes",
    "Figure",
    "Outcome",
    "Split",
    "build_dense",
    "digits",
    "options",
    "publish",
    "quantile",
    "run_search",
    "scratch",
    "warm_server",
]

E = TypeVar("E")

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_SHOWN_PACKAGES = ("keras", "tensorflow", "numpy", "aiosqlite", "anyio")

# What a search of a Keras model has its fork server import; a warm server is found by the same list.
KERAS_PRELOAD = ("aiotune.tuners", "aiotune.program", "aiotune.frameworks.keras", "keras")


# --- figures ---


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. `at_most` is its target, if there is one."""

    name: str
    value: float
    unit: str = ""
    at_most: float | None = None

    @property
    def verdict(self) -> str:
        if self.at_most is None:
            return ""
        return "pass" if self.value <= self.at_most else "FAIL"


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest of the values that at least `share` of them do not exceed; 0.5: the median."""
    if not values:
        raise ValueError("nothing was measured")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def publish(
    title: str, figures: Sequence[Figure], path: Path | None, notes: Sequence[str] = ()
) -> None:
    """Print the figures as a table below the machine that they were measured on; write JSON, if asked."""
    described = machine()
    print(f"\n{title}\n{'; '.join(f'{name} {value}' for name, value in described.items())}\n")
    rows = [("figure", "value", "target", "")] + [_row(figure) for figure in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    for note in notes:
        print(f"* {note}")
    if path is not None:
        content = {
            "title": title,
            "machine": described,
            "figures": [asdict(figure) | {"verdict": figure.verdict} for figure in figures],
            "notes": list(notes),
        }
        path.write_text(json.dumps(content, indent=2) + "\n")


def _row(figure: Figure) -> tuple[str, str, str, str]:
    target = "" if figure.at_most is None else f"<= {figure.at_most:g} {figure.unit}".rstrip()
    value = f"{figure.value:,.0f}" if figure.value >= 1000 else f"{figure.value:.3g}"
    return figure.name, f"{value} {figure.unit}".rstrip(), target, figure.verdict


def options(description: str | None, *, repeats: int) -> argparse.Namespace:
    """Parse `--json FILE` and `--repeats N`."""
    first_line = (description or "").partition("\n")[0]
    parser = argparse.ArgumentParser(description=first_line)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--repeats", type=int, default=repeats, help="default: %(default)s")
    return parser.parse_args()


# --- the machine and its noise ---


def machine() -> dict[str, str]:
    """Return what the figures depend on. `others`: cores that other processes kept busy since the import."""
    described = {
        "cores": str(len(os.sched_getaffinity(0))),
        "processor": _processor(),
        "python": platform.python_version(),
        "aiotune": aiotune.__version__,
        "load": f"{os.getloadavg()[0]:.1f}",
        "others": f"{_NOISE.cores_of_others():.2f} cores busy",
    }
    for package in _SHOWN_PACKAGES:
        try:
            described[package] = version(package)
        except PackageNotFoundError:
            described[package] = "none"
    return described


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


class _Noise:
    """How busy other processes were since this object was made.

    Children of this process count as its own once they are waited for; of a fork server, with the server.
    """

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._busy = _busy_seconds()
        self._own = sum(os.times()[:4])

    def cores_of_others(self) -> float:
        own = sum(os.times()[:4]) - self._own
        return max(0.0, _busy_seconds() - self._busy - own) / (time.monotonic() - self._start)


def _busy_seconds() -> float:
    """Return the seconds that all cores together were busy, or stolen by the host, since the boot."""
    words = Path("/proc/stat").read_text().partition("\n")[0].split()
    user, nice, system, _, _, irq, softirq, steal = map(int, words[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICKS_PER_SECOND


_NOISE = _Noise()


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """CPU seconds so far: of this process, and of a fork server with all its children that have ended."""

    caller: float
    runs: float

    @classmethod
    def now(cls, server: Server) -> CpuTimes:
        own = os.times()
        # Behind the name, which may hold spaces: state is field 3; utime, stime, cutime, cstime are 14 to 17.
        (pid,) = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return cls(own.user + own.system, sum(map(int, fields[11:15])) / _TICKS_PER_SECOND)

    def __sub__(self, earlier: CpuTimes) -> CpuTimes:
        return CpuTimes(self.caller - earlier.caller, self.runs - earlier.runs)

    @property
    def total(self) -> float:
        return self.caller + self.runs


# --- searches ---


@contextmanager
def scratch() -> Iterator[Path]:
    """Give a directory that vanishes."""
    with tempfile.TemporaryDirectory(prefix="aiotune-benchmark-") as name:
        yield Path(name)


@asynccontextmanager
async def warm_server(preload: Sequence[str]) -> AsyncIterator[Server]:
    """Keep the fork server for these modules alive, so that the searches inside find it warm.

    It imports in the background: make one search first that is not measured.
    """
    import anyio

    from aiotune.executors.launch import acquire_server, release_server

    server = await anyio.to_thread.run_sync(lambda: acquire_server(preload))
    try:
        yield server
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(release_server, server)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A search that is over: its result and everything that happened, in order."""

    result: SearchResult
    events: tuple[Event, ...]

    def of(self, kind: type[E]) -> list[E]:
        """Return the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


async def run_search(tuner: Tuner, *args: Any, **kwargs: Any) -> Outcome:
    """Search to the end. RuntimeError if a trial failed: its figures would be worth nothing."""
    async with tuner.start(*args, **kwargs) as search:
        events = tuple([event async for event in search.events()])
        outcome = Outcome(await search.result(), events)
    for trial in outcome.result.trials:
        if trial.status != "COMPLETED":
            raise RuntimeError(f"trial {trial.trial_id} is {trial.status}: {trial.message}")
    return outcome


# --- the task: a small dense model on the handwritten digits that ship with scikit-learn ---


@dataclass(frozen=True, slots=True)
class Split:
    """Images as rows of 64 numbers in [0, 1], and their digits."""

    x: np.ndarray
    y: np.ndarray
    validation_data: tuple[np.ndarray, np.ndarray]


def digits() -> Split:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    return Split(x[:1400], y[:1400], (x[1400:], y[1400:]))


def build_dense(hp: HyperParameters) -> Any:
    import keras

    model = keras.Sequential()
    for layer in range(hp.Int("layers", 1, 2)):
        units = hp.Int(f"units_{layer}", 16, 64, step=16)
        model.add(keras.layers.Dense(units, activation="relu"))
    model.add(keras.layers.Dense(10, activation="softmax"))
    model.compile(
        optimizer=keras.optimizers.Adam(hp.Float("learning_rate", 1e-4, 1e-2, sampling="log")),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model
