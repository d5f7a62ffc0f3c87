"""Every example of docs/knowledge.md, run as it stands, but for what trains."""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import aiotune
from aiotune import SearchResult
from aiotune.executors.context import RunContext
from aiotune.trial import TrialState

PAGE = (Path(__file__).parents[1] / "docs" / "knowledge.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"^## ([^\n]+)\n(?:(?!^## ).)*?```python\n(.*?)```", PAGE, re.S | re.M))


def build_model(hp: Any) -> float:
    """Declare what the examples speak of, and return how large the model would be."""
    hp.Float("learning_rate", 1e-5, 1.0, sampling="log")
    hp.Choice("optimizer", ["adam", "sgd", "rmsprop"])
    return float(hp.Int("units", 16, 4096, step=16))


class Untrained(aiotune.RandomSearch):
    """Returns metrics as a training would, in place."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs, seed=1, executor="inline", directory=self.place)

    place: Path

    def run_trial(self, trial: RunContext, *args: Any, **kwargs: Any) -> Any:
        units = build_model(trial.hyperparameters)
        return {"val_loss": 1 / units, "latency": units / 100_000, "val_recall": 0.95}


async def run(example: str, place: Path) -> SearchResult:
    """Run the lines of an example; return its `result`."""
    tuner = type("RandomSearch", (Untrained,), {"place": place})
    names: dict[str, Any] = {
        "aiotune": SimpleNamespace(**{**vars(aiotune), "RandomSearch": tuner}),
        "build_model": lambda hp: build_model(hp),
        **dict.fromkeys(("x", "y", "xv", "yv"), 0),
    }
    for name in ("AtMost", "AtLeast", "Near"):
        setattr(names["aiotune"], name, getattr(aiotune, name))
    lines = textwrap.indent(example, "    ")
    exec(
        compile(f"async def program():\n{lines}\n    return result", "knowledge.md", "exec"), names
    )
    result: SearchResult = await names["program"]()
    return result


def test_the_page_has_an_example_of_each() -> None:
    assert list(EXAMPLES) == [
        "Constraints",
        "Priors",
        "Points to try first",
        "Earlier searches",
    ]
    for example in EXAMPLES.values():
        ast.parse(f"async def program():\n{textwrap.indent(example, '    ')}")


async def test_the_constraints(tmp_path: Path) -> None:
    result = await run(EXAMPLES["Constraints"], tmp_path)
    assert len(result.trials) == 20
    assert all(int(str(trial.values["units"])) < 4096 for trial in result.trials)
    for trial in result.trials:
        is_slow = trial.final_metrics["latency"] > 0.02
        assert (trial.state is TrialState.INFEASIBLE) == is_slow
    assert result.best_trial is not None
    assert result.best_trial.final_metrics["latency"] <= 0.02


async def test_the_priors(tmp_path: Path) -> None:
    result = await run(EXAMPLES["Priors"], tmp_path)
    units = [int(str(trial.values["units"])) for trial in result.trials]
    assert sum(64 <= each <= 192 for each in units) > 10
    optimizers = [trial.values["optimizer"] for trial in result.trials]
    assert optimizers.count("adam") > optimizers.count("sgd")


async def test_the_points_to_try_first(tmp_path: Path) -> None:
    result = await run(EXAMPLES["Points to try first"], tmp_path)
    one, other = result.trials[:2]
    assert (one.values["units"], one.values["learning_rate"]) == (64, 1e-3)
    assert other.values["units"] == 128


async def test_the_earlier_searches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = EXAMPLES["Points to try first"].replace(
        "max_trials=20)", 'max_trials=20, project_name="last_week")'
    )
    found = await run(first, tmp_path / "results")
    result = await run(EXAMPLES["Earlier searches"], tmp_path / "new")
    points = [dict(trial.values) for trial in result.trials[:3]]
    assert points == [dict(trial.values) for trial in found.best_trials(3)]
