"""One scikit-learn estimator outside of a search: fitted on all data in a child, and brought back."""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio

from aiotune.arguments import named_arguments
from aiotune.executors.sealed import make_key, read_sealed
from aiotune.frameworks.sklearn import Estimators, Refit, TableData
from aiotune.hyperparameters import HyperParameters
from aiotune.job import Job, perform
from aiotune.program import Tunable
from aiotune.project import Project
from aiotune.retraining import claimed_files
from aiotune.tasks import in_own_task

__all__ = ["refit"]


async def refit(
    tuner: Tunable, project: Project, estimators: Estimators, hp: HyperParameters, data: TableData
) -> Any:
    """Return the estimator for `hp`, fitted on all data. No file of it stays."""
    return await in_own_task(partial(_refit, tuner, project, estimators, hp, data))


async def _refit(
    tuner: Tunable, project: Project, estimators: Estimators, hp: HyperParameters, data: TableData
) -> Any:
    async with claimed_files(project.layout, keeps=False) as files:
        key = make_key()
        job = Job(
            files.directory.name,
            hp,
            Refit(estimators, data, files.estimator, key),
            named_arguments("retrain()", (), data.named),
            {"the hypermodel": estimators.hypermodel},
            files.directory,
            files.log,
        )
        await perform(tuner, project, job)
        return await anyio.to_thread.run_sync(read_sealed, files.estimator, key)
