"""How busy schedulers keep 8 simulated devices, and how large a search may be: parts of multifidelity.py.

The tail begins with the start of the last new trial: from then on there are only promotions left, and they wait
for results. Before it, a device that is free is the scheduler's fault: it could have begun the next trial.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from common import Figure
from multifidelity_part import Part
from multifidelity_rules import SCORE, contenders, curves, failing
from multifidelity_spans_picture import picture

from aiotune import SimulationResult, simulate
from aiotune.oracles.asha import AshaOracle
from aiotune.oracles.base import Oracle
from aiotune.oracles.hyperband import HyperbandOracle
from aiotune.oracles.random_search import RandomSearchOracle

__all__ = ["measure", "measure_scale"]

DEVICES = 8
MAX_EPOCHS = 81
SEEDS = 5

MOST_IDLE = {"Hyperband": 5.0, "ASHA": 2.0}  # per cent, before the tail
MOST_SECONDS = 300.0


# --- how busy the devices are ---


@dataclass(frozen=True, slots=True)
class Row:
    """What one scheduler did: medians over the seeds; shares in per cent."""

    before_tail: float  # busy
    before_last_start: float
    whole: float
    seconds: float
    trials: float
    epochs: float
    full: float  # runs that trained to the last epoch
    full_when_failing: float


def measure() -> Part:
    """Return the schedulers side by side, on the same points and times."""
    rows, shown = {}, {}
    for name, oracle in contenders(MAX_EPOCHS).items():
        results = [simulate(oracle, curves, DEVICES, seed) for seed in range(SEEDS)]
        broken = [simulate(oracle, failing, DEVICES, seed) for seed in range(SEEDS)]
        rows[name], shown[name] = _row(results, broken), results[0]
    return Part(
        "simulated",
        f"Schedulers on {DEVICES} simulated devices, trial times spread over a factor of 10",
        _idle_figures(rows),
        [_table(rows)],
        _notes(),
        {name: [getattr(row, field) for field in Row.__slots__] for name, row in rows.items()},
        picture("Which run held which device", shown),
    )


def _row(results: Sequence[SimulationResult], broken: Sequence[SimulationResult]) -> Row:
    def middle(value: Callable[[SimulationResult], float]) -> float:
        return median(map(value, results))

    return Row(
        middle(lambda each: 100 * each.utilisation(each.last_trial_start)),
        middle(lambda each: 100 * each.utilisation(each.last_run_start)),
        middle(lambda each: 100 * each.utilisation()),
        middle(lambda each: each.seconds),
        middle(lambda each: len(each.trials)),
        middle(lambda each: each.epochs),
        middle(_full),
        median(map(_full, broken)),
    )


def _full(result: SimulationResult) -> int:
    """Return how many trials trained to the last epoch."""
    return sum(
        any(seen.step == MAX_EPOCHS - 1 for run in trial.runs for seen in run.observations[-1:])
        for trial in result.trials
    )


def _idle_figures(rows: Mapping[str, Row]) -> list[Figure]:
    return [
        Figure(
            f"idle before the tail, {name}",
            round(100 - row.before_tail, 3),
            "%",
            MOST_IDLE.get(name),
        )
        for name, row in rows.items()
    ]


def _table(rows: Mapping[str, Row]) -> list[list[str]]:
    head = ["scheduler", "busy before the tail", "before the last start", "in all", "seconds"]
    head += ["trials", "epochs", "full trainings", "with 5 % failures"]
    lines = [
        [
            name,
            *(f"{share:.1f} %" for share in (row.before_tail, row.before_last_start, row.whole)),
            f"{row.seconds:,.0f}",
            *(f"{count:,.0f}" for count in (row.trials, row.epochs, row.full)),
            f"{row.full_when_failing:,.0f}",
        ]
        for name, row in rows.items()
    ]
    return [head, *lines]


def _notes() -> list[str]:
    return [
        f"max_epochs={MAX_EPOCHS}, factor=3, one pass over the brackets, ASHA with as many trials; medians "
        f"of {SEEDS} seeds; seconds of virtual time, an epoch takes 1 in the median",
        "the tail begins with the start of the last new trial: from then on there are only promotions left, "
        "and they wait for results; a device that is free before could have begun the next trial",
        "full trainings: trials that trained to the last epoch; with 5 % failures: the same where one trial of "
        "20 runs out of memory in its first epoch",
    ]


# --- how large a search may be ---


def measure_scale(trials: int = 100_000, devices: int = 1000) -> Part:
    """Return how long such searches take on one core of this machine."""
    one_pass = HyperbandOracle(SCORE, 27, 3).plan().trials
    searches: dict[str, tuple[Oracle, int | None]] = {
        "RandomSearch": (RandomSearchOracle(SCORE, max_trials=trials), 5),
        "Hyperband": (
            HyperbandOracle(SCORE, 27, 3, hyperband_iterations=-(-trials // one_pass)),
            None,
        ),
        "ASHA": (AshaOracle(SCORE, 27, 3, max_trials=trials), None),
    }
    figures, table = [], [["search", "seconds", "trials", "runs", "epochs", "busy before the tail"]]
    with _OneCore():
        for name, (oracle, epochs) in searches.items():
            gc.collect()
            start = time.monotonic()
            result = simulate(oracle, curves, devices, epochs=epochs)
            seconds = time.monotonic() - start
            figures.append(Figure(f"{name}, {trials:,} trials", seconds, "s", MOST_SECONDS))
            table.append(_scale_line(name, seconds, result))
            print(" ".join(table[-1]), flush=True)
    return Part(
        "scale",
        f"Simulated searches on {devices:,} devices, on one core",
        figures,
        [table],
        ["real seconds on one core; Hyperband and ASHA: max_epochs=27; RandomSearch: 5 epochs"],
        {line[0]: line[1:] for line in table},
    )


def _scale_line(name: str, seconds: float, result: SimulationResult) -> list[str]:
    counts = (len(result.trials), len(result.runs), result.epochs)
    busy = f"{result.utilisation(result.last_trial_start):.1%}"
    return [name, f"{seconds:.0f}", *(f"{count:,}" for count in counts), busy]


class _OneCore:
    """Keeps this process on one core of those that it has."""

    def __enter__(self) -> None:
        self._cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {max(self._cores)})

    def __exit__(self, *_: object) -> None:
        os.sched_setaffinity(0, self._cores)
