"""Where a project keeps its files: the one class that names each of them.

{directory}/{project_name}/
    study.db              the store (with -wal and -shm beside it while in use)
    study.lock            held by the process that owns the search; says which
    server.log            what the fork server printed: imports and their warnings
    trial_0007/
        run-0.log         stdout and stderr of the trial's first run
        repeat-0/         checkpoints of its first repeat
    retrained_0/          what `retrain` made: see `Retrained`
    evaluate.log          stdout and stderr of the last `evaluate`
    evaluate-0.log        the same of one that is in progress, or that failed
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["BEFORE", "LAST_STATE", "Layout", "Retrained", "unfinished"]

# In a repeat's directory: the training that a later run goes on from, and all as it was before an epoch.
LAST_STATE = "last.state"
BEFORE = "before-"


def unfinished(path: Path) -> Path:
    """Return where a file is written before it is put in its place at once."""
    return path.with_name(f"writing.{path.name}")


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
