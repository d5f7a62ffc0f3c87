"""The tasks of benchmarks/quality.py: their optima are what they say, and no chance is left in them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from aiotune.hyperparameters import HyperParameters
from aiotune.space import unit_draw

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from quality_functions import CORNER, FUNCTIONS
from quality_tables import TABLES
from quality_tasks import Kind, Task, measure, tasks

TASKS = [*tasks(), CORNER]


def drawn(seed: int) -> HyperParameters:
    return HyperParameters(fill=lambda each: each.from_unit(unit_draw(seed, each.name)))


def named(task: Task) -> str:
    return task.name


@pytest.mark.parametrize("task", TASKS, ids=named)
def test_the_best_point_has_the_optimum_and_no_other_is_below(task: Task) -> None:
    hp = HyperParameters(values=dict(task.best))
    assert measure(task, hp, 0, 0).value == pytest.approx(task.optimum, abs=2e-6)
    assert hp.met_values() == dict(task.best)
    values = [measure(task, drawn(seed), 0, seed).value for seed in range(400)]
    succeeded = [value for value in values if value is not None]
    assert task.optimum < min(succeeded) < max(succeeded)
    failed = 1 - len(succeeded) / len(values)
    assert (0.25 < failed < 0.36) if task.kind is Kind.FAILING else failed == 0


def test_noise_is_of_task_seed_and_trial_alone() -> None:
    noisy = next(task for task in TASKS if task.noise)
    one, again, other = (measure(noisy, drawn(3), 5, trial) for trial in (7, 7, 8))
    assert one == again
    assert one.value == other.value
    assert one.observed != other.observed


def test_the_list_is_complete_and_knows_its_names() -> None:
    names = [task.name for task in (*FUNCTIONS, *TABLES)]
    assert len(names) == len(set(names)) == 17
    assert [task.name for task in tasks(["mixed", "branin"])] == ["mixed", "branin"]
    with pytest.raises(ValueError, match="no task 'brannin'; there are: branin"):
        tasks(["brannin"])
