"""Where a project keeps its files: the one class that names each of them.

{directory}/{project_name}/
    study.db              the store (with -wal and -shm beside it while in use)
    study.lock            held by the process that owns the search; says which
    server.log            what the fork server printed: imports and their warnings
    trial_0007/
        run-0.log         stdout and stderr of the trial's first run
        run-0.reports     what it has reported, if it keeps checkpoints; until its end is recorded
        repeat-0/         checkpoints of its first repeat
    retrained_0/          what `retrain` made: see `Retrained`
    evaluate.log          stdout and stderr of the last `evaluate`
    evaluate-0.log        the same of one that is in progress, or that failed
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "BEFORE",
    "BEST_BUILD",
    "BEST_FILES",
    "BEST_RECORD",
    "BEST_STATE",
    "BEST_WEIGHTS",
    "LAST_STATE",
    "UNFINISHED",
    "Layout",
    "Retrained",
    "reports_of",
    "unfinished",
    "why_no_directory",
]

# In a repeat's directory: the training that a later run goes on from, the best epoch, and all as it was before
# an epoch.
LAST_STATE = "last.state"
BEST_STATE = "best.state"
BEST_RECORD = "best.json"
BEST_WEIGHTS = "best.weights.h5"
BEST_BUILD = "build.json"
BEST_FILES = (BEST_STATE, BEST_RECORD, BEST_WEIGHTS, BEST_BUILD)
BEFORE = "before-"

# How the name of a file begins that is not whole yet.
UNFINISHED = "writing."


def unfinished(path: Path) -> Path:
    """Return where a file is written before it is put in its place at once."""
    return path.with_name(f"{UNFINISHED}{path.name}")


def reports_of(trial_directory: Path, run: int) -> Path:
    """Return where a run keeps what it has reported, for a run that goes on from it."""
    return trial_directory / f"run-{run}.reports"


_NOT_ON_WINDOWS = frozenset('<>:"|?*')
_DEVICES_OF_WINDOWS = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def why_no_directory(name: str, *, is_windows: bool = os.name == "nt") -> str | None:
    """Return in words why no directory, or path of several, can be called so; None if one can.

    Names such as "2026-05-01 10:30" are fine everywhere but on Windows.
    """
    if odd := sorted({each for each in name if ord(each) < 32 or ord(each) == 127}):
        return f"it contains {', '.join(map(repr, odd))}"
    if not is_windows:
        return None
    if odd := sorted(_NOT_ON_WINDOWS.intersection(name)):
        return f"Windows allows no {' '.join(odd)} in names"
    for part in re.split(r"[/\\]", name):
        if _DEVICES_OF_WINDOWS.fullmatch(part):
            return f"Windows has a device called {part}"
        if part not in (".", "..") and part.endswith((".", " ")):
            return "Windows allows no name that ends with a dot or a space"
    return None


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one project. Naming a path creates nothing."""

    directory: Path
    project_name: str

    @property
    def root(self) -> Path:
        return self.directory / self.project_name

    @property
    def store(self) -> Path:
        return self.root / "study.db"

    @property
    def lock(self) -> Path:
        return self.root / "study.lock"

    @property
    def server_log(self) -> Path:
        return self.root / "server.log"

    def trial(self, trial_id: str) -> Path:
        return self.root / f"trial_{trial_id}"

    def run_log(self, trial_id: str, run: int) -> Path:
        return self.trial(trial_id) / f"run-{run}.log"

    @property
    def run_logs(self) -> str:
        """What the logs of all runs are called, for people to read."""
        return str(self.trial("<id>") / "run-<n>.log")

    def repeat(self, trial_id: str, repeat: int) -> Path:
        return self.trial(trial_id) / f"repeat-{repeat}"

    def retrained(self, number: int) -> Retrained:
        return Retrained(self.root / f"retrained_{number}")

    @property
    def evaluation_log(self) -> Path:
        return self.root / "evaluate.log"

    def open_evaluation_log(self, number: int) -> Path:
        """Return the log of an evaluation that has not ended well yet."""
        return self.root / f"evaluate-{number}.log"


@dataclass(frozen=True, slots=True)
class Retrained:
    """The files of one retraining."""

    directory: Path

    @property
    def log(self) -> Path:
        """What user code printed."""
        return self.directory / "run.log"

    @property
    def hyperparameters(self) -> Path:
        """The space, and every value that the training used."""
        return self.directory / "hyperparameters.json"

    @property
    def build(self) -> Path:
        """The shapes that a lazily built model needs to get its weights."""
        return self.directory / "build.json"

    @property
    def model(self) -> Path:
        """The model at the end of the training. It is written last: with it, the others are whole."""
        return self.directory / "model.keras"

    @property
    def weights(self) -> Path:
        """Instead of it, where Keras cannot describe the model."""
        return self.directory / "model.weights.h5"

    @property
    def estimator(self) -> Path:
        """A fitted estimator of scikit-learn's, while it is on its way to the caller."""
        return self.directory / "estimator.sealed"

    @property
    def files(self) -> tuple[Path, ...]:
        saved = (self.model, self.weights, self.estimator)
        return self.log, self.hyperparameters, self.build, *saved
