"""Projects that KerasTuner wrote, and programs that go on with them: those of tests/data/kerastuner/make.py."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import aiotune
from aiotune.executors.context import RunContext
from aiotune.history import History
from aiotune.hyperparameters import HyperParameters
from aiotune.kerastuner_import import ImportReport, import_project
from aiotune.store.reader import read_facts

DATA = Path(__file__).parents[1] / "data" / "kerastuner"
PROJECTS = sorted(path.parent.name for path in DATA.glob("*/oracle.json"))
EXPECTED = json.loads((DATA / "expected.json").read_text())


def states(project: Path) -> dict[str, Any]:
    """Return what each trial.json says, by id."""
    found = map(read, sorted(project.glob("trial_*/trial.json")))
    return {state["trial_id"]: state for state in found}


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def copy_of(name: str, directory: Path) -> Path:
    """Return a copy that a test may spoil."""
    return Path(shutil.copytree(DATA / name, directory / name))


def change(path: Path, **changes: Any) -> None:
    """Change fields of a JSON file."""
    path.write_text(json.dumps(read(path) | changes))


async def imported(name: str, directory: Path, **arguments: Any) -> tuple[ImportReport, History]:
    report = await import_project(DATA / name, directory / "imported", **arguments)
    return report, History(read_facts(report.layout.store))


class Random(aiotune.RandomSearch):
    def run_trial(self, trial: RunContext, *args: Any) -> dict[str, float]:
        hp = trial.hyperparameters
        x = hp.Float("x", 0.0, 1.0)
        hp.Float("rate", 1e-4, 1e-1, sampling="log")
        hp.Float("drop", 0.1, 0.7, step=0.1)
        hp.Int("units", 8, 64, step=8)
        hp.Int("batch", 4, 64, step=2, sampling="log")
        hp.Fixed("epochs", 3)
        hp.Boolean("norm")
        hp.Choice("kind", ["dense", "conv"])
        with hp.conditional_scope("kind", ["conv"]):
            hp.Int("filters", 1, 3)
        with hp.name_scope("head"):
            hp.Choice("width", [1, 2, 4], default=2)
        return {"val_loss": 10 + x, "accuracy": 1 - x}


class Grid(aiotune.GridSearch):
    def run_trial(self, trial: RunContext, *args: Any) -> float:
        hp = trial.hyperparameters
        kind = hp.Choice("kind", ["a", "b"])
        if kind == "b":
            return 2.0 + hp.Choice("extra", [1, 2])
        return hp.Float("x", 0.0, 0.7)


class Bayesian(aiotune.BayesianOptimization):
    def run_trial(self, trial: RunContext, *args: Any) -> float:
        hp = trial.hyperparameters
        return (hp.Float("x", 0.0, 1.0) - 0.4) ** 2 + hp.Int("n", 0, 5) / 10


class Hyperband(aiotune.Hyperband):
    def run_trial(self, trial: RunContext, *args: Any) -> dict[str, float]:
        hp = trial.hyperparameters
        return {"val_accuracy": hp.get("x") * hp.values["tuner/epochs"]}


class Retried(aiotune.RandomSearch):
    def run_trial(self, trial: RunContext, *args: Any) -> float:
        return float(trial.hyperparameters.Int("x", 0, 9))


def tuner(kind: type[aiotune.Tuner], report: ImportReport, **arguments: Any) -> Any:
    """Return a tuner that goes on with an imported project, in this process."""
    return kind(
        directory=report.layout.directory,
        project_name=report.layout.project_name,
        executor="inline",
        **arguments,
    )


def hyperband(report: ImportReport) -> Any:
    hp = HyperParameters()
    hp.Float("x", 0.0, 1.0)
    objective = aiotune.Objective("val_accuracy", "max")
    return tuner(Hyperband, report, objective=objective, hyperparameters=hp, max_epochs=4, factor=2)


def build(hp: HyperParameters) -> Any:
    import keras

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(hp.Int("units", 1, 4))])
    model.add(keras.layers.Dense(1))
    model.compile(keras.optimizers.SGD(hp.Float("rate", 0.01, 0.1)), "mse")
    return model
