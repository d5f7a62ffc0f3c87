"""Failures are told apart: each kind has its own rule, that of the table in docs/failures.md."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from aiotune import Limits, Resources
from aiotune.errors import SearchFailed
from aiotune.events import EndReason
from aiotune.executors.base import Failed, Finished, RunEvent
from aiotune.executors.launch import acquire_server, release_server
from aiotune.hyperparameters import HyperParameters
from aiotune.objective import Objective
from aiotune.oracles.annealing import SimulatedAnnealingOracle
from aiotune.oracles.asha import AshaOracle
from aiotune.oracles.base import Oracle
from aiotune.oracles.bayesian import BayesianOptimizationOracle
from aiotune.oracles.cmaes import CmaEsOracle
from aiotune.oracles.forest import RandomForestOracle
from aiotune.oracles.grid_search import GridSearchOracle
from aiotune.oracles.hyperband import HyperbandOracle
from aiotune.oracles.optuna import OptunaOracle
from aiotune.oracles.quasi_random import QuasiRandomOracle
from aiotune.oracles.random_search import RandomSearchOracle
from aiotune.oracles.tpe import TPEOracle
from aiotune.settlement import FAILURES
from aiotune.space import point_key
from aiotune.trial import FailureKind, Trial
from tests.conftest import ENVIRONMENT
from tests.support.chaos import Chaos
from tests.support.failing import MEMORY_BYTES, WAYS, Failing
from tests.support.fake_executor import FakeExecutor, Script
from tests.support.searches import SearchOfFakes
from tests.support.tuned import make

PROMISE = "Failures are told apart"
DOCS = Path(__file__).parents[2] / "docs" / "failures.md"


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    what: str
    kind: FailureKind
    is_retried: bool
    goes_on: bool
    counts: bool
    status: str


def rows() -> dict[str, Row]:
    """Return the table of docs/failures.md, by its first column."""
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    begin = next(n for n, line in enumerate(lines) if line.startswith("| what happened"))
    table = {}
    for line in lines[begin + 2 :]:
        if not line.startswith("|"):
            return table
        what, kind, *flags, status = (cell.strip() for cell in line.strip("|").split("|"))
        assert set(flags) <= {"yes", "no"}, line
        table[what] = Row(what, FailureKind(kind), *(flag == "yes" for flag in flags), status)
    raise AssertionError("the table has no end")


TABLE = rows()


@pytest.fixture(autouse=True, scope="module")
def _server() -> Iterator[None]:
    """Hold the fork server that these searches share."""
    server = acquire_server(environment=ENVIRONMENT)
    yield
    release_server(server)


def test_the_table_is_that_of_the_code() -> None:
    assert TABLE.keys() == WAYS.keys()
    assert {row.kind for row in TABLE.values()} == set(FailureKind) == set(FAILURES)
    for kind, rule in FAILURES.items():
        mine = [row for row in TABLE.values() if row.kind is kind]
        assert any(row.is_retried for row in mine) == rule.is_retried
        assert any(row.goes_on for row in mine) == rule.goes_on
        assert {(row.counts, row.status) for row in mine} == {(rule.counts, rule.status.value)}


# The limits of each row alone: on a busy machine a run that is to fail otherwise might reach them.
NEEDS: dict[str, dict[str, Any]] = {
    "no progress for `stall_timeout`": {"limits": Limits(stall_timeout=0.5)},
    "longer than `trial_timeout`": {"limits": Limits(trial_timeout=0.5)},
    "the run held more than `Resources(memory=...)`": {
        "resources": Resources(gpus=0, memory=MEMORY_BYTES)
    },
}
PLAIN = "all others"


def make_failing(directory: Path, what: str, trials: int, **options: Any) -> Failing:
    """Return a tuner for trials that fail in the ways of a row."""
    needs = NEEDS.get(what, {})
    return make(
        Failing,
        directory,
        max_trials=trials,
        max_concurrent_trials=4,
        grace_seconds=0.1,
        **needs,
        **options,
    )


@pytest.mark.parametrize("row", [PLAIN, *NEEDS])
async def test_each_failure_is_retried_or_not_as_the_table_says(
    tmp_path: Path, chaos: Chaos, row: str
) -> None:
    whats = [each for each in WAYS if each not in NEEDS] if row == PLAIN else [row]
    ways = [(what, how) for what in whats for how in WAYS[what]] * chaos.pick(1, 4)
    random.Random(chaos.seed).shuffle(ways)
    tuner = make_failing(
        tmp_path,
        row,
        len(ways),
        max_retries_per_trial=1,
        max_consecutive_failed_trials=1000,
    )
    result = await tuner.search(ways)

    assert result.reason is EndReason.MAX_TRIALS
    for trial, (what, how) in zip(tuner.trials, ways, strict=True):
        due = what_is_due(TABLE[what])
        fault = f"{TABLE[what].kind}: {how}"
        chaos.count(PROMISE, fault, losses=what_is_seen(trial) != due)
        assert what_is_seen(trial) == due, how


def what_is_due(row: Row) -> tuple[object, ...]:
    runs = 2 if row.is_retried else 1
    return row.status, row.kind, runs, [row.kind] * runs, row.goes_on


def what_is_seen(trial: Trial) -> tuple[object, ...]:
    kinds = [run.failure for run in trial.runs]
    return (
        trial.status,
        trial.failure,
        len(trial.runs),
        kinds,
        trial.runs[-1].continues is not None,
    )


async def test_which_failures_in_a_row_end_the_search(tmp_path: Path, chaos: Chaos) -> None:
    """For every kind, over fakes, tests/test_end_rules.py does the same."""
    for number, what in enumerate(chaos.pick(chaos.chance.sample(list(TABLE), 2), list(TABLE))):
        await check_in_a_row(tmp_path / str(number), chaos, what)


async def check_in_a_row(directory: Path, chaos: Chaos, what: str) -> None:
    ways = [(what, chaos.chance.choice(list(WAYS[what]))) for _ in range(3)]
    tuner = make_failing(directory, what, 3, max_consecutive_failed_trials=2)
    if TABLE[what].counts:
        with pytest.raises(SearchFailed, match="2 trials failed in a row") as caught:
            await tuner.search(ways)
        assert "run-0.log" in str(caught.value)
    else:
        assert (await tuner.search(ways)).reason is EndReason.MAX_TRIALS
    chaos.count(PROMISE, f"failures in a row: {TABLE[what].kind}", 3)


# --- the point of a failure is not proposed again ---

SCORE = Objective("score", "min")
Make = Callable[..., Oracle]
ORACLES: dict[str, Make] = {
    "random": RandomSearchOracle,
    "quasi-random": QuasiRandomOracle,
    "grid": GridSearchOracle,
    "Bayesian": BayesianOptimizationOracle,
    "TPE": TPEOracle,
    "forest": RandomForestOracle,
    "annealing": SimulatedAnnealingOracle,
    "CMA-ES": CmaEsOracle,
    "Hyperband": lambda max_trials, **options: HyperbandOracle(max_epochs=9, **options),
    "ASHA": AshaOracle,
    "Optuna": OptunaOracle,
}
POINTS = 18


def small(hp: HyperParameters) -> None:
    hp.Int("x", 0, 5)
    hp.Choice("kind", ["a", "b", "c"])


def breaking(chance: random.Random, share: float) -> Callable[[Script], AsyncIterator[RunEvent]]:
    """Return a script whose runs break by chance, in any way, before or after they have met their names."""

    async def play(script: Script) -> AsyncIterator[RunEvent]:
        if script.assignment.is_discovery:
            yield script.met(small)
            yield Finished()
            return
        breaks, is_early = chance.random() < share, chance.random() < 0.3
        kind = chance.choice(list(FailureKind))
        yield script.met(small, is_complete=not (breaks and is_early))
        await anyio.lowlevel.checkpoint()
        if breaks:
            yield Failed(kind, f"broken: {kind}")
        else:
            yield Finished({"score": chance.random()}, 0)

    return play


@pytest.mark.parametrize("name", ORACLES)
async def test_the_point_of_a_failure_is_not_proposed_again(
    tmp_path: Path, chaos: Chaos, name: str
) -> None:
    for number in range(chaos.pick(1, 4)):
        chance = random.Random(f"{chaos.seed} {number}")
        options: dict[str, Any] = {"max_consecutive_failed_trials": 1000}
        oracle = ORACLES[name](objective=SCORE, max_trials=60, seed=number, **options)
        search = SearchOfFakes(
            oracle,
            FakeExecutor(breaking(chance, share=0.6)),
            tmp_path / str(number),
            slots=chance.choice([1, 3]),
            has_discovery=True,
        )
        await search.run()

        trials = [trial for trial in search.history.trials.values() if trial.status != "DUPLICATE"]
        points = [point_key(trial.values) for trial in trials]
        failed = sum(trial.status in ("FAILED", "INFEASIBLE") for trial in trials)
        assert len(points) <= POINTS
        repeated = len(points) - len(set(points))
        chaos.count(PROMISE, f"failed points, {name}", failed, losses=repeated)
        assert failed > 0
        assert repeated == 0
