"""Searches with folds whose runs are plain functions. Children import this module, so it imports little."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from aiotune import Hyperband, RandomSearch
from aiotune.executors.context import RunContext

__all__ = ["Band", "Curious", "Fold", "Folded", "Gated"]

_POLL_SECONDS = 0.005  # between looks of a child at a file; a test never polls


class Folded(RandomSearch):
    """Scores by the fold alone; the fold given fails, in its first attempt or always."""

    def run_trial(
        self, trial: RunContext, broken: int | None = None, how: str = "once"
    ) -> dict[str, float]:
        trial.hyperparameters.Float("x", 0.0, 1.0)
        if trial.fold == broken and (how != "once" or trial.assignment.attempt == 0):
            if how == "nan":
                return {"loss": float("nan")}
            raise ValueError("this fold is broken")
        return {"loss": float(trial.fold), "folds": float(trial.folds), "pid": float(os.getpid())}


class Fold(RandomSearch):
    """Scores by the trial and the fold."""

    def run_trial(self, trial: RunContext) -> float:
        trial.hyperparameters.Float("x", 0.0, 1.0)
        return trial.number + 10.0 * trial.fold


class Gated(RandomSearch):
    """Fold 0 ends at once and leaves a line; the others wait for a file, or for a request to stop."""

    def run_trial(self, trial: RunContext, gate: str, diary: str) -> float:
        x: float = trial.hyperparameters.Float("x", 0.0, 1.0)
        while trial.fold > 0 and not os.path.exists(gate):
            if trial.should_stop:
                return x
            time.sleep(_POLL_SECONDS)
        with Path(diary).open("a") as file:
            print(trial.number, trial.fold, file=file)
        return x + trial.fold


class Band(Hyperband):
    """Scores by the fold and the number of epochs: the first fold gets worse with them, the others better."""

    def run_trial(self, trial: RunContext) -> float:
        x: float = trial.hyperparameters.Float("x", 0.0, 1.0)
        assert trial.budget is not None
        epochs = trial.budget.epochs
        return x + (epochs if trial.fold == 0 else -10 * epochs)


class Curious(RandomSearch):
    """Trains through `Tuner.run_trial`, with or without a split of its own."""

    def run_trial(self, trial: RunContext, x: Any, y: Any, **kwargs: Any) -> Any:
        if kwargs.pop("splits", False):
            rows = slice(trial.fold * 8, trial.fold * 8 + 8)
            kwargs["validation_data"] = (x[rows], y[rows])
        return super().run_trial(trial, x, y, epochs=1, **kwargs)
